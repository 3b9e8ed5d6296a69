"""Labelled images, ``class/name.jpg``, in a folder or zip with or without ``train/`` and ``val/``.

An image becomes pixels in one way everywhere: RGB, the whole picture resized straight to
resolution x resolution by Pillow's antialiased bicubic filter. The filter alone moves accuracy by
points at small resolutions, so training, scoring and the device share it.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ofa.errors import UserError

__all__ = ["Images", "Pixels", "open_images", "split", "tell_skipped", "uneven", "write_zip"]

Pixels = NDArray[np.uint8]

#: Pillow reads some only with a plugin: those are named as unreadable, not passed over.
_SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".avif",
    ".jp2", ".heic", ".heif",
}  # fmt: skip
#: Largest class by smallest, from which on classes are treated apart.
_UNEVEN = 1.5
#: EXIF's orientation -> what makes the picture upright; from 5 on its sides are exchanged.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Names and labels of images, read when asked for.

    names: path of each image below ``source``. labels: (N,) index into ``classes``.
    """

    source: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    _read: Callable[[str], bytes] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def bytes_of(self, index: int) -> bytes:
        """The file's bytes."""
        return self._read(self.names[index])

    def image(self, index: int) -> Image.Image:
        """The decoded RGB picture. Raises OSError if it cannot be decoded."""
        try:
            picture = _rgb(Image.open(io.BytesIO(self.bytes_of(index))))
            picture.load()
        except Exception as error:  # decoders raise whatever they stumble over
            raise OSError(f"{self.names[index]} cannot be decoded ({error})") from error
        return picture

    def reduced(self, index: int, side: int) -> bytes:
        """The file's bytes; of a larger picture a JPEG whose shorter side is ``side``."""
        if min(self.size(index)) <= side:
            return self.bytes_of(index)
        return _reduced(self.image(index), side).getvalue()

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of the picture that ``image`` gives, from the file's header."""
        picture = Image.open(io.BytesIO(self.bytes_of(index)))
        return picture.size[::-1] if _orientation(picture) >= 5 else picture.size

    def pixels(self, resolution: int) -> Pixels:
        """(N, resolution, resolution, 3) uint8 of all images."""
        result = np.empty((len(self), resolution, resolution, 3), np.uint8)

        def fill(index: int) -> None:
            picture = self.image(index)
            if picture.size != (resolution, resolution):
                picture = picture.resize((resolution, resolution), Image.Resampling.BICUBIC)
            result[index] = np.asarray(picture)

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(len(self))))
        return result

    def take(self, indices: Iterable[int]) -> Images:
        """Only these images, in this order."""
        chosen = np.fromiter(indices, np.int64)
        names = tuple(self.names[i] for i in chosen)
        return Images(self.source, self.classes, names, self.labels[chosen], self._read)

    def interleaved(self) -> Images:
        """The same images, classes in turn, so that any run of them is balanced.

        Batch norms must be recalibrated on such batches: on images sorted by class every batch
        would have the statistics of one class.
        """
        rank = np.empty(len(self), np.int64)
        for label in range(len(self.classes)):
            own = np.flatnonzero(self.labels == label)
            rank[own] = np.arange(len(own))
        return self.take(np.lexsort((self.labels, rank)))

    def named(self, names: Container[str]) -> Images:
        """Only those of these names."""
        return self.take(index for index, name in enumerate(self.names) if name in names)

    def readable(self) -> tuple[Images, list[str]]:
        """The images that decode, and the names of those that do not."""
        found = self.digests()
        return self.named(found), [name for name in self.names if name not in found]

    def digests(self, side: int | None = None) -> dict[str, bytes]:
        """Of each image that decodes, by name: copies of one picture have the same.

        side: larger pictures are taken as ``reduced`` to it, which is how a checkpoint keeps them.
        """

        def digest(index: int) -> bytes | None:
            try:
                picture = self.image(index)
                if side is not None and min(picture.size) > side:
                    picture = Image.open(_reduced(picture, side))
            except OSError:
                return None
            content = str(picture.size).encode() + picture.tobytes()
            return hashlib.blake2b(content, digest_size=16).digest()

        with ThreadPoolExecutor() as pool:
            found = list(pool.map(digest, range(len(self))))
        return {name: value for name, value in zip(self.names, found, strict=True) if value}


def _reduced(picture: Image.Image, side: int) -> io.BytesIO:
    """A JPEG whose shorter side is ``side``."""
    scale = side / min(picture.size)
    width, height = (max(side, round(scale * length)) for length in picture.size)
    content = io.BytesIO()
    picture.resize((width, height), Image.Resampling.BICUBIC).save(content, "JPEG", quality=95)
    return content


def _orientation(picture: Image.Image) -> int:
    """EXIF's; 1, upright, where there is none that makes sense."""
    if picture.format == "TIFF":  # Pillow turns it itself
        return 1
    told = picture.getexif().get(ExifTags.Base.Orientation)
    return told if told in _UPRIGHT else 1


def _rgb(picture: Image.Image) -> Image.Image:
    """Upright, as a camera's EXIF tag says, of 8 bits, and what is transparent on white.

    Raises ValueError for numbers whose white is not known.
    """
    orientation = _orientation(picture)
    if orientation != 1:
        picture = picture.transpose(_UPRIGHT[orientation])
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode}")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture).convert("RGB")
    return picture.convert("RGB")


def open_images(path: Path, known: Sequence[str] = ()) -> dict[str, Images]:
    """The splits of a folder or zip: ``train`` and, where it has one, ``val``; one alone is train.

    One folder around all of it, as a zip of a folder has, is passed over; links are followed.
    known: the classes, of which some may have no images there; without them they are what is found.
    Raises UserError where there is nothing to read, fewer than two classes, or a class not known.
    """
    if not path.exists():
        raise UserError(
            "no such folder or zip of images", str(path), "expected class/name.jpg in it"
        )
    if path.is_dir():

        def refuse(error: OSError) -> None:
            raise UserError(f"cannot be read ({error.strerror})", str(error.filename))

        walked = os.walk(path, onerror=refuse, followlinks=True)
        files = sorted(Path(folder, file) for folder, _, inside in walked for file in inside)
        names = [file.relative_to(path).as_posix() for file in files]

        def read(name: str) -> bytes:
            return (path / name).read_bytes()
    else:
        # Threads must not share a ZipFile, and to open one reads the names of all that it holds.
        idle: list[zipfile.ZipFile] = []

        def read(name: str) -> bytes:
            try:
                archive = idle.pop()
            except IndexError:
                archive = zipfile.ZipFile(path)
            try:
                return archive.read(name)
            finally:
                idle.append(archive)

        try:
            with zipfile.ZipFile(path) as archive:
                names = sorted(n for n in archive.namelist() if not n.endswith("/"))
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"not a zip of images ({error})", str(path)) from error

    ways = {
        name: parts
        for name in names
        if PurePosixPath(name).suffix.lower() in _SUFFIXES
        and len(parts := PurePosixPath(name).parts) > 1
        and not any(part.startswith((".", "__MACOSX")) for part in parts)
    }
    around = 0
    while (
        len({parts[around] for parts in ways.values()}) == 1
        and all(len(parts) > around + 3 for parts in ways.values())
        and not any(parts[around].lower() in _SPLITS for parts in ways.values())
    ):
        around += 1
    found: dict[str, list[tuple[str, str]]] = {}
    for name, parts in ways.items():
        top = _SPLITS.get(parts[around].lower()) if len(parts) > around + 2 else None
        found.setdefault(top or "", []).append((parts[-2], name))
    beside, groups = found.pop("", []), found
    if "train" not in groups and (alone := beside or groups.pop("val", [])):
        groups["train"], beside = alone, []
    if "train" not in groups:
        raise UserError("no images in it", str(path), "expected class/name.jpg in a folder or zip")
    # A test/ there is what a user may name for --test.
    stray = {folder for _, name in beside if (folder := ways[name][around]).lower() != "test"}
    if stray:
        raise UserError(
            f"images in {min(stray)!r} beside those in train/", str(path), "move one or the other"
        )
    classes = tuple(sorted(known or {label for label, _ in groups["train"]}))
    if len(classes) < 2:
        raise UserError(
            f"only one class ({classes[0]!r})",
            str(path),
            "put the images of each class in a folder",
        )
    for label in classes:
        if not label.isprintable():
            raise UserError(
                f"class name {label!r}", str(path), "rename the folder in plain letters"
            )
    result = {}
    for name in ("train", "val"):
        if name not in groups:
            continue
        pairs = groups[name]
        strange = {label for label, _ in pairs} - set(classes)
        if strange:
            others = "among the classes" if known else "in train/"
            raise UserError(f"class {min(strange)!r} of {name}/ is not {others}", str(path))
        labels = np.array([classes.index(label) for label, _ in pairs], np.int64)
        result[name] = Images(path, classes, tuple(n for _, n in pairs), labels, read)
    return result


def tell_skipped(names: Sequence[str], tell: Callable[[str], None]) -> None:
    """Say which files did not decode: the first, and how many."""
    for name in names[:5]:
        tell(f"skipped {name}: not a readable image")
    if names:
        tell(f"{len(names)} unreadable images skipped")


def uneven(images: Images) -> bool:
    """Whether some classes have so few images that they need to be treated apart."""
    counts = np.bincount(images.labels, minlength=len(images.classes))
    return bool(counts.max() > _UNEVEN * counts.min())


def split(images: Images, count: int, seed: int) -> tuple[Images, Images]:
    """(rest, held out): ``count`` images held out, the same number of each class if possible.

    Of classes of uneven size the same share.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    # Rank of each image within its class, in random order: the lowest ranks are held out.
    rank = np.empty(len(images))
    shares = uneven(images)
    for label in range(len(images.classes)):
        own = order[images.labels[order] == label]
        rank[own] = (np.arange(len(own)) + 0.5) / len(own) if shares else np.arange(len(own))
    held = np.lexsort((order.argsort(), rank))[:count]
    rest = np.setdiff1d(np.arange(len(images)), held)
    return images.take(rest), images.take(np.sort(held))


def write_zip(path: Path, parts: Mapping[str, Images], side: int | None = None) -> None:
    """A zip of ``prefix class/name`` entries with the files' own bytes; equal input, equal bytes.

    parts: prefix ("" or like "train/") -> images. side: larger pictures are reduced to it, see
    ``Images.reduced``.
    """
    used: set[str] = set()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for prefix, images in parts.items():
            for index, path_there in enumerate(images.names):
                folder = f"{prefix}{images.classes[images.labels[index]]}"
                # A zip has names in UTF-8 only; those of a folder may be in anything.
                name = PurePosixPath(path_there).name.encode("utf-8", "replace").decode()
                entry = f"{folder}/{name}"
                if entry in used:  # two folders of one class may each have a 1.jpg
                    entry = f"{folder}/{index}-{name}"
                used.add(entry)
                info = zipfile.ZipInfo(entry, (1980, 1, 1, 0, 0, 0))
                content = images.reduced(index, side) if side else images.bytes_of(index)
                archive.writestr(info, content)
