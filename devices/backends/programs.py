"""The benchmark programs of TFLite and ONNX Runtime: how they are called, and what they print.

A phone or a board runs such a program, and only what it prints comes back: a summary of its runs.
Both have changed their wording over the years, so they are read loosely.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ofa.errors import UserError

__all__ = ["PROGRAMS", "Program", "Summary"]

_WARMUP = 10
_P90 = 1.2816  # of the standard normal distribution
_MOST_S = 40  # of the warm-up, and of the runs: fewer of them where the device is slow


@dataclass(frozen=True, slots=True)
class Summary:
    """The timed runs of one call of a program, in ms.

    Of std_ms and p90_ms one is printed, and the other as of a normal distribution, whose 90th
    percentile is 1.28 standard deviations above its mean; p90_ms is at most the slowest run.
    """

    runs: int
    first_ms: float
    min_ms: float
    mean_ms: float
    p90_ms: float
    std_ms: float


@dataclass(frozen=True, slots=True)
class Program:
    """A benchmark program. suffix: of the files that it runs. runtime: whose program it is.

    warmup: runs before the timed ones. command: from the program's and the model's path there,
    threads and runs. parse: of what it prints; raises UserError.
    """

    name: str
    runtime: str
    delegate: str
    suffix: str
    warmup: int
    command: Callable[[str, str, int, int], str]
    parse: Callable[[str], Summary]


def _benchmark_model(tool: str, model: str, threads: int, runs: int) -> str:
    return (
        f"{tool} --graph={model} --num_threads={threads} --warmup_runs={_WARMUP} --num_runs={runs} "
        f"--max_secs={_MOST_S} --use_xnnpack=true"
    )


_COUNT = re.compile(
    r"count=(\d+)\s+first=(\d+)\s+curr=\d+\s+min=(\d+)\s+max=(\d+)\s+avg=([\d.e+]+)\s+std=(\d+)"
)


def _read_benchmark_model(text: str) -> Summary:
    """Lines ``count=50 first=.. curr=.. min=.. max=.. avg=.. std=..`` in microseconds.

    There is one for the warm-up and then one for the runs: the last counts.
    """
    found = _COUNT.findall(text)
    if not found:
        raise _unreadable("benchmark_model", text)
    count, _, least, most, mean, std = (float(value) for value in found[-1])
    first = re.search(r"First inference: (\d+)", text)
    return Summary(
        runs=int(count),
        first_ms=float(first[1] if first else found[0][1]) / 1e3,
        min_ms=least / 1e3,
        mean_ms=mean / 1e3,
        p90_ms=min(mean + _P90 * std, most) / 1e3,
        std_ms=std / 1e3,
    )


def _perf_test(tool: str, model: str, threads: int, runs: int) -> str:
    return f"{tool} -e cpu -m times -r {runs} -x {threads} -y 1 -I -s {model}"


def _read_perf_test(text: str) -> Summary:
    """``Average inference time cost: 5.8 ms``, ``Min Latency: 0.0057 s``, ``P90 Latency: ...``."""

    def number(pattern: str) -> float:
        match = re.search(pattern + r"\D*?(\d[\d.e+-]*)\s*(ms|s)(?:ec)?\b", text, re.IGNORECASE)
        if match is None:
            raise _unreadable("onnxruntime_perf_test", text)
        return float(match[1]) * (1.0 if match[2].lower() == "ms" else 1e3)

    runs = re.search(r"Total inference requests:\s*(\d+)", text)
    mean, p90 = number(r"Average (?:inference )?time cost"), number("P90 Latency")
    return Summary(
        runs=int(runs[1]) if runs else 0,
        first_ms=number("First inference time cost") if "First inference" in text else mean,
        min_ms=number("Min Latency"),
        mean_ms=mean,
        p90_ms=p90,
        std_ms=abs(p90 - mean) / _P90,
    )


def _unreadable(program: str, text: str) -> UserError:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "nothing"
    return UserError(f"{program} printed no latency; its last line: {last[:200]!r}")


PROGRAMS: dict[Literal["tflite", "onnxruntime"], Program] = {
    "tflite": Program(
        "benchmark_model",
        "tflite",
        "xnnpack",
        ".tflite",
        _WARMUP,
        _benchmark_model,
        _read_benchmark_model,
    ),
    "onnxruntime": Program(
        "onnxruntime_perf_test",
        "onnxruntime",
        "cpu",
        ".onnx",
        1,
        _perf_test,
        _read_perf_test,
    ),
}
