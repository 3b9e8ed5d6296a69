"""Training on real (small) images: it learns, survives a kill, and returns from a collapse."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ofa import train
from ofa.errors import UserError
from ofa.evaluate import Evaluator
from ofa.images import split
from ofa.layers import lower, macs
from ofa.recipe import RECIPES, Phase, get_recipe
from ofa.sampling import Sampler, informative, one_hot, spread
from ofa.space import Genotypes, Space
from ofa.spaces import get_space
from ofa.train import SAVE_EVERY, plan_step
from tests.ofa.tiny_run import RECIPE, tiny_run
from tests.strategies import TINY, spaces

STEPS = 350


@pytest.fixture(scope="module")
def straight(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run that was never interrupted."""
    run = tiny_run(shapes_folder, tmp_path_factory.mktemp("straight"))
    run.train(STEPS, lambda _: None)
    return run


@pytest.mark.slow
def test_every_size_learns_in_seconds(straight) -> None:
    """Chance is 20 %."""
    evaluator = Evaluator(split(straight.splits.train, 64, 1)[1], straight.splits.held_out)
    shared = straight.model.shared
    largest = evaluator.accuracy(straight.space, TINY.largest(32), shared)
    smallest = evaluator.accuracy(straight.space, TINY.smallest(32), shared)
    assert largest > 60
    assert smallest > 45


@pytest.mark.slow
def test_killed_and_resumed_is_straight(straight, shapes_folder: Path, tmp_path: Path) -> None:
    """Law 7: SIGKILL at an arbitrary moment, twice; then the same weights, bit for bit."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "tests.ofa.tiny_run",
        shapes_folder,
        tmp_path,
        str(STEPS),
    ]
    for stop_at in (SAVE_EVERY + 37, 2 * SAVE_EVERY + 3):
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        for line in worker.stdout:
            if int(line) >= stop_at:
                worker.kill()
                break
        worker.communicate()
        assert worker.returncode == -signal.SIGKILL
    subprocess.run(command, check=True, capture_output=True)
    resumed = torch.load(tmp_path / "state.pt", weights_only=True)
    assert resumed["counters"]["step"] == STEPS
    for name, value in straight.model.numpy().items():
        assert (resumed["model"][name].numpy() == value).all(), name
    with (tmp_path / "log.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_another_run_is_not_resumed(straight, shapes_folder: Path, tmp_path: Path) -> None:
    """What differs is said: in the recipe, or in one picture of the same name."""
    with pytest.raises(UserError, match=r"differs in recipe\.lr: 0\.005 there, 0\.001 here"):
        tiny_run(shapes_folder, straight.folder, replace(RECIPE, lr=1e-3))
    first, *others = RECIPE.phases
    longer = replace(RECIPE, phases=(replace(first, random=1), *others))
    with pytest.raises(UserError, match=r"differs in recipe\.phases\.0\.random: 0 there, 1 here"):
        tiny_run(shapes_folder, straight.folder, longer)
    images = shutil.copytree(shapes_folder, tmp_path / "images")
    name = straight.splits.train.names[0]
    with Image.open(images / name) as picture:
        picture.rotate(180).save(images / name)
    with pytest.raises(UserError, match="differs in pixels"):
        tiny_run(images, straight.folder)
    with pytest.raises(UserError, match="differs in init: none there, another here"):
        tiny_run(shapes_folder, straight.folder, init="another")


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_state(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "SAVE_EVERY", 10)
    run = tiny_run(shapes_folder, tmp_path)

    def fill(progress) -> None:
        if progress.step == 25:
            (tmp_path / "state.partial").symlink_to("/dev/full")

    with pytest.raises(UserError, match="the state of step 30 cannot be written"):
        run.train(40, fill)
    assert not (tmp_path / "state.partial").is_symlink()
    again = tiny_run(shapes_folder, tmp_path)
    assert again.step == 20
    again.train(40, lambda _: None)
    assert again.step == 40


@pytest.mark.slow
def test_a_damaged_state_is_refused(straight, shapes_folder: Path, tmp_path: Path) -> None:
    whole = (straight.folder / "state.pt").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"damage" + whole[6:]):
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.raises(UserError, match="no training state to resume"):
            tiny_run(shapes_folder, tmp_path)


@pytest.mark.slow
def test_a_collapse_is_rolled_back(shapes_folder: Path, tmp_path: Path) -> None:
    """Weights made infinite in the middle: the run returns to its last save and ends well."""
    run = tiny_run(shapes_folder, tmp_path)
    notes = []

    def spoil(progress) -> None:
        if progress.note:
            notes.append(progress.note)
        if progress.step == SAVE_EVERY + 20 and not notes:
            with torch.no_grad():
                run.model.shared["head.weight"].fill_(torch.inf)

    run.train(SAVE_EVERY + 60, spoil)
    assert len(notes) == run.rollbacks == 1
    assert f"back to step {SAVE_EVERY}" in notes[0]
    assert all(np.isfinite(value).all() for value in run.model.numpy().values())
    assert run.loss < 1.5


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_is_not_taken(shapes_folder: Path, tmp_path: Path) -> None:
    """In the last step, whose loss is as good as any: it is made again."""
    run = tiny_run(shapes_folder, tmp_path)
    run.model.shared["head.weight"].register_hook(
        lambda grad: grad * (torch.inf if run.step == 19 and not run.rollbacks else 1)
    )
    run.train(20, lambda _: None)
    assert (run.step, run.rollbacks) == (20, 1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state["model"].values())


def test_rates_rise_and_fall_and_only_kernels_decay(shapes_folder: Path, tmp_path: Path) -> None:
    """Warm-up over ``warmup`` steps, then a cosine; biases and kernel matrices keep their size."""
    run = tiny_run(shapes_folder, tmp_path, replace(RECIPE, warmup=10, lr=1.0))
    run.phase_index, run.steps = 0, 1000
    ends = (400, 700, 1000)
    found = []
    for run.step in (0, 4, 9, 200, 399):
        found.append(run._lr(ends))
    cosine = [0.5 * (1 + np.cos(np.pi * step / 1000)) for step in (0, 4, 9, 200, 399)]
    np.testing.assert_allclose(found, np.multiply([0.1, 0.5, 1, 1, 1], cosine))
    decaying, plain = run.optimizer.param_groups
    assert (decaying["weight_decay"], plain["weight_decay"]) == (RECIPE.weight_decay, 0)
    names = {id(value): name for name, value in run.model.shared.items()}
    for group, decays in ((decaying, True), (plain, False)):
        for value in group["params"]:
            name = names[id(value)]
            assert decays == (name.endswith(".weight") and ".bn." not in name), name


def test_large_gradients_are_clipped(shapes_folder: Path, tmp_path: Path) -> None:
    run = tiny_run(shapes_folder, tmp_path, replace(RECIPE, clip=1e-3))
    run.train(1, lambda _: None)
    norms = [p.grad.norm() for p in run.model.parameters() if p.grad is not None]
    assert torch.stack(norms).norm() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.slow
def test_a_collapse_is_not_saved(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses of a network that learned nothing from just before a save on: back to the last one."""
    run = tiny_run(shapes_folder, tmp_path)
    notes = []
    update = run._update

    def spoilt(*step) -> float:
        return update(*step) if run.step < 4 * SAVE_EVERY - 4 or notes else 5.0

    monkeypatch.setattr(run, "_update", spoilt)
    run.train(4 * SAVE_EVERY + 20, lambda p: notes.append(p.note) if p.note else None)
    assert len(notes) == 1
    assert f"back to step {3 * SAVE_EVERY}," in notes[0]
    assert run.loss < 1.5


def test_a_step_is_a_sandwich_inside_its_phase() -> None:
    space = get_space("lite")
    phase = Phase("p", 1.0, kernels=(5,), resolutions=(96, 128), random=2)
    part = phase.restrict(space)
    sampler, rng = Sampler(part), np.random.default_rng(0)
    for _ in range(20):
        views = plan_step(phase, part, sampler, rng)
        assert [view.role for view in views] == ["largest", "smallest", "random", "random"]
        for view in views:
            part.check(view.arch)


def test_subnets_are_spread_over_macs() -> None:
    space = get_space("lite")
    archs = spread(space, 200, np.random.default_rng(0))
    assert len(set(archs)) == 200
    sizes = np.log([macs(lower(space, arch)) for arch in archs])
    counts, _ = np.histogram(sizes, bins=5)
    assert counts.min() >= 10


@given(spaces(), st.integers(4, 30))
def test_few_subnets_are_of_the_space_and_hold_its_ends(space: Space, count: int) -> None:
    archs = spread(space, count, np.random.default_rng(0))
    for arch in archs:
        space.check(arch)
    assert {space.smallest(), space.largest()} <= set(archs)
    assert len(archs) == len(set(archs)) <= count


def test_informative_subnets_tell_more_than_random_ones() -> None:
    """The volume that the choices of twenty span beside ten that are known, and none twice."""
    space, rng = get_space("mcu"), np.random.default_rng(0)
    known = space.encode(spread(space, 10, rng))
    chosen = space.encode(informative(space, known, 20, np.random.default_rng(1)))
    assert len(np.unique(np.concatenate([known, chosen]), axis=0)) == 30

    def volume(genotypes: Genotypes) -> float:
        x = one_hot(space, np.concatenate([known, genotypes]))
        return float(np.linalg.slogdet(np.eye(x.shape[1]) + x.T @ x)[1])

    others = [space.encode(spread(space, 20, np.random.default_rng(i))) for i in range(2, 12)]
    assert volume(chosen) > max(map(volume, others))


@pytest.mark.parametrize("name", RECIPES)
def test_phases_open_the_space(name: str) -> None:
    """Each phase holds what the one before it did, and the last is the whole of it."""
    space, recipe = get_space("lite"), get_recipe(name)
    assert recipe.phase_ends(1000)[-1] == 1000
    sizes = [replace(phase.restrict(space), resolutions=(96,)).size for phase in recipe.phases]
    assert sizes == sorted(sizes)
    assert sizes[-1] == replace(space, resolutions=(96,)).size
