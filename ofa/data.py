"""Images to the batches of a training step.

Everything random about a step is drawn from a generator seeded by (seed, step, attempt), so that a
resumed run sees what the straight one sees; and so do several processes together, whatever their
number.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from ofa import ranks
from ofa.errors import UserError
from ofa.images import Images, Pixels, open_images, split, uneven
from ofa.preprocessing import LITE0, Preprocessing

__all__ = [
    "LABELS",
    "Batch",
    "Loader",
    "Splits",
    "named_data",
    "random_box",
    "splits_of",
    "to_tensor",
    "write_folder",
]


#: Images of a class, on average, from which on some are set apart to test on.
_FEWEST_TO_SPLIT = 10

#: Names for people of data sets whose folders are named otherwise.
LABELS = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """Images to train on, images held out of them to choose by, and test images to report on.

    skipped: names of files that do not decode. copies: names of images left out of the former two,
    since those after them have the same picture. digest: of all images in order. judged: of those
    that were set apart from the images to train on, to choose by or to test on.
    """

    train: Images
    held_out: Images
    test: Images | None
    skipped: tuple[str, ...]
    copies: tuple[str, ...] = ()
    digest: str = ""
    judged: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The same random views of N images at several resolutions.

    x: resolution -> normalized (N, 3, r, r), channels last. labels: (N,). rows: (N,), their places
    among the training images.
    """

    x: dict[int, Tensor]
    labels: Tensor
    rows: Tensor


def to_tensor(pixels: Pixels, preprocessing: Preprocessing = LITE0) -> Tensor:
    """Normalized (N, 3, H, W), channels last, of (N, H, W, 3) pixels."""
    return torch.from_numpy(preprocessing.normalize(pixels)).permute(0, 3, 1, 2)


def named_data(name: str, cache: Path) -> Path:
    """The folder of a torchvision data set as ``class/name`` images, downloaded where needed."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"--data {name} needs torchvision ({error})",
            fix="pip install torchvision, or give a folder or a zip of images",
        ) from error
    try:
        if name == "imagenette":
            folder, partial = cache / "imagenette2-160", cache / "imagenette.partial"
            if not folder.exists():
                shutil.rmtree(partial / folder.name, ignore_errors=True)  # of an interruption
                partial.mkdir(parents=True, exist_ok=True)
                datasets.Imagenette(str(partial), "train", "160px", download=True)
                (partial / folder.name).rename(folder)
            return folder
        folder = cache / "cifar10-images"
        if not folder.exists():
            partial = cache / "cifar10-images.partial"
            for part, train in (("train", True), ("val", False)):
                source = datasets.CIFAR10(str(cache), train, download=True)
                write_folder(source, source.classes, partial / part)
            partial.rename(folder)
        return folder
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"--data {name} cannot be downloaded ({error})", fix="give a folder or a zip of images"
        ) from error


def write_folder(dataset: Sequence[tuple[Any, int]], classes: Sequence[str], folder: Path) -> None:
    """A data set of (picture, class index) as ``class/name.png``, which ``--data`` takes.

    Pictures are Pillow's, or tensors (C, H, W), uint8 or from 0 to 1 in float; C is 1 or 3.
    """
    for index in range(len(dataset)):
        picture, label = dataset[index]
        if isinstance(picture, Tensor):
            if picture.is_floating_point():
                picture = (255 * picture).round().clamp(0, 255).to(torch.uint8)
            picture = Image.fromarray(picture.permute(1, 2, 0).squeeze(2).cpu().numpy())
        target = folder / classes[int(label)] / f"{index:06d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)


def splits_of(path: Path, test: Path | None, held_out: int, seed: int) -> Splits:
    """Open a folder or zip, skip what does not decode, and hold images out of its training part.

    held_out: number of images; at most a fifth of them are taken. Test images come from ``test``,
    of which its ``val/`` where it has ``train/`` too, else from the ``val/`` of ``path``; else as
    many as are held out, at most an eighth of what is left, are set apart. A picture that is in
    several parts stays in the last one, so that none is chosen by or reported on that was trained
    on. Raises UserError.
    """
    found = open_images(path)
    train, digests, skipped = _decoded(found["train"])
    few = np.bincount(train.labels, minlength=len(train.classes)).argmin()
    if (train.labels == few).sum() < 2:
        raise UserError(
            f"class {train.classes[few]!r} has fewer than two readable images", str(path)
        )
    tests, of_tests = found.get("val"), digests
    if test is not None:
        parts = open_images(test)
        tests = parts.get("val", parts["train"])
        if tests.classes != train.classes:
            strange = sorted(set(tests.classes) ^ set(train.classes))
            raise UserError(f"class {strange[0]!r} is in one of {path} and {test} only", "--test")
    if tests is not None:
        tests, of_tests, bad = _decoded(tests)
        if not len(tests):
            raise UserError("no readable image to test on", str(test or path))
        skipped += bad
    classes = len(train.classes)
    rest, held = split(train, max(classes, min(held_out, len(train) // 5)), seed)
    apart = [digests[name] for name in held.names]
    if tests is None and len(rest) >= _FEWEST_TO_SPLIT * classes:
        rest, tests = split(rest, max(classes, min(held_out, len(rest) // 8)), seed + 1)
        apart += [digests[name] for name in tests.names]

    pictures = [of_tests[name] for name in tests.names] if tests is not None else []
    held, copies = _without(held, digests, set(pictures))
    pictures += [digests[name] for name in held.names]
    rest, more = _without(rest, digests, set(pictures))
    pictures += [digests[name] for name in rest.names]
    counts = np.bincount(rest.labels, minlength=classes)
    if not (len(held) and counts.all()):
        raise UserError(
            f"all images of class {train.classes[counts.argmin()]!r} are copies of one, or of "
            "images to test on",
            str(path),
        )
    if of_tests is not digests:  # of a test set of its own, what would be trained on without it
        apart += sorted(set(of_tests.values()) & set(digests.values()))
    digest, judged = (
        hashlib.blake2b(content, digest_size=16).hexdigest()
        for content in (b"".join(pictures) + rest.labels.tobytes(), b"".join(apart))
    )
    return Splits(rest, held, tests, tuple(skipped), (*copies, *more), digest, judged)


def _decoded(images: Images) -> tuple[Images, dict[str, bytes], list[str]]:
    """The images that decode, their digests by name, and the names of the others."""
    digests = images.digests()
    return images.named(digests), digests, [name for name in images.names if name not in digests]


def _without(
    images: Images, digests: Mapping[str, bytes], later: set[bytes]
) -> tuple[Images, list[str]]:
    """Those whose pictures are not among ``later``, and the names of the others."""
    copies = [name for name in images.names if digests[name] in later]
    return images.named(set(images.names) - set(copies)), copies


class Loader:
    """Random views of training images: sharpness, crop, flip, brightness and contrast.

    The next steps are prepared in a thread while the current one is computed. Where some classes
    are rare, all are shown equally often (``ofa.images.uneven``).

    batch: images of a step, of which this process loads its part (``ofa.ranks``).
    """

    def __init__(
        self,
        images: Images,
        seed: int,
        batch: int,
        jitter: float,
        sharpen: float,
        preprocessing: Preprocessing = LITE0,
    ) -> None:
        self._own = min(batch, len(images)) // ranks.count()
        if not self._own:
            raise UserError(f"{len(images)} images cannot be shared by {ranks.count()} processes")
        self.preprocessing = preprocessing
        self.images, self.seed, self.batch = images, seed, self._own * ranks.count()
        self.jitter, self.sharpen = jitter, sharpen
        self.steps_per_epoch = len(images) // self.batch
        self._sizes: dict[int, tuple[int, int]] = {}
        self._uneven = uneven(images)
        self._pool = ThreadPoolExecutor(1)

    def submit(
        self, step: int, attempt: int, resolutions: Iterable[int], crop: float
    ) -> Future[Batch]:
        """Begin to prepare the batch of a step; ``.result()`` gives it."""
        return self._pool.submit(self.load, step, attempt, frozenset(resolutions), crop)

    def load(self, step: int, attempt: int, resolutions: Iterable[int], crop: float) -> Batch:
        """This process's part of a step's batch; ``crop``: smallest area of a crop.

        The draws for the other processes' images are made too, so that each image has the draws
        that it has in one process: for those the size of a picture is needed, not its pixels.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order(np.random.default_rng([self.seed, epoch, 1]))
        chosen = order[position * self.batch : (position + 1) * self.batch]
        rng = np.random.default_rng([self.seed, step, attempt, 2])
        wanted = sorted(set(resolutions))
        first = ranks.rank() * self._own
        own = slice(first, first + self._own)
        pixels = {r: np.empty((self._own, r, r, 3), np.uint8) for r in wanted}
        for row, index in enumerate(chosen, start=-first):
            mine = 0 <= row < self._own
            picture = self.images.image(int(index)) if mine else None
            box = random_box(rng, picture.size if picture else self._size(int(index)), crop)
            flip = rng.random() < 0.5
            sharper = int(rng.integers(50, 151)) if rng.random() < self.sharpen else 0
            if picture is None:
                continue
            if sharper:
                picture = picture.filter(ImageFilter.UnsharpMask(1, sharper, 0))
            for r in wanted:
                view = picture.resize((r, r), Image.Resampling.BICUBIC, box)
                array = np.asarray(view)
                pixels[r][row] = array[:, ::-1] if flip else array
        # In numpy: torch would make a second team of threads here, and as soon as there are more of
        # them than cores those of the step no longer wait for its next operator, but sleep.
        scale = rng.uniform(1 - self.jitter, 1 + self.jitter, (2, len(chosen), 1, 1, 1))
        contrast, brightness = scale[:, own].astype(np.float32)
        black = self.preprocessing.normalize(np.zeros((1, 1, 1, 3), np.uint8))
        x = {}
        for r in wanted:
            plain = self.preprocessing.normalize(pixels[r])
            mean = plain.mean((1, 2, 3), keepdims=True)
            changed = (plain - mean) * contrast + (mean - black) * brightness + black
            x[r] = torch.from_numpy(changed).permute(0, 3, 1, 2)
        rows = chosen[own]
        return Batch(x, torch.from_numpy(self.images.labels[rows]), torch.from_numpy(rows))

    def _size(self, index: int) -> tuple[int, int]:
        if index not in self._sizes:
            self._sizes[index] = self.images.size(index)
        return self._sizes[index]

    def _order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Images of an epoch: each once, or as many of each class."""
        if not self._uneven:
            return rng.permutation(len(self.images))
        classes = len(self.images.classes)
        wanted = -(-len(self.images) // classes)
        turns = []
        for label in range(classes):
            own = np.flatnonzero(self.images.labels == label)
            rounds = [rng.permutation(own) for _ in range(-(-wanted // len(own)))]
            turns.append(np.concatenate(rounds)[:wanted])
        return rng.permutation(np.concatenate(turns))[: len(self.images)]


def random_box(
    rng: np.random.Generator, size: tuple[int, int], smallest: float
) -> tuple[float, float, float, float]:
    """A crop of at least ``smallest`` of the area, aspect 3/4 to 4/3 (Szegedy et al. 2015)."""
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(smallest, 1)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = np.sqrt(area * aspect), np.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return (left, top, left + w, top + h)
    return (0, 0, width, height)
