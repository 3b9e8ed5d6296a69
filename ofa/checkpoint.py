"""A checkpoint is a folder: what a trained supernet is, how it was made, and what it reaches.

    weights.safetensors   shared tensors, float16; in its metadata, as JSON under "ofa", the space,
                          classes, labels and preprocessing
    card.json             recipe, seed, data, time, machine, versions, results; SHA-256 of the rest
    subnets.csv           evaluated subnets: arch, macs, accuracy (percent), n (images)
    calibration.zip       train/: images to recalibrate batch norms with; val/: held-out images to
                          choose subnets by
    test.zip              images to report accuracy on, never used to choose anything

It loads without running any code of its own.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ofa.errors import UserError
from ofa.images import Images, open_images
from ofa.preprocessing import Preprocessing
from ofa.space import Arch, Genotypes, Space, Stage
from ofa.weights import Array, shapes

__all__ = [
    "FILES",
    "Checkpoint",
    "Evaluated",
    "find_checkpoint",
    "largest_side",
    "load_checkpoint",
    "read_checkpoint",
    "write_checkpoint",
]

FORMAT = "ofa-checkpoint/1"
_HASHED = ("weights.safetensors", "subnets.csv", "calibration.zip", "test.zip")
#: What is in the folder.
FILES = (*_HASHED, "card.json")


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """Evaluated subnets: genotypes (N, 1 + P), accuracy (N,) in percent, images (N,)."""

    genotypes: Genotypes
    accuracy: NDArray[np.float64]
    images: NDArray[np.int64]

    def joined(self, other: Evaluated) -> Evaluated:
        """These and others."""
        return Evaluated(
            np.concatenate([self.genotypes, other.genotypes]),
            np.concatenate([self.accuracy, other.accuracy]),
            np.concatenate([self.images, other.images]),
        )

    def logits(self) -> NDArray[np.float64]:
        """(N,) log odds of a right answer, half an image away from 0 and 1: they are finite."""
        margin = 0.5 / self.images
        share = np.clip(self.accuracy / 100, margin, 1 - margin)
        return np.asarray(np.log(share / (1 - share)))

    def as_beside(self, known: Evaluated, again: Evaluated) -> Evaluated:
        """These, which were scored on other images than ``known``, as they would be on the same.

        again: the subnets of ``known``, scored on the images of these. The mean difference of their
        logits is taken off.
        """
        logits = self.logits() + (known.logits() - again.logits()).mean()
        return replace(self, accuracy=100 / (1 + np.exp(-logits)))

    def take(self, rows: NDArray[np.integer[Any]]) -> Evaluated:
        """Only these, in this order."""
        return Evaluated(self.genotypes[rows], self.accuracy[rows], self.images[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A supernet ready to be specialized.

    classes: the folder names of the data, in order; labels: their names for people.
    tensors: the shared tensors of ``ofa.weights``, float32.
    """

    path: Path
    space: Space
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    tensors: dict[str, Array]
    evaluated: Evaluated
    card: dict[str, Any]
    sha256: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def samples(self) -> tuple[Images, Images]:
        """Images to recalibrate with, and held-out images to choose by."""
        found = self._images("calibration.zip")
        if "val" not in found:
            raise UserError("it has no held-out images (val/)", str(self.path / "calibration.zip"))
        return found["train"], found["val"]

    def test(self) -> Images:
        """Images to report on."""
        return self._images("test.zip")["train"]

    def _images(self, file: str) -> dict[str, Images]:
        return open_images(self.path / file, self.classes)


def largest_side(space: Space) -> int:
    """Of a picture in a checkpoint's zips the shorter side at most; larger ones are reduced."""
    return 2 * max(space.resolutions)


def find_checkpoint(name: str) -> Path:
    """The folder at that path, or else that of a shipped checkpoint. Raises UserError."""
    import checkpoints

    shipped = Path(next(iter(checkpoints.__path__)))
    for path in (Path(name), shipped / name):
        if (path / "weights.safetensors").is_file():
            return path
    if name.endswith(".pth"):
        raise UserError(
            "weights of the research code, without images or evaluated subnets", name,
            "`ofa-train convert` makes a checkpoint of them and of your images",
        )  # fmt: skip
    names = sorted(p.parent.name for p in shipped.glob("*/weights.safetensors"))
    raise UserError(
        f"no checkpoint {name!r} (--checkpoint)", fix=f"shipped: {', '.join(names) or 'none'}"
    )


def load_checkpoint(name: str | Path) -> Checkpoint:
    """The checkpoint in that folder, or a shipped one by its name. Raises UserError."""
    return read_checkpoint(find_checkpoint(str(name)))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint folder. Raises UserError, naming the file and what is wrong."""
    try:
        card = json.loads((path / "card.json").read_text())
        hashes = card["sha256"]
        for name in _HASHED:
            there = name in hashes or (path / name).exists()
            if there and _sha256(path / name) != hashes.get(name):
                raise UserError(
                    "the file is not the one that card.json describes (truncated or changed)",
                    str(path / name),
                    "copy the checkpoint again",
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"not a readable checkpoint ({error})", str(path)) from error
    file = path / "weights.safetensors"
    try:
        with safe_open(file, "numpy") as source:
            metadata = json.loads((source.metadata() or {}).get("ofa", "{}"))
            if metadata.get("format") != FORMAT:
                raise UserError(
                    f"format {metadata.get('format')!r}, expected {FORMAT!r}",
                    str(file),
                    "train or convert it with this version",
                )
            space = space_from_dict(metadata["space"])
            tensors = {
                key: source.get_tensor(key).astype(np.float32)
                for key in source.keys()  # noqa: SIM118 - not a mapping
            }
            classes = tuple(metadata["classes"])
            labels = tuple(metadata["labels"])
            preprocessing = Preprocessing.from_dict(metadata["preprocessing"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"not a checkpoint's weights ({error})", str(file)) from error
    wanted = shapes(space)
    for key, shape in wanted.items():
        if key not in tensors or tensors[key].shape != shape:
            has = tensors[key].shape if key in tensors else "missing"
            raise UserError(f"tensor {key!r} is {has}, the space needs {shape}", str(file))
    return Checkpoint(
        path, space, classes, labels, preprocessing, tensors,
        read_evaluated(path / "subnets.csv", space), card, _sha256(file),
    )  # fmt: skip


def write_checkpoint(
    path: Path,
    *,
    space: Space,
    classes: Sequence[str],
    labels: Sequence[str],
    preprocessing: Preprocessing,
    tensors: Mapping[str, Array],
    card: Mapping[str, Any],
    evaluated: Sequence[tuple[Arch, int, float, int]],
    files: Mapping[str, Path],
) -> None:
    """Write a checkpoint folder; its files appear under their names only when all are whole.

    evaluated: (architecture, MACs, accuracy in percent, images). files: calibration.zip, test.zip.
    Same content, same bytes. Raises UserError where it cannot be written.
    """
    with _told(path):
        path.mkdir(parents=True, exist_ok=True)
    with _told(path), tempfile.TemporaryDirectory(dir=path, prefix=".partial-") as name:
        partial = Path(name)
        metadata = {
            "format": FORMAT,
            "space": asdict(space),
            "classes": list(classes),
            "labels": list(labels),
            "preprocessing": preprocessing.as_dict(),
        }
        # C order: safetensors writes memory as it lies, and torch gives channels-last arrays.
        half = {key: tensors[key].astype(np.float16, order="C") for key in sorted(tensors)}
        # One key: safetensors writes several in an order that changes from run to run.
        save_file(half, partial / "weights.safetensors", {"ofa": json.dumps(metadata)})
        (partial / "weights.safetensors").chmod(0o644)  # it is written for its owner only
        with (partial / "subnets.csv").open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["arch", "macs", "accuracy", "n"])
            rows.writerows([str(a), m, f"{accuracy:.4f}", n] for a, m, accuracy, n in evaluated)
        for target, source in files.items():
            shutil.copyfile(source, partial / target)
        hashes = {f: _sha256(partial / f) for f in _HASHED if (partial / f).exists()}
        (partial / "card.json").write_text(json.dumps({**card, "sha256": hashes}, indent=1) + "\n")
        for target in [*hashes, "card.json"]:
            with (partial / target).open("rb") as written:
                os.fsync(written.fileno())
        for target in [*hashes, "card.json"]:
            (partial / target).replace(path / target)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A disk that is full or fails, as an error that the user can mend."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has its own for the same
        raise UserError(
            f"the checkpoint cannot be written ({error})",
            str(path),
            "free some space and run the same command again, a training with --resume",
        ) from error


def read_evaluated(path: Path, space: Space) -> Evaluated:
    """The evaluated subnets of a ``subnets.csv``. Raises UserError."""
    try:
        with path.open() as file:
            rows = list(csv.DictReader(file))
        archs = [Arch.parse(row["arch"]) for row in rows]
        accuracy = np.array([float(row["accuracy"]) for row in rows])
        images = np.array([int(row["n"]) for row in rows])
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"not a table of evaluated subnets ({error})", str(path)) from error
    return Evaluated(space.encode(archs), accuracy, images)


def space_from_dict(values: Mapping[str, Any]) -> Space:
    """The space that ``dataclasses.asdict`` wrote, as JSON keeps it."""

    def frozen(given: Mapping[str, Any]) -> dict[str, Any]:
        return {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}

    stages = tuple(Stage(**frozen(stage)) for stage in values["stages"])
    return Space(**{**frozen(values), "stages": stages})


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
