"""Genes: an encoding of architectures in which every combination is valid.

Axes: N population, P block position, S stage. Genes of one architecture, a row of 1 + S + P
integers: the index of the resolution, each stage's index into its depths, and each block's
choice (from 1), also of blocks that the depth leaves out, which their children may bring back.
"""

from __future__ import annotations

import numpy as np

from ofa.space import Genotypes, Space

__all__ = ["Genes"]


class Genes:
    """Draws genes of a space, and turns them into genotypes."""

    def __init__(self, space: Space) -> None:
        self.depths = [np.array(stage.depths) for stage in space.stages]
        self.stage_P = np.array([s for s, _ in space.positions])
        self.index_P = np.array([b for _, b in space.positions])
        #: (1 + S + P,) number of values of each gene, and the smallest of them.
        self.values = np.array(
            [len(space.resolutions)]
            + [len(stage.depths) for stage in space.stages]
            + [len(space.stages[s].choices) for s, _ in space.positions]
        )
        self.first = np.where(np.arange(len(self.values)) > len(space.stages), 1, 0)

    def random(self, rng: np.random.Generator, count: int) -> Genotypes:
        """(N, 1 + S + P), each gene uniform."""
        return (self.first + rng.integers(self.values, size=(count, len(self.values)))).astype(
            np.int16
        )

    def genotypes(self, genes: Genotypes) -> Genotypes:
        """(N, 1 + P): blocks beyond a stage's depth become 0."""
        stages = len(self.depths)
        depth_NS = np.stack([d[genes[:, 1 + s]] for s, d in enumerate(self.depths)], axis=1)
        kept_NP = self.index_P < depth_NS[:, self.stage_P]
        return np.hstack([genes[:, :1], genes[:, 1 + stages :] * kept_NP]).astype(np.int16)

    def of(self, genotype: Genotypes) -> Genotypes:
        """(1 + S + P,) genes of one genotype; absent blocks get their smallest choice."""
        kept = genotype[1:] > 0
        depths = [
            int(np.flatnonzero(d == kept[self.stage_P == s].sum())[0])
            for s, d in enumerate(self.depths)
        ]
        return np.array([genotype[0], *depths, *np.maximum(genotype[1:], 1)], np.int16)
