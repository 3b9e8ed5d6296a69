"""Several devices at once: a subnet for each, and what that is worth against one for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table as Grid
from rich.text import Text

from devices.profile import get_profile
from devices.reach import HOSTS, host_of, reachable
from devices.runtime import profile_for
from ofa.checkpoint import load_checkpoint
from ofa.errors import UserError
from ofa.layers import lower
from ofa.space import Arch, Genotypes
from specialize.accuracy import fit, percent
from specialize.closed_loop import NEAR_LEAST
from specialize.convert import converted
from specialize.export.quantize import check_quantizable
from specialize.output import is_partial, write
from specialize.pipeline import Result, check_precision, default_checkpoint, specialize
from specialize.pose import cost_tables, memory_of, pose
from specialize.problem import Budget, Limit, Objective, Problem, budgets_of
from specialize.search import exact

__all__ = ["Fleet", "FleetResult", "render", "specialize_fleet"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(_Part):
    """A network and what the tables say of it."""

    architecture: str
    estimated: float = Field(description="accuracy in percent, by the accuracy model")
    macs: int
    latency_ms: dict[str, float] = Field(description="point prediction on each device")


class Member(_Part):
    """What is best for one device, under the tables."""

    device: str
    folder: str = Field(description="of its files and report, relative to this file")
    chosen: Network = Field(description="that was chosen on real images, as exported")
    best: Network = Field(description="the most accurate within the budgets, by the exact search")
    by_macs: Network | None = Field(
        description="the most accurate of those that are best for their MACs and keep the budgets"
    )


class Fleet(_Part):
    """``fleet.json``: a subnet for each device, and what it gains over one for all."""

    schema_: Literal["ofa-fleet/1"] = Field(alias="schema")
    budgets: list[str]
    members: list[Member]
    single: Network | None = Field(
        description="the most accurate that keeps the budgets on every device"
    )

    def to_json(self) -> str:
        """The text of ``fleet.json``."""
        return self.model_dump_json(indent=1, by_alias=True) + "\n"

    def gain(self, member: Member, over: Network | None) -> float | None:
        """Points of estimated accuracy that the best for a device has over another network."""
        return None if over is None else member.best.estimated - over.estimated


@dataclass(frozen=True, slots=True)
class FleetResult:
    """What ``specialize_fleet`` made: a result for each device, in their order."""

    fleet: Fleet
    results: tuple[Result, ...]
    output: Path


def specialize_fleet(
    devices: Sequence[str],
    budget: str | Sequence[str],
    *,
    sram: str | None = None,
    flash: str | None = None,
    checkpoint: str | Path = "",
    output: str | Path | None = None,
    confidence: float = 0.9,
    tell: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> FleetResult:
    """``specialize`` for each device, into a folder of its own, and the comparison of them all.

    The comparison is ``fleet.json`` and, as a page, ``compare.html``.
    Further options are those of ``specialize``; of its objectives only the default one.
    Raises UserError.
    """
    from specialize.compare import PAGE, check_page, collect  # here, since it reads fleets too
    from specialize.compare import render as page_of

    names = [name if name in HOSTS else get_profile(name).name for name in devices]
    for device, name in zip(devices, names, strict=True):
        if name in HOSTS or host_of(get_profile(device)) is not None:
            raise UserError(
                "this machine is measured alone", f"--device {name}", "run it on its own"
            )
        if names.count(name) > 1:
            given = [d for d, n in zip(devices, names, strict=True) if n == name]
            raise UserError(
                f"{' and '.join(given)} are one device, and would share a folder", "--device"
            )
    for option in ("minimize", "min_accuracy", "tradeoff"):
        if options.get(option) is not None:
            flag = f"--{option.replace('_', '-')}"
            raise UserError("several devices are compared within budgets only", flag)
    if options.get("serials") or options.get("ssh") or options.get("benchmark"):
        raise UserError("several devices are not measured in one run", fix="run each on its own")
    if options.get("finetune"):
        raise UserError("one network is trained in one run", "--finetune", "run each on its own")
    texts = [budget] if isinstance(budget, str) else list(budget)
    check_precision(options.get("precision", ""))
    budgets = budgets_of(texts, sram, flash)
    memory = {name: text for name, text in (("sram", sram), ("flash", flash)) if text is not None}
    asked = [*texts, *(f"{name} {text}" for name, text in memory.items())]
    default = Path("-".join([*names, *texts, *memory.values()]))
    target = Path(output) if output is not None else default
    if not options.get("force"):
        _check_target(target, names, asked)
        check_page(target / PAGE, force=False)

    if not checkpoint:
        classes = dict.fromkeys(map(default_checkpoint, devices))
        if len(classes) > 1:
            raise UserError(
                f"these devices take {' and '.join(classes)}", "--device", "name one --checkpoint"
            )
        checkpoint = default_checkpoint(devices[0], tell)
    if str(checkpoint).endswith(".pth"):
        images, of_space = options.pop("images", None), options.pop("space", "")
        threads = options.get("threads")
        checkpoint = converted(Path(checkpoint), of_space, images, threads, tell)
    source = load_checkpoint(checkpoint)
    space, model = source.space, fit(source.space, source.evaluated)
    precision = options.get("precision", "")
    profiles = [
        profile_for(
            device,
            options.get("runtime", ""),
            options.get("assume_runtime", False),
            None,
            precision,
        )[0].of_space(space.name)
        for device in devices
    ]
    if any((precision or profile.precision) == "int8" for profile in profiles):
        check_quantizable(lower(space, space.largest()))
    costs = [
        cost_tables(
            space, profile, source.labels, precision or profile.precision, reachable(device)
        )
        for device, profile in zip(devices, profiles, strict=True)
    ]
    problems = []
    for device, profile, tables in zip(devices, profiles, costs, strict=True):
        within = [*budgets, *memory_of(profile, budgets, lambda _: None)]
        problem = pose(space, model.table, tables, profile, within, Objective(), confidence)
        if reachable(device):  # as where it is alone: the compiler tells, not the bound
            problem = problem.within_reach("latency", NEAR_LEAST)
        problem.check_possible()
        problems.append(problem)
    latencies = {
        profile.name: tables["latency"] for profile, tables in zip(profiles, costs, strict=True)
    }
    macs = costs[0]["macs"]

    def network(genotype: Genotypes) -> Network:
        row = genotype[None]
        return Network(
            architecture=str(space.decode(genotype)),
            estimated=float(percent(model.table.price(row))[0]),
            macs=int(macs.price(row)[0]),
            latency_ms={name: float(table.price(row)[0]) for name, table in latencies.items()},
        )

    by_macs = exact.front(
        Problem(space, model.table, (Limit(Budget("macs", np.inf), macs, np.inf),), "any")
    ).rows
    members, results = [], []
    for device, name, problem in zip(devices, names, problems, strict=True):
        tell(f"{name}:")
        result = specialize(
            device, texts, sram=sram, flash=flash, checkpoint=checkpoint, output=target / name,
            confidence=confidence, tell=tell, **options,
        )  # fmt: skip
        results.append(result)
        fits = np.flatnonzero(problem.feasible(by_macs))
        arch = space.encode([Arch.parse(result.report.architecture)])[0]
        members.append(
            Member(
                device=name,
                folder=name,
                chosen=network(arch),
                best=network(exact.search(problem, count=1).genotypes[0]),
                by_macs=network(by_macs[fits[-1]]) if len(fits) else None,
            )
        )
    # What a network takes of these is another thing on each device.
    others = [
        limit
        for p in problems[1:]
        for limit in p.limits
        if limit.budget.quantity in ("latency", "sram", "flash")
    ]
    try:
        together = exact.search(
            replace(problems[0], limits=(*problems[0].limits, *others)), count=1
        )
        single = network(together.genotypes[0])
    except UserError:  # what keeps the budget on one is too dear on another
        single = None
    fleet = Fleet(schema="ofa-fleet/1", budgets=asked, members=members, single=single)
    made = [(result.output, result.report) for result in results]
    page = page_of(collect(made, target / PAGE, fleet))
    write(target, {PAGE: page.encode(), "fleet.json": fleet.to_json().encode()})
    return FleetResult(fleet, tuple(results), target)


def _check_target(target: Path, names: Sequence[str], asked: Sequence[str]) -> None:
    """Refuse a folder that holds something else than what the same fleet left there."""
    if target.exists() and not target.is_dir():
        raise UserError("it is a file", f"--output {target}", "name a folder")
    paths = target.iterdir() if target.exists() else ()
    there = {path.name for path in paths if not is_partial(path)}
    same = there <= {*names, "compare.html", "fleet.json"}
    if "fleet.json" in there:
        try:
            before = Fleet.model_validate_json((target / "fleet.json").read_bytes())
            same &= before.budgets == [*asked]
            same &= [member.device for member in before.members] == [*names]
        except (OSError, ValueError):
            same = False
    if not same:
        raise UserError(
            "the folder holds other files", f"--output {target}", "name another, or add --force"
        )


def render(result: FleetResult) -> Grid:
    """What each subnet takes on each device, and what its device gains by it."""
    fleet = result.fleet
    grid = Grid(box=None, padding=(0, 2, 0, 0), title_justify="left")
    grid.add_column("subnet for")
    grid.add_column("accuracy (test)", justify="right")
    for member in fleet.members:
        grid.add_column(Text(f"ms on {member.device}"), justify="right")
    grid.add_column("gain over one for all", justify="right")
    grid.add_column("over choosing by MACs", justify="right")

    def points(gain: float | None) -> str:
        return "nothing keeps the budget" if gain is None else f"{gain:+.2f}"

    for member, made in zip(fleet.members, result.results, strict=True):
        test = made.report.accuracy.test
        grid.add_row(
            Text(member.device),
            f"{test.value:.1f} %",
            *(f"{ms:.4g}" for ms in member.chosen.latency_ms.values()),
            points(fleet.gain(member, fleet.single)),
            points(fleet.gain(member, member.by_macs)),
        )
    if fleet.single is not None:
        grid.add_row("all of them", "", *(f"{ms:.4g}" for ms in fleet.single.latency_ms.values()))
    grid.caption = Text(
        "ms: predicted. Gains: points of accuracy by the accuracy model, best against best.\n"
        f"Files and reports: {result.output}/<device>; side by side: {result.output}/compare.html"
    )
    grid.caption_justify = "left"
    return grid
