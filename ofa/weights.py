"""Which slice of which shared tensor a layer uses.

Width is a prefix of channels, depth a prefix of blocks, a small kernel the centre of the large
one passed through a learned matrix (Cai et al. 2020, sec. 3.3). ``cut`` says so with indexing and
``@`` only, so that the same code gives torch tensors with gradients (the supernet's forward) and
numpy views (``extract``).

Tensor names are ``<layer name>.<part>``; convolutions are stored (out, in / groups, k, k):

    stem.weight  stem.bn.weight  stem.bn.bias        s1.b0.expand.weight  ...
    s1.b0.depthwise.weight (largest kernel)          s1.b0.depthwise.to3 (9, 9)
    s1.b0.reduce.weight  s1.b0.reduce.bias  s1.b0.excite.weight  s1.b0.excite.bias
    head.weight ...  mix.weight  classifier.weight  classifier.bias
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.layers import Layer, lower, macs
from ofa.space import Space

__all__ = [
    "RECALIBRATION_BATCH",
    "Array",
    "Statistics",
    "Weights",
    "cut",
    "extract",
    "fold",
    "recalibration_images",
    "reordered",
    "shapes",
    "sort_channels",
]

#: Images a batch when batch norms are recalibrated: a subnet's statistics depend on it slightly.
RECALIBRATION_BATCH = 20
#: MACs of the largest subnet that recalibrating may take; see ``recalibration_images``.
_RECALIBRATION_MACS = 23_000_000_000

Array = NDArray[np.float32]
#: Layer name -> its own tensors: weight, gamma and beta, or weight and bias.
Weights = dict[str, dict[str, Array]]
#: Layer name -> (mean, variance) of its batch norm, each (C,).
Statistics = Mapping[str, tuple[Array, Array]]


def shapes(space: Space) -> dict[str, tuple[int, ...]]:
    """Name and shape of every shared tensor of a supernet."""
    result: dict[str, tuple[int, ...]] = {}
    for layer in lower(space, space.largest()):
        out, into = layer.out_shape[2], layer.in_shape[2]
        if layer.has_weights and not layer.has_batch_norm:
            side = (layer.kernel, layer.kernel) if layer.op == "conv" else ()
            result[f"{layer.name}.weight"] = (out, into, *side)
            if layer.bias:
                result[f"{layer.name}.bias"] = (out,)
        elif layer.has_batch_norm:
            into = 1 if layer.op == "depthwise" else into
            result |= {
                f"{layer.name}.weight": (out, into, layer.kernel, layer.kernel),
                f"{layer.name}.bn.weight": (out,),
                f"{layer.name}.bn.bias": (out,),
            }
            if layer.op == "depthwise" and layer.block is not None:
                smallest = space.stages[layer.block[0]].kernels[0]
                for kernel in range(smallest, layer.kernel, 2):  # cut step by step
                    result[f"{layer.name}.to{kernel}"] = (kernel**2, kernel**2)
    return result


def cut(layer: Layer, shared: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of ``layer``, cut out of the shared ones (all torch, or all numpy)."""
    out, into = layer.out_shape[2], layer.in_shape[2]
    if not layer.has_weights:
        raise ValueError(f"{layer.op} has no weights")
    weight = shared[f"{layer.name}.weight"]
    match layer.op:
        case "conv" | "linear":
            weight = weight[:out, :into]
        case "depthwise":
            weight = weight[:out]
            while weight.shape[-1] > layer.kernel:
                side = weight.shape[-1] - 2
                matrix = shared[f"{layer.name}.to{side}"]
                centre = weight[:, :, 1:-1, 1:-1].reshape(out, side**2)
                weight = (centre @ matrix.T).reshape(out, 1, side, side)
    if not layer.has_batch_norm:
        bias = {"bias": shared[f"{layer.name}.bias"][:out]} if layer.bias else {}
        return {"weight": weight, **bias}
    return {
        "weight": weight,
        "gamma": shared[f"{layer.name}.bn.weight"][:out],
        "beta": shared[f"{layer.name}.bn.bias"][:out],
    }


def extract(layers: Iterable[Layer], shared: Mapping[str, Array]) -> Weights:
    """Every layer's own tensors: views into ``shared`` but for transformed kernels."""
    return {layer.name: cut(layer, shared) for layer in layers if layer.has_weights}


def recalibration_images(space: Space) -> int:
    """Number of images to recalibrate with: what a number of MACs pays for, from 60 to 512.

    Of photos at 96 pixels and more, in balanced batches, 60 gave what 250 gave. At 32 to 64 pixels
    the last maps have few: of CIFAR-10, 60 images cost 1.2 points, 256 0.2 points (mean of seven
    subnets on 3,000 images), and 1024 gave what 512 gave.
    """
    return min(512, max(60, _RECALIBRATION_MACS // macs(lower(space, space.largest()))))


def fold(layers: Iterable[Layer], weights: Weights, statistics: Statistics, eps: float) -> Weights:
    """Weights and biases that hold the batch norms: layer name -> {weight, bias}, float32."""
    folded: Weights = {}
    for layer in layers:
        if not layer.has_weights:
            continue
        own = weights[layer.name]
        if not layer.has_batch_norm:
            bias = own.get("bias", np.zeros(layer.out_shape[2]))
            folded[layer.name] = {
                key: np.asarray(value, np.float32)
                for key, value in (("weight", own["weight"]), ("bias", bias))
            }
            continue
        mean, variance = (np.asarray(value, np.float64) for value in statistics[layer.name])
        scale = own["gamma"] / np.sqrt(variance + eps)
        folded[layer.name] = {
            "weight": (own["weight"] * scale[:, None, None, None]).astype(np.float32),
            "bias": (own["beta"] - mean * scale).astype(np.float32),
        }
    return folded


def sort_channels(space: Space, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Shared tensors with the channels inside each block sorted by importance, largest first.

    Importance is the L1 norm of the projection's weights that read a channel (Cai et al. 2020,
    sec. 3.3). The function of the supernet at full width is unchanged; every smaller width then
    keeps the channels that matter most. Run it once, before widths open.
    """
    result = dict(shared)
    for s, b in space.positions:
        prefix = f"s{s}.b{b}"
        if f"{prefix}.expand.weight" not in shared:
            continue
        order = (-abs(shared[f"{prefix}.project.weight"]).sum((0, 2, 3))).argsort()
        result |= reordered(shared, prefix, order)
        if f"{prefix}.excite.weight" in shared:
            weight = result[f"{prefix}.excite.weight"]
            inner = (-abs(weight).sum((0, 2, 3))).argsort()
            result[f"{prefix}.excite.weight"] = weight[:, inner]
            for part in ("weight", "bias"):
                result[f"{prefix}.reduce.{part}"] = result[f"{prefix}.reduce.{part}"][inner]
    return result


def reordered(shared: Mapping[str, Any], prefix: str, order: Any) -> dict[str, Any]:
    """The tensors of a block with its inner channels in another order; its function is the same."""
    result = {
        key: shared[key][order]
        for name in ("expand", "depthwise")
        for key in (f"{prefix}.{name}.{part}" for part in ("weight", "bn.weight", "bn.bias"))
    }
    if f"{prefix}.excite.weight" in shared:
        result |= {
            key: shared[key][order] for key in (f"{prefix}.excite.weight", f"{prefix}.excite.bias")
        }
        result[f"{prefix}.reduce.weight"] = shared[f"{prefix}.reduce.weight"][:, order]
        result[f"{prefix}.reduce.bias"] = shared[f"{prefix}.reduce.bias"]
    key = f"{prefix}.project.weight"
    return {**result, key: shared[key][:, order]}
