"""Search strategies: a problem of tables in, a ranked list and a trace out."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ofa.errors import UserError
from ofa.space import Genotypes

if TYPE_CHECKING:
    from specialize.problem import Problem

__all__ = ["STRATEGIES", "SearchResult", "Strategy", "Tell", "distinct", "get_strategy"]

#: Told (evaluations so far, best value so far that fits) after every batch.
Tell = Callable[[int, float], None]


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """What a strategy found.

    genotypes: (K, 1 + P), best first, all within the limits. values: (K,) under ``problem.value``.
    evaluations: architectures priced. trace: (evaluations so far, best value so far).
    bound: no architecture within the limits has a higher value; inf where nothing is proven.
    """

    genotypes: Genotypes
    values: NDArray[np.float64]
    evaluations: int
    seconds: float
    trace: tuple[tuple[int, float], ...]
    bound: float = np.inf


class Strategy(Protocol):
    """A way to search."""

    def __call__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        count: int = 10,
        distance: int = 2,
        starts: Genotypes | None = None,
        tell: Tell | None = None,
    ) -> SearchResult:
        """The ``count`` best architectures found, each ``distance`` genes from the others.

        starts: (N, 1 + P) architectures to begin with, such as the best of another strategy.
        Raises UserError, with the least value that can be reached, where nothing fits.
        """


#: Name -> what it does, in the module of that name, in the function ``search``.
STRATEGIES = {
    "evolution": "elitist evolution with repair, then a local search",
    "exact": "dynamic programming: the optimum, with proof",
    "random": "random architectures, made to fit",
    "reinforce": "a controller that learns to generate, rewarded by accuracy and log latency",
    "gradient": "relaxed choices, Gumbel-softmax over the tables",
}


def get_strategy(name: str) -> Strategy:
    """The strategy of that name. Raises UserError."""
    if name not in STRATEGIES:
        near = difflib.get_close_matches(name.lower(), STRATEGIES, n=1)
        raise UserError(
            f"unknown strategy {name!r}",
            "--strategy",
            f"did you mean {near[0]!r}?" if near else f"there are {', '.join(STRATEGIES)}",
        )
    search: Strategy = importlib.import_module(f"specialize.search.{name}").search
    return search


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
