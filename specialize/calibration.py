"""A device's profile from a few of its own measurements: taken, kept, resumed, checked.

Half of the subnets that are measured differ most in what a profile prices, half are the most
accurate of their size: a search picks those whose latency a profile underestimates, so errors on
other networks say too little of what it finds. A reference network takes turns with every few of
them, and they are recorded relative to it: how fast the device was at that moment does not count.
Where the reference itself drifts far the device was not at rest. Every measurement is appended to a
file beside the profile as soon as its turn ends, so that a calibration can go on after an
interruption, and be fitted anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.calibrate import (
    FEWEST_SAMPLES,
    Sample,
    fit_profile,
    informative,
    write_profile,
)
from devices.measure import Measurement, relative
from devices.profile import (
    CALIBRATED,
    MEASURED_HERE,
    Hardware,
    Profile,
    Runtime,
    get_profile,
    user_profiles,
)
from devices.reach import Farm, Local, Meter
from ofa.checkpoint import Checkpoint
from ofa.errors import UserError
from ofa.layers import lower
from ofa.machine import check_writable, processor_name
from ofa.sampling import spread
from ofa.space import Arch, Space
from ofa.table import tabulate
from specialize.accuracy import fit
from specialize.bench import Bench
from specialize.problem import Budget, Limit, Problem
from specialize.search import exact

__all__ = [
    "Holds",
    "at_pace_of",
    "at_present_pace",
    "calibrate",
    "check",
    "like_of",
    "p90_at_most",
    "profile_here",
    "subnets_to_measure",
]

#: Measured to fit a profile of this machine: ten networks do most of the work (docs/devices.md).
_HOST_SAMPLES = 14
_CANDIDATES = 400  # of which the most informative are chosen
_TURN = 5  # subnets of a phone or board beside one reference
#: So much slower, within a calibration, the reference tells that the device is not at rest. This
#: machine may be shared, and changes between paces then, up to 1.9 apart: they belong to it.
_DRIFT, _DRIFT_HERE = 0.20, 1.0
#: Of this machine bounds are so much wider: what it shares may slow all of the next minutes, by up
#: to 9 % in four times that 70 networks were measured right after a calibration.
_LATER = 1.1
_TRIES = 3  # of a turn then
_CHANGED = 0.10  # of a network that is measured again later
_CHECKED = 3


def subnets_to_measure(checkpoint: Checkpoint, count: int) -> list[Arch]:
    """``count`` subnets, fewer where there are no more; the same first ones for every count.

    In turns one that differs most from those before it in what a profile prices, and one of the
    front of accuracy over MACs: its ends, its middle, its quarters and so on, by log(MACs).
    """
    space = checkpoint.space
    apart = spread(space, _CANDIDATES, np.random.default_rng(0))
    apart = [apart[i] for i in informative([lower(space, arch) for arch in apart], count)]
    size = tabulate(space, lambda layer: layer.macs)
    anything = Limit(Budget("macs", np.inf), size, np.inf)
    accuracy = fit(space, checkpoint.evaluated).table
    front = exact.front(Problem(space, accuracy, (anything,), "any device"))
    ends = np.log(front.cost[[0, -1]])
    between = np.exp(np.interp([_between(index) for index in range(1, count)], (0, 1), ends))
    places = np.concatenate([[0, len(front.rows) - 1], front.within(between)])
    best = [space.decode(row) for row in front.rows[places]]
    turns = (arch for pair in zip_longest(apart, best) for arch in pair if arch is not None)
    return list(dict.fromkeys(turns))[:count]


def _between(index: int) -> float:
    """Number ``index`` (from 1 on) of 1/2, 1/4, 3/4, 1/8 ...: its bits, mirrored at the point."""
    bits = f"{index:b}"
    return int(bits[::-1], 2) / float(1 << len(bits))


def profile_here(bench: Bench) -> Profile:
    """A profile of this machine, fitted to some measured subnets; it is not kept."""
    space = bench.checkpoint.space
    archs = _enough(subnets_to_measure(bench.checkpoint, _HOST_SAMPLES), bench)
    measured = bench.measure(archs)
    samples = [
        (lower(space, arch), m.median_ms, m.p90_ms) for arch, m in zip(archs, measured, strict=True)
    ]
    title, hardware, runtime = _about_here(bench)
    return fit_profile(bench.name, title, samples, hardware, runtime, MEASURED_HERE, space.name)


def _about_here(bench: Bench) -> tuple[str, Hardware, Runtime]:
    assert isinstance(bench.meter, Local)
    backend, processor = bench.meter.backend, processor_name()
    return (
        f"this machine ({processor}), {backend.name}, 1 thread, {bench.precision}",
        Hardware("this machine", processor, "1", processor, None),
        Runtime(backend.name, backend.version, "cpu", 1, bench.precision, 1),
    )


def calibrate(
    name: str,
    bench: Bench,
    like: Profile | None,
    count: int,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Profile, Path]:
    """Measure until ``count`` subnets are, fit, and write the profile ``name`` of the user's own.

    like: the profile whose cores and threads were used; None for this machine.
    Raises UserError; what was measured stays.
    """
    if count < FEWEST_SAMPLES:
        raise UserError(
            f"a bound at 0.9 needs at least {FEWEST_SAMPLES} measured networks", "--samples"
        )
    space = bench.checkpoint.space
    target = user_profiles() / f"{name}.json"
    check_writable(target.parent, str(target.parent))  # before minutes of measuring
    if target.exists():
        source = get_profile(str(target)).provenance.get("source")
        if source not in (MEASURED_HERE, CALIBRATED):
            raise UserError("it was not made by calibrating", str(target), "take another name")
    record = _Record.of(name, like.name if like else bench.name, bench)
    wanted = _enough(subnets_to_measure(bench.checkpoint, count), bench)
    reference = _reference(space)
    size = _turn(bench.meter)
    for _ in range(_TRIES):
        left = [arch for arch in wanted if not record.at_rest(str(arch))]
        for start in range(0, len(left), size):
            turn = left[start : start + size]
            measured = _measured_at_rest(bench, reference, turn, record)
            for arch, (beside, one) in zip(turn, measured, strict=True):
                record.add(str(arch), beside, one)
            done = sum(str(arch) in record.rows for arch in wanted)
            tell(f"{done} of {count} subnets measured")
    disturbed = sum(not record.at_rest(str(arch)) for arch in wanted)
    if disturbed:
        raise UserError(
            f"{disturbed} of {count} subnets were measured in disturbed moments only",
            bench.name,
            "let the device rest and run the command again: what was measured is kept",
        )
    samples: list[Sample] = [
        (lower(space, Arch.parse(text)), row.relative * record.reference_ms, row.p90_ms)
        for text, row in record.rows.items()
        if record.at_rest(text)
    ]
    if like is None:
        title, hardware, runtime = _about_here(bench)
        profile = fit_profile(name, title, samples, hardware, runtime, MEASURED_HERE, space.name)
        wider = {confidence: _LATER * factor for confidence, factor in profile.bound.items()}
        profile = replace(profile, bound=wider)
    else:
        profile = fit_profile(
            name, f"{bench.meter.device}, calibrated", samples, like.hardware,
            replace(
                like.runtime, name=bench.meter.runtime, version=bench.meter.software,
                threads=bench.meter.threads, precision=bench.precision,
            ),
            CALIBRATED, space.name,
        )  # fmt: skip
    medians = [row.reference_ms for row in record.rows.values()]
    then = {
        "reference_ms": record.reference_ms,
        "reference_range_ms": [min(medians), max(medians)],
        "reference_slow_ms": record.slow_ms,
    }
    profile = replace(profile, provenance={**profile.provenance, **record.header, **then})
    write_profile(profile, target)
    return profile, target


def _enough(archs: list[Arch], bench: Bench) -> list[Arch]:
    """The same. Raises UserError where a space has too few for a bound."""
    if len(archs) < FEWEST_SAMPLES:
        raise UserError(
            f"its space has {len(archs)} subnets that differ; a bound at 0.9 needs "
            f"{FEWEST_SAMPLES} measured ones",
            str(bench.checkpoint.path),
            "take a device with a profile",
        )
    return archs


def _reference(space: Space) -> Arch:
    return space.largest(space.resolutions[len(space.resolutions) // 2])


def _turn(meter: Meter) -> int:
    """Subnets that are measured before they are kept: as few as a reference takes."""
    if isinstance(meter, Local):
        return 1
    return len(meter.meters) if isinstance(meter, Farm) else _TURN


def _measured_at_rest(
    bench: Bench, reference: Arch, archs: Sequence[Arch], record: _Record
) -> list[tuple[Measurement, Measurement]]:
    """(reference, subnet) of each; anew where the reference is far slower than before."""
    for _ in range(_TRIES):
        measured = bench.measure_beside(reference, archs)
        now, then = max(beside.p90_ms for beside, _ in measured), record.reference_p90_ms
        if now <= (1 + record.drift) * then:
            return measured
    raise UserError(
        f"the reference network took {then:.2f} ms, and now {now:.2f} ms (p90)",
        bench.name,
        "let the device rest and run the command again: what was measured is kept",
    )


def at_present_pace(
    profile: Profile, bench: Bench, tell: Callable[[str], None] = lambda _: None
) -> Profile:
    """A calibrated profile for how fast its device runs now: its reference is measured once more.

    In turns with the smallest subnet, for a network that runs alone finds the caches full of it.
    A profile of another space, or one that does not tell its reference's latency, stays as it is.
    """
    if not _tells_pace(profile, bench):
        return profile
    space = bench.checkpoint.space
    ((now, _),) = bench.measure_beside(_reference(space), [space.smallest()])
    ratio = now.median_ms / profile.provenance["reference_ms"]
    paced = at_pace_of(profile, now)
    wider = max(paced.bound.values()) / max(profile.bound.values())
    tell(
        f"{bench.name} takes {ratio:.2f} times as long as when it was calibrated"
        + (f", and its runs differ more: bounds are {wider:.2f} times as wide" if wider > 1 else "")
    )
    return paced


def at_pace_of(profile: Profile, reference: Measurement) -> Profile:
    """A calibrated profile for when its reference network takes this long.

    Whatever else runs on a machine, or warms a phone, changes the pace of all networks alike. A
    pace that the calibration has met comes and goes, and says nothing of the next seconds: only
    beyond it latencies are scaled. Where runs differ more than then bounds are wider.
    """
    least, most = profile.provenance["reference_range_ms"]
    met = least <= reference.median_ms <= most
    pace = 1.0 if met else reference.median_ms / profile.provenance["reference_ms"]
    uneven = max(1.0, reference.p90_ms / profile.provenance["reference_slow_ms"] / pace)
    low, high = profile.valid.ms
    then = {"reference_slow_ms": pace * profile.provenance["reference_slow_ms"]}
    return replace(
        profile,
        provenance={**profile.provenance, **then},
        coefficients={feature: pace * ms for feature, ms in profile.coefficients.items()},
        bound={confidence: uneven * factor for confidence, factor in profile.bound.items()},
        valid=replace(profile.valid, ms=(pace * low, pace * high)),
    )


def p90_at_most(bench: Bench, archs: Sequence[Arch], profile: Profile) -> NDArray[np.float64]:
    """(N,) ms that the 90th percentile of each is at most, with a confidence of 95 %, measured now.

    A fast moment proves nothing of the others: with a calibrated profile its reference takes turns
    with them, and where that is faster than nine of ten of its own 90th percentiles were in the
    calibration, all are scaled up to that.
    """
    if not _tells_pace(profile, bench):
        return np.array([one.p90_at_most_ms for one in bench.measure(archs)])
    slow = profile.provenance["reference_slow_ms"]
    return np.array([
        one.p90_at_most_ms * max(1.0, slow / beside.p90_ms)
        for beside, one in bench.measure_beside(_reference(bench.checkpoint.space), archs)
    ])  # fmt: skip


def _tells_pace(profile: Profile, bench: Bench) -> bool:
    """Whether it says how long its reference took, and that is a subnet of this checkpoint."""
    told = "reference_slow_ms" in profile.provenance
    return told and bench.checkpoint.space.name in profile.valid.families


@dataclass(frozen=True, slots=True)
class Holds:
    """What a few networks of a calibration take now.

    changed: what is not as it was then, of system and software.
    """

    archs: tuple[str, ...]
    then_ms: tuple[float, ...]
    now_ms: tuple[float, ...]
    changed: tuple[str, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Now / then."""
        return tuple(now / then for now, then in zip(self.now_ms, self.then_ms, strict=True))

    @property
    def holds(self) -> bool:
        """None takes over a tenth more or less."""
        return all(abs(ratio - 1) <= _CHANGED for ratio in self.ratios)


def like_of(profile: Profile) -> str:
    """Of a calibrated profile: ``host``, or the profile whose cores and threads were used.

    Raises UserError for any other profile.
    """
    like = profile.provenance.get("like")
    if not isinstance(like, str) or not _record_of(profile.name).is_file():
        raise UserError(
            f"{profile.name!r} was not calibrated here",
            fix="`ofa-device calibrate` makes a profile",
        )
    return like


def check(profile: Profile, bench: Bench) -> Holds:
    """Measure three of the networks that a calibrated profile was fitted to again.

    Raises UserError where its measurements are not there, or of another device or checkpoint.
    """
    record = _Record.of(profile.name, like_of(profile), bench, may_change=True)
    if not record.rows:
        raise UserError("no measurement is in it", str(record.path), "calibrate it anew")
    by_ms = sorted(record.rows, key=lambda arch: record.rows[arch].p90_ms)
    chosen = [by_ms[i] for i in np.linspace(0, len(by_ms) - 1, _CHECKED).round().astype(int)]
    for _ in range(_TRIES):  # a device that is busy for a moment is no other device
        now = bench.measure([Arch.parse(text) for text in chosen])
        found = Holds(
            tuple(chosen), tuple(record.at_rest_ms(text) for text in chosen),
            tuple(one.p90_ms for one in now), record.changed,
        )  # fmt: skip
        if found.holds:
            break
    return found


def _record_of(name: str) -> Path:
    return user_profiles() / f"{name}.measured.jsonl"


@dataclass(frozen=True, slots=True)
class _Row:
    """One subnet's: times the reference's latency, its own 90th percentile, and the reference's."""

    relative: float
    p90_ms: float
    reference_ms: float
    reference_p90_ms: float


class _Record:
    """The measurements of a calibration, one JSON object a line; the first says of what.

    rows: of each architecture. drift: of the reference, that is no disturbance yet. changed: what
    is not as it was, of the keys that ``may`` change. Raises UserError where the file is of
    something else.
    """

    def __init__(
        self, path: Path, header: dict[str, Any], may: Sequence[str], drift: float
    ) -> None:
        self.path, self.header, self.drift = path, header, drift
        self.changed: tuple[str, ...] = ()
        self.rows: dict[str, _Row] = {}
        if not path.is_file() or not path.stat().st_size:
            return
        try:
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            # Where not even the header was written whole it is begun anew.
            first, *rows = [json.loads(line) for line in whole.splitlines()] or [self.header]
            self._compare(first, may)
            if whole != text:  # a kill came while the last line was written
                os.truncate(path, len(whole.encode()))
            for row in rows:
                self.rows[row["arch"]] = _Row(
                    row["relative"], row["measured"]["p90_ms"],
                    row["reference"]["median_ms"], row["reference"]["p90_ms"],
                )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not a file of measurements ({error})", str(path)) from error

    def _compare(self, first: dict[str, Any], may: Sequence[str]) -> None:
        for key, value in self.header.items():
            if first.get(key) == value:
                continue
            if key in may:
                self.changed += (f"{key} {first.get(key)!r} then, {value!r} now",)
            else:
                raise UserError(
                    f"the measurements there are of another {key}: {first.get(key)!r}, "
                    f"not {value!r}",
                    str(self.path),
                    "add --checkpoint: the supernet that it was calibrated with"
                    if may and key == "checkpoint"
                    else "take another name, or move the file away",
                )

    @property
    def reference_ms(self) -> float:
        """The reference's latency, in all of the calibration.

        A mean: on a machine of two speeds a median is of one or the other, by chance.
        """
        return float(np.mean([row.reference_ms for row in self.rows.values()]))

    @property
    def reference_p90_ms(self) -> float:
        """Its 90th percentile; infinite before anything was measured."""
        return float(np.median([row.reference_p90_ms for row in self.rows.values()] or [np.inf]))

    @property
    def slow_ms(self) -> float:
        """What nine of ten of its 90th percentiles were within: the pace to bear."""
        slow = [row.reference_p90_ms for row in self.rows.values()]
        return float(np.quantile(slow, 0.9, method="inverted_cdf"))

    def at_rest(self, arch: str) -> bool:
        """Whether it was measured, and the reference beside it was not far slower than mostly."""
        if arch not in self.rows:
            return False
        return self.rows[arch].reference_p90_ms <= (1 + self.drift) * self.reference_p90_ms

    def at_rest_ms(self, arch: str) -> float:
        """A subnet's 90th percentile, at the pace at which the reference was measured mostly."""
        row = self.rows[arch]
        return row.p90_ms * self.reference_p90_ms / row.reference_p90_ms

    @classmethod
    def of(cls, name: str, like: str, bench: Bench, may_change: bool = False) -> _Record:
        """The record of a profile, as it is or as it begins; system and software may change."""
        return cls(
            _record_of(name),
            {
                "format": "ofa-measurements/2",
                "name": name,
                "like": like,
                "device": bench.meter.device,
                "system": bench.meter.system,
                "software": bench.meter.software,
                "checkpoint": bench.checkpoint.sha256,
            },
            ("system", "software") if may_change else (),
            _DRIFT_HERE if isinstance(bench.meter, Local) else _DRIFT,
        )

    def add(self, arch: str, reference: Measurement, one: Measurement) -> None:
        """Append a measurement, on the disk before the next one begins."""
        begun = self.path.exists() and self.path.stat().st_size
        lines = [] if begun else [self.header]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        ratio = relative(one, reference)
        lines.append({
            "arch": arch, "relative": ratio,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "reference": reference.as_dict(), "measured": one.as_dict(),
        })  # fmt: skip
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        self.rows[arch] = _Row(ratio, one.p90_ms, reference.median_ms, reference.p90_ms)
