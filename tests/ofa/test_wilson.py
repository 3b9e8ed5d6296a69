"""The interval of a share, at its ends too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.wilson import wilson


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_it_holds_the_share(counts: tuple[int, int]) -> None:
    n, right = counts
    low, high = wilson(100 * right / n, n)
    assert 0 <= low <= 100 * right / n <= high <= 100


def test_by_hand() -> None:
    """9 of 10: the score interval of Wilson 1927."""
    assert wilson(90, 10) == pytest.approx((59.6, 98.2), abs=0.05)
