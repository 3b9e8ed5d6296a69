"""The frozen published network as a teacher of every subnet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.data import to_tensor
from ofa.images import Images
from ofa.pretrained import Pretrained
from ofa.space import Arch, Space
from ofa.supernet import Subnet
from ofa.weights import Array

__all__ = ["Teacher"]

_PER_CLASS = 32


class Teacher(nn.Module):
    """Soft outputs over the published classes, and over the classes of the data.

    The classifier row of a class of the data is the mean of the published rows, weighted by the
    probabilities that the published network gives to images of that class. For a class that
    it knows, that is nearly its own row.
    """

    dark_weight: Tensor
    dark_bias: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, space: Space, source: Pretrained, resolution: int, images: Images) -> None:
        super().__init__()
        tensors = source.tensors
        published = replace(space, classes=len(tensors["classifier.bias"]))
        self.resolution = resolution
        arch = Arch(resolution, source.arch.stages)
        self.network = Subnet.of(published, arch, tensors, source.statistics)
        self.register_buffer("dark_weight", torch.from_numpy(tensors["classifier.weight"]))
        self.register_buffer("dark_bias", torch.from_numpy(tensors["classifier.bias"]))
        rows = self._class_probabilities(images)
        self.register_buffer("weight", rows @ self.dark_weight)
        self.register_buffer("bias", rows @ self.dark_bias)

    @torch.no_grad()
    def _class_probabilities(self, images: Images) -> Tensor:
        """(classes, published classes): mean probabilities over a few images of each class."""
        rows = []
        for label in range(len(images.classes)):
            few = images.take(np.flatnonzero(images.labels == label)[:_PER_CLASS])
            features = self.network.features(to_tensor(few.pixels(self.resolution)))
            rows.append(self.dark(features).softmax(1).mean(0))
        return torch.stack(rows)

    @property
    def classifier(self) -> dict[str, Array]:
        """The classifier that a supernet on this data starts with."""
        return {
            "classifier.weight": self.weight.numpy().copy(),
            "classifier.bias": self.bias.numpy().copy(),
        }

    def dark(self, features: Tensor) -> Tensor:
        """(N, published classes) logits."""
        return F.linear(features, self.dark_weight, self.dark_bias)

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits over the published classes and over the data's classes, for (N, 3, H, W)."""
        features = self.network.features(x)
        return self.dark(features), F.linear(features, self.weight, self.bias)
