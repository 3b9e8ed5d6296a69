"""A file of the research code in the place of a checkpoint: converted once, and kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from ofa.errors import UserError
from ofa.images import open_images
from ofa.machine import check_torch
from ofa.spaces import get_space

__all__ = ["converted"]

#: Subnets that are evaluated: enough for an accuracy model, in tens of minutes.
_SUBNETS = 60


def converted(
    file: Path,
    space: str,
    images: str | Path | None,
    threads: int | None,
    tell: Callable[[str], None],
) -> Path:
    """The folder of a checkpoint of ``file`` (.pth), whose subnets are evaluated on ``images``.

    It is kept in the user's cache, by the contents of both and the names of the classes; what was
    begun there is gone on with. Raises UserError, also where torch, which reads such files, is
    missing.
    """
    if not space:
        raise UserError(
            "the file does not say of which space it is", str(file), "add --space mbv3-w1.0"
        )
    get_space(space)
    if not file.is_file():
        raise UserError("no such file", str(file))
    if images is None:
        raise UserError(
            "the file has weights only", str(file),
            "add --images DIR, labelled images of its classes to evaluate subnets on",
        )  # fmt: skip
    check_torch("reading it", str(file))
    from ofa.pipeline import convert

    digest = hashlib.sha256()
    for part in open_images(Path(images)).values():
        digest.update(repr((part.classes, part.labels.tolist())).encode())
        for index in range(len(part)):
            with suppress(Exception):  # what cannot be read is told and skipped when it is opened
                digest.update(hashlib.sha256(part.bytes_of(index)).digest())
    digest.update(file.read_bytes())
    name = f"{file.stem}-{space}-{digest.hexdigest()[:12]}"
    folder = user_cache_path("ofa-specializer") / "converted" / name
    if not (folder / "weights.safetensors").exists():
        convert(file, space, Path(images), folder, _SUBNETS, threads or os.cpu_count() or 1, tell)
    return folder
