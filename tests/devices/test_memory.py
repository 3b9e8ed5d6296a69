"""Memory from the layers, against real files and tflite-micro's recorded arenas."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from devices.memory import flash_table, live_bytes, sram_table
from ofa.layers import lower
from ofa.preprocessing import LITE0
from ofa.space import Arch
from ofa.spaces import get_space
from ofa.supernet import initial
from ofa.weights import extract, fold
from specialize.export.tflite import tflite_model
from tests.strategies import TINY, archs

LITE = get_space("lite")


@given(archs())
def test_the_table_of_sram_is_the_peak_of_what_is_alive(arch: Arch) -> None:
    peak = max(live_bytes(lower(TINY, arch)))
    assert sram_table(TINY).price(TINY.encode([arch]))[0] == peak


def test_a_shortcut_is_kept_alive() -> None:
    """By hand: 96 px, 24 channels at 24 x 24, 6 times as many inside."""
    layers = lower(LITE, LITE.largest(96))
    alive = dict(zip([layer.name for layer in layers], live_bytes(layers), strict=True))
    pixels = 4 * 24 * 24
    assert alive["s1.b1.expand"] == pixels * (24 + 144)
    assert alive["s1.b1.depthwise"] == pixels * (24 + 144 + 144)
    assert alive["s1.b1.project"] == pixels * (24 + 144 + 24)
    assert alive["s1.b1.add"] == pixels * (24 + 24 + 24)


def test_the_table_of_flash_is_never_below_the_file_and_hardly_above() -> None:
    tensors, labels = initial(LITE), [f"class {i}" for i in range(LITE.classes)]
    genotypes = LITE.sample(np.random.default_rng(0), 6)
    bounds = flash_table(LITE, labels).price(genotypes)
    for row, bound in zip(genotypes, bounds, strict=True):
        layers = lower(LITE, LITE.decode(row))
        statistics = {
            layer.name: (np.zeros(layer.out_shape[2]), np.ones(layer.out_shape[2]))
            for layer in layers
            if layer.has_batch_norm
        }
        folded = fold(layers, extract(layers, tensors), statistics, LITE.bn_eps)
        size = len(tflite_model(layers, folded, labels, LITE0, "a network of some length"))
        assert 0.99 * bound < size <= bound
