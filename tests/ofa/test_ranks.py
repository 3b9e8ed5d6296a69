"""Several processes: what one would give, with as many images a step."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ofa import ranks
from ofa.checkpoint import read_checkpoint
from ofa.data import Loader
from ofa.elastic import _shared_norm
from ofa.images import open_images
from ofa.supernet import initial
from tests.commands import command
from tests.ofa.tiny_run import SGD, tiny_run
from tests.strategies import TINY

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


STEPS = 12
BATCH = 2 * SGD.batch


@pytest.fixture(scope="module")
def two(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two processes."""
    folder = tmp_path_factory.mktemp("two")
    line = [*TORCHRUN, "2", "-m", "tests.ofa.tiny_run", "sgd", str(shapes_folder), str(folder),
            str(STEPS)]  # fmt: skip
    result = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def one(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of one with as many images a step."""
    folder = tmp_path_factory.mktemp("one")
    tiny_run(shapes_folder, folder, replace(SGD, batch=BATCH)).train(STEPS, lambda _: None)
    return folder


def weights(folder: Path) -> Tensor:
    """All weights in a row, relative to those that the runs began with."""
    state = torch.load(folder / "state.pt", weights_only=True)
    start = initial(replace(TINY, classes=5))
    names = state["model"]
    return torch.cat([(names[n] - torch.from_numpy(start[n])).flatten() for n in sorted(names)])


def apart(one: Tensor, other: Tensor) -> float:
    """Difference of two runs' ways, relative to the way."""
    return float((one - other).norm() / one.norm())


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(
    one: Path, two: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    """Images, subnets, batch norms and gradients; over all phases, within float error."""
    other = tiny_run(shapes_folder, tmp_path, SGD)
    other.train(STEPS, lambda _: None)
    assert apart(weights(one), weights(two)) < 0.01
    assert apart(weights(one), weights(tmp_path)) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("batch", [SGD.batch, BATCH])
def test_one_process_resumes_what_two_began(
    batch: int, one: Path, two: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    """The images a step stay those of both, whether the recipe says so or not."""
    for name, source in (("one", one), ("two", two)):
        shutil.copytree(source, tmp_path / name)
        state = torch.load(source / "state.pt", weights_only=True)
        state["counters"] |= {"steps": STEPS + 10}
        torch.save(state, tmp_path / name / "state.pt")
        run = tiny_run(shapes_folder, tmp_path / name, replace(SGD, batch=batch))
        assert (run.step, run.loader.batch) == (STEPS, BATCH)
        run.train(STEPS, lambda _: None)
        assert run.step == STEPS + 10
    assert apart(weights(tmp_path / "one"), weights(tmp_path / "two")) < 0.01
    assert apart(weights(tmp_path / "one"), weights(one)) > 0.1


def test_batch_norm_is_that_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and gradients in float64, in two threads that stand for processes."""
    rng = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(6, 4, 5, 5, generator=rng, dtype=torch.float64)
    x[:3] += 1  # not the same statistics in both
    weight, gamma, beta = (torch.randn(n, generator=rng).double() for n in (x.shape, (4,), (4,)))
    meet, sent = threading.Barrier(2), {}

    def mean_(values: Tensor) -> Tensor:
        sent[threading.get_ident()] = values.clone()
        meet.wait(10)
        mean = torch.stack(list(sent.values())).mean(0)
        meet.wait(10)
        return values.copy_(mean)

    def part(rows: slice, norm: Callable[..., Tensor]) -> list[Tensor]:
        own = [value.clone().requires_grad_() for value in (x[rows], gamma, beta)]
        y = norm(*own)
        return [y.detach(), *torch.autograd.grad((y * weight[rows]).sum(), own)]

    expected = part(slice(6), lambda x, *rest: F.batch_norm(x, None, None, *rest, True, 0.0, 1e-3))
    monkeypatch.setattr(ranks, "mean_", mean_)
    with ThreadPoolExecutor(2) as pool:
        norm = partial(_shared_norm, eps=1e-3)
        first, second = pool.map(lambda rows: part(rows, norm), [slice(3), slice(3, 6)])
    for index in range(2):
        torch.testing.assert_close(torch.cat([first[index], second[index]]), expected[index])
    for index in range(2, 4):
        torch.testing.assert_close(first[index] + second[index], expected[index])


def test_each_process_loads_its_part_of_the_same_batch(
    shapes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images(shapes_folder)["train"]
    whole = Loader(images, 0, 12, 0.2, 0.5).load(3, 0, [24, 32], 0.4)
    for number in range(3):
        monkeypatch.setattr(ranks, "count", lambda: 3)
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        part = Loader(images, 0, 12, 0.2, 0.5).load(3, 0, [24, 32], 0.4)
        own = slice(4 * number, 4 * number + 4)
        assert torch.equal(part.labels, whole.labels[own])
        for resolution, x in part.x.items():
            assert torch.equal(x, whole.x[resolution][own])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_is_that_of_the_upright_picture(orientation: int, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        picture = Image.new("RGB", (30, 20))
        exif = picture.getexif()
        exif[0x0112] = orientation
        picture.save(tmp_path / label / "1.jpg", exif=exif)
    images = open_images(tmp_path)["train"]
    assert images.size(0) == images.image(0).size


WORDS = ("--space", "mcu", "--init", "none", "--recipe", "scratch", "--held-out", "50",
         "--threads", "1", "--subnets", "5")  # fmt: skip


@pytest.mark.slow
def test_a_lost_process_ends_the_run_and_one_goes_on(shapes_folder: Path, tmp_path: Path) -> None:
    """SIGKILL to the second of two, as the command line sees it: one line, and a whole state."""
    words = ["--data", str(shapes_folder), "--output", str(tmp_path / "out"), *WORDS]
    line = [*TORCHRUN, "2", "-m", "ofa.train", *words, "--epochs", "100"]
    with (tmp_path / "told").open("w") as told:
        run = subprocess.Popen(line, stdout=told, stderr=told)
        log = tmp_path / "out" / "training" / "log.csv"
        until = time.monotonic() + 60
        while not log.exists() or len(log.read_text().splitlines()) < 4:
            assert time.monotonic() < until
            assert run.poll() is None, (tmp_path / "told").read_text()
            time.sleep(0.1)
        beside = command("ofa-train", *words, "--resume")
        assert (beside.returncode, beside.stderr.count("error: ")) == (2, 1)
        assert "another process trains there" in beside.stderr
        os.kill(process_of(run.pid, rank=1), signal.SIGKILL)
        assert run.wait(60) != 0
    lines = [
        text for text in (tmp_path / "told").read_text().splitlines() if text.startswith("error: ")
    ]
    assert len(lines) == 1
    assert "a process of the run was lost (step " in lines[0]
    assert lines[0].endswith("run the same command with --resume")
    state = torch.load(tmp_path / "out" / "training" / "state.pt", weights_only=True)
    state["counters"] |= {"steps": 3}
    torch.save(state, tmp_path / "out" / "training" / "state.pt")
    again = command("ofa-train", *words, "--resume")
    assert again.returncode == 0, again.stderr
    card = read_checkpoint(tmp_path / "out").card
    assert (card["steps"], card["machine"]["processes"]) == (3, 1)


def process_of(parent: int, rank: int) -> int:
    """The process of that rank among those that torchrun started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in children:
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no process of rank {rank} among {children}")


@pytest.mark.slow
def test_two_processes_share_the_evaluation(shapes_folder: Path, tmp_path: Path) -> None:
    """The checkpoint is what one process makes of the same weights; what is told is told once."""
    words = ["--data", str(shapes_folder), *WORDS, "--epochs", "0.34"]
    line = [*TORCHRUN, "2", "-m", "ofa.train", "--output", str(tmp_path / "two"), *words]
    made = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode == 0, made.stderr
    assert made.stderr.count("images to train on") == 1
    two = read_checkpoint(tmp_path / "two")
    assert two.card["machine"]["processes"] == 2
    folder = shutil.copytree(tmp_path / "two" / "training", tmp_path / "one" / "training")
    (kept,) = folder.glob("subnets-*.csv")
    # A full disk, or a kill, left half of a line: that subnet and the one after it are evaluated.
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:-2]) + lines[-2][:-4])
    again = command("ofa-train", *words, "--output", tmp_path / "one", "--resume")
    assert again.returncode == 0, again.stderr
    one = read_checkpoint(tmp_path / "one")
    assert (one.evaluated.genotypes == two.evaluated.genotypes).all()
    assert (one.evaluated.accuracy == two.evaluated.accuracy).all()
    assert one.sha256 == two.sha256


@pytest.mark.slow
def test_what_all_processes_meet_is_told_once(shapes_folder: Path, tmp_path: Path) -> None:
    words = ["--data", str(shapes_folder), "--output", str(tmp_path), *WORDS, "--resume"]
    line = [*TORCHRUN, "2", "-m", "ofa.train", *words]
    refused = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode != 0
    assert refused.stderr.count("error: ") == 1
    assert "no training state to resume" in refused.stderr
