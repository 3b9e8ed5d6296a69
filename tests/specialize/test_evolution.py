"""The search: valid, repeatable, and as good as what is found without a search."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.errors import UserError
from ofa.space import Space
from ofa.spaces import get_space
from ofa.table import Table, tabulate
from specialize.problem import Budget, Limit, Problem, minimum
from specialize.search import distinct, exact
from specialize.search.evolution import search as evolve
from tests.specialize.tables import (
    SMALL,
    everything,
    plausible_accuracy,
    random_table,
)
from tests.strategies import spaces


def problem_of(space: Space, value: Table, cost: Table, share: float) -> Problem:
    """A limit that ``share`` of random architectures keep."""
    sample = space.sample(np.random.default_rng(0), 500)
    limit = float(np.quantile(cost.price(sample), share))
    return Problem(space, value, (Limit(Budget("macs", limit), cost, limit),), "test")


@pytest.mark.slow
@given(spaces(), st.integers(0, 2**32 - 1))
def test_what_is_found_lies_in_the_space_and_keeps_the_budget(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost = tabulate(space, lambda layer: layer.macs)
    problem = problem_of(space, random_table(space, rng), cost, 0.3)
    found = evolve(problem, seed=seed % 1000, count=5)
    archs = [space.decode(row) for row in found.genotypes]
    assert (space.encode(archs) == found.genotypes).all()
    assert len(set(archs)) == len(archs) >= 1
    assert problem.feasible(found.genotypes).all()
    assert found.values.tolist() == sorted(found.values, reverse=True)
    assert found.values == pytest.approx(problem.value.price(found.genotypes))
    assert [value for _, value in found.trace] == sorted(value for _, value in found.trace)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.9))
def test_it_finds_the_best_of_a_space_that_can_be_listed(seed: int, share: float) -> None:
    """And never anything better."""
    rng = np.random.default_rng(seed)
    cost = random_table(SMALL, rng, least=1)
    problem = problem_of(SMALL, random_table(SMALL, rng), cost, share)
    rows = everything(SMALL)
    best = problem.value.price(rows[problem.feasible(rows)]).max()
    assert evolve(problem, seed=1, count=1).values[0] == best


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


def test_budgets_that_exclude_each_other_are_refused() -> None:
    """What is small for one is large for the other."""
    sizes = tabulate(SMALL, lambda layer: layer.macs)
    present = np.isfinite(sizes.cost_RPC) & (sizes.cost_RPC > 0)
    largest = sizes.cost_RPC[present].max()
    against = Table(sizes.fixed_R, np.where(present, largest - sizes.cost_RPC, sizes.cost_RPC))
    limits = []
    for table in (sizes, against):
        least, _ = minimum(SMALL, table)
        limits.append(Limit(Budget("macs", least), table, least))
    with pytest.raises(UserError, match=r"was found within .* and"):
        evolve(Problem(SMALL, sizes, tuple(limits), "test"))


def test_same_seed_same_result_and_several_budgets() -> None:
    space = get_space("lite")
    tables = [tabulate(space, lambda layer: layer.macs), tabulate(space, lambda la: la.parameters)]
    value = Table(tables[0].fixed_R ** 0.3, np.sqrt(tables[0].cost_RPC))
    limits = (
        Limit(Budget("macs", 9e7), tables[0], 9e7),
        Limit(Budget("parameters", 2.6e6), tables[1], 2.6e6),
    )
    problem = Problem(space, value, limits, "test")
    first, again = (evolve(problem, seed=7) for _ in range(2))
    assert (first.genotypes == again.genotypes).all()
    assert first.trace == again.trace
    assert len(first.genotypes) == 10
    for table, most in zip(tables, (9e7, 2.6e6), strict=True):
        assert (table.price(first.genotypes) <= most).all()
    differ = (first.genotypes[:, None] != first.genotypes[None]).sum(2)
    assert differ[~np.eye(10, dtype=bool)].min() >= 2


def test_it_refuses_at_once_what_is_impossible() -> None:
    space = get_space("lite")
    cost = tabulate(space, lambda layer: layer.macs)
    problem = Problem(space, cost, (Limit(Budget("macs", 1e6), cost, 1e6),), "test")
    with pytest.raises(UserError, match=r"the least is 20\.4"):
        evolve(problem)


def test_distinct_keeps_the_first_of_twins() -> None:
    rows = np.array([[0, 1, 1], [0, 1, 2], [0, 2, 2], [1, 2, 1]], np.int16)
    assert distinct(rows, 3, 2).tolist() == [0, 2, 3]
