"""Image folders and zips: what is read, and what is refused in one line."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ofa.data import Loader, random_box, splits_of, to_tensor, write_folder
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


def test_large_pictures_are_reduced_in_a_zip_and_others_kept(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (300, 90), "red").save(tmp_path / "b" / "2.jpg", exif=exif)
    images = open_images(tmp_path)["train"]
    write_zip(tmp_path / "i.zip", {"": images}, 64)
    again = open_images(tmp_path / "i.zip")["train"]
    assert again.digests() == images.digests(64) != images.digests()
    assert again.bytes_of(0) == images.bytes_of(0)
    assert again.image(1).size == (64, 213)
    assert np.abs(again.pixels(24)[1] - images.pixels(24)[1].astype(int)).max() <= 2


def test_known_classes_may_lack_images(shapes_folder: Path, tmp_path: Path) -> None:
    """As in the samples of a checkpoint of very many classes."""
    images = open_images(shapes_folder)["train"]
    write_zip(tmp_path / "i.zip", {"": images.take([0, 299])})
    found = open_images(tmp_path / "i.zip", images.classes)["train"]
    assert (found.classes, found.labels.tolist()) == (images.classes, [0, 4])
    with pytest.raises(UserError, match="class 'checks' of train/ is not among the classes"):
        open_images(tmp_path / "i.zip", images.classes[1:])


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
    Image.effect_noise((90, 90), 50).convert("RGB").save(folder / "rows" / "half.jpg")
    half = (folder / "rows" / "half.jpg").read_bytes()
    (folder / "rows" / "half.jpg").write_bytes(half[: len(half) // 2])
    good, bad = open_images(folder)["train"].readable()
    assert bad == ["ramp/001.png", "rows/000.png", "rows/half.jpg"]
    assert len(good) == 5 * 60 - 2 + 1
    assert good.pixels(24).shape == (len(good), 24, 24, 3)


def test_a_damaged_zip_loses_only_what_is_damaged(shapes_folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "images.zip"
    write_zip(archive, {"": open_images(shapes_folder)["train"]})
    content = bytearray(archive.read_bytes())
    first = (shapes_folder / "checks" / "000.png").read_bytes()
    content[content.index(first) + len(first) // 2] ^= 1
    archive.write_bytes(content)
    good, bad = open_images(archive)["train"].readable()
    assert (len(good), bad) == (5 * 60 - 1, ["checks/000.png"])


def test_pictures_of_one_class_may_share_a_name(tmp_path: Path) -> None:
    for grey, folder in ((10, "2023/cat"), (200, "2024/cat"), (90, "2024/dog")):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        Image.new("L", (4, 4), grey).save(tmp_path / "photos" / folder / "1.png")
    images = open_images(tmp_path / "photos")["train"]
    write_zip(tmp_path / "images.zip", {"train/": images})
    again = open_images(tmp_path / "images.zip")["train"]
    assert sorted(again.pixels(1).ravel()[::3]) == [10, 90, 200]


def test_a_folder_around_it_and_links_change_nothing(shapes_folder: Path, tmp_path: Path) -> None:
    """What ``zip -r photos.zip photos`` makes of train/ and val/, both of links to classes."""
    for part in ("train", "val"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        for name in ("rows", "ramp"):
            (tmp_path / "photos" / part / name).symlink_to(shapes_folder / name)
    with zipfile.ZipFile(tmp_path / "around.zip", "w") as archive:
        for path in sorted((tmp_path / "photos").glob("*/*/*.png")):
            archive.write(path, path.relative_to(tmp_path))
    plain, around = open_images(tmp_path / "photos"), open_images(tmp_path / "around.zip")
    for part in ("train", "val"):
        assert plain[part].classes == around[part].classes == ("ramp", "rows")
        assert len(plain[part]) == len(around[part]) == 120
        assert (plain[part].labels == around[part].labels).all()


def test_a_zip_of_val_alone_is_read_and_tests_are_of_val(
    shapes_folder: Path, tmp_path: Path
) -> None:
    part = open_images(shapes_folder)["train"]
    rest, few = split(part, 50, 7)
    write_zip(tmp_path / "val.zip", {"val/": few})
    assert len(open_images(tmp_path / "val.zip")["train"]) == 50
    write_zip(tmp_path / "both.zip", {"train/": rest, "val/": few})
    splits = splits_of(shapes_folder, tmp_path / "both.zip", 50, 0)
    assert splits.test is not None
    assert len(splits.test) == 50


def test_classes_beside_val_are_to_train_on(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "val/a/2.png", "val/b/2.png"):
        write(tmp_path / "photos" / name)
    found = open_images(tmp_path / "photos")
    assert found["train"].names == ("a/1.png", "b/1.png")
    assert found["val"].names == ("val/a/2.png", "val/b/2.png")
    for name in ("train/a/1.png", "train/b/1.png", "test/a/3.png"):  # for --test photos/test
        write(tmp_path / "three" / name)
    assert list(open_images(tmp_path / "three")) == ["train"]


def test_names_in_another_encoding_are_kept_as_they_can(tmp_path: Path) -> None:
    for label in ("a", "b"):
        write(tmp_path / "photos" / label / "1.png")
    odd = os.fsdecode(os.fsencode(tmp_path / "photos" / "a") + b"/caf\xe9.png")
    shutil.copyfile(tmp_path / "photos" / "a" / "1.png", odd)
    write_zip(tmp_path / "i.zip", {"": open_images(tmp_path / "photos")["train"]})
    assert open_images(tmp_path / "i.zip")["train"].names == ("a/1.png", "a/caf?.png", "b/1.png")


def test_tests_that_cannot_be_read_are_refused(shapes_folder: Path, tmp_path: Path) -> None:
    for name in ("checks", "circles", "columns", "ramp", "rows"):
        (tmp_path / "tests" / name).mkdir(parents=True)
        (tmp_path / "tests" / name / "1.jpg").write_text("version https://git-lfs.github.com")
    with pytest.raises(UserError, match="no readable image to test on"):
        splits_of(shapes_folder, tmp_path / "tests", 50, 0)


def test_sixteen_bits_of_grey_keep_their_shades(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    for label, values in (("a", grey), ("b", grey), ("b", np.float32(grey))):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / label / f"{values.dtype}.tiff")
    images, unknown = open_images(tmp_path)["train"].readable()
    assert unknown == ["b/float32.tiff"]  # is its white 1, 255 or 65535?
    assert (images.pixels(4)[..., 0] == grey >> 8).all()


def test_photos_are_turned_upright_and_put_on_white(tmp_path: Path) -> None:
    """A camera held sideways, a palette with alpha, a greyscale picture: one RGB picture each."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    red_above = Image.new("RGB", (8, 8), "blue")
    red_above.paste("red", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    red_above.rotate(90).save(tmp_path / "a" / "0.png", exif=exif)
    clear = Image.new("P", (8, 8), 0)
    clear.putpalette([0, 0, 0, 255, 0, 0])
    clear.save(tmp_path / "a" / "1.png", transparency=b"\x00\xff")
    Image.new("L", (8, 8), 77).save(tmp_path / "b" / "0.png")
    red_above.crop((0, 0, 6, 8)).rotate(90, expand=True).save(
        tmp_path / "b" / "1.tiff", exif=exif, compression="tiff_lzw"
    )
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b" / "2.png", transparency=(255, 0, 0))
    images = open_images(tmp_path)["train"]
    upright, white, grey, scan, hidden = (np.asarray(images.image(i)) for i in range(5))
    assert (upright == np.asarray(red_above)).all()
    assert (white == 255).all()
    assert (grey == 77).all()
    assert (scan == np.asarray(red_above)[:, :6]).all()
    assert images.size(3) == (6, 8)
    assert (hidden == 255).all()


def test_rare_classes_are_shown_as_often(tmp_path: Path) -> None:
    """Of 60 and 12 images a fifth is held out of each, and training shows both alike."""
    pictures = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(72)]
    write_folder([(p, int(i >= 60)) for i, p in enumerate(pictures)], ("many", "few"), tmp_path)
    splits = splits_of(tmp_path, None, 100, 0)
    assert splits.test is not None
    counts = [np.bincount(part.labels).tolist() for part in (splits.held_out, splits.test)]
    assert counts == [[2, 12], [1, 6]]  # few, many
    loader = Loader(splits.train, 0, 8, 0.0, 0.0)
    shown = np.concatenate(
        [loader.load(step, 0, [8], 1.0).labels for step in range(loader.steps_per_epoch)]
    )
    assert abs(np.diff(np.bincount(shown))[0]) <= 8


def test_what_training_shows_is_what_scoring_sees(shapes_folder: Path) -> None:
    """A whole picture is resized as for scoring; some are mirrored; colours change as asked."""
    images = open_images(shapes_folder)["train"]
    batch = Loader(images, 0, 64, 0.0, 0.0).load(0, 0, [24], 1.0)
    plain = to_tensor(images.pixels(24))[batch.rows]
    same, mirrored = (
        [torch.allclose(x, one, atol=1e-5) for x, one in zip(batch.x[24], turned, strict=True)]
        for turned in (plain, plain.flip(3))
    )
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert min(same.count(False), mirrored.count(False)) > 10
    changed = Loader(images, 0, 64, 0.3, 0.0).load(0, 0, [24], 1.0).x[24]
    black = to_tensor(np.zeros((1, 1, 1, 3), np.uint8))
    brightness, contrast = (
        (of(changed) / of(plain)).flatten()
        for of in (
            lambda x: (x - black).mean((1, 2, 3)),
            lambda x: (x - x.mean((1, 2, 3), keepdim=True)).square().mean((1, 2, 3)).sqrt(),
        )
    )
    for change in (brightness, contrast):
        assert 0.7 <= change.min() < 0.8
        assert 1.2 < change.max() <= 1.3
    sharp = Loader(images, 0, 64, 0.0, 1.0).load(0, 0, [24], 1.0).x[24]
    assert sharp.std() > plain.std()


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.05, 1.0), st.integers(0, 2**32 - 1))
def test_a_crop_is_inside_and_large_enough(
    width: int, height: int, smallest: float, seed: int
) -> None:
    left, top, right, bottom = random_box(np.random.default_rng(seed), (width, height), smallest)
    assert 0 <= left < right <= width * (1 + 1e-9)
    assert 0 <= top < bottom <= height * (1 + 1e-9)
    area = (right - left) * (bottom - top)
    assert area >= smallest * width * height * (1 - 1e-9)
    whole = (left, top, right, bottom) == (0, 0, width, height)
    assert whole or 0.749 < (right - left) / (bottom - top) < 1.334


def test_a_picture_is_in_one_part_only(shapes_folder: Path, tmp_path: Path) -> None:
    """Copies of test images, and of held-out ones, are not trained on; they are named."""
    folder = shutil.copytree(shapes_folder, tmp_path / "photos")
    plain = splits_of(folder, None, 50, 0)
    assert plain.test is not None
    assert plain.copies == ()
    write_zip(tmp_path / "tests", {"": plain.train.interleaved().take(range(10))})
    for name in (folder / "rows").glob("*.png"):  # the same pictures in another format
        with Image.open(name) as picture:
            picture.save(name.with_suffix(".bmp"))
    splits = splits_of(folder, tmp_path / "tests", 50, 0)
    assert splits.test is not None
    train, held_out, test = (
        set(part.digests().values()) for part in (splits.train, splits.held_out, splits.test)
    )
    assert not train & held_out
    assert not (train | held_out) & test
    left = len(splits.train) + len(splits.held_out)
    assert left + len(splits.copies) == len(open_images(folder)["train"])
    assert (len(test), splits.digest != plain.digest) == (10, True)


def test_copies_of_one_picture_are_not_a_class(shapes_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shapes_folder, tmp_path / "photos")
    for path in (folder / "rows").iterdir():
        shutil.copyfile(folder / "rows" / "000.png", path) if path.stem != "000" else None
    with pytest.raises(UserError, match="of class 'rows' are copies of one"):
        splits_of(folder, None, 50, 0)
    with pytest.raises(UserError, match="or of images to test on"):
        splits_of(shapes_folder, shapes_folder, 50, 0)


def test_a_torch_data_set_becomes_a_folder(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = torch.arange(3 * 4 * 4).reshape(3, 4, 4) / 255
    write_folder([(values, 0), (values[:1], 1)], ("colour", "grey"), tmp_path)
    images = open_images(tmp_path)["train"]
    assert images.classes == ("colour", "grey")
    colour, grey = (np.asarray(images.image(i)) for i in range(2))
    assert (colour == (255 * values).permute(1, 2, 0).round().numpy()).all()
    assert (grey[..., 1] == (255 * values[0]).round().numpy()).all()


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
        (
            lambda p: [write(p / n) for n in ("train/a/1.png", "train/b/1.png", "more/a/1.png")],
            r"images in 'more' beside those in train/",
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
