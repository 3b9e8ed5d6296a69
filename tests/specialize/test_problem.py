"""Budgets as people write them, and what no architecture can keep."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.errors import UserError
from ofa.space import Genotypes, Space
from ofa.table import Table, tabulate
from specialize.problem import Budget, Limit, Problem, format_quantity, minimum, parse_budget
from tests.strategies import TINY

#: Few enough architectures to list them all.
SMALL = TINY.restrict(kernels=(3, 5), expands=(1, 2), resolutions=(24, 32))


def everything(space: Space) -> Genotypes:
    """All genotypes of a small space."""
    stages = []
    for stage in space.stages:
        rows = []
        for depth in stage.depths:
            absent = [0] * (stage.depths[-1] - depth)
            choices = range(1, 1 + len(stage.choices))
            rows += [(*blocks, *absent) for blocks in product(choices, repeat=depth)]
        stages.append(rows)
    whole = product(range(len(space.resolutions)), *stages)
    return np.array([[r, *sum(parts, ())] for r, *parts in whole], np.int16)


def random_table(space: Space, rng: np.random.Generator) -> Table:
    """Additive, with negative entries and ties."""
    real = tabulate(space, lambda layer: layer.macs).cost_RPC
    cost = np.where(np.isfinite(real), rng.integers(-3, 9, real.shape) / 2, np.inf)
    cost[:, :, 0] = 0
    return Table(rng.integers(0, 5, len(space.resolutions)).astype(float), cost)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("20ms", Budget("latency", 20.0)),
        (" 1.5 MS", Budget("latency", 1.5)),
        ("800us", Budget("latency", 0.8)),
        ("0.02s", Budget("latency", 20.0)),
        ("300MMACs", Budget("macs", 3e8)),
        ("1gmacs", Budget("macs", 1e9)),
        ("3Mparams", Budget("parameters", 3e6)),
        ("5e2us", Budget("latency", 0.5)),
    ],
)
def test_units(text: str, budget: Budget) -> None:
    parsed = parse_budget(text)
    assert (parsed.quantity, parsed.limit) == (budget.quantity, pytest.approx(budget.limit))
    assert parse_budget(format_quantity(parsed.quantity, parsed.limit)) == parsed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("20", "has no unit; write 20ms, 20MMACs or 20Mparams"),
        ("20parsec", "unknown unit"),
        ("256kB", "memory is not a budget yet"),
        ("0ms", "not positive"),
        ("-3ms", "not positive"),
        ("infms", "not positive and finite"),
        ("nan", "has no unit"),
        ("1.2.3ms", "not a number"),
        ("fast", "not a number with a unit"),
        ("", "not a number with a unit"),
    ],
)
def test_a_wrong_budget_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        parse_budget(text)


@given(st.integers(0, 2**32 - 1))
def test_the_minimum_is_that_of_all_architectures(seed: int) -> None:
    table, rows = random_table(SMALL, np.random.default_rng(seed)), everything(SMALL)
    assert len(rows) == SMALL.size
    least, genotype = minimum(SMALL, table)
    assert least == table.price(rows).min()
    assert table.price(genotype[None])[0] == least


def test_an_impossible_budget_names_the_least() -> None:
    """The least it names, in turn, is possible."""
    table = tabulate(TINY, lambda layer: layer.macs)
    least, _ = minimum(TINY, table)

    def problem(limit: float, factor: float = 1.0) -> Problem:
        budget = Budget("latency", limit)
        return Problem(TINY, table, (Limit(budget, table, limit / factor),), "toaster")

    problem(least).check_possible()
    with pytest.raises(
        UserError, match=r"no architecture of 'tiny' fits .* on 'toaster'"
    ) as caught:
        problem(least / 2, factor=1.3).check_possible()
    suggested = parse_budget(caught.value.fix.removeprefix("try "))
    problem(suggested.limit, factor=1.3).check_possible()
