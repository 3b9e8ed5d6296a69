"""All strategies: the same laws for each, and how near each comes to the optimum."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ofa.errors import UserError
from ofa.space import Space
from ofa.spaces import get_space
from ofa.table import Table, tabulate
from specialize.problem import Budget, Limit, Problem, Tradeoff
from specialize.search import STRATEGIES, exact, get_strategy
from specialize.search.genes import Genes
from specialize.search.gradient import Relaxed
from tests.specialize.tables import SMALL, everything, plausible_accuracy, random_table
from tests.strategies import spaces

every_strategy = pytest.mark.parametrize("name", STRATEGIES)
seeds = st.integers(0, 2**32 - 1)


def limit_of(space: Space, table: Table, share: float) -> Limit:
    """A limit that ``share`` of random architectures keep."""
    prices = table.price(space.sample(np.random.default_rng(0), 500))
    most = float(np.quantile(prices, share))
    return Limit(Budget("macs", most), table, most)


def random_problem(space: Space, seed: int) -> Problem:
    """None to three budgets, a maximum among them, that some random architectures keep."""
    rng = np.random.default_rng(seed)
    limits = [
        limit_of(space, random_table(space, rng, reduce=reduce), rng.uniform(0.2, 0.95))
        for reduce in ("sum", "sum", "max")
        if rng.random() < 0.6
    ]
    problem = Problem(space, random_table(space, rng), tuple(limits), "test")
    assume(problem.feasible(space.sample(rng, 500)).sum() >= 10)
    if rng.random() < 0.3:
        value = Tradeoff(random_table(space, rng), random_table(space, rng, least=1), -5.0)
        return replace(problem, value=value)
    return problem


@pytest.mark.slow
@every_strategy
@settings(max_examples=4)
@given(space=spaces(), seed=seeds, distance=st.integers(1, 3))
def test_what_is_found_is_valid_and_no_better_than_the_optimum(
    name: str, space: Space, seed: int, distance: int
) -> None:
    """Law 8: nothing beats ``exact``."""
    problem = random_problem(space, seed)
    told: list[tuple[int, float]] = []
    found = get_strategy(name)(
        problem,
        seed=seed % 1000,
        count=5,
        distance=distance,
        tell=lambda *told_: told.append(told_),
    )
    rows = found.genotypes
    assert 1 <= len(rows) <= 5
    assert (space.encode([space.decode(row) for row in rows]) == rows).all()
    assert problem.feasible(rows).all()
    assert all((a != b).sum() >= distance for i, a in enumerate(rows) for b in rows[:i])
    assert found.values == pytest.approx(problem.value.price(rows))
    assert found.values.tolist() == sorted(found.values, reverse=True)
    assert found.trace[-1][1] == found.values[0]
    for (count, value), (later, better) in pairwise(found.trace):
        assert count < later
        assert value < better
    assert [count for count, _ in told] == sorted({count for count, _ in told})
    assert told[-1][0] == found.evaluations
    assert found.values[0] <= exact.search(problem, count=1).bound + 1e-9


@every_strategy
@settings(max_examples=4)
@given(seed=seeds, share=st.floats(0.02, 0.9))
def test_each_comes_near_the_best_of_a_space_that_can_be_listed(
    name: str, seed: int, share: float
) -> None:
    """The controllers can settle beside it, among the best few of 560."""
    rng = np.random.default_rng(seed)
    limit = limit_of(SMALL, random_table(SMALL, rng, least=1), share)
    problem = Problem(SMALL, random_table(SMALL, rng), (limit,), "test")
    rows = everything(SMALL)
    values = np.sort(problem.value.price(rows[problem.feasible(rows)]))[::-1]
    found = get_strategy(name)(problem, seed=1, count=1).values[0]
    if name in ("exact", "evolution", "random"):
        assert found == pytest.approx(values[0])
    else:
        assert np.count_nonzero(values > found + 1e-9) <= 5


@pytest.mark.slow
@every_strategy
def test_same_seed_same_result_and_starts_are_kept(name: str) -> None:
    space = get_space("lite")
    limit = limit_of(space, tabulate(space, lambda layer: layer.parameters), 0.2)
    problem = Problem(space, plausible_accuracy(space, 0), (limit,), "test")
    starts = space.sample(np.random.default_rng(0), 50)
    first, again = (get_strategy(name)(problem, seed=3, starts=starts) for _ in range(2))
    assert (first.genotypes == again.genotypes).all()
    assert (first.values == again.values).all()
    assert first.trace == again.trace
    assert len(first.genotypes) == 10
    kept = starts[problem.feasible(starts)]
    assert first.values[0] >= problem.value.price(kept).max()


@every_strategy
def test_budgets_that_exclude_each_other_are_refused(name: str) -> None:
    """What is small for one is large for the other."""
    rows, sizes = everything(SMALL), random_table(SMALL, np.random.default_rng(0), least=1)
    against = Table(sizes.fixed_R, np.where(sizes.cost_RPC > 0, 5 - sizes.cost_RPC, 0))
    limits = []
    for table in (sizes, against):
        most = float(table.price(rows).min())
        limits.append(Limit(Budget("macs", most), table, most))
    problem = Problem(SMALL, sizes, tuple(limits), "test")
    assert not problem.feasible(rows).any()
    with pytest.raises(UserError, match=r"was found within .* and"):
        get_strategy(name)(problem)


@every_strategy
def test_a_budget_below_everything_is_refused_at_once(name: str) -> None:
    space = get_space("lite")
    cost = tabulate(space, lambda layer: layer.macs)
    problem = Problem(space, cost, (Limit(Budget("macs", 1e6), cost, 1e6),), "test")
    with pytest.raises(UserError, match=r"the least is 20\.4"):
        get_strategy(name)(problem, tell=lambda *_: pytest.fail("it searched"))


@pytest.mark.slow
def test_on_the_real_space_each_has_its_rank() -> None:
    """Regrets in logits, of which random architectures have a standard deviation of 0.5."""
    space = get_space("lite")
    cost = tabulate(space, lambda layer: layer.macs / 1e6)
    most = {"evolution": 0.03, "reinforce": 0.1, "gradient": 0.15, "random": 1.0}
    for seed, share in product(range(2), (0.03, 0.4)):
        limits = (limit_of(space, cost, share),)
        problem = Problem(space, plausible_accuracy(space, seed), limits, "test")
        best = exact.search(problem, count=1).values[0]
        regret = {name: best - get_strategy(name)(problem, seed=seed).values[0] for name in most}
        assert min(regret.values()) >= -1e-9
        assert all(regret[name] <= most[name] for name in most), regret
        assert regret["random"] >= max(regret[name] for name in most if name != "random")


@given(seed=seeds)
def test_relaxed_prices_are_those_of_the_tables_and_slopes_their_gradient(seed: int) -> None:
    """Where each gene has one value; and in between prices are linear in each gene."""
    rng = np.random.default_rng(seed)
    genes, tables = Genes(SMALL), [random_table(SMALL, rng) for _ in range(3)]
    relaxed = Relaxed(genes, tables)
    row = genes.random(rng, 1)
    corner_GV = (row[0] - genes.first)[:, None] == np.arange(genes.values.max())
    price_T, _ = relaxed(corner_GV.astype(float))
    assert price_T == pytest.approx([table.price(genes.genotypes(row))[0] for table in tables])

    possible_GV = np.arange(genes.values.max()) < genes.values[:, None]
    share_GV = rng.random(possible_GV.shape) * possible_GV
    share_GV /= share_GV.sum(1, keepdims=True)
    price_T, slope_TGV = relaxed(share_GV)
    for g in range(len(share_GV)):
        moved_GV = share_GV.copy()
        moved_GV[g] = corner_GV[g]
        change_T = np.einsum("tv,v->t", slope_TGV[:, g], moved_GV[g] - share_GV[g])
        assert relaxed(moved_GV)[0] == pytest.approx(price_T + change_T)


def test_an_unknown_strategy_is_answered_by_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'reinforce'"):
        get_strategy("reinforced")
    with pytest.raises(UserError, match=", ".join(STRATEGIES)):
        get_strategy("?")
