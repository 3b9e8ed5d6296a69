"""``--finetune``: the chosen subnet trained alone, and kept only where it is better."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from devices.backends.litert import Litert
from ofa import finetune
from ofa.checkpoint import read_checkpoint
from ofa.images import Images, open_images
from specialize import Result, specialize
from specialize.report import Report
from specialize.samples import samples
from tests.commands import command
from tests.conftest import write_shapes
from tests.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(shapes_folder, tmp_path_factory.mktemp("finetune"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Images that the checkpoint has never seen, with a ``val/``."""
    write_shapes(tmp_path / "own" / "train", 24, seed=1)
    write_shapes(tmp_path / "own" / "val", 10, seed=2)
    return tmp_path / "own"


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate for weights that are random, and a few seconds."""
    monkeypatch.setattr(finetune, "RECIPE", replace(finetune.RECIPE, lr=5e-3, warmup=5))


def percent_right(result: Result, images: Images, checkpoint: Path) -> float:
    """Of the TFLite file, in LiteRT."""
    normalize = read_checkpoint(checkpoint).preprocessing.normalize
    answers = Litert().run(result.tflite, normalize(images.pixels(result.report.resolution)))
    return float(100 * (answers.argmax(1) == images.labels).mean())


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_what_is_better_is_kept(tiny: Path, own: Path, tmp_path: Path) -> None:
    told: list[str] = []
    result = specialize(
        "pixel", "0.6ms", checkpoint=tiny, images=own, finetune="4s", output=tmp_path / "out",
        candidates=2, threads=1, tell=told.append,
    )  # fmt: skip
    report = result.report
    about = report.finetuned
    assert about is not None
    assert about.kept
    assert about.after.value > about.before.value
    assert about.seconds <= 5
    assert about.images == 120
    assert about.epochs == pytest.approx(about.steps * 32 / 120, abs=0.01)
    assert report.accuracy.held_out == about.after
    assert about.after.n == 50
    assert percent_right(result, open_images(own)["val"], tiny) == pytest.approx(about.after.value)
    test = read_checkpoint(tiny).test()
    assert percent_right(result, test, tiny) == pytest.approx(report.accuracy.test.value)
    assert "--finetune 4s" in report.command
    assert report.verified.agreeing == report.verified.images
    gained = f"+{about.after.value - about.before.value:.1f} points"
    assert any(gained in line for line in told)
    assert gained in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_what_is_not_better_is_not_kept(tiny: Path, own: Path, tmp_path: Path) -> None:
    """Labels to train on that are all wrong."""
    names = [path.name for path in sorted((own / "train").iterdir())]
    for name in names:
        (own / "train" / name).rename(own / f"{name} of train")
    for name, wrong in zip(names, [*names[1:], names[0]], strict=True):
        (own / f"{name} of train").rename(own / "train" / wrong)
    result = specialize(
        "pixel", "0.6ms", checkpoint=tiny, images=own, finetune="3s", output=tmp_path / "out",
        candidates=2, threads=1,
    )  # fmt: skip
    about = result.report.finetuned
    assert about is not None
    assert not about.kept
    assert about.after.value <= about.before.value
    assert result.report.accuracy.held_out == about.before
    assert percent_right(result, open_images(own)["val"], tiny) == pytest.approx(about.before.value)


@pytest.mark.slow
def test_int8_networks_are_judged_as_such(tiny: Path, own: Path, tmp_path: Path) -> None:
    done = command(
        "ofa-specialize", "--device", "pixel4-int8", "--budget", "0.6ms", "--checkpoint", tiny,
        "--images", own, "--finetune", "2s", "--candidates", "2", "--threads", "1", "-o", "out",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert report.finetuned is not None
    assert str(report.finetuned) in done.stdout
    result = Result(report, tmp_path / "out")
    right = percent_right(result, open_images(own)["val"], tiny)
    assert right == pytest.approx(report.accuracy.held_out.value)


def contents(images: Images) -> set[bytes]:
    return {images.bytes_of(index) for index in range(len(images))}


def test_what_the_checkpoint_holds_out_is_not_trained_on(
    tiny: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    """Where the images are those that the checkpoint's own were taken from; and as its val/."""
    source = read_checkpoint(tiny)
    test, held = contents(source.test()), contents(source.samples()[1])
    with_val = tmp_path / "with val"
    shutil.copytree(shapes_folder, with_val / "train")
    for index in range(len(source.test())):
        target = with_val / "val" / source.test().names[index]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.test().bytes_of(index))
    for folder in (shapes_folder, with_val):
        recalibration, judging, training = samples(source, folder, True, print)
        assert training is not None
        assert not contents(training) & (test | held | contents(judging))
        assert not contents(judging) & test
        assert contents(recalibration) <= contents(training)
        assert 40 <= len(judging) <= 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["--finetune", "5m"],
            "nothing to train on: checkpoints have no training images; add --im",
        ),
        (["--finetune", "5", "--images", "own"], "time '5' has no unit; write 5s, 5m or 5h"),
        (["--finetune", "5m", "--images", "few"], "no image of class 'rows' is left to"),
        (
            ["--finetune", "5m", "--images", "own", "--device", "rpi4"],
            "one network is trained in one run",
        ),
    ],
)
@pytest.mark.usefixtures("own")
def test_what_cannot_be_trained_is_refused(
    words: list[str], complaint: str, tiny: Path, tmp_path: Path
) -> None:
    write_shapes(tmp_path / "few", 3, seed=3)
    for name in ("001.png", "002.png"):
        (tmp_path / "few" / "rows" / name).unlink()
    before = sorted(tmp_path.rglob("*"))
    done = command(
        "ofa-specialize", "--device", "pixel", "--budget", "0.6ms", "--checkpoint", tiny, *words,
        "-q", cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_without_torch_it_is_refused_at_once(tmp_path: Path) -> None:
    """Before the checkpoint or the images are looked for, neither of which is there."""
    code = "import sys; sys.modules['torch'] = None; from specialize.cli import main; main()"
    words = ["--device", "pixel", "--checkpoint", "no", "--images", "no", "--finetune", "5m"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --finetune: training needs torch; pip install '.[train]'\n"
    assert not list(tmp_path.iterdir())
