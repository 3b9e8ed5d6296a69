"""Exact search: equal to listing everything, under any number of budgets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa.errors import UserError
from ofa.space import Space, Stage
from ofa.spaces import get_space
from ofa.table import Stacked, Table, tabulate
from specialize.problem import SLACK, Budget, Limit, Problem, Tradeoff, minimum
from specialize.search import evolution, exact
from tests.specialize.tables import SMALL, everything, plausible_accuracy, random_table

ROWS = everything(SMALL)

#: (reduce, share of architectures that keep it) of each budget.
BUDGETS = st.lists(
    st.tuples(st.sampled_from(["sum", "sum", "max"]), st.sampled_from([0.03, 0.3, 0.6, 0.9, 1.0])),
    max_size=3,
)
#: The same, some of which may be of arenas, on unlike devices: a maximum and a sum together.
WITH_ARENAS = st.tuples(
    BUDGETS,
    st.lists(st.sampled_from([0.03, 0.3, 0.6, 0.9]).map(lambda s: ("stack", s)), max_size=2),
).map(lambda parts: parts[0][:2] + parts[1])


def problem_of(rng: np.random.Generator, budgets: list[tuple[str, float]]) -> Problem:
    """Small integers, so that ties abound; negative ones too."""
    limits = []
    for reduce, share in budgets:
        table = stack(rng) if reduce == "stack" else random_table(SMALL, rng, reduce=reduce)
        most = float(np.quantile(table.price(ROWS), share))  # often a price itself
        limits.append(Limit(Budget("macs", most), table, most))
    return Problem(SMALL, random_table(SMALL, rng), tuple(limits), "test")


def stack(rng: np.random.Generator) -> Stacked:
    """A peak and what is kept besides."""
    return Stacked(random_table(SMALL, rng, reduce="max"), random_table(SMALL, rng))


def cheapest(front: exact.Front, value: float) -> float:
    """The least cost on a front that is worth at least ``value``."""
    return float(front.cost[np.searchsorted(front.value, value - SLACK)])


def listed(problem: Problem) -> np.ndarray:
    """Values of all architectures within the limits, best first."""
    return np.sort(problem.value.price(ROWS[problem.feasible(ROWS)]))[::-1]


@pytest.mark.slow
@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), WITH_ARENAS)
def test_the_k_best_are_those_of_the_list(seed: int, budgets: list[tuple[str, float]]) -> None:
    """Law 8: in order, each once, the first proven; and a refusal means that there is none."""
    problem = problem_of(np.random.default_rng(seed), budgets)
    values = listed(problem)
    if not len(values):
        with pytest.raises(UserError):
            exact.search(problem)
        return
    found = exact.search(problem, count=20, distance=1)
    assert found.values == pytest.approx(values[:20], abs=1e-9)
    assert found.bound == pytest.approx(values[0], abs=1e-9)
    assert problem.feasible(found.genotypes).all()
    assert len(np.unique(found.genotypes, axis=0)) == len(found.genotypes)
    assert evolution.search(problem, count=1).values[0] <= found.bound + 1e-9


@given(st.integers(0, 2**32 - 1), BUDGETS, st.sampled_from([-0.1, -1.0, -10.0, -100.0]))
def test_a_tradeoff_too(seed: int, budgets: list[tuple[str, float]], weight: float) -> None:
    rng = np.random.default_rng(seed)
    problem = problem_of(rng, budgets)
    assert isinstance(problem.value, Table)
    latency = random_table(SMALL, rng, least=1)
    problem = replace(problem, value=Tradeoff(problem.value, latency, weight))
    values = listed(problem)
    if len(values):
        found = exact.search(problem, count=20, distance=1)
        assert found.values == pytest.approx(values[:20], abs=1e-9)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), BUDGETS)
def test_the_least_maximum_too(seed: int, budgets: list[tuple[str, float]]) -> None:
    """Of the architectures that have it, the deepest within the first limit on a sum is first."""
    rng = np.random.default_rng(seed)
    problem = problem_of(rng, budgets)
    peak = random_table(SMALL, rng, reduce="max")
    problem = replace(problem, value=peak.scaled(-1))
    values = listed(problem)
    if not len(values):
        with pytest.raises(UserError):
            exact.search(problem)
        return
    found = exact.search(problem, count=5, distance=1)
    assert found.values[0] == found.bound == values[0]
    assert problem.feasible(found.genotypes).all()
    tables = [limit.table for limit in problem.limits]
    sums = [table for table in tables if isinstance(table, Table) and table.reduce == "sum"]
    if sums:
        least = ROWS[problem.feasible(ROWS) & (peak.price(ROWS) == -values[0])]
        assert sums[0].price(found.genotypes[:1])[0] == pytest.approx(sums[0].price(least).min())
    assert evolution.search(problem, count=1).values[0] <= found.bound


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), BUDGETS.map(lambda budgets: budgets[:1]))
def test_the_smallest_arena_too(seed: int, budgets: list[tuple[str, float]]) -> None:
    rng = np.random.default_rng(seed)
    problem = replace(problem_of(rng, budgets), value=stack(rng).scaled(-1))
    values = listed(problem)
    found = exact.search(problem, count=5, distance=1)
    assert found.values == pytest.approx(values[:5], abs=1e-9)
    assert found.bound == pytest.approx(values[0], abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_the_least_of_an_arena_is_the_list_s(seed: int) -> None:
    table = stack(np.random.default_rng(seed))
    least, genotype = minimum(SMALL, table)
    assert least == table.price(genotype[None])[0] == table.price(ROWS).min()


@given(st.integers(0, 2**32 - 1), st.sampled_from([[], [("max", 0.6)]]))
def test_the_front_answers_every_budget(seed: int, budgets: list[tuple[str, float]]) -> None:
    problem = problem_of(np.random.default_rng(seed), [("sum", 0.3), *budgets])
    limit = problem.limits[0]
    rest = replace(problem, limits=problem.limits[1:])
    rows = ROWS[rest.feasible(ROWS)]
    found = exact.front(problem)
    cost, value = limit.table.price(rows), problem.value.price(rows)
    assert (np.diff(found.cost) > 0).all()
    assert (np.diff(found.value) > 0).all()
    assert limit.table.price(found.rows) == pytest.approx(found.cost)
    assert problem.value.price(found.rows) == pytest.approx(found.value)
    assert found.within(cost.min() - 1) == -1
    for budget in np.unique(cost):
        best = value[cost <= budget + SLACK].max()
        assert found.value[found.within(budget)] == pytest.approx(best)
        assert cheapest(found, best) <= budget + SLACK


def test_the_least_cost_for_an_accuracy_is_a_problem_like_any_other() -> None:
    """Minimizing a table under a limit on another one agrees with the front."""
    space = get_space("lite")
    value, cost = plausible_accuracy(space, 0), tabulate(space, lambda layer: layer.macs / 1e6)
    found = exact.front(Problem(space, value, (Limit(Budget("macs", 1.0), cost, 1.0),), "test"))
    for aim in np.quantile(found.value, [0.1, 0.5, 0.99]):
        reach = Limit(Budget("accuracy", 1.0), value.scaled(-1), -float(aim))
        least = exact.search(Problem(space, cost.scaled(-1), (reach,), "test"), count=1)
        assert -least.values[0] == pytest.approx(cheapest(found, float(aim)))


def test_it_seeds_the_evolution_which_then_is_never_worse() -> None:
    """Two budgets that conflict are where the evolution alone falls short."""
    space = get_space("lite")
    value = plausible_accuracy(space, 1)
    limits = tuple(
        Limit(Budget("macs", most), table, most)
        for table in (
            tabulate(space, lambda layer: layer.macs / 1e6),
            tabulate(space, lambda layer: layer.parameters / 1e6),
        )
        for most in [
            float(np.quantile(table.price(space.sample(np.random.default_rng(0), 500)), 0.1))
        ]
    )
    problem = Problem(space, value, limits, "test")
    proof = exact.search(problem)
    assert proof.values[0] == pytest.approx(proof.bound, abs=1e-9)
    seeded = evolution.search(problem, starts=proof.genotypes)
    assert seeded.values[0] == proof.values[0]


def test_the_whole_front_of_the_space_of_the_reference() -> None:
    """7371^5 architectures at one resolution; every budget from one run."""
    stages = tuple(Stage(w, 2, (2, 3, 4), (3, 5, 7), (3, 4, 6)) for w in (24, 40, 80, 112, 160))
    space = Space("large", 16, stages, 1280, (224,), 1000)
    cost = tabulate(space, lambda layer: layer.macs / 1e6)
    luck = np.random.default_rng(0).uniform(0.8, 1.2, cost.cost_RPC.shape)
    problem = Problem(
        space,
        Table(np.zeros(1), np.sqrt(cost.cost_RPC) * luck),
        (Limit(Budget("macs", 1.0), cost, 1.0),),
        "test",
    )
    found = exact.front(problem)
    assert len(found.cost) > 1000
    sample = space.sample(np.random.default_rng(1), 5000)
    reached = found.value[found.within(cost.price(sample))]
    assert (problem.value.price(sample) <= reached + 1e-9).all()
