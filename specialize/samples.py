"""Which images a run uses for what: the checkpoint's, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ofa.checkpoint import Checkpoint, largest_side
from ofa.errors import UserError
from ofa.images import Images, open_images, split, tell_skipped
from ofa.weights import recalibration_images

__all__ = ["samples", "tests_are_held_out"]

#: Images to choose and to judge by, at most.
_HELD_OUT = 1500


def tests_are_held_out(source: Checkpoint) -> bool:
    """Whether its data had too few images for some to test on: then choices are made by those."""
    return bool(source.card.get("data", {}).get("test_images") == 0)


def samples(
    source: Checkpoint, images: str | Path | None, to_train: bool, tell: Callable[[str], None]
) -> tuple[Images, Images, Images | None]:
    """Images to recalibrate with, to choose by and, if ``to_train``, to train on.

    Of the user's own at most 1,500 are to choose by: their ``val``, unless the checkpoint has its
    test images from it; else a fifth, which are those that the supernet was not trained on where it
    was trained on these images. Those to recalibrate with are among the others. No picture that the
    checkpoint tests on is used; none that is held out, here or by the checkpoint, is trained on.
    tell: told which of them do not decode. Raises UserError.
    """
    if images is None:
        return *source.samples(), None
    where = f"--images {images}"
    tests = set() if tests_are_held_out(source) else set(source.test().digests().values())
    digests: dict[str, bytes] = {}
    own: dict[str, Images] = {}
    for name, part in open_images(Path(images)).items():
        found = part.digests(largest_side(source.space))
        digests |= found
        own[name] = part.named(found)
        tell_skipped([one for one in part.names if one not in found], tell)
    train, val = own["train"], own.get("val")
    if train.classes != source.classes:
        raise UserError(
            f"its classes are {', '.join(train.classes)}", where,
            f"the checkpoint's are {', '.join(source.classes)}",
        )  # fmt: skip
    if len(train) < 2 * len(train.classes):
        raise UserError(
            f"only {len(train)} readable images", where, "give at least two of each class"
        )
    if val is None or any(digests[name] in tests for name in val.names):
        asked = source.card.get("data", {}).get("asked_held_out", _HELD_OUT)
        count = max(len(train.classes), min(_HELD_OUT, asked, len(train) // 5))
        train, val = split(train, count, source.card.get("seed", 0))
    held_out = val.named({name for name in val.names if digests[name] not in tests})
    held_out = split(held_out, min(_HELD_OUT, len(held_out)), 1)[1]
    unseen = tests | {digests[name] for name in held_out.names}
    if to_train:
        unseen |= set(source.samples()[1].digests().values())
    train = train.named({name for name in train.names if digests[name] not in unseen})
    for part, purpose in ((train, "train on" if to_train else "recalibrate with"),
                          (held_out, "judge by")):  # fmt: skip
        counts = np.bincount(part.labels, minlength=len(part.classes))
        if not (counts.all() if to_train else counts.any()):
            raise UserError(
                f"no image of class {part.classes[counts.argmin()]!r} is left to {purpose}",
                where,
                "give at least ten of each class, beside the checkpoint's own",
            )
    count = min(recalibration_images(source.space), max(1, len(train) // (2 if to_train else 1)))
    return split(train, count, 1)[1], held_out, train if to_train else None
