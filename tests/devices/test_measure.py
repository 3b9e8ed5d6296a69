"""Real files, really run and timed, in both runtimes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import devices.backends.litert
from devices.backends.litert import Litert
from devices.backends.ort import OnnxRuntime
from devices.measure import Backend, Measurement, measure, measure_interleaved, relative
from ofa.errors import UserError
from ofa.preprocessing import LITE0
from ofa.space import Arch
from specialize.export.onnx import onnx_model
from specialize.export.tflite import tflite_model
from tests.networks import labels_of, network, pixels_of
from tests.strategies import TINY

BACKENDS = pytest.mark.parametrize("backend", [Litert(), OnnxRuntime()], ids=lambda b: b.name)


def model(backend: Backend, arch: Arch) -> bytes:
    layers, folded = network(TINY, arch)
    write = tflite_model if backend.suffix == ".tflite" else onnx_model
    return write(layers, folded, labels_of(layers), LITE0, "test")


@BACKENDS
def test_a_larger_network_takes_longer(backend: Backend, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}{backend.suffix}" for name in ("small", "large")]
    for path, arch in zip(paths, (TINY.smallest(24), TINY.largest(40)), strict=True):
        path.write_bytes(model(backend, arch))
    small, large = measure_interleaved(backend, paths, turns=7, turn_s=0.001, warmup_s=0.02)
    assert small.median_ms < large.median_ms
    assert small.turns == large.turns == 7
    assert small.runs > large.runs
    assert small.warmup > 1
    assert 1 < relative(large, small) < 100
    assert small.runtime == f"{backend.name} {backend.version}"
    assert (small.delegate, small.threads) == (backend.delegate, 1)
    alone = measure(backend, paths[0].read_bytes(), turns=8, turn_s=0.0, warmup_s=0.0)
    assert 0 < alone.min_ms <= alone.median_ms <= alone.p90_ms
    assert alone.runs == 5


@BACKENDS
def test_a_slow_network_is_run_less_often(backend: Backend) -> None:
    """But never fewer than five times."""
    taken = measure(backend, model(backend, TINY.smallest()), warmup_s=0.0, turn_s=1e-9)
    assert (taken.turns, taken.runs) == (5, 5)


def test_models_take_turns() -> None:
    """Every turn of one begins with a run that is not timed, in caches full of another."""
    order: list[str] = []

    class Writes(OnnxRuntime):
        def open(self, model: Path | bytes) -> Callable[[], None]:
            assert isinstance(model, bytes)
            return lambda: order.append(model.decode())

    found = measure_interleaved(Writes(), [b"a", b"b"], turns=3, turn_s=10.0, warmup_s=0.0)
    assert "".join(order) == "ab" + 3 * (60 * "a" + 60 * "b")
    assert [(m.turns, m.runs) for m in found] == [(3, 150), (3, 150)]


def test_a_ratio_is_of_turns_that_found_the_machine_alike() -> None:
    """Half of the time it is a third slower, and what is slow twice as often is not slower."""

    def measured(*ms: float, turns: int) -> Measurement:
        return Measurement("r", "d", 1, 9.0, 0, ms, turns=turns)

    reference = measured(4.0, 4.0, 3.0, 3.0, 3.0, 3.0, turns=3)
    one = measured(8.0, 6.0, 6.0, turns=3)
    assert relative(one, reference) == pytest.approx(2.0)
    assert relative(measured(8.0, 8.1, 7.9, 6.0, 6.0, 6.0, turns=2), reference) == pytest.approx(2)


@given(st.integers(40, 60), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_a_percentile_is_rarely_above_what_it_is_at_most(turns: int, size: int, seed: int) -> None:
    """Though the runs of a turn are as good as one: their machine is fast or slow."""
    rng = np.random.default_rng(seed)
    missed = 0
    for _ in range(60):
        state = rng.choice([1.0, 1.3], p=[0.4, 0.6], size=(turns, 1))
        runs = state * rng.normal(1, 0.02, size=(turns, size))
        one = Measurement("r", "d", 1, 9.0, 0, tuple(runs.ravel()), turns=turns)
        missed += one.p90_at_most_ms < 1.3251  # 5/6 of the slow runs, and all of the fast ones
        assert one.p90_ms <= one.p90_at_most_ms <= max(one.raw_ms)
    assert missed <= 12


@BACKENDS
def test_a_file_that_is_no_model_is_refused(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / f"broken{backend.suffix}"
    path.write_bytes(b"not a model at all")
    with pytest.raises(UserError, match=r"cannot load the model") as refused:
        measure(backend, path)
    assert refused.value.where == str(path)
    for content in (path.with_name("absent"), path.read_bytes(), b""):
        with pytest.raises(UserError, match=r"cannot load the model"):
            backend.open(content)


def test_what_an_onnx_file_takes_is_known_or_refused(tmp_path: Path) -> None:
    """Any type of numbers, but not images of any size: what would be measured?"""

    def identity(kind: int, sides: list[int | str]) -> Path:
        x, y = (helper.make_tensor_value_info(n, kind, s) for n, s in (("x", sides), ("y", None)))
        node = helper.make_node("Identity", ["x"], ["y"])
        graph = helper.make_graph([node], "identity", [x], [y])
        path = tmp_path / "model.onnx"
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        return path

    for kind in (TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64):
        OnnxRuntime().open(identity(kind, ["n", 3, 8, 8]))()
    with pytest.raises(UserError, match="the size of its images is open"):
        OnnxRuntime().open(identity(TensorProto.FLOAT, ["n", 3, "h", "w"]))
    with pytest.raises(UserError, match=r"its input 'x' is a tensor\(string\)"):
        OnnxRuntime().open(identity(TensorProto.STRING, [1]))


def test_runtimes_and_kernels_agree() -> None:
    arch = TINY.largest(32)
    layers, _ = network(TINY, arch)
    x = LITE0.normalize(pixels_of(layers, 3))
    onnx = OnnxRuntime()
    expected = onnx.run(model(onnx, arch), x.transpose(0, 3, 1, 2))
    assert expected.shape == (3, TINY.classes)
    for delegate in ("xnnpack", "builtin", "reference"):
        litert = Litert(delegate=delegate)
        logits = litert.run(model(litert, arch), x)
        np.testing.assert_allclose(logits, expected, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize("delegate", ["xnnpack", "builtin", "reference"])
def test_the_delegate_is_the_one_that_is_named(delegate, capfd: pytest.CaptureFixture[str]) -> None:
    """And says nothing about it on stderr."""
    litert = Litert(delegate=delegate)
    operators = litert._load(model(litert, TINY.smallest()))._get_ops_details()
    assert (operators[-1]["op_name"] == "DELEGATE") == (delegate == "xnnpack")
    assert capfd.readouterr().err == ""


def test_figures_are_of_single_runs() -> None:
    numbers = count(1)
    m = Measurement("r", "d", 1, 9.0, 0, tuple(float(next(numbers)) for _ in range(10)))
    assert (m.min_ms, m.median_ms, m.p90_ms, m.runs) == (1.0, 5.5, 9.0, 10)
    assert m.spread == pytest.approx(9 / 5.5 - 1)
    assert m.noisy
    assert not Measurement("r", "d", 1, 9.0, 0, (1.0, 1.01, 1.02)).noisy


def test_the_older_runtime_needs_the_older_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """tflite-runtime 2.14, the last, imports beside NumPy 2 and fails where it is first used."""
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", ModuleType("tflite_runtime"))
    interpreter = ModuleType("tflite_runtime.interpreter")
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
    monkeypatch.setattr(devices.backends.litert, "version", lambda _: "2.14.0")
    monkeypatch.setattr(np, "__version__", "1.26.4")
    backend = Litert()
    assert f"{backend.name} {backend.version}" == "tflite-runtime 2.14.0"
    monkeypatch.setattr(np, "__version__", "2.0.0")
    with pytest.raises(UserError, match="is built for NumPy 1"):
        Litert()
