"""Which images a run uses for what: the checkpoint's, or the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ofa.checkpoint import Checkpoint
from ofa.errors import UserError
from ofa.images import Images, open_images, split
from ofa.weights import recalibration_images

__all__ = ["samples"]

#: Images that judge a network that is fine-tuned: at most these, and a fifth.
_HELD_OUT = 1500


def samples(
    source: Checkpoint, images: str | Path | None, to_train: bool
) -> tuple[Images, Images, Images | None]:
    """Images to recalibrate with, to choose by and, if ``to_train``, to train on.

    Raises UserError.
    """
    if images is None:
        return *source.samples(), None
    own = {name: part.readable()[0] for name, part in open_images(Path(images)).items()}
    train, where = own["train"], f"--images {images}"
    if train.classes != source.classes:
        raise UserError(
            f"its classes are {', '.join(train.classes)}", where,
            f"the checkpoint's are {', '.join(source.classes)}",
        )  # fmt: skip
    if len(train) < 2 * len(train.classes):
        raise UserError(
            f"only {len(train)} readable images", where, "give at least two of each class"
        )
    if to_train:
        return _to_train(source, train, own.get("val"), where)
    held_out, recalibration = split(train, min(256, len(train) // 2), 0)
    return recalibration, held_out, None


def _to_train(
    source: Checkpoint, train: Images, val: Images | None, where: str
) -> tuple[Images, Images, Images]:
    """The same of images that a subnet is trained on; those to recalibrate with are among them.

    Held out is ``val``; without it a fifth, which are those that the supernet was not trained on
    where it was trained on these images. So too where the checkpoint has its test images from
    ``val``. No picture that is tested on is among the images, and none that is held out, here or
    by the checkpoint, among those to train on. Raises UserError.
    """
    digests = train.digests() | (val.digests() if val is not None else {})
    tests = set(source.test().digests().values())
    if val is None or any(digests[name] in tests for name in val.names):
        count = max(len(train.classes), min(_HELD_OUT, len(train) // 5))
        train, val = split(train, count, source.card.get("seed", 0))
    held_out = val.named({name for name in val.names if digests[name] not in tests})
    unseen = tests | set(source.samples()[1].digests().values())
    unseen |= {digests[name] for name in held_out.names}
    train = train.named({name for name in train.names if digests[name] not in unseen})
    for part, purpose in ((train, "train on"), (held_out, "judge by")):
        counts = np.bincount(part.labels, minlength=len(part.classes))
        if not counts.all():
            raise UserError(
                f"no image of class {part.classes[counts.argmin()]!r} is left to {purpose}",
                where,
                "give at least ten of each class, beside the checkpoint's own",
            )
    count = min(recalibration_images(source.space), max(1, len(train) // 2))
    return split(train, count, 1)[1], held_out, train
