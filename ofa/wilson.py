"""The interval of a measured accuracy."""

from __future__ import annotations

from math import sqrt

__all__ = ["wilson"]


def wilson(percent: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """(low, high) in percent: the 95 % score interval of ``percent`` right of n (Wilson 1927)."""
    p = percent / 100
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 and at 100 % an end is the value itself, but for the last bits.
    return min(percent, 100 * max(0.0, centre - half)), max(percent, 100 * min(1.0, centre + half))
