"""Evolutionary search over genotypes, and a local search from its best.

Elitist truncation with uniform crossover and mutation of several genes at once, as in Cai et al.
2020 (sec. 3.4); a child over a limit is repaired, not redrawn, so that nothing is unbounded. With
a hard limit single changes stall: what improves is too dear. So mutation changes two to three genes
on average, and the local search tries all pairs of changes.

Axes: N population, P block position, S stage. Genes of one architecture, a row of 1 + S + P
integers: the index of the resolution, each stage's index into its depths, and each block's
choice (from 1), also of blocks that the depth leaves out, which their children may bring back.
"""

from __future__ import annotations

import time

import numpy as np

from ofa.space import Genotypes, Space
from specialize.problem import Problem, minimum
from specialize.search import SearchResult, distinct

__all__ = ["evolve"]

_POPULATION = 256
_GENERATIONS = 60
_PARENTS = 64
_MUTATED_GENES = 2.5  # of a child, on average
_REPAIRS = 10
_CLIMBERS = 4  # of the best, from which the local search climbs
_POOL = 4096  # best feasible architectures remembered


class _Genes:
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


class _Pool:
    """The best feasible architectures seen, each once, and the count of all that were priced."""

    def __init__(self, problem: Problem, genes: _Genes) -> None:
        self.problem, self.genes = problem, genes
        self.rows = np.empty((0, len(genes.values)), np.int16)
        self.genotypes = np.empty((0, 1 + len(genes.stage_P)), np.int16)
        self.scores = np.empty(0)
        self.evaluations = 0
        self.trace: list[tuple[int, float]] = []

    def add(self, rows: Genotypes) -> None:
        """Price ``rows`` and keep those that fit and are new."""
        genotypes = self.genes.genotypes(rows)
        fits = self.problem.excess(genotypes) <= 1
        self.evaluations += len(rows)
        rows, genotypes = rows[fits], genotypes[fits]
        scores = np.concatenate([self.scores, self.problem.value.price(genotypes)])
        rows, genotypes = np.vstack([self.rows, rows]), np.vstack([self.genotypes, genotypes])
        _, unique = np.unique(genotypes, axis=0, return_index=True)
        order = unique[np.lexsort((unique, -scores[unique]))][:_POOL]
        self.rows, self.genotypes, self.scores = rows[order], genotypes[order], scores[order]
        if len(scores) and (not self.trace or self.scores[0] > self.trace[-1][1]):
            self.trace.append((self.evaluations, float(self.scores[0])))


def evolve(problem: Problem, *, seed: int = 0, count: int = 10, distance: int = 2) -> SearchResult:
    """The ``count`` best architectures found, each ``distance`` genes from the others.

    Raises UserError, with the least value that can be reached, where nothing fits.
    """
    began = time.perf_counter()
    problem.check_possible()
    rng = np.random.default_rng(seed)
    genes = _Genes(problem.space)
    cheapest = min(
        (genes.of(minimum(problem.space, limit.table)[1]) for limit in problem.limits),
        key=lambda row: float(problem.excess(genes.genotypes(row[None]))[0]),
    )
    pool = _Pool(problem, genes)
    pool.add(
        np.vstack(
            [_repaired(problem, genes, genes.random(rng, _POPULATION), cheapest, rng), cheapest]
        )
    )
    if not len(pool.scores):
        problem.refuse_together()
    rate = _MUTATED_GENES / len(genes.values)
    for _ in range(_GENERATIONS):
        parents = pool.rows[:_PARENTS]
        shape = (_POPULATION, parents.shape[1])
        mother, father = (parents[rng.integers(len(parents), size=_POPULATION)] for _ in range(2))
        # Half of the children have one parent only, so that small changes of the best are tried.
        crossed = (rng.random(shape) < 0.5) & (rng.random(_POPULATION) < 0.5)[:, None]
        children = np.where(crossed, father, mother)
        mutated = rng.random(shape) < rate
        children = np.where(mutated, genes.random(rng, _POPULATION), children)
        pool.add(_repaired(problem, genes, children, cheapest, rng))
    for climber in pool.rows[:_CLIMBERS].copy():
        _climb(problem, genes, pool, climber)
    best = distinct(pool.genotypes, count, distance)
    return SearchResult(
        pool.genotypes[best],
        pool.scores[best],
        pool.evaluations,
        time.perf_counter() - began,
        tuple(pool.trace),
    )


def _repaired(
    problem: Problem,
    genes: _Genes,
    rows: Genotypes,
    cheapest: Genotypes,
    rng: np.random.Generator,
) -> Genotypes:
    """Rows over a limit take over genes of the cheapest architecture, more each time."""
    rows = rows.copy()
    for attempt in range(_REPAIRS):
        over = np.flatnonzero(problem.excess(genes.genotypes(rows)) > 1)
        if not len(over):
            break
        share = 0.1 + 0.9 * (attempt / (_REPAIRS - 1)) ** 2
        taken = rng.random((len(over), rows.shape[1])) < share
        rows[over] = np.where(taken, cheapest, rows[over])
    return rows


def _climb(problem: Problem, genes: _Genes, pool: _Pool, row: Genotypes) -> None:
    """Steepest ascent over all changes of one or two genes."""
    singles = [
        (g, v)
        for g, (first, values) in enumerate(zip(genes.first, genes.values, strict=True))
        for v in range(first, first + values)
    ]
    gene, value = np.array(singles).T
    a, b = np.triu_indices(len(singles))
    a, b = a[gene[a] <= gene[b]], b[gene[a] <= gene[b]]
    score = float(problem.value.price(genes.genotypes(row[None]))[0])
    for _ in range(20):
        rows = np.repeat(row[None], len(a), axis=0)
        index = np.arange(len(a))
        rows[index, gene[a]] = value[a]
        rows[index, gene[b]] = value[b]
        pool.add(rows)
        genotypes = genes.genotypes(rows)
        scores = np.where(problem.excess(genotypes) <= 1, problem.value.price(genotypes), -np.inf)
        top = int(scores.argmax())
        if scores[top] <= score + 1e-12:
            return
        row, score = rows[top], float(scores[top])
