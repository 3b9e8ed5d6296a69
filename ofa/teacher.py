"""Teachers of every subnet: the frozen published network, or the best subnet of a checkpoint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ofa.checkpoint import Checkpoint
from ofa.data import random_box, to_tensor
from ofa.evaluate import Evaluator, recalibration_part
from ofa.images import Images
from ofa.pretrained import Pretrained
from ofa.space import Arch, Space
from ofa.supernet import Subnet
from ofa.weights import Array

__all__ = ["Teacher", "taught"]

#: Images of a class that the classifier is fitted on: accuracy still rises from 100 to 300.
_PER_CLASS = 300
#: Weight of the squared distance from the published rows, against the mean cross-entropy.
_PULL = 1e-3
_BATCH = 50
_CROP = 0.5


class Teacher(nn.Module):
    """Soft outputs over the published classes, and over the classes of the data.

    The classifier of the data's classes is a logistic regression on the published features of
    whole and cropped training images. It starts from, and is pulled toward, the mean of the
    published rows weighted by the probabilities that the published network gives to images of
    a class. (That mean alone is a poor teacher: 96.0 % on held-out Imagenette, fitted 98.0 %.)
    """

    dark_weight: Tensor
    dark_bias: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, space: Space, source: Pretrained, resolution: int, images: Images) -> None:
        super().__init__()
        tensors = source.tensors
        self.resolution = resolution
        published = replace(
            space, classes=len(tensors["classifier.bias"]), resolutions=(resolution,)
        )
        arch = Arch(resolution, source.arch.stages)
        self.network = Subnet.of(published, arch, tensors, source.statistics)
        self.register_buffer("dark_weight", torch.from_numpy(tensors["classifier.weight"]))
        self.register_buffer("dark_bias", torch.from_numpy(tensors["classifier.bias"]))
        weight, bias = self._fitted(images)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def _fitted(self, images: Images) -> tuple[Tensor, Tensor]:
        """Weight (classes, features) and bias (classes,) for the classes of ``images``."""
        of_class = [
            np.flatnonzero(images.labels == c)[:_PER_CLASS] for c in range(len(images.classes))
        ]
        few = images.take(np.concatenate(of_class))
        whole, cropped = self._features(few, 1.0), self._features(few, _CROP)
        labels = torch.from_numpy(few.labels)
        probabilities = self.dark(whole).softmax(1)
        rows = torch.stack([probabilities[labels == c].mean(0) for c in range(len(of_class))])
        start = rows @ self.dark_weight
        weight, bias = start.clone().requires_grad_(), (rows @ self.dark_bias).requires_grad_()
        features, labels = torch.cat([whole, cropped]), labels.repeat(2)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(F.linear(features, weight, bias), labels)
            value = value + _PULL * (weight - start).square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        return weight.detach(), bias.detach()

    @torch.no_grad()
    def _features(self, images: Images, crop: float) -> Tensor:
        """(N, features) of a crop of at least this part of each image's area."""
        rng = np.random.default_rng(0)
        outputs = []
        for first in range(0, len(images), _BATCH):
            rows = range(first, min(first + _BATCH, len(images)))
            pictures = [images.image(row) for row in rows]
            boxes = [
                random_box(rng, picture.size, crop) if crop < 1 else None for picture in pictures
            ]
            side = (self.resolution, self.resolution)
            views = [
                np.asarray(picture.resize(side, Image.Resampling.BICUBIC, box))
                for picture, box in zip(pictures, boxes, strict=True)
            ]
            outputs.append(self.network.features(to_tensor(np.stack(views))))
        return torch.cat(outputs)

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


@torch.no_grad()
def taught(source: Checkpoint, images: Images) -> tuple[Arch, Array]:
    """The most accurate subnet that was evaluated, and its (N, classes) logits of the images.

    The mean over each image and its mirror image; a student sees the same for every crop.
    """
    best = source.space.decode(source.evaluated.genotypes[source.evaluated.accuracy.argmax()])
    shared = {name: torch.from_numpy(value) for name, value in source.tensors.items()}
    few = recalibration_part(source.space, images)
    evaluator = Evaluator(few, few, source.preprocessing)
    network = evaluator.subnet(source.space, best, shared)
    outputs = []
    for first in range(0, len(images), _BATCH):
        few = images.take(range(first, min(first + _BATCH, len(images))))
        x = to_tensor(few.pixels(best.resolution), source.preprocessing)
        outputs.append((network(x) + network(x.flip(3))) / 2)
    return best, torch.cat(outputs).numpy()
