"""Real files, really timed, in both runtimes; and a profile from measurements."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from devices.backends.litert import Litert
from devices.backends.ort import OnnxRuntime
from devices.calibrate import fit_profile
from devices.cost import predict
from devices.measure import Measurement, measure, measure_interleaved
from devices.profile import Hardware, Runtime, get_profile, parse_profile
from ofa.errors import UserError
from ofa.layers import lower
from ofa.preprocessing import LITE0
from ofa.sampling import spread
from ofa.spaces import get_space
from specialize.export.onnx import onnx_model
from specialize.export.tflite import tflite_model
from tests.networks import labels_of, network
from tests.strategies import TINY


@pytest.mark.parametrize("backend", [Litert(), OnnxRuntime()], ids=lambda b: b.name)
def test_a_larger_network_takes_longer(backend, tmp_path: Path) -> None:
    paths = []
    for index, arch in enumerate((TINY.smallest(24), TINY.largest(40))):
        layers, folded = network(TINY, arch)
        write = tflite_model if backend.suffix == ".tflite" else onnx_model
        path = tmp_path / f"{index}{backend.suffix}"
        path.write_bytes(write(layers, folded, labels_of(layers), LITE0, "test"))
        paths.append(path)
    small, large = measure_interleaved(backend, paths, runs=40, warmup_s=0.02)
    assert small.median_ms < large.median_ms
    assert small.runs >= 40
    assert small.runtime == f"{backend.name} {backend.version}"
    assert measure(backend, paths[0], runs=8, warmup_s=0.01).median_ms > 0


@pytest.mark.parametrize("backend", [Litert(), OnnxRuntime()], ids=lambda b: b.name)
def test_a_file_that_is_no_model_is_refused(backend, tmp_path: Path) -> None:
    path = tmp_path / f"broken{backend.suffix}"
    path.write_bytes(b"not a model at all")
    with pytest.raises(UserError, match=r"broken.*cannot load the model"):
        measure(backend, path)


def test_percentiles_are_of_single_runs() -> None:
    m = Measurement("r", 1, 9.0, tuple(float(i) for i in range(1, 11)))
    assert (m.median_ms, m.p90_ms, m.runs) == (5.5, 9.0, 10)
    assert m.spread == pytest.approx(9 / 5.5 - 1)


def test_a_mix_prices_a_device_that_it_has_not_seen() -> None:
    """The truth is a profile that the fit may not use, 1.7 times slower, with 2 % noise."""
    space, rng = get_space("lite"), np.random.default_rng(0)
    truth = get_profile("note10")

    def measured(count: int, seed: int):
        archs = spread(space, count, np.random.default_rng(seed))
        networks = [lower(space, arch) for arch in archs]
        noise = 1 + 0.02 * rng.normal(size=count)
        ms = [1.7 * predict(truth, n).point * e for n, e in zip(networks, noise, strict=True)]
        return list(zip(networks, ms, strict=True))

    hardware = Hardware("test", "test", "1", "test", None)
    runtime = Runtime("LiteRT", "2", "cpu", 1, "float32", 1)
    profile = fit_profile("mine", "mine", measured(14, 1), hardware, runtime)
    fresh = measured(60, 2)
    ratio = np.array([ms / predict(profile, layers).point for layers, ms in fresh])
    assert abs(1 / ratio - 1).mean() < 0.06
    assert (ratio <= profile.bound[0.9]).mean() >= 0.8
    assert min(profile.coefficients.values()) >= 0
    assert profile.kind == "this machine"
    again = parse_profile(json.dumps(profile.as_dict()), "mine")
    assert again.coefficients == pytest.approx(profile.coefficients)
    with pytest.raises(ValueError, match="needs 9"):
        fit_profile("mine", "mine", measured(5, 1), hardware, runtime)
