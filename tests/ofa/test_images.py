"""Image folders and zips: what is read, and what is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ofa.errors import UserError
from ofa.images import open_images, split, write_zip


def test_folder_and_zip_give_the_same_pixels(shapes_folder: Path, tmp_path: Path) -> None:
    folder = open_images(shapes_folder)["train"]
    rest, held = split(folder, 50, seed=3)
    assert np.bincount(held.labels).tolist() == [10] * 5
    assert sorted(rest.names + held.names) == sorted(folder.names)

    archive = tmp_path / "images.zip"
    write_zip(archive, {"train/": rest, "val/": held})
    found = open_images(archive)
    assert (found["train"].pixels(24) == rest.pixels(24)).all()
    assert (found["val"].pixels(24) == held.pixels(24)).all()
    again = tmp_path / "again.zip"
    write_zip(again, {"train/": rest, "val/": held})
    assert again.read_bytes() == archive.read_bytes()


def test_pixels_are_pillows_antialiased_bicubic(shapes_folder: Path) -> None:
    images = open_images(shapes_folder)["train"].take([7])
    with Image.open(shapes_folder / images.names[0]) as picture:
        expected = picture.resize((24, 24), Image.Resampling.BICUBIC)
    assert (images.pixels(24)[0] == np.asarray(expected)).all()


def test_unreadable_files_are_named_and_stray_ones_ignored(
    shapes_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(shapes_folder, folder)
    (folder / "rows" / "000.png").write_bytes(b"not a picture")
    whole = (folder / "ramp" / "001.png").read_bytes()
    (folder / "ramp" / "001.png").write_bytes(whole[: len(whole) // 2])
    (folder / "rows" / "notes.txt").write_text("stray")
    (folder / "__MACOSX" / "rows").mkdir(parents=True)
    (folder / "__MACOSX" / "rows" / "000.png").write_bytes(whole)
    Image.new("LA", (9, 30)).save(folder / "rows" / "grey.png")
    good, bad = open_images(folder)["train"].readable()
    assert bad == ["ramp/001.png", "rows/000.png"]
    assert len(good) == 5 * 60 - 2 + 1
    assert good.pixels(24).shape == (len(good), 24, 24, 3)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda _: None, "no such folder"),
        (lambda p: p.mkdir(), "no images in it"),
        (lambda p: p.write_bytes(b"PK not a zip"), "not a zip"),
        (lambda p: write(p / "cat" / "1.png"), r"only one class \('cat'\)"),
        (lambda p: [write(p / n) for n in ("a/1.png", "b\nc/1.png")], r"class name 'b\\nc'"),
        (
            lambda p: [write(p / n) for n in ("train/a/1.png", "train/b/1.png", "val/c/1.png")],
            r"class 'c' of val/ is not in train/",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(make, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "images"
    make(path)
    with pytest.raises(UserError, match=complaint):
        open_images(path)


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
