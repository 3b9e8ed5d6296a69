"""Budgets as people write them, and what no architecture can keep."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ofa.errors import UserError
from ofa.table import Table, tabulate
from specialize.problem import (
    REPORTED,
    Budget,
    Limit,
    Objective,
    Problem,
    Tradeoff,
    format_quantity,
    minimum,
    parse_budget,
    parse_duration,
)
from tests.specialize.tables import SMALL, everything, random_table
from tests.strategies import TINY


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
        ("2000000 MACs", Budget("macs", 2e6)),
    ],
)
def test_a_budget_is_read(text: str, budget: Budget) -> None:
    parsed = parse_budget(text)
    assert parsed.quantity == budget.quantity
    assert parsed.limit == pytest.approx(budget.limit)


@pytest.mark.parametrize(
    ("text", "limit"), [("256kB", 256e3), ("1 MiB", 2**20), ("512b", 512.0), ("0.5mb", 5e5)]
)
def test_a_memory_is_read(text: str, limit: float) -> None:
    assert parse_budget(text, "sram") == Budget("sram", limit)
    for wrong in ("20ms", "256"):
        with pytest.raises(UserError, match="--flash") as caught:
            parse_budget(wrong, "flash")
        assert "kB" in str(caught.value.fix)


@given(
    st.sampled_from(["latency", "macs", "parameters"]),
    st.floats(1, 9999).map(lambda value: float(f"{value:.4g}")),
)
def test_a_quantity_reads_as_it_is_written(
    quantity: Literal["latency", "macs", "parameters"], shown: float
) -> None:
    value = shown * REPORTED[quantity][1]
    assert parse_budget(format_quantity(quantity, value)) == Budget(quantity, value)


@given(
    st.text("0123456789.e+-naif ", max_size=6),
    st.sampled_from(["", "s", "ms", "us", "MACs", "kMACs", "MMACs", "Mparams", "m s", "B"]),
)
def test_any_text_is_a_sound_budget_or_refused(number: str, unit: str) -> None:
    try:
        limit = parse_budget(number + unit).limit
    except UserError:
        return
    assert 0 < limit < np.inf


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("20", "has no unit; write 20ms, 20MMACs or 20Mparams"),
        ("20parsec", "unknown unit"),
        ("256kB", "of which memory"),
        ("0ms", "not positive"),
        ("-3ms", "not positive"),
        ("infms", "not positive and finite"),
        ("-3", "not positive"),
        ("nan", "not positive and finite"),
        ("1e999ms", "not positive and finite"),
        ("1e-323us", "not positive and finite"),
        ("20,5ms", "not a number with a unit"),
        ("1.2.3ms", "not a number"),
        ("fast", "not a number with a unit"),
        ("", "not a number with a unit"),
    ],
)
def test_a_wrong_budget_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        parse_budget(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1.5 h", 5400), ("0.5M", 30), ("1e2s", 100)]
)
def test_a_duration_is_read_in_its_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("5", "time '5' has no unit; write 5s, 5m or 5h"),
        ("5ms", "unknown unit; write 5m, 90s or 1h"),
        ("0s", "not positive"),
        ("1e308h", "not positive and finite"),
        ("a while", "not a number with a unit"),
    ],
)
def test_a_wrong_duration_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        parse_duration(text)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["sum", "max"]))
def test_the_minimum_is_that_of_all_architectures(seed: int, reduce: Literal["sum", "max"]) -> None:
    table = random_table(SMALL, np.random.default_rng(seed), reduce=reduce)
    rows = everything(SMALL)
    assert len(rows) == SMALL.size
    least, genotype = minimum(SMALL, table)
    assert least == table.price(rows).min()
    assert table.price(genotype[None])[0] == least


@given(st.floats(1e-3, 1e3), st.floats(1, 3), st.floats(0.01, 0.999))
def test_an_impossible_budget_names_one_that_is_possible(
    fastest_ms: float, factor: float, share: float
) -> None:
    """Whatever the latency of the fastest and the factor to its bound are."""
    sizes = tabulate(TINY, lambda layer: layer.macs)
    table = sizes.scaled(fastest_ms / minimum(TINY, sizes)[0])

    def problem(limit: float) -> Problem:
        return Problem(TINY, table, (Limit(Budget("latency", limit), table, limit / factor),), "pi")

    problem(fastest_ms * factor).check_possible()
    with pytest.raises(UserError, match=r"no architecture of 'tiny' fits .* on 'pi'") as caught:
        problem(share * fastest_ms * factor).check_possible()
    suggested = parse_budget(caught.value.fix.removeprefix("try "))
    problem(suggested.limit).check_possible()
    measured = problem(share * fastest_ms * factor).within_reach("latency", 1.1)
    assume(abs(share * factor - 1) > 1e-6)  # not by a rounding
    assert measured.possible == (share * factor > 1)  # the point decides, not the bound
    assert measured.limits[0].most <= fastest_ms * share * factor * (1 + 1e-9)
    assert suggested.limit < 1.2 * fastest_ms * factor


def test_each_objective_has_its_merit() -> None:
    """By hand: percent, percent less twice log(ms), or the least of what is good enough."""
    costs = {"latency": 20.0, "macs": 4e6}
    assert Objective().merit(90.0, costs) == 90.0
    assert Objective(tradeoff=-2).merit(90.0, costs) == pytest.approx(90 - 2 * np.log(20))
    least = Objective(minimize="macs", min_accuracy=90)
    assert least.merit(90.0, costs) > least.merit(99.0, {"macs": 5e6}) > least.merit(89.9, costs)
    assert least.merit(89.9, costs) > least.merit(89.0, {"macs": 1.0})
    nothing = np.zeros((1, 0, 1))  # no blocks: 90 % and 20 ms at the one resolution
    logits, ms = Table(np.array([np.log(9.0)]), nothing), Table(np.array([20.0]), nothing)
    assert Tradeoff(logits, ms, -2).price(np.zeros((1, 1), np.int16)) == pytest.approx(
        90 - 2 * np.log(20)
    )
