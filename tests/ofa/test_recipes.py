"""Recipes: stages, teachers, divergences, the moving average, bfloat16, and one of your own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ofa import train
from ofa.checkpoint import read_checkpoint
from ofa.data import splits_of
from ofa.recipe import RECIPES, Recipe
from ofa.train import Run, adaptive_alpha
from tests.ofa.tiny_run import RECIPE, tiny_run
from tests.strategies import TINY

EVERYTHING = replace(RECIPE, teacher="frozen", distill="alpha", hard=0.3, ema=0.9)


def divergence(logits: Tensor, p: Tensor, alpha: float, clip: float = torch.inf) -> Tensor:
    """Of each image, as the paper writes it: alpha = 1 is the limit."""
    q = logits.softmax(1)
    if alpha == 1:
        return (p * (p / q).log()).sum(1)
    return (q * ((p / q).pow(alpha).clamp(max=clip) - 1)).sum(1) / (alpha * (alpha - 1))


def test_alpha_divergence_is_the_larger_of_two() -> None:
    """Value and gradient, on outputs so near that no ratio is clipped."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    teacher = (logits.detach() + 0.3 * torch.randn(50, 6, generator=rng)).softmax(1)
    both = torch.stack([divergence(logits, teacher, alpha) for alpha in (-1.0, 1.0)])
    assert both.argmax(0).unique().tolist() == [0, 1]
    expected = both.max(0).values.mean()
    found = adaptive_alpha(logits, teacher)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_alpha_divergence_is_clipped_and_finite() -> None:
    """Where the teacher has next to nothing, the ratio is 5."""
    logits = torch.tensor([[4.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.01, 0.495, 0.495]])
    both = divergence(logits, teacher, -1.0, 5.0), divergence(logits, teacher, 1.0)
    torch.testing.assert_close(adaptive_alpha(logits, teacher), torch.cat(both).max())
    certain = torch.eye(3)[:1]
    value = adaptive_alpha(100 * logits.flip(1), certain)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_shrink_opens_in_the_stages_of_the_reference() -> None:
    recipe = RECIPES["shrink"]
    names = ["largest", "kernel", "depth, two", "depth", "width, two", "width"]
    assert [phase.name for phase in recipe.phases] == names
    assert recipe.phase_ends(605) == (180, 305, 330, 455, 480, 605)
    assert [max(1, p.random) for p in recipe.phases] == [1, 1, 2, 2, 4, 4]


def test_a_phase_has_its_own_learning_rate(shapes_folder: Path, tmp_path: Path) -> None:
    first, *others = RECIPE.phases
    recipe = replace(RECIPE, warmup=1, phases=(replace(first, lr=0.5), *others))
    run = tiny_run(shapes_folder, tmp_path, recipe)
    run.steps, run.phase_index = 100, 0
    ends = recipe.phase_ends(100)
    rates = []
    for run.step in range(40):
        rates.append(run._lr(ends))
    assert rates[0] == 0.5
    assert rates[20] == pytest.approx(0.25)
    assert rates[39] < 0.001
    run.step, run.phase_index = 50, 1
    assert run._lr(ends) == pytest.approx(recipe.lr / 2)


class Killed(Exception):
    pass


def stopped_and_resumed(images: Path, folder: Path, recipe: Recipe, steps: int) -> Run:
    """A run that went on after it was stopped in its last phase, past a save."""

    def stop(progress: train.Progress) -> None:
        if progress.step == steps - 5:
            raise Killed

    with pytest.raises(Killed):
        tiny_run(images, folder, recipe).train(steps, stop)
    run = tiny_run(images, folder, recipe)
    run.train(steps, lambda _: None)
    return run


@pytest.mark.slow
def test_teacher_and_average_survive_a_stop(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frozen teacher is the average of the first phase; both are resumed bit for bit."""
    monkeypatch.setattr(train, "SAVE_EVERY", 10)
    straight = tiny_run(shapes_folder, tmp_path / "straight", EVERYTHING)
    seen: dict[int, dict[str, Tensor]] = {}

    def look(progress: train.Progress) -> None:
        if progress.step in (16, 39):
            seen[progress.step] = {k: v.clone() for k, v in straight.weights.items()}

    straight.train(40, look)
    resumed = stopped_and_resumed(shapes_folder, tmp_path / "resumed", EVERYTHING, 40)
    assert straight._frozen is not None
    assert resumed._frozen is not None
    for name, value in straight.weights.items():
        assert torch.equal(seen[16][name], straight._frozen[name]), name
        assert torch.equal(value, resumed.weights[name]), name
        assert torch.equal(straight.model.shared[name], resumed.model.shared[name]), name
        assert torch.equal(straight._frozen[name], resumed._frozen[name]), name
    # It follows the weights: a mean of the last one and what it was before.
    name = "head.weight"
    age = 40 - 28 - 1
    decay = min(0.9, (1 + age) / (10 + age))
    expected = decay * seen[39][name] + (1 - decay) * straight.model.shared[name].detach()
    torch.testing.assert_close(straight.weights[name], expected)


def test_what_a_checkpoint_teaches_is_of_the_image_at_hand(
    shapes_folder: Path, tmp_path: Path
) -> None:
    """A teacher that takes each class for the next one."""
    train_images = splits_of(shapes_folder, None, 60, 0).train
    wrong = (train_images.labels + 1) % len(train_images.classes)
    lessons = 8 * np.eye(len(train_images.classes), dtype=np.float32)[wrong]
    recipe = replace(RECIPE, teacher="checkpoint", temperature=2.0)
    run = tiny_run(shapes_folder, tmp_path, recipe, lessons)
    run.train(150, lambda _: None)
    batch = run.loader.load(0, 0, [TINY.resolutions[-1]], 1.0)
    x = batch.x[TINY.resolutions[-1]]
    guesses = run.model(x, run.space.largest()).argmax(1)
    assert (guesses == torch.from_numpy(wrong)[batch.rows]).float().mean() > 0.8


def test_the_average_begins_anew_where_channels_are_sorted(
    shapes_folder: Path, tmp_path: Path
) -> None:
    run = tiny_run(shapes_folder, tmp_path, replace(RECIPE, ema=0.9))
    run._begin_phase(0)
    assert run._ema is not None
    run._ema["head.weight"].zero_()
    run._begin_phase(2)
    for name, value in run.model.shared.items():
        assert torch.equal(run._ema[name], value), name


def test_a_state_of_an_older_version_is_resumed(shapes_folder: Path, tmp_path: Path) -> None:
    """It knows nothing of the fields that a recipe has got since."""
    tiny_run(shapes_folder, tmp_path).train(10, lambda _: None)
    path = tmp_path / "state.pt"
    state = torch.load(path, weights_only=True)
    identity = json.loads(state["identity"])
    for name in ("distill", "ema", "bf16"):
        del identity["recipe"][name]
    for phase in identity["recipe"]["phases"]:
        del phase["lr"]
    del state["ema"], state["frozen"]
    torch.save(state | {"identity": json.dumps(identity)}, path)
    assert tiny_run(shapes_folder, tmp_path).step == 10


@pytest.mark.slow
def test_bfloat16_where_there_is_such(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near what float32 gives; without such instructions float32 itself."""

    def trained(name: str, recipe: Recipe) -> Run:
        run = tiny_run(shapes_folder, tmp_path / name, recipe)
        run.train(5, lambda _: None)
        return run

    monkeypatch.setattr(train, "_has_bf16", lambda _: True)  # where it has none it is emulated
    exact, fast = trained("exact", RECIPE), trained("fast", replace(RECIPE, bf16=True))
    assert fast.bf16
    assert fast.loss == pytest.approx(exact.loss, rel=0.05)
    assert fast.loss != exact.loss
    assert all(value.dtype == torch.float32 for value in fast.weights.values())
    monkeypatch.setattr(train, "_has_bf16", lambda _: False)
    assert trained("slow", replace(RECIPE, bf16=True)).loss == exact.loss


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shrink", "sandwich"])
def test_a_recipe_trains_the_tiny_space(name: str, shapes_folder: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPES[name], batch=16, warmup=2)
    run = tiny_run(shapes_folder, tmp_path, recipe)
    run.train(40, lambda _: None)
    assert np.isfinite(run.loss)
    assert (run._frozen is not None) == (name == "shrink")


@pytest.mark.slow
def test_a_recipe_of_your_own(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/training.md, for a moment; the average is what is handed over."""
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    for words, others in (
        ("photos/", str(shapes_folder)),
        ("epochs=20", "epochs=0.5, subnets=2, held_out=50, threads=1, quiet=True"),
    ):
        assert words in example
        example = example.replace(words, others)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    checkpoint = read_checkpoint(tmp_path / "my-supernet")
    assert checkpoint.card["recipe"]["name"] == "mine"
    state = torch.load(tmp_path / "my-supernet" / "training" / "state.pt", weights_only=True)
    for name, value in checkpoint.tensors.items():
        np.testing.assert_allclose(value, state["ema"][name].numpy(), rtol=2e-3, atol=1e-6)
