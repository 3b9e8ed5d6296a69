"""Latency, measured: one value, and the one contract that every backend keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Backend", "Measurement", "measure", "measure_interleaved", "relative"]

#: Fewest turns, and so timed runs, however long one takes; most timed runs of a turn.
_FEWEST, _MOST = 5, 50
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latency of one model in ms, from runs after the warm-up.

    runtime: name and version. delegate: what runs the operators, as the backend says it.
    first_ms: the very first run, which packs weights and touches memory. warmup: runs between
    that one and the timed ones. raw_ms: every timed run, in order, of so many equally long turns;
    or the mean of each repeat, where a program on another device tells only that, and told_p90_ms
    is what it tells of the 90th percentile; or what a compiler estimates.
    """

    runtime: str
    delegate: str
    threads: int
    first_ms: float
    warmup: int
    raw_ms: tuple[float, ...]
    told_p90_ms: float | None = None
    turns: int = 1
    estimated: bool = False

    @property
    def runs(self) -> int:
        """Number of timed runs."""
        return len(self.raw_ms)

    @property
    def counted(self) -> Literal["runs", "repeats", "estimates"]:
        """What ``runs`` counts: single ones, repeats of which a program tells the mean, or none."""
        if self.estimated:
            return "estimates"
        return "runs" if self.told_p90_ms is None else "repeats"

    @property
    def min_ms(self) -> float:
        """The fastest run: nearest to a machine that does nothing else."""
        return min(self.raw_ms)

    @property
    def median_ms(self) -> float:
        """Median."""
        return float(np.median(self.raw_ms))

    @property
    def p90_ms(self) -> float:
        """90th percentile: nine runs of ten are at most as slow."""
        if self.told_p90_ms is not None:
            return self.told_p90_ms
        return float(np.quantile(self.raw_ms, 0.9, method="inverted_cdf"))

    @property
    def p90_at_most_ms(self) -> float:
        """What the 90th percentile is at most, with a confidence of 95 %.

        By a bootstrap over the turns (Efron and Tibshirani 1993, 13.3): runs of one turn find the
        machine alike and count for little more than one.
        """
        if self.told_p90_ms is not None:
            return self.told_p90_ms
        turns = np.reshape(self.raw_ms, (self.turns, -1))
        drawn = np.random.default_rng(0).integers(self.turns, size=(_RESAMPLES, self.turns))
        samples = turns[drawn].reshape(_RESAMPLES, -1)
        p90 = np.quantile(samples, 0.9, axis=1, method="inverted_cdf")
        return float(np.quantile(p90, 0.95))

    @property
    def spread(self) -> float:
        """How far the 90th percentile is above the median, relative to the median."""
        return self.p90_ms / self.median_ms - 1

    @property
    def noisy(self) -> bool:
        """Whether something else was using the machine: a spread above a fifth."""
        return self.spread > 0.2

    def as_dict(self) -> dict[str, Any]:
        """Plain values: what was recorded, and the figures that follow from it."""
        figures = {"min_ms": self.min_ms, "median_ms": self.median_ms, "p90_ms": self.p90_ms}
        return {**asdict(self), **figures}

    def __str__(self) -> str:
        return (
            f"{self.median_ms:.3g} ms median, {self.p90_ms:.3g} ms p90, {self.first_ms:.3g} ms "
            f"first; {self.runs} {self.counted}, "
            f"{self.runtime}, {self.delegate}, {self.threads} thread{'s' * (self.threads != 1)}"
            f"{'; noisy' if self.noisy else ''}"
        )


class Backend(Protocol):
    """A runtime on some device. suffix: of the model files that it takes."""

    name: str
    version: str
    delegate: str
    suffix: str
    threads: int

    def open(self, model: Path | bytes) -> Callable[[], None]:
        """Load a model, and give what runs it once on zeros. Raises UserError."""

    def run(self, model: Path | bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The model's output for a batch. Raises UserError if it cannot be loaded."""


def measure(
    backend: Backend,
    model: Path | bytes,
    *,
    warmup_s: float = 0.2,
    turns: int = 30,
    turn_s: float = 0.05,
) -> Measurement:
    """Latency of one model; see ``measure_interleaved``."""
    return measure_interleaved(backend, [model], warmup_s=warmup_s, turns=turns, turn_s=turn_s)[0]


def measure_interleaved(
    backend: Backend,
    models: Sequence[Path | bytes],
    *,
    warmup_s: float = 0.1,
    turns: int = 12,
    turn_s: float = 0.05,
) -> list[Measurement]:
    """Latency of several models, run in turns so that a drift of the machine hits all alike.

    turn_s: seconds of timed runs in a turn. It begins with others, a fifth as many and at least
    one: they find the caches full of another model. A model of which one run takes longer has fewer
    turns, at least 5.
    """
    calls = [backend.open(model) for model in models]
    first = [_timed(call) for call in calls]
    warmup, size, left = [], [], []
    for call, typical in zip(calls, first, strict=True):
        began, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < warmup_s:
            call()
            count += 1
        one = passed / count if count else typical / 1e3
        warmup.append(count)
        size.append(round(min(max(turn_s / one, 1), _MOST)))
        left.append(min(turns, max(_FEWEST, round(turns * turn_s / one))))
    taken: list[list[float]] = [[] for _ in calls]
    for turn in range(max(left)):
        for index, call in enumerate(calls):
            if turn < left[index]:
                for _ in range(-(-size[index] // 5)):
                    call()
                taken[index] += [_timed(call) for _ in range(size[index])]
    runtime = f"{backend.name} {backend.version}"
    return [
        Measurement(
            runtime, backend.delegate, backend.threads, first[i], warmup[i], tuple(taken[i]),
            turns=left[i],
        )
        for i in range(len(calls))
    ]  # fmt: skip


def relative(one: Measurement, reference: Measurement) -> float:
    """How many times as long as the reference, which took turns with it.

    The median over their turns: within one both find the machine alike, whatever it does between
    them. Where a program tells no single runs, the ratio of medians.
    """
    if one.told_p90_ms is not None:
        return one.median_ms / reference.median_ms
    a, b = (np.median(np.reshape(m.raw_ms, (m.turns, -1)), axis=1) for m in (one, reference))
    turns = min(one.turns, reference.turns)
    return float(np.median(a[:turns] / b[:turns]))


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)
