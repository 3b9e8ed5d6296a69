"""How well a profile that was fitted to a few measured networks predicts others.

    python -m tests.bench.bench_calibrate [--published]

With --published only what needs no idle machine: phones that were measured by others, each kept
from the fit in turn. Without it subnets are also timed here, in both runtimes.

``qed_usc/`` holds those measurements: 38 mobile networks at 224 px, one big or one small core.
latency_ms.csv has a column for each profile; operators.csv.gz the networks as TFLite ran them
(h: side of a map in pixels, c: channels, k: kernel side, s: stride).
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

import devices.calibrate
from devices.calibrate import Sample, fit_profile
from devices.cost import predict
from devices.profile import (
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
from ofa.spaces import get_space
from specialize.bench import Bench
from tests.bench.record import record, table

MEASURED = Path(__file__).parent / "qed_usc"
FITTED, DRAWS = 14, 100
SUBNETS = 98  # a multiple of FITTED: as many are timed in turns as ``profile_here`` does
HEADER = [
    "tried on", "networks", "error, %", "of the worst device", "within the 0.9 bound, %",
    "factor of the bound",
]  # fmt: skip


def main() -> None:
    """Measure and record."""
    text = (
        f"Profiles fitted to {FITTED} networks drawn at random, as `--device host` does; {DRAWS} "
        "draws for each device. Error: mean of |predicted / actual - 1| on the networks left over. "
        "The phones are those of qed-usc, one big or one small core; no profile of the phone is in "
        "the mix, but those of the other phones were fitted to these networks too."
    )
    rows = phone_rows()
    record("calibrate", f"## Calibration\n\n{text}\n\n{table(HEADER, rows)}", ["scipy"])
    if "--published" not in sys.argv:
        rows = [row for name in HOSTS for row in host_rows(name)]
        text = f"The same on this machine, {SUBNETS} subnets of `lite` timed in turns of {FITTED}."
        record("calibrate-host", f"{text}\n\n{table(HEADER, rows)}", ["scipy"])


def phone_rows(draws: int = DRAWS) -> list[list[object]]:
    """Phones as measured, and their profiles as devices without noise, on our own subnets."""
    networks, measured = published()
    lite = get_space("lite")
    subnets = [lower(lite, arch) for arch in spread(lite, SUBNETS, np.random.default_rng(0))]
    rows = []
    for precision in ("float32", "int8"):
        real, simulated = [], []
        for name, latency_ms in measured.items():
            phone = get_profile(name)
            if phone.runtime.precision != precision:
                continue
            known = [p for p in load_profiles() if p.hardware.device != phone.hardware.device]
            timed = [(networks[network], ms) for network, ms in latency_ms.items()]
            real.append(trials(timed, precision, known, draws))
            priced = [(layers, predict(phone, layers).point) for layers in subnets]
            simulated.append(trials(priced, precision, known, draws))
        title = f"{len(real)} phone cores, {precision}, their phone unknown"
        rows.append([title, len(networks), *summary(real)])
        rows.append([f"their profiles, {precision}, as devices", SUBNETS, *summary(simulated)])
    return rows


def host_rows(name: str, count: int = SUBNETS, draws: int = DRAWS) -> list[list[object]]:
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
        found = trials(list(zip(networks, taken, strict=True)), "float32", load_profiles(), draws)
        rows.append([f"{meter.backend.name}, {title}", count, *summary([found])])
    return rows


def trials(
    samples: Sequence[Sample], precision: str, known: Sequence[Profile], draws: int
) -> NDArray[np.float64]:
    """(draws, 3) of fits to a few at random: error and share within the 0.9 bound on the others,
    both in percent, and the bound's factor. known: the profiles that may be mixed.
    """
    hardware, runtime = Hardware("", "", "1", "", None), Runtime("", "", "cpu", 1, precision, 1)
    found = []
    with patch.object(devices.calibrate, "load_profiles", lambda: known):
        for draw in range(draws):
            order = np.random.default_rng(draw).permutation(len(samples))
            fitted, others = ([samples[i] for i in part] for part in np.split(order, [FITTED]))
            profile = fit_profile(
                "tried", "tried", fitted, hardware, runtime, MEASURED_HERE, "lite"
            )
            ratios = np.array([ms / predict(profile, layers).point for layers, ms in others])
            bound = profile.bound[0.9]
            error, within = abs(1 / ratios - 1).mean(), (ratios <= bound).mean()
            found.append((100 * error, 100 * within, bound))
    return np.array(found)


def summary(found: Sequence[NDArray[np.float64]]) -> list[object]:
    """Of the trials on some devices: mean error, that of the worst, within the bound, factor."""
    means = np.array([each.mean(axis=0) for each in found])
    error, within, factor = means.mean(axis=0)
    return [f"{error:.1f}", f"{means[:, 0].max():.1f}", f"{within:.1f}", f"{factor:.3f}"]


def published() -> tuple[dict[str, list[Layer]], dict[str, dict[str, float]]]:
    """Network -> what it is priced by, and profile -> network -> measured ms."""
    networks: dict[str, list[Layer]] = {}
    with gzip.open(MEASURED / "operators.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            networks.setdefault(row["network"], []).append(priced_as(row))
    with (MEASURED / "latency_ms.csv").open() as file:
        rows = {row.pop("network"): row for row in csv.DictReader(file)}
    names = next(iter(rows.values()))
    return networks, {p: {n: float(row[p]) for n, row in rows.items()} for p in names}


def priced_as(row: Mapping[str, str]) -> Layer:
    """The layer that costs what an operator does.

    Paddings and activations of their own, which our networks do not have, are priced by what they
    read and write: as additions, which read and write three times their output.
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
        case "add" | "mul":
            return Layer("add", "add", (), given, out)
        case "pad" | "hswish" | "elt" as op:
            read = (h_in if op == "pad" else h_out) ** 2 * c_out
            moved = read + h_out**2 * c_out
            return Layer(op, "add", (), given, (1, 1, round(moved / 3)))
    raise ValueError(f"operator {row['op']!r}")


if __name__ == "__main__":
    main()
