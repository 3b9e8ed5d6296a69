"""A training step has the gradients of one in torch's stock layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ofa.data import Splits
from ofa.images import open_images
from ofa.recipe import RECIPES
from ofa.space import Space
from ofa.spaces import get_space
from ofa.supernet import initial
from ofa.train import Run
from tests.plain import parameters, plain_step
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


def test_gradients_in_float32_are_near(shapes_folder: Path) -> None:
    ours, expected = gradients(SPACES["lite"], shapes_folder, 0, torch.float32)
    got = torch.cat([value.double().reshape(-1) for value in ours.values()])
    true = torch.cat([value.reshape(-1) for value in expected.values()])
    assert (got - true).norm() < 0.05 * true.norm()
    assert torch.cosine_similarity(got, true, 0) > 0.999
