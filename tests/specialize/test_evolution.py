"""The evolution, beyond what holds for every strategy (``test_strategies``)."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.space import Space
from ofa.spaces import get_space
from ofa.table import Table, tabulate
from specialize.problem import Budget, Limit, Problem
from specialize.search import distinct, exact
from specialize.search.evolution import search as evolve
from tests.specialize.tables import (
    SMALL,
    everything,
    plausible_accuracy,
    random_table,
)


def problem_of(space: Space, value: Table, cost: Table, share: float) -> Problem:
    """A limit that ``share`` of random architectures keep."""
    sample = space.sample(np.random.default_rng(0), 500)
    limit = float(np.quantile(cost.price(sample), share))
    return Problem(space, value, (Limit(Budget("macs", limit), cost, limit),), "test")


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_it_finds_what_keeps_budgets_that_conflict(seed: int, slack: int) -> None:
    """The cheapest for one budget may be too dear for the other: nowhere to start from."""
    rng = np.random.default_rng(seed)
    rows, first = everything(SMALL), random_table(SMALL, rng, least=1)
    second = Table(first.fixed_R, np.where(first.cost_RPC > 0, 5 - first.cost_RPC, 0))
    prices = [table.price(rows) for table in (first, second)]
    kept = np.argsort(np.maximum(*prices), kind="stable")[slack]
    limits = tuple(
        Limit(Budget("macs", price[kept]), table, price[kept])
        for table, price in zip((first, second), prices, strict=True)
    )
    problem = Problem(SMALL, random_table(SMALL, rng), limits, "test")
    best = problem.value.price(rows[problem.feasible(rows)]).max()
    assert evolve(problem, count=1).values[0] == best


@pytest.mark.slow
def test_it_comes_near_the_exact_optimum_of_the_real_space() -> None:
    """Among 1e13 architectures: never better, mostly equal, and otherwise by a hair worse."""
    space = get_space("lite")
    cost = tabulate(space, lambda layer: layer.macs / 1e6)
    regrets = []
    for seed, share in product(range(3), (0.01, 0.3, 0.9)):
        value = plausible_accuracy(space, seed)
        problem = problem_of(space, value, cost, share)
        best = exact.search(problem, count=1).values[0]
        regrets.append(best - evolve(problem, seed=seed, count=1).values[0])
    assert min(regrets) > -1e-9
    assert max(regrets) < 0.03
    assert np.median(regrets) < 1e-9


def test_distinct_keeps_the_first_of_twins() -> None:
    rows = np.array([[0, 1, 1], [0, 1, 2], [0, 2, 2], [1, 2, 1]], np.int16)
    assert distinct(rows, 3, 2).tolist() == [0, 2, 3]
