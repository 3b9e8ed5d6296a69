"""Random search: what any other strategy must beat.

Genes are drawn uniformly, and what exceeds a limit is repaired as the evolution does it, since
among random architectures hardly any may fit.
"""

from __future__ import annotations

import numpy as np

from ofa.space import Genotypes
from specialize.problem import Problem
from specialize.search import SearchResult, Tell
from specialize.search.evolution import repaired
from specialize.search.pool import Pool

__all__ = ["search"]

_BATCH = 2000
_BATCHES = 50  # about what the evolution spends


def search(
    problem: Problem,
    *,
    seed: int = 0,
    count: int = 10,
    distance: int = 2,
    starts: Genotypes | None = None,
    tell: Tell | None = None,
) -> SearchResult:
    """See ``Strategy``. Never worse than the best of ``starts``."""
    rng = np.random.default_rng(seed)
    pool = Pool.begun(problem, starts, tell)
    # With several budgets the cheapest for one may be too dear for another: then none is repaired.
    cheapest = pool.rows[0] if pool.fitting else None
    for _ in range(_BATCHES):
        rows = pool.genes.random(rng, _BATCH)
        pool.add(rows if cheapest is None else repaired(problem, pool.genes, rows, cheapest, rng))
    return pool.result(count, distance)
