"""From what is asked for on a device to a problem of tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from devices.backends.vela import ACCELERATORS
from devices.cost import bound_factor, latency_table
from devices.memory import ENGINES, compiled_flash_table, flash_table, sram_table
from devices.profile import Profile
from ofa.errors import UserError
from ofa.space import Space
from ofa.table import Stacked, Table, tabulate
from specialize.accuracy import logits, percent
from specialize.problem import Budget, Limit, Objective, Problem, Quantity, Tradeoff
from specialize.search import exact

__all__ = ["beyond_memory", "check_reachable", "cost_tables", "demanding", "memory_of", "pose"]


def cost_tables(
    space: Space,
    profile: Profile,
    labels: Sequence[str],
    precision: str,
    compiled: bool = False,
) -> dict[Quantity, Table | Stacked]:
    """The tables of what can be limited or made least. labels, precision: of the file.

    compiled: what is flashed is made by a compiler, which will be asked.
    """
    engine = ENGINES[profile.engine] if profile.engine and precision == "int8" else None
    sram = sram_table(space, precision, engine)
    npu = ACCELERATORS.get(profile.hardware.device)
    if npu is not None:
        assert isinstance(sram, Table)
        sram = sram.mapped(npu.sram)
    return {
        "latency": latency_table(space, profile),
        "macs": tabulate(space, lambda layer: layer.macs),
        "parameters": tabulate(space, lambda layer: layer.parameters),
        "sram": sram,
        "flash": compiled_flash_table(space) if compiled else flash_table(space, labels, precision),
    }


def memory_of(
    profile: Profile, budgets: Sequence[Budget], tell: Callable[[str], None]
) -> list[Budget]:
    """A microcontroller's own memories, as budgets where none is given for them."""
    given = {budget.quantity for budget in budgets}
    found = [own for own in _memories(profile) if own.quantity not in given]
    if found:
        told = " and ".join(f"{budget.quantity} {budget}" for budget in found)
        tell(f"within the memory of {profile.name}: {told}, which its program shares")
    return found


def beyond_memory(profile: Profile, budgets: Sequence[Budget]) -> list[str]:
    """What to say of budgets that are above a microcontroller's own memories."""
    return [
        f"{budget.quantity} {budget} is more than the {own} of {profile.name}: "
        "the network may need memory outside of the chip"
        for own in _memories(profile)
        for budget in budgets
        if budget.quantity == own.quantity and budget.limit > own.limit
    ]


def _memories(profile: Profile) -> list[Budget]:
    if profile.limits is None:
        return []
    sizes: dict[Quantity, int | None] = {
        "sram": profile.limits.sram_bytes, "flash": profile.limits.flash_bytes,
    }  # fmt: skip
    return [Budget(q, float(size), own=True) for q, size in sizes.items() if size]


def pose(
    space: Space,
    accuracy: Table,
    costs: Mapping[Quantity, Table | Stacked],
    profile: Profile,
    budgets: Sequence[Budget],
    objective: Objective,
    confidence: float,
) -> Problem:
    """Budgets as limits on tables; a latency's point must leave room for its bound.

    accuracy: table of logits. costs: see ``cost_tables``.
    """
    limits = []
    for budget in budgets:
        factor = bound_factor(profile, confidence) if budget.quantity == "latency" else 1.0
        limits.append(Limit(budget, costs[budget.quantity], budget.limit / factor))
    problem = Problem(space, accuracy, tuple(limits), profile.name)
    if objective.tradeoff is not None:
        latency = costs["latency"]
        assert isinstance(latency, Table)
        return replace(problem, value=Tradeoff(accuracy, latency, objective.tradeoff))
    if objective.minimize is None or objective.min_accuracy is None:
        return problem
    reach = Limit(
        Budget("accuracy", objective.min_accuracy),
        accuracy.scaled(-1),
        -logits(objective.min_accuracy),
    )
    return replace(problem, value=costs[objective.minimize].scaled(-1), limits=(reach, *limits))


def check_reachable(within: Problem, min_accuracy: float) -> None:
    """Raise UserError, with the certified best, where no architecture reaches an accuracy."""
    best = float(percent(exact.search(within, count=1).bound))
    if min_accuracy > best:
        budgets = " and ".join(str(limit.budget) for limit in within.limits) or "any budget"
        raise UserError(
            f"no architecture of {within.space.name!r} within {budgets} is expected to reach "
            f"{min_accuracy:g} %: the best is {best:.2f}",
            "--min-accuracy",
            f"try {np.floor(10 * best) / 10:g}",
        )


def demanding(problem: Problem, missing: float) -> Problem:
    """The same, where the accuracy to reach is higher by ``missing`` points."""
    reach, *others = problem.limits
    aim = min(float(percent(-reach.most)) + missing, 99.99)
    return replace(problem, limits=(replace(reach, most=-logits(aim)), *others))
