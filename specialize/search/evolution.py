"""Evolutionary search over genotypes, and a local search from its best.

Elitist truncation with uniform crossover and mutation of several genes at once, as in Cai et al.
2020 (sec. 3.4); a child over a limit is repaired, not redrawn, so that nothing is unbounded. With
a hard limit single changes stall: what improves is too dear. So mutation changes two genes on
average, and the local search tries all pairs of changes, among them one dearer with one cheaper.

Pricing is so cheap that a large population costs little, and it is what avoids local optima; niches
by resolution and swaps as a mutation of their own did not help.

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

_POPULATION = 2048
_GENERATIONS = 40
_PARENTS = 512
_MUTATED_GENES = 2.0  # of a child, on average
_REPAIRS = 10
_CLIMBERS = 4  # from which the local search climbs, and
_APART = 6  # in how many genes they differ at least
_STEPS = 20
_POOL = 2048  # best architectures remembered


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
    """The best architectures seen, each once, and the count of all that were priced.

    Any that fits is better than any that does not; of those, the nearer to the limits is better
    (Deb 2000). So a search that starts where nothing fits finds its way.
    """

    def __init__(self, problem: Problem, genes: _Genes) -> None:
        self.problem, self.genes = problem, genes
        self.rows = np.empty((0, len(genes.values)), np.int16)
        self.genotypes = np.empty((0, 1 + len(genes.stage_P)), np.int16)
        self.excess, self.scores = np.empty(0), np.empty(0)
        self.evaluations = 0
        self.trace: list[tuple[int, float]] = []
        # Equal genotypes have equal keys, and others practically never: np.unique over rows is
        # ten times slower.
        self._weights = np.random.default_rng(0).integers(
            2**64, size=self.genotypes.shape[1], dtype=np.uint64
        )

    @property
    def fitting(self) -> int:
        """How many fit; they come first."""
        return int(np.count_nonzero(self.excess == 0))

    def add(self, rows: Genotypes) -> tuple[float, int]:
        """Price ``rows``, keep what is new and good; the best score that fits, and which row's."""
        genotypes = self.genes.genotypes(rows)
        excess, scores = self.problem.excess(genotypes), self.problem.value.price(genotypes)
        self.evaluations += len(rows)
        fitting = np.where(excess == 0, scores, -np.inf)
        top = int(fitting.argmax())
        best = float(fitting[top])
        if best > (self.trace[-1][1] if self.trace else -np.inf):
            self.trace.append((self.evaluations, best))

        if len(self.scores) == _POOL:
            last = (excess == self.excess[-1]) & (scores > self.scores[-1])
            good = (excess < self.excess[-1]) | last
            rows, genotypes = rows[good], genotypes[good]
            excess, scores = excess[good], scores[good]
        rows, genotypes = np.vstack([self.rows, rows]), np.vstack([self.genotypes, genotypes])
        excess = np.concatenate([self.excess, excess])
        scores = np.concatenate([self.scores, scores])
        _, new = np.unique(genotypes.astype(np.uint64) @ self._weights, return_index=True)
        order = new[np.lexsort((new, -scores[new], excess[new]))][:_POOL]
        self.rows, self.genotypes = rows[order], genotypes[order]
        self.excess, self.scores = excess[order], scores[order]
        return best, top


def evolve(problem: Problem, *, seed: int = 0, count: int = 10, distance: int = 2) -> SearchResult:
    """The ``count`` best architectures found, each ``distance`` genes from the others.

    Raises UserError, with the least value that can be reached, where nothing fits.
    """
    began = time.perf_counter()
    problem.check_possible()
    rng = np.random.default_rng(seed)
    genes = _Genes(problem.space)
    pool = _Pool(problem, genes)
    for limit in problem.limits:
        pool.add(genes.of(minimum(problem.space, limit.table)[1])[None])
    children = genes.random(rng, _POPULATION)
    rate = _MUTATED_GENES / len(genes.values)
    # With several budgets the cheapest for one may be too dear for another: then none is repaired.
    cheapest = pool.rows[0] if pool.fitting else None
    for _ in range(_GENERATIONS):
        pool.add(
            children if cheapest is None else _repaired(problem, genes, children, cheapest, rng)
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
        _climb(genes, pool, climber)
    if not pool.fitting:
        problem.refuse_together()
    best = distinct(pool.genotypes[: pool.fitting], count, distance)
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
        over = np.flatnonzero(~problem.feasible(genes.genotypes(rows)))
        if not len(over):
            break
        share = 0.1 + 0.9 * (attempt / (_REPAIRS - 1)) ** 2
        taken = rng.random((len(over), rows.shape[1])) < share
        rows[over] = np.where(taken, cheapest, rows[over])
    return rows


def _climb(genes: _Genes, pool: _Pool, row: Genotypes) -> None:
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
        best, top = pool.add(rows)
        if best <= score + 1e-12:
            return
        row, score = rows[top], best
