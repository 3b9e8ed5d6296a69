"""Laws 3 and the arithmetic of layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.layers import lower, macs, parameters, same_padding
from ofa.pretrained import LITE0_KERNELS
from ofa.space import Arch, Block, Space
from ofa.spaces import get_space
from ofa.table import tabulate
from tests.strategies import spaces


@given(spaces(), st.integers(0, 2**32 - 1), st.sampled_from(["sum", "max"]))
def test_a_table_prices_as_the_layers_do(space: Space, seed: int, reduce: str) -> None:
    genotypes = space.sample(np.random.default_rng(seed), 10)
    table = tabulate(space, lambda layer: layer.macs + 1, constant=7, reduce=reduce)  # type: ignore[arg-type]
    for row, price in zip(genotypes, table.price(genotypes), strict=True):
        each = [layer.macs + 1 for layer in lower(space, space.decode(row))]
        assert price == (7 + sum(each) if reduce == "sum" else max(each))


def test_lite_at_full_size_is_lite0() -> None:
    """385 MMACs and 4,652,008 parameters are the published figures; batch norms fold 2 into 1."""
    space = get_space("lite")
    stages = tuple(
        (Block(kernel, stage.expands[-1]),) * stage.depths[-1]
        for kernel, stage in zip(LITE0_KERNELS, space.stages, strict=True)
    )
    layers = lower(space, Arch(224, stages))
    assert macs(layers) == pytest.approx(385e6, rel=0.005)
    channels = sum(layer.out_shape[2] for layer in layers if layer.has_batch_norm)
    assert parameters(layers) + channels == 4_652_008


@given(spaces(), st.integers(0, 2**32 - 1))
def test_layers_read_what_was_computed_before(space: Space, seed: int) -> None:
    arch = space.decode(space.sample(np.random.default_rng(seed), 1)[0])
    layers = lower(replace(space, classes=3), arch)
    shapes = {"input": (arch.resolution, arch.resolution, 3)}
    for layer in layers:
        assert layer.name not in shapes
        first, *others = (shapes[name] for name in layer.inputs)
        assert first == layer.in_shape
        second = (1, 1, first[2]) if layer.op == "scale" else first
        assert all(shape == second for shape in others)
        shapes[layer.name] = layer.out_shape
    assert layers[-1].out_shape == (1, 1, 3)


@given(st.integers(1, 300), st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2]))
def test_same_padding_is_just_enough(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    out = -(-size // stride)
    assert 0 <= after - before <= 1
    padded = size + before + after
    assert (padded - kernel) // stride + 1 == out or padded == size < kernel
