"""Architectures drawn evenly over their MACs: to train on, to evaluate, to measure."""

from __future__ import annotations

import numpy as np

from ofa.space import Arch, Space
from ofa.table import tabulate

__all__ = ["Sampler", "spread"]


class Sampler:
    """Draws architectures of a space spread evenly over the logarithm of their MACs.

    Uniform draws crowd in the middle; a supernet must know its corners too.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._macs = tabulate(space, lambda layer: layer.macs)

    def draw(self, rng: np.random.Generator, resolution: int) -> Arch:
        """One architecture at ``resolution``: of 16 random ones that nearest to a random target."""
        genotypes = self.space.sample(rng, 16)
        genotypes[:, 0] = self.space.resolutions.index(resolution)
        ends = [self.space.smallest(resolution), self.space.largest(resolution)]
        low, high = np.log(self._macs.price(self.space.encode(ends)))
        distance = abs(np.log(self._macs.price(genotypes)) - rng.uniform(low, high))
        return self.space.decode(genotypes[distance.argmin()])


def spread(space: Space, count: int, rng: np.random.Generator) -> list[Arch]:
    """``count`` different architectures to evaluate: the ends of each resolution, regular ones
    (one kernel, one expand ratio, each stage as much shorter), and random ones spread over MACs.
    """
    archs = [f(r) for r in space.resolutions for f in (space.smallest, space.largest)]
    kernels = sorted({k for stage in space.stages for k in stage.kernels})
    expands = sorted({e for stage in space.stages for e in stage.expands})
    deepest = max(stage.depths[-1] for stage in space.stages)
    sampler = Sampler(space)
    chosen = dict.fromkeys(archs[:count])
    for _ in range(100 * count):
        if len(chosen) >= count:
            break
        resolution = int(rng.choice(space.resolutions))
        if rng.random() < 0.4:
            part = space.restrict(kernels=rng.choice(kernels, 1), expands=rng.choice(expands, 1))
            shorter = int(rng.integers(deepest))
            full = part.largest(resolution)
            stages = tuple(
                blocks[: max(stage.depths[0], len(blocks) - shorter)]
                for blocks, stage in zip(full.stages, part.stages, strict=True)
            )
            arch = Arch(resolution, stages)
        else:
            arch = sampler.draw(rng, resolution)
        chosen[arch] = None
    return list(chosen)
