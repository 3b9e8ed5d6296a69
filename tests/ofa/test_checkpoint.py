"""A checkpoint folder: written whole, read without running code, refused where it is damaged."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ofa.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint
from ofa.errors import UserError
from ofa.images import open_images, split, write_zip
from ofa.preprocessing import LITE0
from ofa.supernet import initial
from tests.strategies import TINY


@pytest.fixture(scope="module")
def folder(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("checkpoint")
    images = open_images(shapes_folder)["train"]
    rest, held = split(images, 100, 0)
    write_zip(scratch / "calibration.zip", {"train/": rest, "val/": held})
    write_zip(scratch / "test.zip", {"": held})
    archs = [TINY.smallest(), TINY.largest()]
    write_checkpoint(
        scratch / "tiny",
        space=TINY,
        classes=images.classes,
        labels=[name.title() for name in images.classes],
        preprocessing=LITE0,
        tensors=initial(TINY),
        card={"name": "tiny"},
        evaluated=[(arch, 1, 50.5, 100) for arch in archs],
        files={name: scratch / name for name in ("calibration.zip", "test.zip")},
    )
    return scratch / "tiny"


def test_it_reads_what_was_written(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.space, checkpoint.name) == (TINY, "tiny")
    assert checkpoint.labels == ("Checks", "Circles", "Columns", "Ramp", "Rows")
    for name, value in initial(TINY).items():
        assert (checkpoint.tensors[name] == value.astype(np.float16)).all()
    assert checkpoint.evaluated.accuracy.tolist() == [50.5, 50.5]
    recalibration, held_out = checkpoint.samples()
    assert (len(recalibration), len(held_out), len(checkpoint.test())) == (200, 100, 100)
    assert not list(folder.glob(".partial*"))


@pytest.mark.parametrize("file", ["weights.safetensors", "subnets.csv", "test.zip"])
@pytest.mark.parametrize("damage", ["truncated", "changed byte", "missing"])
def test_damage_is_noticed(folder: Path, tmp_path: Path, file: str, damage: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = bytearray((copy / file).read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    data[len(data) // 3] ^= 1
    (copy / file).write_bytes(data)
    if damage == "missing":
        (copy / file).unlink()
    with pytest.raises(UserError, match=r"not the one that card|not a readable checkpoint"):
        read_checkpoint(copy)


@pytest.mark.parametrize("card", ["", "[]", "{}", '{"sha256": []}', '{"sha256": "abc"}'])
def test_a_card_of_another_kind_is_noticed(folder: Path, tmp_path: Path, card: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "card.json").write_text(card)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_checkpoint(copy)


def test_a_hash_that_is_missing_is_noticed(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    card = copy / "card.json"
    card.write_text(card.read_text().replace("calibration.zip", "calibratiom.zip"))
    with pytest.raises(UserError, match="not the one that card") as caught:
        read_checkpoint(copy)
    assert caught.value.where == str(copy / "calibration.zip")


def test_a_folder_goes_before_a_shipped_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who trained one of that name means it."""
    monkeypatch.chdir(tmp_path)
    shipped = find_checkpoint("lite-imagenette")
    shutil.copytree(folder, tmp_path / "lite-imagenette")
    assert read_checkpoint(find_checkpoint("lite-imagenette")).space == TINY
    assert find_checkpoint("lite-imagenette").resolve() != shipped.resolve()


def test_weights_of_another_kind_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights, card = copy / "weights.safetensors", copy / "card.json"

    def claim_it_is_whole() -> None:
        content = json.loads(card.read_text())
        content["sha256"][weights.name] = hashlib.sha256(weights.read_bytes()).hexdigest()
        card.write_text(json.dumps(content))

    tensors = load_file(weights)
    save_file(tensors, weights)
    claim_it_is_whole()
    with pytest.raises(UserError, match="format None, expected 'ofa-checkpoint/1'"):
        read_checkpoint(copy)
    weights.write_bytes(b"\x80\x04pickle")
    claim_it_is_whole()
    with pytest.raises(UserError, match="not a checkpoint's weights"):
        read_checkpoint(copy)


def test_a_full_disk_leaves_what_was_there(folder: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk's."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    source = read_checkpoint(copy)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match="the checkpoint cannot be written"):
            write_checkpoint(
                copy,
                space=TINY,
                classes=source.classes,
                labels=source.labels,
                preprocessing=LITE0,
                tensors=initial(TINY, 1),
                card={"name": "other"},
                evaluated=[(TINY.largest(), 1, 50.5, 100)],
                files={},
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_checkpoint(copy).sha256 == source.sha256
    assert sorted(p.name for p in copy.iterdir()) == sorted(p.name for p in folder.iterdir())


def test_an_unknown_checkpoint_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match=r"no checkpoint 'nope'.*shipped"):
        find_checkpoint("nope")
