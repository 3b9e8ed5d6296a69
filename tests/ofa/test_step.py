"""A training step has the gradients of one in torch's stock layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ofa.data import Splits
from ofa.images import open_images
from ofa.recipe import RECIPES
from ofa.space import Space
from ofa.spaces import get_space
from ofa.supernet import initial
from ofa.train import Run, View
from tests.plain import parameters, plain_forward, plain_outputs, plain_step
from tests.strategies import TINY

#: Sides that are even and odd, down to maps that are smaller than a kernel.
SPACES = {
    "tiny": TINY,
    "lite": replace(get_space("lite"), resolutions=(32, 56)),
    "mcu": replace(get_space("mcu"), resolutions=(32, 40)),
    "mbv3-w1.0": replace(get_space("mbv3-w1.0"), resolutions=(32, 44)),
}


def gradients(
    space: Space, folder: Path, step: int, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of one step of a run, and of the same step in stock layers in float64."""
    images = open_images(folder)["train"]
    space = replace(space, classes=len(images.classes))
    recipe = replace(RECIPES["sandwich"], batch=8, clip=1e9)
    tensors = initial(space)
    run = Run(space, recipe, Splits(images, images, None, ()), tensors, None, Path())
    views = run._plan(step, (100,))
    batch = run.loader.load(0, 0, space.resolutions, 0.5)
    run.model.to(dtype)
    for resolution, x in batch.x.items():
        batch.x[resolution] = x.to(dtype)
    run._update(batch, views, 0.0)
    plain = parameters(tensors, torch.float64)
    plain_step(
        space, recipe, plain, torch.optim.SGD(plain.values(), 0.0), views,
        {resolution: x.double() for resolution, x in batch.x.items()}, batch.labels,
    )  # fmt: skip
    ours = {name: p.grad for name, p in run.model.shared.items() if p.grad is not None}
    expected = {name: p.grad for name, p in plain.items() if p.grad is not None}
    frozen = expected.keys() - ours.keys()
    assert frozen <= {name for name in plain if name.endswith("project.bn.bias")}
    assert all(float(expected[name].abs().max()) < 1e-12 for name in frozen)
    return ours, {name: expected[name] for name in ours}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("step", [0, 1])
def test_gradients_are_those_of_stock_layers(
    name: str, step: int, shapes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, where only a wrong formula differs: rounding flips kinks of ReLU6 in float32."""
    monkeypatch.setattr(Tensor, "float", lambda self: self)  # a step's losses are in float32
    ours, expected = gradients(SPACES[name], shapes_folder, step, torch.float64)
    scale = max(float(value.abs().max()) for value in expected.values())
    for key, value in ours.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-10 * scale, msg=key)


class Speaker(nn.Module):
    """A published network that says what it says, whatever it sees."""

    def __init__(self, images: int, classes: int, features: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.words, self.logits, self.rows = (
            2 * torch.randn(shape, generator=rng, dtype=torch.float64)
            for shape in ((images, 20), (images, classes), (20, features))
        )

    def forward(self, _: Tensor) -> tuple[Tensor, Tensor]:
        return self.words, self.logits

    def dark(self, features: Tensor) -> Tensor:
        return features @ self.rows.T


@pytest.mark.parametrize("teacher", ["pretrained", "checkpoint", "frozen"])
def test_what_a_teacher_says_enters_each_loss(
    teacher: str, shapes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients in float64 of the losses as they are written in ``Recipe``."""
    monkeypatch.setattr(Tensor, "float", lambda self: self)
    images = open_images(shapes_folder)["train"]
    space = replace(TINY, classes=len(images.classes))
    recipe = replace(
        RECIPES["sandwich"], batch=8, clip=1e9, teacher=teacher, hard=0.25, dark=0.5,
        temperature=3.0, teacher_resolution=TINY.resolutions[0],
    )  # fmt: skip
    tensors, others = initial(space), parameters(initial(space, 1), torch.float64)
    said = 2 * np.random.default_rng(1).standard_normal((len(images), space.classes))
    speaker = Speaker(8, space.classes, tensors["classifier.weight"].shape[1])
    run = Run(
        space, recipe, Splits(images, images, None, ()), tensors,
        speaker if teacher == "pretrained" else None, Path(),
        taught=said if teacher == "checkpoint" else None,
    )  # fmt: skip
    if teacher == "frozen":
        run._frozen = {name: value.detach() for name, value in others.items()}
    views = run._plan(0, (100,))
    batch = run.loader.load(0, 0, space.resolutions, 0.5)
    run.model.double()
    batch.x.update({resolution: x.double() for resolution, x in batch.x.items()})
    value = run._update(batch, views, 0.0)

    plain = parameters(tensors, torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for view in views:
        x = batch.x[view.arch.resolution]
        features, logits = plain_outputs(space, view, plain, x)
        labels = torch.eye(space.classes, dtype=torch.float64)[batch.labels]
        if teacher == "checkpoint":
            words = torch.from_numpy(said)[batch.rows]
            total = total - 0.25 * (labels * logits.log_softmax(1)).sum(1).mean()
            total = total + 0.75 * divergence(words, logits, 3.0)
            continue
        if teacher == "frozen":
            largest = View("largest", space.largest(view.arch.resolution))
            words = plain_forward(space, largest, others, x).detach()
        else:
            words = speaker.logits
            total = total + 0.5 * divergence(speaker.words, speaker.dark(features), 3.0)
        target = 0.25 * labels + 0.75 * words.softmax(1)
        total = total - (target * logits.log_softmax(1)).sum(1).mean()
    total.backward()
    assert value == pytest.approx(float(total.detach()) / len(views), rel=1e-12)
    scale = max(float(one.grad.abs().max()) for one in plain.values() if one.grad is not None)
    for name, one in run.model.shared.items():
        if one.grad is not None:
            torch.testing.assert_close(one.grad, plain[name].grad, rtol=0, atol=1e-10 * scale)


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Mean KL divergence of softened outputs, times the temperature's square."""
    p, q = (logits.div(temperature).softmax(1) for logits in (teacher, student))
    return temperature**2 * (p * (p / q).log()).sum(1).mean()


def test_gradients_in_float32_are_near(shapes_folder: Path) -> None:
    ours, expected = gradients(SPACES["lite"], shapes_folder, 0, torch.float32)
    got = torch.cat([value.double().reshape(-1) for value in ours.values()])
    true = torch.cat([value.reshape(-1) for value in expected.values()])
    assert (got - true).norm() < 0.05 * true.norm()
    assert torch.cosine_similarity(got, true, 0) > 0.999
