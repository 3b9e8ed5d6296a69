"""Evolutionary search over genotypes, and a local search from its best.

Elitist truncation with uniform crossover and mutation of several genes at once, as in Cai et al.
2020 (sec. 3.4); a child over a limit is repaired, not redrawn, so that nothing is unbounded. With
a hard limit single changes stall: what improves is too dear. So mutation changes two genes on
average, and the local search tries all pairs of changes, among them one dearer with one cheaper.

Pricing is so cheap that a large population costs little, and it is what avoids local optima; niches
by resolution and swaps as a mutation of their own did not help.
"""

from __future__ import annotations

import numpy as np

from ofa.space import Genotypes
from specialize.problem import Problem
from specialize.search import SearchResult, Tell, distinct
from specialize.search.genes import Genes
from specialize.search.pool import Pool

__all__ = ["climb", "repaired", "search"]

_POPULATION = 2048
_GENERATIONS = 40
_PARENTS = 512
_MUTATED_GENES = 2.0  # of a child, on average
_REPAIRS = 10
_CLIMBERS = 4  # from which the local search climbs, and
_APART = 6  # in how many genes they differ at least
_STEPS = 20


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
    genes = pool.genes
    children = genes.random(rng, _POPULATION)
    rate = _MUTATED_GENES / len(genes.values)
    # With several budgets the cheapest for one may be too dear for another: then none is repaired.
    cheapest = pool.rows[0] if pool.fitting else None
    for _ in range(_GENERATIONS):
        pool.add(
            children if cheapest is None else repaired(problem, genes, children, cheapest, rng)
        )
        parents = pool.rows[:_PARENTS]
        shape = (_POPULATION, parents.shape[1])
        mother, father = (parents[rng.integers(len(parents), size=_POPULATION)] for _ in range(2))
        # Half of the children have one parent only, so that small changes of the best are tried.
        crossed = (rng.random(shape) < 0.5) & (rng.random(_POPULATION) < 0.5)[:, None]
        children = np.where(crossed, father, mother)
        mutated = rng.random(shape) < rate
        children = np.where(mutated, genes.random(rng, _POPULATION), children)
    for climber in pool.rows[distinct(pool.genotypes, _CLIMBERS, _APART)]:
        climb(genes, pool, climber)
    return pool.result(count, distance)


def repaired(
    problem: Problem,
    genes: Genes,
    rows: Genotypes,
    cheapest: Genotypes,
    rng: np.random.Generator,
) -> Genotypes:
    """Rows over a limit take over genes of the cheapest architecture, more each time."""
    rows = rows.copy()
    for attempt in range(_REPAIRS):
        over = np.flatnonzero(~problem.feasible(genes.genotypes(rows)))
        if not len(over):
            break
        share = 0.1 + 0.9 * (attempt / (_REPAIRS - 1)) ** 2
        taken = rng.random((len(over), rows.shape[1])) < share
        rows[over] = np.where(taken, cheapest, rows[over])
    return rows


def climb(genes: Genes, pool: Pool, row: Genotypes) -> None:
    """Steepest ascent over all changes of one or two genes."""
    changes = [
        (g, value)
        for g, (first, values) in enumerate(zip(genes.first, genes.values, strict=True))
        for value in range(first, first + values)
    ]
    gene, value = np.array(changes).T
    a, b = np.triu_indices(len(changes))
    # Two genes, or one alone (with itself); the row itself is among them.
    two = (gene[a] < gene[b]) | (a == b)
    a, b = a[two], b[two]
    index, score = np.arange(len(a)), -np.inf
    for _ in range(_STEPS):
        rows = np.repeat(row[None], len(a), axis=0)
        rows[index, gene[a]] = value[a]
        rows[index, gene[b]] = value[b]
        values, excess = pool.add(rows)
        fitting = np.where(excess == 0, values, -np.inf)
        top = int(fitting.argmax())
        if fitting[top] <= score + 1e-12:
            return
        row, score = rows[top], float(fitting[top])
