"""``ofa-specialize compare``: several results side by side, as one page.

Everything is read from the results' ``report.json``. What a subnet takes on the device of another
is predicted, for which its checkpoint's space and the other's profile must be found here; where
they are not, the page says so in that place.
"""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from devices.cost import nearest_confidence, predict
from devices.profile import Profile
from devices.reach import HOSTS
from devices.runtime import profile_for
from ofa.checkpoint import load_checkpoint
from ofa.errors import UserError
from ofa.layers import lower
from ofa.space import Arch, Space
from specialize.fleet import Fleet, Member
from specialize.front import log_ticks
from specialize.output import check_text, write
from specialize.page import fill
from specialize.report import SCHEMA, DeviceName, Latency, Report

__all__ = [
    "PAGE",
    "Comparison",
    "apart",
    "check_page",
    "collect",
    "compare",
    "read_result",
    "render",
]

#: The page's default name.
PAGE = "compare.html"

#: In the page's head, by which it is known again before it is overwritten.
_GENERATOR = "ofa-specialize compare"

#: Between the marks of the chart, in percent of its width.
_GAP = 4.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A result. number: from 1. name: of its folder. link: from the page to its report."""

    number: int
    name: str
    report: Report
    link: str

    @property
    def limit_ms(self) -> float:
        """What its latency budget is checked against."""
        latency = self.report.latency_ms
        return latency.bound if latency.measured is None else latency.measured.p90


@dataclass(frozen=True, slots=True)
class Cell:
    """What a subnet takes on a device, or why that is not known. own: it was cut for it."""

    own: bool
    latency: Latency | None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to places in percent of a chart, of which it takes ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value is."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    @property
    def ticks(self) -> list[float]:
        """Round numbers."""
        if self.log:
            return log_ticks(self.low, self.high)
        raw = (self.high - self.low) / 6
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [i * step for i in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that the page shows.

    devices: of the results, each once. takes: of each result (rows) on each of them (columns).
    fleet: that the results are members of, in this order; else None.
    """

    entries: tuple[Entry, ...]
    devices: tuple[DeviceName, ...]
    takes: tuple[tuple[Cell, ...], ...]
    fleet: Fleet | None
    members: tuple[Member, ...]

    @property
    def one_checkpoint(self) -> bool:
        """All were cut from the same weights, and tested on the same images."""
        return len({entry.report.checkpoint.sha256 for entry in self.entries}) == 1

    @property
    def x(self) -> Axis:
        """Of latency; so wide that there is a round number in it."""
        values = [entry.limit_ms for entry in self.entries]
        return Axis(min(values) / 1.3, max(values) * 1.3, 8, 97, log=True)

    @property
    def y(self) -> Axis:
        """Of accuracy in percent, downwards."""
        tests = [entry.report.accuracy.test for entry in self.entries]
        return Axis(min(t.low for t in tests), max(t.high for t in tests), 80, 10)

    @property
    def places(self) -> list[float]:
        """Where on ``x`` each result is drawn: beside others that it would cover."""
        return apart(
            [self.x.at(entry.limit_ms) for entry in self.entries], self.x.start, self.x.end
        )


def compare(
    folders: Sequence[str | Path], output: str | Path = PAGE, *, force: bool = False
) -> Path:
    """Write the page that compares the results in ``folders``; returns its path.

    Raises UserError where that is no comparison, a folder holds no report, or the file at
    ``output`` is not such a page and ``force`` is not set; then nothing is written.
    """
    paths = [Path(folder) for folder in folders]
    output = Path(output)
    check_text(*(str(path.resolve()) for path in [*paths, output]))
    if len(paths) < 2:
        raise UserError("one result is no comparison", fix="name the folders of two or more")
    for index, path in enumerate(paths):
        if path.resolve() in {other.resolve() for other in paths[:index]}:
            raise UserError("the folder is named twice", str(path))
    check_page(output, force)
    results = [(path, read_result(path)) for path in paths]
    text = render(collect(results, output, _fleet(results)))
    write(output.parent, {output.name: text.encode()})
    return output


def check_page(output: Path, force: bool) -> None:
    """Refuse what is there, where it is not such a page."""
    if output.is_dir():
        raise UserError("it is a folder", f"--output {output}", "name a file")
    if not output.exists() or force:
        return
    try:
        with output.open("rb") as file:
            ours = f'content="{_GENERATOR}"'.encode() in file.read(1000)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", f"--output {output}") from error
    if not ours:
        raise UserError(
            "the file is not a page of `ofa-specialize compare`",
            f"--output {output}",
            "name another, or add --force",
        )


def read_result(folder: Path) -> Report:
    """The report in a folder. Raises UserError, naming the file and what is wrong."""
    file = folder / "report.json"
    if not file.is_file():
        raise UserError("no report.json in it", str(folder), "name a folder of `ofa-specialize`")
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"not a readable report ({error})", str(file)) from error
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA:
        raise UserError(
            f"schema {found!r}, expected {SCHEMA!r}", str(file), "make the result again"
        )
    return _parsed(text, file)


def collect(
    results: Sequence[tuple[Path, Report]], output: Path, fleet: Fleet | None = None
) -> Comparison:
    """What the page of ``results`` shows. output: of the page, which links to the reports."""
    entries = tuple(
        Entry(number, folder.resolve().name, report, _link(folder, output))
        for number, (folder, report) in enumerate(results, start=1)
    )
    # By name and title: two machines may both be called "host".
    first: dict[tuple[str, str], Report] = {}
    for _, report in results:
        first.setdefault((report.device.name, report.device.title), report)
    profiles = [_profile(report) for report in first.values()]
    read = cache(_checkpoint)
    members = {member.folder: member for member in (fleet.members if fleet else ())}
    return Comparison(
        entries=entries,
        devices=tuple(report.device for report in first.values()),
        takes=tuple(
            tuple(
                _cell(report, device, profile, _space(report, read))
                for device, profile in zip(first, profiles, strict=True)
            )
            for _, report in results
        ),
        fleet=fleet,
        members=tuple(members[e.name] for e in entries) if fleet else (),
    )


def render(comparison: Comparison) -> str:
    """The text of the page."""
    return fill("compare.html", page=comparison, generator=_GENERATOR)


def apart(places: Sequence[float], start: float, end: float, gap: float = _GAP) -> list[float]:
    """Places, moved as little as can be (least squares) so that there is a gap between any two.

    They keep their order, and none leaves ``start`` to ``end``; many have a smaller gap.
    """
    gap = min(gap, (end - start) / len(places))
    order = np.argsort(places, kind="stable")
    # Less the gaps before it, each place has to be no less than the one before: pool adjacent
    # violators, as means of runs.
    gaps = gap * np.arange(len(places))
    runs: list[list[float]] = []
    for place in np.array(places)[order] - gaps:
        runs.append([place])
        while len(runs) > 1 and np.mean(runs[-2]) > np.mean(runs[-1]):
            last = runs.pop()
            runs[-1] += last
    even = np.concatenate([np.full(len(run), np.mean(run)) for run in runs])
    moved: NDArray[np.float64] = np.empty(len(places))
    moved[order] = even.clip(start, end - gaps[-1]) + gaps
    return [float(place) for place in moved]


def _fleet(results: Sequence[tuple[Path, Report]]) -> Fleet | None:
    """The fleet that all results are members of, as they are now."""
    parents = {folder.resolve().parent for folder, _ in results}
    file = next(iter(parents)) / "fleet.json"
    if len(parents) > 1 or not file.is_file():
        return None
    try:
        fleet = Fleet.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):  # of another program, or not theirs any more
        return None
    chosen = {member.folder: member.chosen.architecture for member in fleet.members}
    same = (chosen.get(folder.resolve().name) == report.architecture for folder, report in results)
    return fleet if all(same) else None


def _parsed(text: str, file: Path) -> Report:
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise UserError(what, str(file), "make the result again") from error


def _link(folder: Path, output: Path) -> str:
    page = folder / "report.html"
    target = page if page.is_file() else folder / "report.json"
    return quote(Path(os.path.relpath(target, output.parent)).as_posix())


def _cell(
    report: Report, device: tuple[str, str], profile: Profile | str, space: Space | str
) -> Cell:
    """device: name and title. profile, space: or why there is none."""
    if (report.device.name, report.device.title) == device:
        return Cell(own=True, latency=report.latency_ms)
    if isinstance(profile, str):
        return Cell(own=False, latency=None, missing=profile)
    if isinstance(space, str):
        return Cell(own=False, latency=None, missing=space)
    confidence = nearest_confidence(profile, report.latency_ms.confidence)
    layers = lower(space, Arch.parse(report.architecture))
    found = predict(profile.of_space(space.name), layers, confidence)
    latency = Latency(
        point=found.point, bound=found.bound, confidence=found.confidence, measured=None
    )
    return Cell(own=False, latency=latency)


def _profile(report: Report) -> Profile | str:
    if report.device.name in HOSTS:
        return "measured here only"
    given = _word(report, "--device")
    try:
        # A file may have the name of a shipped profile, and say something else.
        name = given if given.endswith(".json") else report.device.name
        runtime, precision = _word(report, "--runtime"), _word(report, "--precision")
        assume = "--assume-runtime" in _words(report)
        return profile_for(name, runtime, assume, precision=precision)[0]
    except UserError:
        return "profile not found"


def _space(report: Report, read: Callable[[str], tuple[Space, str] | None]) -> Space | str:
    found = [read(name) for name in (_word(report, "--checkpoint"), report.checkpoint.name)]
    for space, sha256 in filter(None, found):
        if sha256 == report.checkpoint.sha256:
            return space
    return "checkpoint has changed" if any(found) else "checkpoint not found"


def _checkpoint(name: str) -> tuple[Space, str] | None:
    """The space and the hash of the weights of a checkpoint, if it is here."""
    try:
        source = load_checkpoint(name)
    except UserError:
        return None
    return source.space, source.sha256


def _words(report: Report) -> list[str]:
    """Of the report's command; none where it cannot be one."""
    try:
        return shlex.split(report.command)
    except ValueError:
        return []


def _word(report: Report, option: str) -> str:
    """What the report's command has after an option; empty where it has none."""
    return next((word for before, word in pairwise(_words(report)) if before == option), "")
