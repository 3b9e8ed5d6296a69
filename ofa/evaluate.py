"""Recalibrate a subnet's batch norms and score it, in torch.

``specialize.score`` does the same in ONNX Runtime, without torch; the tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ofa.data import to_tensor
from ofa.elastic import run
from ofa.images import Images, Pixels, split
from ofa.layers import lower
from ofa.preprocessing import LITE0, Preprocessing
from ofa.space import Arch, Space
from ofa.supernet import Subnet
from ofa.weights import RECALIBRATION_BATCH, Array, cut, recalibration_images

__all__ = ["Evaluator", "recalibrate", "recalibration_part"]


@torch.no_grad()
def recalibrate(
    space: Space, arch: Arch, shared: Mapping[str, Tensor], batches: Iterator[Tensor]
) -> dict[str, tuple[Array, Array]]:
    """Batch-norm statistics of ``arch``: layer name -> (mean, variance).

    Each batch is normalized by its own statistics, as in training; the batches' means and biased
    variances are averaged (the variance of the batch means is not added, as in the reference).
    """
    layers = lower(space, arch)
    layers = layers[: 1 + max(i for i, layer in enumerate(layers) if layer.has_batch_norm)]
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    count = 0
    for x in batches:
        found: dict[str, tuple[Tensor, Tensor]] = {}
        run(layers, lambda layer: cut(layer, shared), x, space.bn_eps, found)
        for name, (mean, variance) in found.items():
            old = sums.get(name, (torch.zeros_like(mean), torch.zeros_like(mean)))
            sums[name] = (old[0] + mean * len(x), old[1] + variance * len(x))
        count += len(x)
    return {
        name: ((mean / count).cpu().numpy(), (variance / count).cpu().numpy())
        for name, (mean, variance) in sums.items()
    }


def recalibration_part(space: Space, images: Images) -> Images:
    """The training images that batch norms of this space are recalibrated on."""
    return split(images, min(recalibration_images(space), len(images) // 2), 1)[1]


class Evaluator:
    """Scores subnets on fixed images, recalibrated on other fixed images."""

    def __init__(
        self, recalibration: Images, images: Images, preprocessing: Preprocessing = LITE0
    ) -> None:
        self.recalibration, self.images = recalibration.interleaved(), images
        self.preprocessing = preprocessing
        self._pixels: dict[int, tuple[Pixels, Pixels]] = {}

    @torch.no_grad()
    def accuracy(self, space: Space, arch: Arch, shared: Mapping[str, Tensor]) -> float:
        """Top-1 in percent of the recalibrated subnet."""
        subnet = self.subnet(space, arch, shared)
        device = next(iter(shared.values())).device
        pixels = self._pixels[arch.resolution][1]
        guesses = [subnet(x).argmax(1).cpu().numpy() for x in self._batches(pixels, device)]
        return float(100 * (np.concatenate(guesses) == self.images.labels).mean())

    @torch.no_grad()
    def subnet(self, space: Space, arch: Arch, shared: Mapping[str, Tensor]) -> Subnet:
        """The recalibrated subnet."""
        if arch.resolution not in self._pixels:
            self._pixels = {
                arch.resolution: (
                    self.recalibration.pixels(arch.resolution),
                    self.images.pixels(arch.resolution),
                )
            }
        recalibration, _ = self._pixels[arch.resolution]
        device = next(iter(shared.values())).device
        statistics = recalibrate(space, arch, shared, self._batches(recalibration, device))
        arrays = {name: value.detach().cpu().numpy() for name, value in shared.items()}
        return Subnet.of(space, arch, arrays, statistics).to(device)

    def _batches(self, pixels: Pixels, device: torch.device) -> Iterator[Tensor]:
        for start in range(0, len(pixels), RECALIBRATION_BATCH):
            few = pixels[start : start + RECALIBRATION_BATCH]
            yield to_tensor(few, self.preprocessing).to(device)
