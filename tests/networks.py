"""Networks with random weights, as a specializer would cut and fold them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofa.layers import Layer, lower
from ofa.preprocessing import LITE0
from ofa.space import Arch, Space
from ofa.weights import Weights, extract, fold
from specialize.export.quantize import quantize
from specialize.export.tflite import tflite_model
from tests.tiny_checkpoint import random_tensors

__all__ = ["int8_file", "labels_of", "network", "pixels_of"]


def network(space: Space, arch: Arch, seed: int = 0) -> tuple[tuple[Layer, ...], Weights]:
    """Layers and folded weights, from random shared tensors and random statistics."""
    rng = np.random.default_rng(seed)
    layers = lower(space, arch)
    statistics = {
        layer.name: (
            rng.normal(0, 0.3, layer.out_shape[2]).astype(np.float32),
            rng.uniform(0.3, 2, layer.out_shape[2]).astype(np.float32),
        )
        for layer in layers
        if layer.has_batch_norm
    }
    weights = extract(layers, random_tensors(space, seed))
    return layers, fold(layers, weights, statistics, space.bn_eps)


def int8_file(space: Space, arch: Arch, seed: int = 0) -> bytes:
    """A TFLite file of ``network``."""
    layers, folded = network(space, arch, seed)
    images = LITE0.normalize(pixels_of(layers)).transpose(0, 3, 1, 2)
    quantized = quantize(layers, folded, np.ascontiguousarray(images))
    return tflite_model(layers, folded, labels_of(layers), LITE0, "test", quantized)


def labels_of(layers: Sequence[Layer]) -> list[str]:
    """A name for each class."""
    return [f"class {i}" for i in range(layers[-1].out_shape[2])]


def pixels_of(layers: Sequence[Layer], count: int = 2, seed: int = 0) -> NDArray[np.uint8]:
    """Noise images (N, H, W, 3) of the network's resolution."""
    shape = (count, *layers[0].in_shape)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
