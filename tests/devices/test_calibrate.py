"""Profiles from a few measured networks, against known devices as the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

import devices.calibrate
from devices.backends.litert import Litert
from devices.calibrate import Sample, fit_profile, informative, write_profile
from devices.cost import predict
from devices.measure import measure_interleaved
from devices.profile import MEASURED_HERE, Hardware, Profile, Runtime, get_profile, load_profiles
from ofa.layers import Layer, lower, macs
from ofa.preprocessing import LITE0
from ofa.sampling import spread
from ofa.spaces import get_space
from specialize.export.tflite import tflite_model
from tests.networks import labels_of, network

HARDWARE = Hardware("test", "test", "1", "test", None)
RUNTIME = Runtime("LiteRT", "2", "cpu", 1, "float32", 1)
LITE = get_space("lite")

Truth = Callable[[tuple[Layer, ...]], float]


def measured(truth: Truth, count: int, seed: int, noise: float = 0.02) -> list[Sample]:
    """Networks of the lite space in random order, their truth times e^(noise x normal)."""
    rng = np.random.default_rng(seed)
    archs = spread(LITE, 60, rng)
    chosen = [lower(LITE, archs[i]) for i in rng.permutation(len(archs))[:count]]
    taken = [truth(layers) * np.exp(noise * rng.normal()) for layers in chosen]
    return [(layers, ms, ms) for layers, ms in zip(chosen, taken, strict=True)]


def fit(samples: list[Sample]) -> Profile:
    return fit_profile("mine", "mine", samples, HARDWARE, RUNTIME, MEASURED_HERE, "lite")


def ratios(profile: Profile, samples: list[Sample]) -> np.ndarray:
    """Actual / predicted."""
    return np.array([ms / predict(profile, layers).point for layers, ms, _ in samples])


@pytest.fixture
def without_note10(monkeypatch: pytest.MonkeyPatch) -> Truth:
    """A device that the fit has not seen: 1.7 times slower than a profile kept from it."""
    others = tuple(p for p in load_profiles() if p.name != "note10")
    monkeypatch.setattr(devices.calibrate, "load_profiles", lambda: others)
    return lambda layers: 1.7 * predict(get_profile("note10"), layers).point


def test_a_device_not_seen_is_priced_within_a_few_percent(without_note10: Truth) -> None:
    profile = fit(measured(without_note10, 14, seed=0))
    found = ratios(profile, measured(without_note10, 40, seed=1))
    assert abs(1 / found - 1).mean() < 0.04
    assert profile.typical_error < 5
    assert profile.grade == "B"


def test_a_bound_holds_as_often_as_it_says(without_note10: Truth) -> None:
    """Split conformal coverage: on average over fits, at least the stated confidence."""
    held = [
        ratios(profile, measured(without_note10, 40, seed + 1)) <= profile.bound[0.9]
        for seed in range(0, 30, 2)
        for profile in [fit(measured(without_note10, 14, seed))]
    ]
    assert np.mean(held) > 0.88


def test_a_machine_unlike_any_phone_is_priced_too() -> None:
    """One where only the MACs count, as no profile has it: a simple device of the mix."""

    def truth(layers: tuple[Layer, ...]) -> float:
        return 1e-8 * macs(layers)

    profile = fit(measured(truth, 14, seed=0, noise=0.0))
    assert abs(ratios(profile, measured(truth, 40, seed=1, noise=0.0)) - 1).mean() < 0.015
    assert "MACs" in profile.mix_of


def test_weights_that_a_cache_keeps_cost_nothing(tmp_path: Path) -> None:
    """As on a machine whose cache keeps 4 MB, where all others are read from memory in each run."""

    def truth(layers: tuple[Layer, ...]) -> float:
        weights = 4e-6 * sum(layer.parameters for layer in layers)
        return 4e-8 * macs(layers) + 0.4 * max(weights - 4, 0)

    profile = fit(measured(truth, 14, seed=0, noise=0.0))
    assert abs(ratios(profile, measured(truth, 40, seed=1, noise=0.0)) - 1).mean() < 0.03
    assert profile.coefficients["const"] < 0
    assert predict(profile, lower(LITE, LITE.smallest())).point > 0
    # Networks of another space may have fewer weights, and none is cheaper than nothing.
    assert profile.of_space("mcu").coefficients["const"] == 0
    write_profile(profile, tmp_path / "mine.json")
    assert get_profile(str(tmp_path / "mine.json")).as_dict() == profile.as_dict()


def test_from_fifty_networks_it_may_learn_what_no_phone_has() -> None:
    """A device on which stride 2 is very dear: each feature gets its price, and only then."""
    odd = dict(get_profile("pixel4").coefficients)
    odd["dw.s2"] *= 20

    def truth(layers: tuple[Layer, ...]) -> float:
        return predict(replace(get_profile("pixel4"), coefficients=odd), layers).point

    few, many = (fit(measured(truth, count, seed=0, noise=0.01)) for count in (40, 56))
    others = measured(truth, 60, seed=1, noise=0.0)
    errors = [abs(1 / ratios(profile, others) - 1).mean() for profile in (few, many)]
    assert "dw.s2" in many.mix_of
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.01
    cost = many.coefficients
    assert cost["pw.macs"] <= min(cost["dw.k3"], cost["dw.k5"], cost["dw.k7"])


@pytest.mark.parametrize("slower", [0.01, 1.0, 100.0])
def test_scale_does_not_matter(without_note10: Truth, slower: float) -> None:
    samples = measured(without_note10, 12, seed=3)
    profile = fit([(layers, slower * ms, slower * ms) for layers, ms, _ in samples])
    assert profile.bound == pytest.approx(fit(samples).bound)


def test_the_bound_is_of_the_slow_runs(without_note10: Truth) -> None:
    samples = measured(without_note10, 12, seed=3)
    slow = fit([(layers, ms, 1.3 * ms) for layers, ms, _ in samples])
    assert slow.coefficients == fit(samples).coefficients
    ratio = slow.bound[0.9] / fit(samples).bound[0.9]
    assert ratio == pytest.approx(1.3)


def test_what_every_fit_must_keep(without_note10: Truth) -> None:
    profile = fit(measured(without_note10, 9, seed=5))
    cost = profile.coefficients
    assert min(cost.values()) >= 0
    assert min(cost["dw.k3"], cost["dw.k5"], cost["dw.k7"]) > 0
    assert list(profile.bound) == [0.5, 0.8, 0.9]
    assert 0.95 in fit(measured(without_note10, 19, seed=5)).bound
    with pytest.raises(ValueError, match="needs 9"):
        fit(measured(without_note10, 8, seed=5))


def test_a_fitted_profile_is_read_back(without_note10: Truth, tmp_path: Path) -> None:
    profile = fit(measured(without_note10, 12, seed=6))
    path = tmp_path / "mine.json"
    write_profile(profile, path)
    again = get_profile(str(path))
    assert again.as_dict() == profile.as_dict()
    assert again.kind == "this machine"
    assert json.loads(path.read_text())["provenance"] == {
        "source": "measured here",
        "date": date.today().isoformat(),
        "statistic": "latency of single runs, models in turns",
        "networks": 12,
    }


@pytest.mark.slow
def test_this_machine_is_predicted() -> None:
    """Real files, really timed: a profile knows far more of others than that they take as long.

    How well it predicts is for a quiet machine to tell (``tests.bench.bench_budgets``).
    """
    archs = spread(LITE, 28, np.random.default_rng(0))
    samples: list[Sample] = []
    for start in range(0, len(archs), 14):
        group = [network(LITE, arch) for arch in archs[start : start + 14]]
        files = [tflite_model(*each, labels_of(each[0]), LITE0, "test") for each in group]
        taken = measure_interleaved(Litert(), files, turns=5, warmup_s=0.02)
        samples += [(each[0], m.min_ms, m.min_ms) for each, m in zip(group, taken, strict=True)]
    order = np.random.default_rng(1).permutation(len(samples))
    shuffled = [samples[i] for i in order]
    profile = fit(shuffled[:14])
    others = np.array([ms for _, ms, _ in shuffled[14:]])
    known = np.mean([ms for _, ms, _ in shuffled[:14]])
    error = abs(1 / ratios(profile, shuffled[14:]) - 1).mean()
    assert error < 0.5 * abs(known / others - 1).mean()


def test_informative_networks_differ_more_than_random_ones() -> None:
    """The volume that the features of ten of them span, and no network twice."""
    archs = spread(LITE, 200, np.random.default_rng(0))
    networks = [lower(LITE, arch) for arch in archs]
    chosen = informative(networks, 10)
    assert len(set(chosen)) == 10
    assert informative(networks, 5) == chosen[:5]

    rows = [devices.calibrate._vector(layers) / macs(layers) for layers in networks]
    x = np.stack(rows)
    x /= np.maximum(np.sqrt((x**2).mean(0)), 1e-12)

    def volume(indices: Sequence[int]) -> float:
        return float(np.linalg.slogdet(np.eye(10) + x[indices] @ x[indices].T)[1])

    rng = np.random.default_rng(1)
    assert volume(chosen) > max(volume(rng.choice(200, 10, replace=False)) for _ in range(20))


def test_bounds_are_wider_for_another_space(without_note10: Truth) -> None:
    profile = fit(measured(without_note10, 10, seed=0))
    assert profile.of_space("lite") is profile
    other = profile.of_space("mcu")
    assert other.bound[0.9] == pytest.approx(1.05 * profile.bound[0.9])
    assert get_profile("pixel4").of_space("mcu") is get_profile("pixel4")
