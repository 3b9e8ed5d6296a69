"""What benchmark programs print, of several generations; and which cores a profile means."""

from __future__ import annotations

import pytest

from devices.backends.board import cores_to_use
from devices.backends.programs import PROGRAMS
from ofa.errors import UserError

OLDER = """Timings (microseconds): count=4 first=83000 curr=8 min=8 max=84000 avg=83235 std=9
Timings (microseconds): count=50 first=79449 curr=81350 min=77385 max=88213 avg=79732 std=1929
Average inference timings in us: Warmup: 83235, Init: 38467, Inference: 79760.9
"""
NEWER = """INFO: Log parameter values verbosely: [0]
INFO: count=5 first=124020 curr=116000 min=115000 max=124020 avg=117225 std=2000
INFO: count=50 first=121183 curr=115199 min=111222 max=121324 avg=116066 std=1906
INFO: Inference timings in us: Init: 530, First inference: 124020, Inference (avg): 116066
"""
PERF_TEST = """Session creation time cost: 0.0131 s
First inference time cost: 12 ms
Total inference time cost: 0.58 s
Total inference requests: 100
Average inference time cost total: 5.80553 ms
Total inference run time: 0.582 s
Min Latency: 0.00559777 s
Max Latency: 0.0071 s
P50 Latency: 0.00575 s
P90 Latency: 0.0061 s
"""
PERF_TEST_OLDER = """Average time cost:58.8053 ms
Min Latency is 0.0559777sec
P90 Latency is 0.0612sec
"""


def test_benchmark_model_of_two_generations() -> None:
    older = PROGRAMS["tflite"].parse(OLDER)
    assert (older.runs, older.first_ms, older.min_ms) == (50, 83.0, 77.385)
    assert older.mean_ms == 79.732
    assert older.std_ms == 1.929
    assert older.p90_ms == pytest.approx(79.732 + 1.2816 * 1.929)
    newer = PROGRAMS["tflite"].parse(NEWER)
    assert (newer.runs, newer.first_ms, newer.mean_ms) == (50, 124.02, 116.066)


def test_onnxruntime_perf_test_of_two_generations() -> None:
    newer = PROGRAMS["onnxruntime"].parse(PERF_TEST)
    assert (newer.runs, newer.first_ms, newer.mean_ms) == (100, 12.0, 5.80553)
    assert newer.min_ms == pytest.approx(5.59777)
    assert newer.p90_ms == pytest.approx(6.1)
    older = PROGRAMS["onnxruntime"].parse(PERF_TEST_OLDER)
    assert older.mean_ms == 58.8053
    assert (older.min_ms, older.p90_ms) == (pytest.approx(55.9777), pytest.approx(61.2))


@pytest.mark.parametrize("program", ["tflite", "onnxruntime"])
@pytest.mark.parametrize("text", ["", "Segmentation fault", "count=50 first=", "P90 Latency"])
def test_anything_else_is_refused(program, text: str) -> None:
    with pytest.raises(UserError, match="printed no latency"):
        PROGRAMS[program].parse(text)


@pytest.mark.parametrize(
    ("cores", "cpus"),
    [
        ("1large", (7,)),
        ("1 large", (7,)),
        ("1med", (4,)),
        ("3med", (4, 5, 6)),
        ("4small", (0, 1, 2, 3)),
        ("1large1med", (4, 7)),
        ("2large", ()),
        ("4 threads, not pinned", ()),
    ],
)
def test_cores_of_a_pixel4(cores: str, cpus: tuple[int, ...]) -> None:
    speeds = dict.fromkeys(range(4), 1785) | dict.fromkeys((4, 5, 6), 2419) | {7: 2842}
    assert cores_to_use(speeds, cores) == cpus


def test_cores_of_two_kinds_and_of_one() -> None:
    two = {0: 1800, 1: 1800, 2: 2600, 3: 2600}
    assert cores_to_use(two, "2large") == (2, 3)
    assert cores_to_use(two, "1small") == (0,)
    assert cores_to_use(two, "1med") == ()
    assert cores_to_use({0: 1500, 1: 1500}, "1large") == (0,)
    assert cores_to_use({0: 1500, 1: 1500}, "1small") == ()
    assert cores_to_use({}, "1large") == ()
