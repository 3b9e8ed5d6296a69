"""Prices: the published check values, tables equal to sums, and bounds that behave."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.cost import (
    bound_factor,
    features,
    latency_table,
    predict,
    price,
    warnings_for,
)
from devices.profile import Profile, get_profile, load_profiles
from ofa.errors import UserError
from ofa.layers import Layer, Op, lower
from ofa.space import Arch, Space
from ofa.spaces import get_space
from tests.strategies import spaces


class Network:
    """A list of layers, written one after the other."""

    def __init__(self, side: int, channels: int = 3) -> None:
        self.shape, self.layers = (side, side, channels), []

    def add(self, op: Op, channels: int = 0, kernel: int = 1, stride: int = 1) -> None:
        side = 1 if op in ("mean", "linear") else -(-self.shape[0] // stride)
        out = (side, side, channels or self.shape[2])
        self.layers.append(Layer(op, op, (), self.shape, out, kernel, stride))
        self.shape = out

    def block(self, expand: int, channels: int, kernel: int, stride: int) -> None:
        width = self.shape[2]
        if expand > 1:
            self.add("conv", width * expand)
        self.add("depthwise", kernel=kernel, stride=stride)
        self.add("conv", channels)
        if stride == 1 and width == channels:
            self.add("add")

    def features(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for layer in self.layers:
            total.update(features(layer))
        return total


def mobilenet_v2() -> Network:
    """MobileNetV2 1.0 at 224 px (Sandler et al. 2018, table 2)."""
    net = Network(224)
    net.add("conv", 32, 3, 2)
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
             (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
    for expand, channels, repeats, stride in table:
        for index in range(repeats):
            net.block(expand, channels, 3, stride if index == 0 else 1)
    net.add("conv", 1280)
    net.add("mean")
    net.add("linear", 1000)
    return net


def test_features_of_mobilenet_v2() -> None:
    expected = {
        "n": 64, "stem.macs": 10.838, "stem.io": 0.5519, "pw.macs": 267.94, "pw.in": 2.8741,
        "pw.out": 3.9749, "pw.w": 2.1247, "dw.k3": 20.716, "dw.in": 3.7412, "dw.out": 2.3018,
        "dw.s2": 0.4798, "fc.w": 1.28, "mem.io": 0.6492, "pool.ops": 0.0627,
    }  # fmt: skip
    assert dict(mobilenet_v2().features()) == pytest.approx(expected, rel=1e-3)


def test_features_of_one_block() -> None:
    net = Network(28, 32)
    net.block(6, 32, 5, 1)
    expected = {
        "n": 4, "pw.macs": 9.633792, "pw.in": 0.175616, "pw.out": 0.175616, "pw.w": 0.012288,
        "dw.k3": 1.354752, "dw.k5": 2.408448, "dw.in": 0.150528, "dw.out": 0.150528,
        "mem.io": 0.075264,
    }  # fmt: skip
    assert dict(net.features()) == pytest.approx(expected, rel=1e-6)
    pixel = get_profile("pixel4")
    assert sum(price(pixel, layer) for layer in net.layers) == pytest.approx(1.372, abs=5e-4)


@pytest.mark.parametrize(
    ("device", "ms"),
    [("pixel4", 25.51), ("pixel4-int8", 13.38), ("pixel4-gpu", 5.81), ("note10", 22.71),
     ("iphonexs", 17.37), ("rpi4", 48.09), ("stm32h7", 1093.1)],
)  # fmt: skip
def test_prices_of_mobilenet_v2(device: str, ms: float) -> None:
    latency = predict(get_profile(device), mobilenet_v2().layers)
    assert latency.point == pytest.approx(ms, rel=5e-4)
    if device == "pixel4":
        assert latency.bound == pytest.approx(27.65, abs=0.01)


def test_an_operator_without_a_price_is_a_bug() -> None:
    """Counting it as free would be a hole that a search finds."""
    unknown = replace(mobilenet_v2().layers[0], op="softmax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not price 'softmax'"):
        features(unknown)


@given(st.sampled_from(load_profiles()), st.sampled_from([1, 2]), st.integers(8, 64))
def test_a_larger_kernel_is_never_cheaper(profile: Profile, stride: int, side: int) -> None:
    prices = []
    for kernel in (3, 5, 7, 9):
        net = Network(side, 16)
        net.add("depthwise", 16, kernel, stride)
        prices.append(price(profile, net.layers[0]))
    assert prices == sorted(prices)
    assert prices[0] < prices[-1]


@given(spaces(), st.sampled_from(load_profiles()), st.integers(0, 2**32 - 1))
def test_a_table_is_the_sum_over_layers(space: Space, profile: Profile, seed: int) -> None:
    genotypes = space.sample(np.random.default_rng(seed), 5)
    for row, ms in zip(genotypes, latency_table(space, profile).price(genotypes), strict=True):
        assert ms == pytest.approx(predict(profile, lower(space, space.decode(row))).point)


@given(st.sampled_from(load_profiles()), st.floats(0.5, 0.95), st.floats(0.5, 0.95))
def test_a_bound_grows_with_confidence(profile: Profile, a: float, b: float) -> None:
    """Law 9; beyond what the data supports it is refused instead of invented."""
    low, high = sorted((a, b))
    assert 1 <= bound_factor(profile, low) <= bound_factor(profile, high)
    for beyond in (0.49, 0.96, float("nan")):
        with pytest.raises(UserError, match="has no bound at confidence"):
            bound_factor(profile, beyond)


def test_what_was_not_measured_is_said() -> None:
    space = get_space("lite")
    pixel = get_profile("pixel")
    large, small = (lower(space, Arch(r, space.largest().stages)) for r in (224, 96))
    assert warnings_for(pixel, large, 30.0) == []
    assert "fitted on networks of 224 px; this one has 96 px" in warnings_for(pixel, small, 5.0)[0]
    assert any("outside" in text for text in warnings_for(pixel, large, 0.5))
    assert any("grade C" in text for text in warnings_for(get_profile("rpi4"), large, 50.0))
    assert warnings_for(get_profile("pixel4-gpu"), large, 9.0) == []
    board, few = get_profile("stm32h7"), Arch.parse("r96 3x3e1 3x3e4 3x3e3 3x3e4 3x3e3 3x3e4 3x3e3")
    for arch, said in ((few, False), (Arch(96, space.largest().stages), True)):
        found = warnings_for(board, lower(space, arch), 100.0)
        assert any("larger depthwise kernels" in text for text in found) == said
