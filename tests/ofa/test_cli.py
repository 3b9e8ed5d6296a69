"""``ofa-train`` from a folder of images to a checkpoint that ``ofa-specialize`` cuts from."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ofa.checkpoint import read_checkpoint
from ofa.data import splits_of
from ofa.pipeline import Options, _start
from tests.commands import command


@pytest.mark.slow
def test_a_folder_becomes_a_checkpoint_and_a_model(shapes_folder: Path, tmp_path: Path) -> None:
    """A moment of training from the published weights; a file that cannot be read is named."""
    photos = shutil.copytree(shapes_folder, tmp_path / "photos")
    (photos / "rows" / "000.png").write_bytes(b"broken")
    words = ("--data", photos, "--output", "trained", "--epochs", "0.5", "--subnets", "4",
             "--held-out", "50", "--threads", "2")  # fmt: skip
    trained = command("ofa-train", *words, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    for text in (
        "skipped rows/000.png",
        "1 unreadable images skipped",
        "218 images to train on, 50 held out, 31 to test on",
    ):
        assert text in trained.stderr
    checkpoint = read_checkpoint(tmp_path / "trained")
    assert checkpoint.classes == ("checks", "circles", "columns", "ramp", "rows")
    card = checkpoint.card
    assert card["published"] == "efficientnet-lite0"
    assert card["data"]["skipped_images"] == 1
    assert len(checkpoint.evaluated.accuracy) == 4
    with (tmp_path / "trained" / "training" / "log.csv").open() as file:
        assert len(list(csv.DictReader(file))) == card["steps"] == 3

    again = command("ofa-train", *words, cwd=tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "add --resume" in again.stderr

    made = command(
        "ofa-specialize", "--device", "pixel", "--budget", "10ms", "--checkpoint", "trained",
        "--candidates", "2", "--json", "-q", cwd=tmp_path,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["budgets"][0]["kept"]

    more = command("ofa-train", "evaluate", "trained", "--more", "3", "-q", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    longer = read_checkpoint(tmp_path / "trained")
    assert len(longer.evaluated.accuracy) == 7
    assert longer.sha256 == checkpoint.sha256

    # Trained on from there, and both averaged.
    words = ("--data", photos, "--held-out", "50", "-q")
    further = command(
        "ofa-train", *words, "--output", "further", "--init", "trained", "--recipe", "refine",
        "--epochs", "0.2", "--subnets", "2", cwd=tmp_path,
    )  # fmt: skip
    assert further.returncode == 0, further.stderr
    mean = command("ofa-train", "average", "further", "trained", "--data", photos,
                   "--output", "mean", "--subnets", "2", "-q", cwd=tmp_path)  # fmt: skip
    assert mean.returncode == 0, mean.stderr
    ends = [read_checkpoint(tmp_path / name) for name in ("trained", "further", "mean")]
    assert ends[2].card["averaged"] == [1, 2]
    assert [run["recipe"]["name"] for run in ends[2].card["before"]] == ["pretrained"]
    for name, value in ends[2].tensors.items():
        expected = (ends[0].tensors[name] + ends[1].tensors[name]) / 2
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-6)
    lesson = ("ofa-train", *words[:-1], "--output", "small", "--init", "mcu-cifar10",
              "--teacher", "trained", "--epochs", "0.5", "--subnets", "2")  # fmt: skip
    small = command(*lesson, cwd=tmp_path)
    assert small.returncode == 0, small.stderr
    assert "trained looks at" in small.stderr
    resumed = command(*lesson, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "trained knows" in resumed.stderr
    assert "trained looks at" not in resumed.stderr
    taught = read_checkpoint(tmp_path / "small").card
    assert taught["recipe"]["name"] == "tiny-taught"
    best = longer.evaluated.genotypes[longer.evaluated.accuracy.argmax()]
    assert taught["teacher"]["arch"] == str(longer.space.decode(best))
    assert [run["recipe"]["name"] for run in taught["teacher"]["runs"]] == ["pretrained"]
    for option in ("--teacher", "--init"):
        seen = command("ofa-train", *words[:2], "--output", "seen", option, "trained",
                       cwd=tmp_path)  # fmt: skip
        assert seen.returncode == 2
        assert "add --held-out 50 --seed 0" in seen.stderr.splitlines()[-1]
    # What it was trained on is not judged by: under another name, as --test, or in another split.
    shutil.copytree(photos, tmp_path / "album")
    for kind in sorted(photos.iterdir()):
        (tmp_path / "seen" / kind.name).mkdir(parents=True)
        for picture in sorted(kind.iterdir())[10:20]:
            shutil.copy(picture, tmp_path / "seen" / kind.name)
    onward = ("--output", "no", "--init", "trained")
    mean = ("average", "further", "trained", "--data", photos, "--output", "no")
    changed = "its images, or --test, have changed since it was trained"
    apart = "it has been trained on images that would be set apart here"
    for refused, complaint in (
        (["--data", "album", *onward], apart),
        ([*words[:4], "--test", "seen", *onward], changed),
        ([*mean, "--test", "seen"], changed),
    ):
        other = command("ofa-train", *refused, "-q", cwd=tmp_path)
        assert (other.returncode, other.stderr.count("\n")) == (2, 1), other.stderr
        assert complaint in other.stderr
    Image.effect_noise((40, 40), 90).convert("RGB").save(photos / "rows" / "more.png")
    more = command("ofa-train", *words, "--output", "more", "--init", "trained", cwd=tmp_path)
    assert (more.returncode, more.stderr.count("\n")) == (2, 1)
    assert changed in more.stderr
    other = command("ofa-train", "average", "further", "lite-imagenette", "--data", photos,
                    "--output", "no", cwd=tmp_path)  # fmt: skip
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "does not continue it" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
def test_a_network_alone_begins_with_the_channels_that_matter(alone: bool, photos: Path) -> None:
    """It has a part of the published ones; a supernet sorts them before its widths open."""
    arch = "r96 3x3e1 3x3e3 3x3e3 3x3e3 3x3e3 3x3e3 3x3e3" if alone else ""
    options = Options(data=str(photos), output=photos.parent / "out", arch=arch)
    space, tensors, *_ = _start(options, splits_of(photos, None, 12, 0))
    matter = [
        abs(tensors[f"s{s}.b{b}.project.weight"]).sum((0, 2, 3)) for s, b in space.positions if s
    ]
    assert alone == all((np.diff(weights) <= 0).all() for weights in matter)


@pytest.mark.parametrize("init", ["lite-imagenette", "mcu-cifar10"])
def test_other_classes_are_learned_in_minutes(init: str, photos: Path) -> None:
    options = Options(data=str(photos), output=photos.parent / "out", init=init)
    *_, recipe, _, _ = _start(options, splits_of(photos, None, 12, 0))
    assert (recipe.name, recipe.hours) == ("adapt", 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--data", "nowhere"], "no such folder or zip of images"),
        (["--data", "empty"], "no images in it"),
        (["--data", "one"], "only one class ('cat')"),
        (["--data", "two"], "fewer than two readable images"),
        (["--data", "shapes", "--space", "light"], "did you mean 'lite'"),
        (["--data", "shapes", "--recipe", "pretraind"], "did you mean 'pretrained'"),
        (["--data", "shapes", "--init", "none", "--recipe", "pretrained"], "add --init"),
        (["--data", "shapes", "--recipe", "tiny-taught"], "add --teacher"),
        (["--data", "shapes", "--teacher", "lite-imagenette"], "its classes are not those of"),
        (["--data", "shapes", "--teacher", "x", "--recipe", "tiny"], "has a teacher of its own"),
        (["--data", "shapes", "--init", "nope"], "no checkpoint 'nope'"),
        (["--data", "shapes", "--init", "no.pth"], "add --space mbv3-w1.0"),
        (["--data", "shapes", "--init", "no.pth", "--space", "mbv3-w1.0"], "cannot be read"),
        (["--data", "shapes", "--space", "mcu"], "has not EfficientNet-Lite0's skeleton"),
        (
            ["--data", "shapes", "--init", "lite-imagenette", "--space", "mcu"],
            "not of 'mcu': stem.weight is (32, 3, 3, 3), the space needs (8, 3, 3, 3)",
        ),
        (["--data", "shapes", "--arch", "r96 3x3e9"], "stages"),
        (["--data", "shapes", "--output", "/proc/nowhere"], "cannot write there"),
        (
            ["--data", "shapes", "--output", "two"],
            "two: it holds test.zip, which would be replaced",
        ),
        (["--data", "shapes", "--resume"], "no training state to resume"),
        (["--data", "shapes", "--hours", "inf"], "--hours: inf is no time to train"),
        (["--data", "shapes", "--epochs", "inf"], "--epochs: inf is no time to train"),
        (["--data", "shapes", "--epochs", "1e308"], "--epochs: 1e+308 is no time to train"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], complaint: str, shapes_folder: Path, tmp_path: Path
) -> None:
    for name in ("empty", "one/cat", "two/cat", "two/dog"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("one/cat", "two/cat", "two/dog"):
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    (tmp_path / "two" / "test.zip").write_text("mine")
    words = [str(shapes_folder) if word == "shapes" else word for word in words]
    if "--output" not in words:
        words = [*words, "--output", "out"]
    before = set(tmp_path.rglob("*"))
    result = command("ofa-train", *words, "-q", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert complaint in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before


def test_files_of_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('imported')")
    program = Path(sys.executable).with_name("ofa-train")
    done = subprocess.run(
        [program, "--data", "nowhere", "--output", "out"], cwd=tmp_path, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no such folder or zip of images" in done.stderr
