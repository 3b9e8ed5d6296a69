"""Memory from the layers, against real files and tflite-micro's recorded arenas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.backends.qemu import Qemu
from devices.backends.tflm import Tflm
from devices.memory import ENGINES, arena_bytes, flash_table, live_bytes, sram_table
from ofa.layers import lower
from ofa.preprocessing import LITE0
from ofa.sampling import Sampler
from ofa.space import Arch, Space
from ofa.spaces import get_space
from ofa.supernet import initial
from ofa.weights import extract, fold
from specialize.export.tflite import tflite_model
from tests.commands import need
from tests.networks import int8_file
from tests.strategies import OTHER, TINY, archs

LITE = get_space("lite")
MCU = replace(get_space("mcu"), classes=10)


def subnets(count: int) -> Iterator[Arch]:
    """Spread over MACs, at every resolution."""
    sampler, rng = Sampler(MCU), np.random.default_rng(0)
    for index in range(count):
        yield sampler.draw(rng, MCU.resolutions[index % len(MCU.resolutions)])


@given(st.data(), st.sampled_from([TINY, OTHER]))
def test_the_table_of_sram_is_the_peak_of_what_is_alive(data: st.DataObject, space: Space) -> None:
    arch = data.draw(archs(space))
    peak = max(live_bytes(lower(space, arch)))
    assert sram_table(space).price(space.encode([arch]))[0] == peak


def test_a_shortcut_is_kept_alive() -> None:
    """By hand: 96 px, 24 channels at 24 x 24, 6 times as many inside."""
    layers = lower(LITE, LITE.largest(96))
    alive = dict(zip([layer.name for layer in layers], live_bytes(layers), strict=True))
    pixels = 4 * 24 * 24
    assert alive["s1.b1.expand"] == pixels * (24 + 144)
    assert alive["s1.b1.depthwise"] == pixels * (24 + 144 + 144)
    assert alive["s1.b1.project"] == pixels * (24 + 144 + 24)
    assert alive["s1.b1.add"] == pixels * (24 + 24 + 24)


def test_what_is_between_the_operators_of_a_layer_counts() -> None:
    """By hand: padding of its own, h-swish after it, and a hard sigmoid in two steps."""
    space = get_space("mbv3-w1.0")
    layers = lower(space, space.largest(128))
    alive = dict(zip([layer.name for layer in layers], live_bytes(layers), strict=True))
    image, padded, map_out = 128 * 128 * 3, 130 * 130 * 3, 64 * 64 * 16
    assert alive["stem"] == 4 * max(image + padded, padded + map_out, 2 * map_out)
    assert alive["s2.b0.excite"] == 4 * (16 * 16 * 144 + 2 * 144)


@pytest.mark.parametrize(("name", "above"), [("lite", 0.01), ("mcu", 0.03), ("mbv3-w1.0", 0.01)])
def test_the_table_of_flash_is_never_below_the_file_and_hardly_above(
    name: str, above: float
) -> None:
    space = get_space(name)
    tensors, labels = initial(space), [f"class {i}" for i in range(space.classes)]
    genotypes = space.sample(np.random.default_rng(0), 6)
    bounds = flash_table(space, labels).price(genotypes)
    for row, bound in zip(genotypes, bounds, strict=True):
        layers = lower(space, space.decode(row))
        statistics = {
            layer.name: (np.zeros(layer.out_shape[2]), np.ones(layer.out_shape[2]))
            for layer in layers
            if layer.has_batch_norm
        }
        folded = fold(layers, extract(layers, tensors), statistics, space.bn_eps)
        size = len(tflite_model(layers, folded, labels, LITE0, "a network of some length"))
        assert (1 - above) * bound < size <= bound


@settings(max_examples=20)
@given(archs(), st.sampled_from(sorted(ENGINES)))
def test_the_table_of_an_arena_is_the_arena_but_for_gaps(arch: Arch, name: str) -> None:
    priced = sram_table(TINY, "int8", ENGINES[name]).price(TINY.encode([arch]))[0]
    assert priced <= arena_bytes(lower(TINY, arch), ENGINES[name]) <= 1.2 * priced


@pytest.mark.slow
def test_arenas_are_never_below_the_recorded_ones_and_hardly_above() -> None:
    """In tflite-micro's interpreter on this machine, for any number of classes."""
    need("tflm")
    tflm = Tflm()
    for space, arch in [
        *((MCU, arch) for arch in subnets(10)),
        (replace(MCU, classes=2), MCU.smallest(32)),
        (replace(LITE, classes=100), LITE.smallest(96)),
        (replace(MCU, padding="symmetric"), MCU.largest(40)),
    ]:
        layers = lower(space, arch)
        image = np.zeros((1, *layers[0].in_shape), np.int8)
        _, recorded = tflm.run(int8_file(space, arch), image)
        assert recorded.total <= arena_bytes(layers, ENGINES["host"]) <= 1.02 * recorded.total


@pytest.mark.slow
def test_so_it_is_in_the_firmware_of_a_cortex_m55() -> None:
    need("cortex-m55")
    qemu = Qemu()
    padded = replace(MCU, padding="symmetric")
    for space, arch in [*((MCU, arch) for arch in subnets(5)), (padded, padded.smallest(48))]:
        layers = lower(space, arch)
        run = qemu.run(int8_file(space, arch), np.zeros(layers[0].in_shape, np.int8), MCU.classes)
        assert run.arena <= arena_bytes(layers, ENGINES["cortex-m55"]) <= 1.02 * run.arena
