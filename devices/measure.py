"""Latency, measured: one value, and the one contract that every backend keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Backend", "Measurement", "measure", "measure_interleaved"]

#: Timed runs of one model in a row while several take turns.
_BLOCK = 5
#: Fewest timed runs, however long one takes.
_FEWEST = 5


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latency of one model in ms, from runs after the warm-up.

    runtime: name and version. delegate: what runs the operators, as the backend says it.
    first_ms: the very first run, which packs weights and touches memory. warmup: runs between
    that one and the timed ones. raw_ms: every timed run, in order; or the mean of each repeat,
    where a program on another device tells only that, and told_p90_ms is what it tells of the
    90th percentile.
    """

    runtime: str
    delegate: str
    threads: int
    first_ms: float
    warmup: int
    raw_ms: tuple[float, ...]
    told_p90_ms: float | None = None

    @property
    def runs(self) -> int:
        """Number of timed runs."""
        return len(self.raw_ms)

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
            f"first; {self.runs} {'runs' if self.told_p90_ms is None else 'repeats'}, "
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
    runs: int = 50,
    most_s: float = 2.0,
) -> Measurement:
    """Latency of one model: ``runs`` runs, fewer (at least 5) where they take over ``most_s``."""
    return measure_interleaved(backend, [model], warmup_s=warmup_s, runs=runs, most_s=most_s)[0]


def measure_interleaved(
    backend: Backend,
    models: Sequence[Path | bytes],
    *,
    warmup_s: float = 0.1,
    runs: int = 40,
    most_s: float = 1.0,
) -> list[Measurement]:
    """Latency of several models, run in turns so that a drift of the machine hits all alike.

    most_s: seconds of timed runs for each model. Each turn begins with a run that is not timed: it
    finds the caches full of another model and takes about 7 % longer than those after it.
    """
    calls = [backend.open(model) for model in models]
    first = [_timed(call) for call in calls]
    warmup = []
    for call in calls:
        end, count = time.perf_counter() + warmup_s, 0
        while time.perf_counter() < end:
            call()
            count += 1
        warmup.append(count)
    taken: list[list[float]] = [[] for _ in calls]
    while active := [
        (call, times)
        for call, times in zip(calls, taken, strict=True)
        if len(times) < min(runs, _FEWEST) or (len(times) < runs and sum(times) < 1e3 * most_s)
    ]:
        for call, times in active:
            call()
            times += [_timed(call) for _ in range(min(_BLOCK, runs - len(times)))]
    runtime = f"{backend.name} {backend.version}"
    return [
        Measurement(runtime, backend.delegate, backend.threads, one, count, tuple(times))
        for one, count, times in zip(first, warmup, taken, strict=True)
    ]


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)
