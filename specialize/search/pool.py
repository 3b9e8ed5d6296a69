"""What a strategy has seen: the best architectures, the count of evaluations, the trace."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ofa.space import Genotypes
from specialize.problem import Problem, minimum
from specialize.search import SearchResult, Tell, distinct
from specialize.search.genes import Genes

__all__ = ["Pool"]

_SIZE = 2048


class Pool:
    """The best architectures seen, each once, and the count of all that were priced.

    Any that fits is better than any that does not; of those, the nearer to the limits is better
    (Deb 2000). So a search that starts where nothing fits finds its way.
    """

    def __init__(self, problem: Problem, genes: Genes, tell: Tell | None = None) -> None:
        self.problem, self.genes, self.tell = problem, genes, tell
        self.rows = np.empty((0, len(genes.values)), np.int16)
        self.genotypes = np.empty((0, 1 + len(genes.stage_P)), np.int16)
        self.excess, self.scores = np.empty(0), np.empty(0)
        self.evaluations = 0
        self.trace: list[tuple[int, float]] = []
        self._began = time.perf_counter()
        # Equal genotypes have equal keys, and others practically never: np.unique over rows is
        # ten times slower.
        self._weights = np.random.default_rng(0).integers(
            2**64, size=self.genotypes.shape[1], dtype=np.uint64
        )

    @classmethod
    def begun(cls, problem: Problem, starts: Genotypes | None, tell: Tell | None) -> Pool:
        """A pool of ``starts`` and of what is cheapest for each budget: it fits where there is one.

        Raises UserError where a budget is below what any architecture costs.
        """
        problem.check_possible()
        genes = Genes(problem.space)
        pool = cls(problem, genes, tell)
        if starts is not None:
            pool.add(np.stack([genes.of(row) for row in starts]))
        for limit in problem.limits:
            pool.add(genes.of(minimum(problem.space, limit.table)[1])[None])
        return pool

    @property
    def best(self) -> float:
        """The best value so far that fits; -inf where none does."""
        return self.trace[-1][1] if self.trace else -np.inf

    @property
    def fitting(self) -> int:
        """How many fit; they come first."""
        return int(np.count_nonzero(self.excess == 0))

    def add(self, rows: Genotypes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Price ``rows`` and keep what is new and good; (N,) values and (N,) excess over limits."""
        genotypes = self.genes.genotypes(rows)
        excess, scores = self.problem.excess(genotypes), self.problem.value.price(genotypes)
        priced = scores, excess
        self.evaluations += len(rows)
        best = float(np.max(scores, where=excess == 0, initial=-np.inf))
        if best > self.best:
            self.trace.append((self.evaluations, best))
        if self.tell is not None:
            self.tell(self.evaluations, self.best)

        if len(self.scores) == _SIZE:
            last = (excess == self.excess[-1]) & (scores > self.scores[-1])
            good = (excess < self.excess[-1]) | last
            rows, genotypes = rows[good], genotypes[good]
            excess, scores = excess[good], scores[good]
        rows, genotypes = np.vstack([self.rows, rows]), np.vstack([self.genotypes, genotypes])
        excess = np.concatenate([self.excess, excess])
        scores = np.concatenate([self.scores, scores])
        _, new = np.unique(genotypes.astype(np.uint64) @ self._weights, return_index=True)
        order = new[np.lexsort((new, -scores[new], excess[new]))][:_SIZE]
        self.rows, self.genotypes = rows[order], genotypes[order]
        self.excess, self.scores = excess[order], scores[order]
        return priced

    def result(self, count: int, distance: int) -> SearchResult:
        """The ``count`` best that fit, each ``distance`` genes from the others.

        Raises UserError where nothing that fits was seen.
        """
        if not self.fitting:
            self.problem.refuse_together()
        best = distinct(self.genotypes[: self.fitting], count, distance)
        return SearchResult(
            self.genotypes[best],
            self.scores[best],
            self.evaluations,
            time.perf_counter() - self._began,
            tuple(self.trace),
        )
