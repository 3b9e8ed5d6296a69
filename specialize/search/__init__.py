"""Search strategies: a problem of tables in, a ranked list and a trace out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.space import Genotypes

__all__ = ["SearchResult", "distinct"]


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """What a strategy found.

    genotypes: (K, 1 + P), best first, all within the limits. values: (K,) under ``problem.value``.
    evaluations: architectures priced. trace: (evaluations so far, best value so far).
    """

    genotypes: Genotypes
    values: NDArray[np.float64]
    evaluations: int
    seconds: float
    trace: tuple[tuple[int, float], ...]


def distinct(genotypes: Genotypes, count: int, distance: int) -> NDArray[np.intp]:
    """Indices of the first ``count`` rows that differ in ``distance`` genes from those before.

    The best few of a search are near twins otherwise, and scoring them on images tells little.
    """
    chosen: list[int] = []
    for index, row in enumerate(genotypes):
        if len(chosen) == count:
            break
        if all((row != genotypes[other]).sum() >= distance for other in chosen):
            chosen.append(index)
    return np.array(chosen, np.intp)
