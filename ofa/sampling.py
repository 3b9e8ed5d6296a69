"""Architectures drawn evenly over their MACs: to train on, to evaluate, to measure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa.space import Arch, Genotypes, Space
from ofa.table import tabulate

__all__ = ["Sampler", "informative", "one_hot", "spread"]

_CANDIDATES = 20  # looked at for each that is wanted


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

    Of the ends, with the smallest and the largest of all, there are at most half of ``count``.
    """
    ends = [f(r) for r in space.resolutions for f in (space.smallest, space.largest)]
    places = np.linspace(0, len(ends) - 1, min(len(ends), max(2, count // 2)))
    kernels = sorted({k for stage in space.stages for k in stage.kernels})
    expands = sorted({e for stage in space.stages for e in stage.expands})
    deepest = max(stage.depths[-1] for stage in space.stages)
    sampler = Sampler(space)
    chosen = dict.fromkeys(ends[int(place)] for place in places[:count])
    for _ in range(100 * count):
        if len(chosen) >= count:
            break
        resolution = int(rng.choice(space.resolutions))
        if rng.random() < 0.4:
            part = space.restrict(kernels=rng.choice(kernels, 1), expands=rng.choice(expands, 1))
            shorter = int(rng.integers(deepest))
            full = part.largest(resolution)
            stages = []
            for blocks, stage in zip(full.stages, part.stages, strict=True):
                fits = [depth for depth in stage.depths if depth <= len(blocks) - shorter]
                stages.append(blocks[: max(fits, default=stage.depths[0])])
            arch = Arch(resolution, tuple(stages))
        else:
            arch = sampler.draw(rng, resolution)
        chosen[arch] = None
    return list(chosen)


def informative(space: Space, known: Genotypes, count: int, rng: np.random.Generator) -> list[Arch]:
    """``count`` architectures that tell most beside the ``known`` ones (N, 1 + P).

    Each is the one, of some spread over MACs, of which a linear model of the blocks' choices, a
    ridge of unit strength, is least sure after the others (greedy D-optimal design; Fedorov 1972).
    """
    pool = space.encode(spread(space, _CANDIDATES * count, rng))
    x, seen = one_hot(space, pool), one_hot(space, known)
    covariance = np.linalg.inv(np.eye(x.shape[1]) + seen.T @ seen)
    taken = {row.tobytes() for row in known}
    free = np.array([row.tobytes() not in taken for row in pool])
    chosen = []
    for _ in range(min(count, int(free.sum()))):
        reach = x @ covariance
        unsure = np.where(free, np.einsum("ne,ne->n", reach, x), -np.inf)
        best = int(unsure.argmax())
        free[best] = False
        chosen.append(space.decode(pool[best]))
        covariance -= np.outer(reach[best], reach[best]) / (1 + unsure[best])
    return chosen


def one_hot(space: Space, genotypes: Genotypes) -> NDArray[np.float64]:
    """(N, E) zeros and ones: which of a table's entries an architecture has.

    An entry for each resolution, then for each choice of each position; an absent block has none.
    """
    columns = [genotypes[:, 0] == r for r in range(len(space.resolutions))]
    columns += [
        genotypes[:, 1 + p] == 1 + c
        for p, (s, _) in enumerate(space.positions)
        for c in range(len(space.stages[s].choices))
    ]
    return np.stack(columns, axis=1).astype(np.float64)
