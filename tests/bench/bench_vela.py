"""The Ethos-U profiles: fitted to what Vela schedules for networks of both shipped supernets.

python -m tests.bench.bench_vela             errors of the shipped profiles, and Vela's seconds
python -m tests.bench.bench_vela --write     fits them anew
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

import devices.profile
from devices.backends.vela import ACCELERATORS, Vela
from devices.calibrate import fit_profile, write_profile
from devices.cost import bound_factor, predict
from devices.profile import Hardware, Limits, Profile, Runtime, get_profile
from devices.reach import Compiler
from ofa.checkpoint import find_checkpoint, read_checkpoint
from ofa.layers import Layer, lower
from ofa.sampling import Sampler
from specialize.bench import Bench
from tests.bench.record import record, table

_FITTED = {"mcu-cifar10": 120, "lite-imagenette": 30}
_UNSEEN = {"mcu-cifar10": 40, "lite-imagenette": 10}
_PROFILES = Path(devices.profile.__file__).parent / "profiles"
_TITLES = {
    "ethos-u55-128": ("Ethos-U55, 128 MACs a cycle", 0.5),
    "ethos-u65-256": ("Ethos-U65, 256 MACs a cycle", 1.0),
    "ethos-u85-256": ("Ethos-U85, 256 MACs a cycle", 1.0),
}


def main() -> None:
    """Measure and record."""
    rows: list[list[object]] = []
    for name in ACCELERATORS:
        if "--write" in sys.argv:
            profile = fitted(name)
            write_profile(profile, _PROFILES / f"{name}.json")
            devices.profile.load_profiles.cache_clear()
        profile = get_profile(name)
        for supernet, count in _UNSEEN.items():
            networks, ms, seconds = compiled(name, supernet, count, seed=1)
            points = np.array([predict(profile, layers).point for layers in networks])
            bound = points * bound_factor(profile, 0.9)
            rows.append([
                f"`{name}`", supernet, count, f"{100 * abs(points / ms - 1).mean():.1f}",
                f"{100 * (ms <= bound).mean():.0f}", f"{ms.min():.3g} to {ms.max():.3g}",
                f"{np.median(seconds):.3f}",
            ])  # fmt: skip
    header = ["profile", "subnets of", "unseen", "error, %", "within the bound, %", "ms", "s each"]
    text = (
        "The profiles serve the search; each candidate is then compiled, and what is reported is "
        "what Vela says. Seconds: of Vela, without writing the file for it."
    )
    record("vela", f"## Ethos-U\n\n{text}\n\n{table(header, rows)}", ("ethos-u-vela",))


def compiled(
    name: str, supernet: str, count: int, seed: int
) -> tuple[list[tuple[Layer, ...]], np.ndarray, list[float]]:
    """Layers of subnets spread over their MACs, the ms that Vela says of each, and its seconds."""
    vela = Vela(name)
    checkpoint = read_checkpoint(find_checkpoint(supernet))
    bench = Bench(name, Compiler(vela), checkpoint, "int8")
    sampler, rng = Sampler(checkpoint.space), np.random.default_rng(seed)
    networks, ms, seconds = [], [], []
    for _ in range(count):
        arch = sampler.draw(rng, int(rng.choice(checkpoint.space.resolutions)))
        model = bench.exported(arch)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as cache, patch.object(vela, "_cache", Path(cache)):
            ms.append(vela.compile(model).ms)
        seconds.append(time.perf_counter() - began)
        networks.append(lower(checkpoint.space, arch))
    return networks, np.array(ms), seconds


def fitted(name: str) -> Profile:
    """The profile of an accelerator."""
    vela, accelerator = Vela(name), ACCELERATORS[name]
    samples, families = [], []
    for supernet, count in _FITTED.items():
        networks, ms, _ = compiled(name, supernet, count, seed=0)
        samples += [(layers, one, one) for layers, one in zip(networks, ms, strict=True)]
        families.append(read_checkpoint(find_checkpoint(supernet)).space.name)
    title, clock = _TITLES[name]
    profile = fit_profile(
        name,
        f"{title}, {clock:g} GHz, int8, as Vela {vela.version} schedules it",
        samples,
        Hardware(name, accelerator.system, "NPU", "Ethos-U", clock),
        Runtime("vela", vela.version, "npu", None, "int8", 1),
        f"Vela {vela.version}'s cycle model, {accelerator}",
        families[0],
    )
    provenance = {
        **profile.provenance,
        "statistic": "Vela's estimate: nothing ran",
        "files": [f"subnets of {name}" for name in _FITTED],
        "licence": "computed here",
    }
    return replace(
        profile,
        limits=Limits(None, None, "as the system around it has; Vela says what a network takes"),
        valid=replace(profile.valid, families=tuple(families)),
        provenance=provenance,
        notes=(
            "With ethos-u-vela installed each candidate is compiled, and its latency and SRAM are "
            "Vela's own; without it they are this profile's.",
        ),
    )


if __name__ == "__main__":
    main()
