"""The supernet: shared weights, and a forward pass that takes the architecture as an argument."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ofa.elastic import run
from ofa.layers import Layer, lower
from ofa.space import Arch, Space
from ofa.weights import Array, Weights, cut, extract, fold, shapes

__all__ = ["Subnet", "Supernet", "initial"]


def initial(space: Space, seed: int = 0) -> dict[str, Array]:
    """Shared tensors of an untrained supernet: He-normal convolutions, identity transforms."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    for name, shape in shapes(space).items():
        if name.endswith(".bias"):
            value = np.zeros(shape)
        elif name.endswith(".bn.weight"):
            value = np.ones(shape)
        elif name.startswith("classifier"):
            value = rng.normal(0.0, 0.01, shape)
        elif ".to" in name:  # a kernel transform
            value = np.eye(shape[0])
        elif len(shape) == 2:
            value = rng.normal(0.0, np.sqrt(2 / shape[0]), shape)
        else:
            fan_out = shape[2] * shape[3] * (1 if shape[1] == 1 else shape[0])
            value = rng.normal(0.0, np.sqrt(2 / fan_out), shape)
        tensors[name] = value.astype(np.float32)
    return tensors


def _common(space: Space) -> int:
    """Number of first layers that are the same in all architectures: the stem and whole blocks."""
    resolution = space.resolutions[0]
    largest, smallest = (lower(space, f(resolution)) for f in (space.largest, space.smallest))
    pairs = enumerate(zip(largest, smallest, strict=False))
    count = next((index for index, (a, b) in pairs if a != b), 1)
    while largest[count].block == largest[count - 1].block:
        count -= 1
    return count


class Supernet(nn.Module):
    """Shared weights of every architecture of ``space``.

    Batch norms always use the batch's own statistics: shared running ones would be meaningless,
    so a subnet's are recalibrated when it is cut (``ofa.evaluate``, ``specialize.score``).
    """

    def __init__(self, space: Space, tensors: Mapping[str, Array]) -> None:
        super().__init__()
        self.space = space
        self._common = _common(space)
        self._shared: dict[str, nn.Parameter] = {}
        for name in shapes(space):
            parameter = nn.Parameter(torch.from_numpy(np.array(tensors[name], np.float32)))
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
            self._shared[name] = parameter
            *path, leaf = name.split(".")
            module: nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_parameter(leaf, parameter)

    @property
    def shared(self) -> dict[str, nn.Parameter]:
        """The shared tensors by the names of ``ofa.weights``."""
        return self._shared

    def begin(self, x: Tensor) -> Tensor:
        """(N, C, h, w) maps of the layers that all architectures begin with, for normalized images.

        x: (N, 3, H, W).
        """
        layers = lower(self.space, self.space.largest(x.shape[-1]))[: self._common]
        return run(layers, lambda layer: cut(layer, self._shared), x, self.space.bn_eps)

    def features(self, maps: Tensor, arch: Arch) -> Tensor:
        """(N, head) inputs of the classifier for the maps that ``begin`` gives."""
        layers = lower(self.space, arch)[self._common : -1]
        return run(layers, lambda layer: cut(layer, self._shared), maps, self.space.bn_eps)

    def classify(self, features: Tensor) -> Tensor:
        """(N, classes) logits."""
        return nn.functional.linear(
            features, self._shared["classifier.weight"], self._shared["classifier.bias"]
        )

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """(N, classes) logits of ``arch`` for normalized images x (N, 3, H, W)."""
        return self.classify(self.features(self.begin(x), arch))

    def numpy(self) -> dict[str, Array]:
        """The shared tensors as numpy arrays (copies)."""
        return {
            name: np.array(value.detach().cpu().numpy(), order="C")
            for name, value in self._shared.items()
        }


class Subnet(nn.Module):
    """One network with weights of its own and its batch norms folded in."""

    def __init__(self, layers: tuple[Layer, ...], folded: Weights, eps: float) -> None:
        super().__init__()
        self.layers, self.eps = layers, eps
        self._buffers_of: dict[str, dict[str, str]] = {}
        for name, parts in folded.items():
            self._buffers_of[name] = {}
            for part, value in parts.items():
                tensor = torch.from_numpy(np.array(value, np.float32))
                if tensor.ndim == 4:
                    tensor = tensor.contiguous(memory_format=torch.channels_last)
                key = f"{name}.{part}".replace(".", "_")
                self.register_buffer(key, tensor)
                self._buffers_of[name][part] = key

    def _tensors(self, layer: Layer) -> dict[str, Tensor]:
        return {part: getattr(self, key) for part, key in self._buffers_of[layer.name].items()}

    @classmethod
    def of(
        cls,
        space: Space,
        arch: Arch,
        shared: Mapping[str, Array],
        statistics: Mapping[str, tuple[Array, Array]],
    ) -> Subnet:
        """Cut ``arch`` out of a supernet's tensors and fold these statistics in."""
        layers = lower(space, arch)
        weights = extract(layers, shared)
        return cls(layers, fold(layers, weights, statistics, space.bn_eps), space.bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) logits for normalized images x (N, 3, H, W)."""
        return run(self.layers, self._tensors, x, self.eps)

    def features(self, x: Tensor) -> Tensor:
        """(N, head) inputs of the classifier."""
        return run(self.layers[:-1], self._tensors, x, self.eps)
