"""How well a profile that was fitted to a few measured networks predicts others.

    python -m tests.bench.bench_calibrate [--published]

With --published only what needs no idle machine: phones that were measured by others, each kept
from the fit in turn. Without it subnets are also timed here, in both runtimes.

``qed_usc/`` holds those measurements: 88 networks at 224 px, 38 of them mobile ones. latency_ms.csv
has a column for each profile, empty where the runs deviated by over 20 %; operators.csv the
networks as TFLite ran them (h: side of a map in pixels, c: channels, k: kernel side, s: stride).
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

import devices.calibrate
from devices.calibrate import Sample, fit_profile, informative
from devices.cost import predict
from devices.profile import (
    CALIBRATED,
    FEATURES,
    MEASURED_HERE,
    Hardware,
    Profile,
    Runtime,
    get_profile,
    load_profiles,
)
from devices.reach import HOSTS, here
from ofa.checkpoint import find_checkpoint, read_checkpoint
from ofa.layers import Layer, lower
from ofa.sampling import spread
from specialize.bench import Bench
from tests.bench.record import record, table

MEASURED = Path(__file__).parent / "qed_usc"
PHONES = ("pixel4", "s10", "a03s", "iphone7", "iphonexs")
FEW, DRAWS = 10, 5
FITTED, HOST_DRAWS = 14, 100
SUBNETS = 98  # a multiple of FITTED: as many are timed in turns as ``profile_here`` does

FloatArray = NDArray[np.float64]


def main() -> None:
    """Measure and record."""
    header = ["predicted by", "float32", "int8", "within the 0.9 bound, float32", "int8"]
    text = (
        f"One big core of each of {len(PHONES)} phones in turn is the new device, of which {FEW} "
        "mobile networks are known. The profiles that are mixed are those of the other phones. "
        "Error: mean of |predicted / actual - 1| in percent, over families, then phones."
    )
    unseen = (
        "Of families that are neither among the known networks nor in the profiles that are mixed, "
        f"which were fitted anew without them ({len(families())} mobile families, each left out in "
        "turn; the bound is 5 % wider, as for another space):"
    )
    seen = f"Of the {len(mobile())} mobile networks those that are not known ({DRAWS} draws):"
    record(
        "calibrate",
        f"## Calibration\n\n{text}\n\n{unseen}\n\n{table(header, unseen_rows())}\n\n"
        f"{seen}\n\n{table(header, seen_rows())}",
        ["scipy"],
    )
    if "--published" not in sys.argv:
        header = [
            "measured", "networks", "error, %", "within the 0.9 bound, %", "factor of the bound"
        ]  # fmt: skip
        rows = [row for name in HOSTS for row in host_rows(name)]
        text = (
            f"This machine: profiles fitted to {FITTED} of {SUBNETS} subnets of `lite` drawn at "
            f"random, as `--device host` does ({HOST_DRAWS} draws), on the others; timed in turns."
        )
        record("calibrate-host", f"{text}\n\n{table(header, rows)}", ["scipy"])


@dataclass(frozen=True, slots=True)
class Published:
    """A network that was measured: what it is priced by, and profile -> ms."""

    family: str
    mobile: bool
    layers: tuple[Layer, ...]
    ms: Mapping[str, float]


#: From the known networks and the profiles of other devices to ms of other networks, and the 0.9
#: bound of them as a factor, where the method has one.
Method = Callable[
    [Sequence[Sample], Sequence[Profile], Sequence[Sequence[Layer]]],
    tuple[FloatArray, float | None],
]


def unseen_rows() -> list[list[object]]:
    """Each phone and each mobile family left out in turn."""

    def trial(method: Method, target: str, chosen: bool) -> list[tuple[float, FloatArray]]:
        found = []
        for family in families():
            known = sources(target, family)
            mine = [one for one in mobile() if target in one.ms]
            pool = [one for one in mine if one.family != family]
            tests = [one for one in mine if one.family == family]
            found += [
                outcome(method, target, draw_few(pool, draw, chosen), tests, known)
                for draw in range(1 if chosen else DRAWS)
            ]
        return found

    return methods(trial, partial(mix, space="other"))


def seen_rows() -> list[list[object]]:
    """Each phone left out in turn; the profiles of the others are the shipped ones."""

    def trial(method: Method, target: str, chosen: bool) -> list[tuple[float, FloatArray]]:
        phone = get_profile(target).hardware.device
        known = [p for p in load_profiles() if p.hardware.device != phone]
        mine = [one for one in mobile() if target in one.ms]
        found = []
        for draw in range(1 if chosen else DRAWS):
            few = draw_few(mine, draw, chosen)
            rest = [one for one in mine if one not in few]
            found.append(outcome(method, target, few, rest, known))
        return found

    return methods(trial, mix)


def methods(
    trial: Callable[[Method, str, bool], list[tuple[float, FloatArray]]], ours: Method
) -> list[list[object]]:
    """A row for ours, with networks chosen and drawn, and for each of the plain ones."""
    return [
        ["**the mix, from ten that `ofa-device calibrate` chooses**", *cells(trial, ours, True)],
        ["the mix, from ten at random", *cells(trial, ours, False)],
        *([what, *cells(trial, method, True)] for what, method in PLAIN.items()),
    ]


def cells(
    trial: Callable[[Method, str, bool], list[tuple[float, FloatArray]]],
    method: Method,
    chosen: bool,
) -> list[object]:
    """Error and share within the bound, float32 and int8."""
    errors, covered = [], []
    for suffix in ("", "-int8"):
        found = [one for phone in PHONES for one in trial(method, phone + suffix, chosen)]
        errors.append(f"{100 * np.mean([error for error, _ in found]):.1f}")
        within = np.concatenate([within for _, within in found])
        covered.append(f"{100 * within.mean():.0f} %" if len(within) else "")
    return [*errors, *covered]


def outcome(
    method: Method,
    target: str,
    few: Sequence[Published],
    tests: Sequence[Published],
    known: Sequence[Profile],
) -> tuple[float, FloatArray]:
    """Mean error on ``tests``, and which of them are within the bound; empty without one."""
    samples = [(one.layers, one.ms[target], one.ms[target]) for one in few]
    predicted, bound = method(samples, known, [one.layers for one in tests])
    ratios = np.array([one.ms[target] for one in tests]) / predicted
    within = np.array([]) if bound is None else (ratios <= bound).astype(float)
    return float(abs(1 / ratios - 1).mean()), within


def draw_few(pool: Sequence[Published], draw: int, chosen: bool) -> list[Published]:
    """The networks that are measured of a new device."""
    if chosen:
        return [pool[i] for i in informative([one.layers for one in pool], FEW)]
    return [pool[i] for i in np.random.default_rng(draw).permutation(len(pool))[:FEW]]


def mix(
    samples: Sequence[Sample],
    known: Sequence[Profile],
    tests: Sequence[Sequence[Layer]],
    space: str = "measured",
) -> tuple[FloatArray, float | None]:
    """What the product does; tests are of ``space``."""
    precision = known[0].runtime.precision
    hardware, runtime = Hardware("", "", "1", "", None), Runtime("", "", "cpu", 1, precision, 1)
    with patch.object(devices.calibrate, "load_profiles", lambda: known):
        profile = fit_profile("new", "new", samples, hardware, runtime, CALIBRATED, "measured")
    profile = profile.of_space(space)
    return np.array([predict(profile, layers).point for layers in tests]), profile.bound[0.9]


def by_macs(
    samples: Sequence[Sample], _known: Sequence[Profile], tests: Sequence[Sequence[Layer]]
) -> tuple[FloatArray, None]:
    """A line through MACs."""

    def columns(networks: Sequence[Sequence[Layer]]) -> FloatArray:
        return np.array([[1e-6 * sum(layer.macs for layer in layers), 1.0] for layers in networks])

    ms = np.array([ms for _, ms, _ in samples])
    x = columns([layers for layers, _, _ in samples]) / ms[:, None]
    weights = np.linalg.lstsq(x, np.ones(len(ms)))[0]
    return columns(tests) @ weights, None


def by_factor(
    samples: Sequence[Sample], known: Sequence[Profile], tests: Sequence[Sequence[Layer]]
) -> tuple[FloatArray, None]:
    """The one profile that is nearest after one factor, times that."""
    tried = []
    for profile in known:
        ratios = np.array([ms / predict(profile, layers).point for layers, ms, _ in samples])
        factor = float(np.median(ratios))
        tried.append((float(abs(factor / ratios - 1).mean()), factor, profile))
    _, factor, best = min(tried, key=lambda one: one[0])
    return factor * np.array([predict(best, layers).point for layers in tests]), None


def as_it_is(
    samples: Sequence[Sample], known: Sequence[Profile], tests: Sequence[Sequence[Layer]]
) -> tuple[FloatArray, None]:
    """The one profile that is nearest, uncalibrated."""

    def error(profile: Profile) -> float:
        ratios = [predict(profile, layers).point / ms for layers, ms, _ in samples]
        return float(abs(np.array(ratios) - 1).mean())

    best = min(known, key=error)
    return np.array([predict(best, layers).point for layers in tests]), None


PLAIN: dict[str, Method] = {
    "the nearest profile of another phone, times one factor": by_factor,
    "MACs, a line through the ten": by_macs,
    "the nearest profile of another phone as it is": as_it_is,
}


@cache
def sources(target: str, family: str) -> tuple[Profile, ...]:
    """The CPU profiles of other phones, fitted anew without a family."""
    new = get_profile(target)
    found = []
    for name in published()[0].ms:
        profile = get_profile(name)
        if (
            profile.hardware.device == new.hardware.device
            or profile.runtime.precision != new.runtime.precision
        ):
            continue
        used = [one for one in published() if one.family != family and name in one.ms]
        found.append(replace(profile, coefficients=own_coefficients(name, used), grade="A"))
    return tuple(found)


def own_coefficients(name: str, networks: Sequence[Published]) -> dict[str, float]:
    """A device's own coefficients from some 80 networks, as the shipped profiles were fitted.

    Nonnegative least squares of relative errors with few shared coefficients, then one for each
    feature with a ridge toward those; depthwise MACs never cheaper than 1x1. Mobile networks weigh
    twice.
    """
    x = np.stack([devices.calibrate._vector(one.layers) for one in networks])
    x /= np.array([one.ms[name] for one in networks])[:, None]
    weight = np.sqrt([1.0 + one.mobile for one in networks])
    shared = np.array([[float(f in group) for f in FEATURES] for group in _SHARED])
    prior = nnls(weight[:, None] * (x @ shared.T), weight)[0] @ shared
    least = np.where(np.isin(FEATURES, _DEPTHWISE), prior[FEATURES.index("pw.macs")], 0.0)
    ridge = np.diag(np.sqrt(0.005 * len(x) * (x**2).mean(axis=0)))
    rows = np.vstack([weight[:, None] * x, ridge])
    aims = np.concatenate([weight, ridge @ prior])
    return dict(zip(FEATURES, nnls(rows, aims - rows @ least)[0] + least, strict=True))


_DEPTHWISE = ("dw.k3", "dw.k5", "dw.k7")
_SHARED = (
    ("const",), ("n",), ("stem.macs", "conv.macs"), ("pw.macs", *_DEPTHWISE), _DEPTHWISE,
    ("stem.io", "conv.in", "conv.out", "pw.in", "pw.out", "dw.in", "dw.out", "dw.s2"),
    ("mem.io", "pool.ops"), ("conv.w", "pw.w", "fc.w"),
)  # fmt: skip


def host_rows(name: str, count: int = SUBNETS, draws: int = HOST_DRAWS) -> list[list[object]]:
    """This machine in one runtime: by each subnet's fastest run, and by its median."""
    meter = here(name)
    host = Bench(name, meter, read_checkpoint(find_checkpoint("lite-imagenette")))
    space, rng = host.checkpoint.space, np.random.default_rng(0)
    wide = spread(space, count, rng)
    archs = [wide[i] for i in rng.permutation(count)]
    turns = [archs[start : start + FITTED] for start in range(0, count, FITTED)]
    times = [measurement for turn in turns for measurement in host.measure(turn)]
    networks = [lower(space, arch) for arch in archs]
    rows = []
    for title, taken in (
        ("fastest runs", [m.min_ms for m in times]),
        ("medians", [m.median_ms for m in times]),
    ):
        found = trials(list(zip(networks, taken, taken, strict=True)), draws)
        rows.append([f"{meter.backend.name}, {title}", count, *found])
    return rows


def trials(samples: Sequence[Sample], draws: int) -> list[object]:
    """Of fits to a few at random: mean error and share within the 0.9 bound on the others, both in
    percent, and the bound's factor.
    """
    hardware, runtime = Hardware("", "", "1", "", None), Runtime("", "", "cpu", 1, "float32", 1)
    found = []
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(samples))
        fitted, others = ([samples[i] for i in part] for part in np.split(order, [FITTED]))
        profile = fit_profile("tried", "tried", fitted, hardware, runtime, MEASURED_HERE, "lite")
        ratios = np.array([ms / predict(profile, layers).point for layers, ms, _ in others])
        bound = profile.bound[0.9]
        error, within = abs(1 / ratios - 1).mean(), (ratios <= bound).mean()
        found.append((100 * error, 100 * within, bound))
    error, within, factor = np.array(found).mean(axis=0)
    return [f"{error:.1f}", f"{within:.1f}", f"{factor:.3f}"]


@cache
def published() -> tuple[Published, ...]:
    """The networks that were measured."""
    operators: dict[str, list[Layer]] = {}
    with gzip.open(MEASURED / "operators.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            operators.setdefault(row["network"], []).append(priced_as(row))
    with gzip.open(MEASURED / "latency_ms.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    return tuple(
        Published(
            row.pop("family"),
            row.pop("mobile") == "1",
            tuple(operators[row.pop("network")]),
            {profile: float(ms) for profile, ms in row.items() if ms},
        )
        for row in rows
    )


def mobile() -> list[Published]:
    """Those of mobile families."""
    return [one for one in published() if one.mobile]


def families() -> list[str]:
    """The mobile families."""
    return sorted({one.family for one in mobile()})


def priced_as(row: Mapping[str, str]) -> Layer:
    """The layer that costs what an operator does.

    Paddings, concatenations, activations of their own and poolings, which our networks do not
    have, are priced by what they read and write: as additions, which read and write three times
    their output, or as a mean of what a pooling looks at.
    """
    h_in, c_in, h_out, c_out, kernel, stride = (
        int(row[name]) for name in ("h_in", "c_in", "h_out", "c_out", "k", "s")
    )
    given, out = (h_in, h_in, c_in), (h_out, h_out, c_out)
    match row["op"]:
        case "conv":
            return Layer("conv", "conv", (), given, out, kernel, stride)
        case "dwconv":
            return Layer("depthwise", "depthwise", (), given, out, kernel, stride)
        case "fc":
            return Layer("linear", "linear", (), given, out)
        case "mean":
            return Layer("mean", "mean", (), given, out)
        case "maxpool" | "avgpool":
            return Layer("pool", "mean", (), (h_out * kernel, h_out * kernel, c_out), out)
        case "add" | "mul":
            return Layer("add", "add", (), given, out)
        case "pad" | "concat" | "hswish" | "elt" as op:
            read = (h_in if op == "pad" else h_out) ** 2 * c_out
            moved = read + h_out**2 * c_out
            return Layer(op, "add", (), given, (1, 1, round(moved / 3)))
    raise ValueError(f"operator {row['op']!r}")


if __name__ == "__main__":
    main()
