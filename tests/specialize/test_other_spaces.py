"""Squeeze-and-excitation, h-swish, a mixing matrix, torch's padding: the laws hold for them too."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings

from devices.backends.litert import Litert
from devices.backends.ort import OnnxRuntime
from devices.cost import features
from ofa.evaluate import recalibrate
from ofa.layers import INPUT, lower
from ofa.preprocessing import IMAGENET
from ofa.space import Arch
from ofa.supernet import Subnet, Supernet
from ofa.weights import extract, fold, sort_channels
from specialize.export.onnx import onnx_model
from specialize.export.tflite import tflite_model
from specialize.score import statistics_model
from tests.networks import labels_of
from tests.strategies import OTHER, archs
from tests.tiny_checkpoint import random_tensors

TENSORS = random_tensors(OTHER)


@settings(max_examples=20)
@given(archs(OTHER))
def test_one_network(arch: Arch) -> None:
    """Laws 1 and 6: torch's supernet and subnet, ONNX Runtime, LiteRT; and the statistics."""
    layers = lower(OTHER, arch)
    shared = {name: torch.from_numpy(value) for name, value in TENSORS.items()}
    x = torch.from_numpy(
        np.random.default_rng(0).normal(size=(4, 3, *layers[0].in_shape[:2])).astype(np.float32)
    )
    statistics = recalibrate(OTHER, arch, shared, iter([x]))
    weights = extract(layers, TENSORS)
    session = ort.InferenceSession(statistics_model(layers, weights, OTHER.bn_eps))
    found = [value.ravel() for value in session.run(None, {INPUT: x.numpy()})]
    for index, (mean, variance) in enumerate(statistics.values()):
        assert found[2 * index] == pytest.approx(mean, rel=1e-3, abs=1e-4)
        assert found[2 * index + 1] == pytest.approx(variance, rel=1e-3, abs=1e-5)

    folded = fold(layers, weights, statistics, OTHER.bn_eps)
    with torch.no_grad():
        supernet = Supernet(OTHER, TENSORS)(x, arch).numpy()
        subnet = Subnet(layers, folded, OTHER.bn_eps)(x).numpy()
    content = (layers, folded, labels_of(layers), IMAGENET, "other")
    by_ort = OnnxRuntime().run(onnx_model(*content), x.numpy())
    tflite = tflite_model(*content)
    by_litert = Litert().run(tflite, np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
    for logits in (supernet, by_ort, by_litert):
        assert np.abs(logits - subnet).max() <= 1e-4 * np.abs(subnet).max()
    plan = Litert()._load(tflite)._get_ops_details()
    assert plan[-1]["op_name"] == "DELEGATE"  # all of it is XNNPACK's
    kinds = Counter(op["op_name"] for op in plan)
    assert kinds["HARD_SWISH"] == sum(layer.activation == "hswish" for layer in layers)
    strided = [layer for layer in layers if layer.stride == 2]
    assert kinds["PAD"] == sum(layer.in_shape[0] % 2 == 0 for layer in strided)


def test_sorting_leaves_the_function_at_full_width() -> None:
    ordered = sort_channels(OTHER, TENSORS)
    x = torch.randn(2, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    arch = OTHER.largest(30)
    with torch.no_grad():
        before, after = (Supernet(OTHER, t)(x, arch).numpy() for t in (TENSORS, ordered))
    assert np.abs(after - before).max() <= 1e-4 * np.abs(before).max()
    columns = np.abs(ordered["s2.b1.project.weight"]).sum((0, 2, 3))
    assert (np.diff(columns) <= 1e-6).all()
    squeezed = np.abs(ordered["s2.b1.excite.weight"]).sum((0, 2, 3))
    assert (np.diff(squeezed) <= 1e-6).all()


def test_what_its_operators_cost() -> None:
    """Squeeze-and-excitation: a pool, two products, a multiplication; h-swish is an operator."""
    layers = {layer.name: layer for layer in lower(OTHER, OTHER.largest(24))}
    pixels = 3 * 3 * 72 / 1e6
    assert features(layers["s2.b1.squeeze"]) == {"n": 1, "pool.ops": pixels}
    assert features(layers["s2.b1.reduce"]) == {"n": 1, "fc.w": 72 * 24 / 1e6}
    assert features(layers["s2.b1.scale"]) == {"n": 1, "mem.io": 3 * pixels}
    assert features(layers["s2.b1.expand"])["mem.io"] == pytest.approx(2 * pixels)
    padded = features(layers["stem"])  # 24 + 2 pixels of three channels
    assert padded["mem.io"] == pytest.approx((24**2 + 26**2) * 3 / 1e6 + 2 * 12**2 * 8 / 1e6)
    assert padded["n"] == 3
