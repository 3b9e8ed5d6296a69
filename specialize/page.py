"""``report.html``: the result as one page, which needs nothing but itself.

``collect`` gathers what the page shows: the report, and beside it what the script looks up when
the budget or the device changes. Those are whole fronts, found here by the exact search, so
that the script searches nothing. The same fronts say what the network is worth on other devices.
``render`` lays it out.

Axes: N ways of a front, R resolution, P block position.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from devices.cost import bound_factor, latency_table, nearest_confidence
from devices.profile import Profile, load_profiles
from ofa.space import Arch, Genotypes, Space
from ofa.table import Table, tabulate
from ofa.wilson import wilson
from specialize.accuracy import percent
from specialize.problem import REPORTED, Budget, Limit, Objective, Problem
from specialize.report import Report
from specialize.search import exact

__all__ = ["Elsewhere", "Page", "collect", "fill", "render", "rows_of"]

_FIRST = ord("@")  # a gene is the character so many after it; "<" and "&" are before


class Costs(TypedDict):
    """A table: what each resolution costs (R), and each choice of a block (R, P, choices)."""

    fixed: list[float]
    blocks: list[list[list[float]]]


class Device(TypedDict):
    """A device, and the front of latency in ms (N) and estimated accuracy in percent (N).

    factor: from a predicted latency to its bound, which a budget is checked against.
    rows: the genotypes of the front, a character a gene, one after the other.
    """

    name: str
    title: str
    group: str
    grade: str
    confidence: float
    factor: float
    ms: list[float]
    percent: list[float]
    rows: str
    latency: Costs


class Choice(TypedDict):
    """What a block can be; channels: of its depthwise convolution."""

    kernel: int
    expand: int
    channels: int


class Skeleton(TypedDict):
    """The space. choices: of each position (P); sides: of its output in pixels (R, P)."""

    resolutions: list[int]
    widths: list[int]
    stages: list[int]
    choices: list[list[Choice]]
    sides: list[list[int]]


class Chosen(TypedDict):
    """The result, on the first device: its budget and latency, its genotype, how good it is."""

    budget: float
    ms: float
    row: str
    estimated: float
    test: float
    low: float
    high: float
    images: int


class Progress(TypedDict):
    """The best value so far over the evaluations, in the unit of the certificate."""

    unit: str
    best: float
    trace: list[tuple[int, float]]


class Figures(TypedDict):
    """Every number that the script draws, as the page embeds it."""

    space: Skeleton
    macs: Costs
    parameters: Costs
    devices: list[Device]
    chosen: Chosen
    progress: Progress


class Interval(TypedDict):
    """A value between two others, and what it is of."""

    name: str
    value: float
    low: float
    high: float
    note: str


@dataclass(frozen=True, slots=True)
class Strip:
    """Intervals of one quantity on a common scale. mark: the budget, where there is one."""

    quantity: str
    unit: str
    intervals: tuple[Interval, ...]
    mark: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Of the scale: all intervals and a little air."""
        values = [v for i in self.intervals for v in (i["low"], i["high"])]
        values += [] if self.mark is None else [self.mark]
        air = 0.05 * (max(values) - min(values) or 1.0)
        return min(values) - air, max(values) + air

    def text(self, value: float) -> str:
        """As the page writes it, without its unit."""
        return f"{value:.1f}" if self.unit == "%" else f"{value:.4g}"

    def at(self, value: float) -> float:
        """Where a value is on the scale, in percent of its length."""
        low, high = self.ends
        return 100 * (value - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The chosen network on another device, and the best for that device that takes no longer.

    ms, bound: of the chosen network there. best: accuracy in percent, and gain in points over the
    chosen network, both estimated.
    """

    title: str
    grade: str
    ms: float
    bound: float
    confidence: float
    best: float
    gain: float


@dataclass(frozen=True, slots=True)
class Page:
    """All that a page shows. figures: what its script reads.

    elsewhere: each other hardware once, by descending gain. more: the other devices, by title.
    """

    report: Report
    figures: Figures
    strips: tuple[Strip, ...]
    elsewhere: tuple[Elsewhere, ...]
    more: tuple[Elsewhere, ...]


def collect(
    report: Report,
    space: Space,
    accuracy: Table,
    profile: Profile,
    objective: Objective,
    trace: Sequence[tuple[int, float]],
) -> Page:
    """What the page of a result shows.

    accuracy: table of logits. profile: of the result's device. trace: as a search gives it.
    """
    others = (
        p
        for p in load_profiles()
        if _listed(p) and p.name != profile.name and p.precision == profile.precision
    )
    profiles = [profile, *(p.of_space(space.name) for p in others)]
    confidence = report.latency_ms.confidence
    priced = [_price(space, accuracy, one, confidence) for one in profiles]
    row = space.encode([Arch.parse(report.architecture)])
    elsewhere, more = _elsewhere(priced, row, float(percent(accuracy.price(row))[0]))
    budgets = [b.limit for b in report.budgets if b.quantity == "latency"]
    test = report.accuracy.test
    figures = Figures(
        space=_skeleton(space),
        macs=_costs(tabulate(space, lambda layer: layer.macs), 9),
        parameters=_costs(tabulate(space, lambda layer: layer.parameters), 9),
        devices=[_device(one) for one in priced],
        chosen=Chosen(
            budget=min(budgets, default=report.latency_ms.bound),
            ms=report.latency_ms.point,
            row=_text(row),
            estimated=report.accuracy.estimated,
            test=test.value,
            low=test.low,
            high=test.high,
            images=test.n,
        ),
        progress=_progress(report, objective, trace),
    )
    return Page(report, figures, _strips(report), elsewhere, more)


def render(page: Page) -> str:
    """The text of ``report.html``."""
    # A "<" in a title must not end the script element.
    data = json.dumps(page.figures, separators=(",", ":")).replace("<", "\\u003c")
    return fill("report.html", page=page, data=Markup(data))


def fill(template: str, **values: Any) -> str:
    """The text of a template."""
    templates = Environment(
        loader=PackageLoader("specialize"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return templates.get_template(template).render(**values)


def _listed(profile: Profile) -> bool:
    """Devices that are worth a comparison: well known, and no microcontrollers."""
    on_cpu = profile.runtime.delegate in ("cpu", "xnnpack")
    return profile.grade in "AB" and on_cpu and profile.limits is None


@dataclass(frozen=True, slots=True, eq=False)
class _Priced:
    """A device, what the blocks take there, and the exact front. factor: see ``Device``."""

    profile: Profile
    latency: Table
    front: exact.Front
    confidence: float
    factor: float


def _price(space: Space, accuracy: Table, profile: Profile, confidence: float) -> _Priced:
    latency = latency_table(space, profile)
    anything = Limit(Budget("latency", np.inf), latency, np.inf)
    front = exact.front(Problem(space, accuracy, (anything,), profile.name))
    confidence = nearest_confidence(profile, confidence)
    return _Priced(profile, latency, front, confidence, bound_factor(profile, confidence))


def _device(one: _Priced) -> Device:
    return Device(
        name=one.profile.name,
        title=one.profile.title,
        group=one.profile.hardware.device,
        grade=one.profile.grade,
        confidence=one.confidence,
        factor=one.factor,
        ms=_rounded(one.front.cost, 4),
        percent=_rounded(percent(one.front.value), 4),
        rows=_text(one.front.rows),
        latency=_costs(one.latency, 3),
    )


def _elsewhere(
    priced: Sequence[_Priced], row: Genotypes, estimated: float
) -> tuple[tuple[Elsewhere, ...], tuple[Elsewhere, ...]]:
    """``Page.elsewhere`` and ``more`` of a network (1, 1 + P). priced: its own device first.

    A hardware stands for all its profiles with the fastest of those on one thread.
    """
    own, *others = priced
    found = []
    for one in others:
        ms = float(one.latency.price(row)[0])
        best = float(percent(one.front.value[one.front.within(ms)]))
        # The network itself is within: what is below 0 is a rounding error.
        gain = max(best - estimated, 0.0)
        profile = one.profile
        found.append(
            Elsewhere(
                title=profile.title, grade=profile.grade, ms=ms, bound=ms * one.factor,
                confidence=one.confidence, best=best, gain=gain,
            )
        )  # fmt: skip
    once: dict[str, Elsewhere] = {}
    ranked = zip(others, found, strict=True)
    for one, there in sorted(ranked, key=lambda p: (p[0].profile.runtime.threads or 1, p[1].ms)):
        if one.profile.hardware.device != own.profile.hardware.device:
            once.setdefault(one.profile.hardware.device, there)
    first = sorted(once.values(), key=lambda there: -there.gain)
    rest = sorted((t for t in found if t not in first), key=lambda there: there.title)
    return tuple(first), tuple(rest)


def _skeleton(space: Space) -> Skeleton:
    """The space as the script draws it; sizes are those of the layers."""
    stages = [s for s, _ in space.positions]
    choices = [space.stages[s].choices for s in stages]
    inner = tabulate(space, lambda layer: layer.out_shape[2] * (layer.op == "depthwise"))
    side = tabulate(space, lambda layer: layer.out_shape[0] * (layer.op == "depthwise"))
    return Skeleton(
        resolutions=list(space.resolutions),
        widths=[stage.width for stage in space.stages],
        stages=stages,
        choices=[
            [
                Choice(kernel=b.kernel, expand=b.expand, channels=int(inner.cost_RPC[0, p, 1 + c]))
                for c, b in enumerate(blocks)
            ]
            for p, blocks in enumerate(choices)
        ],
        sides=[[int(s) for s in side.cost_RPC[r, :, 1]] for r in range(len(space.resolutions))],
    )


def _progress(report: Report, objective: Objective, trace: Sequence[tuple[int, float]]) -> Progress:
    """The trace and its end, in the unit of the certificate."""
    proof = report.search.certificate
    value = np.array([v for _, v in trace])
    if objective.minimize is not None:
        value = -value / REPORTED[objective.minimize][1]
    elif objective.tradeoff is None:
        value = percent(value)
    counts = [*(n for n, _ in trace), report.search.evaluations]
    values = _rounded([*value, value[-1]], 6)
    return Progress(unit=proof.unit, best=proof.best, trace=list(zip(counts, values, strict=True)))


def _strips(report: Report) -> tuple[Strip, ...]:
    """What was predicted, and what came of it, side by side."""
    accuracy, latency, proof = report.accuracy, report.latency_ms, report.search.certificate
    held, test = accuracy.held_out, accuracy.test
    low, high = wilson(held.value, held.n)
    budget = min((b.limit for b in report.budgets if b.quantity == "latency"), default=None)
    shares = (
        Interval(
            name="Predicted by the accuracy model", value=accuracy.estimated,
            low=proof.low, high=proof.high, note="before the candidates were scored",
        ),
        Interval(
            name="Scored on held-out images", value=held.value, low=low, high=high,
            note=f"{held.n} images; the choice was made by them",
        ),
        Interval(
            name="Scored on test images", value=test.value, low=test.low, high=test.high,
            note=f"{test.n} images, for the chosen network only",
        ),
    )  # fmt: skip
    times = [
        Interval(
            name="Predicted from the profile", value=latency.point, low=latency.point,
            high=latency.bound, note=f"bound with {100 * latency.confidence:.0f} % confidence",
        )
    ]  # fmt: skip
    if latency.measured is not None:
        m = latency.measured
        name, note = "Measured", f"median and 90th percentile of {m.runs} {m.counted}, {m.runtime}"
        if m.counted == "estimates":
            name, note = "Compiled", f"the estimate of {m.runtime}: nothing ran"
        times.append(Interval(name=name, value=m.median, low=m.median, high=m.p90, note=note))
    return (Strip("Top-1 accuracy", "%", shares), Strip("Latency", "ms", tuple(times), budget))


def _costs(table: Table, digits: int) -> Costs:
    return Costs(
        fixed=_rounded(table.fixed_R, digits),
        blocks=[
            [_rounded(choices[1:][np.isfinite(choices[1:])], digits) for choices in positions]
            for positions in table.cost_RPC
        ],
    )


def _rounded(values: Sequence[float] | NDArray[np.float64], digits: int) -> list[float]:
    """To so many significant digits: a page of forty fronts has to travel by mail."""
    return [float(f"{value:.{digits}g}") for value in values]


def _text(rows: Genotypes) -> str:
    return "".join(chr(_FIRST + gene) for gene in rows.ravel())


def rows_of(text: str, space: Space) -> Genotypes:
    """(N, 1 + P) genotypes of ``Device.rows``."""
    genes = np.array([ord(letter) - _FIRST for letter in text], np.int16)
    return genes.reshape(-1, 1 + len(space.positions))
