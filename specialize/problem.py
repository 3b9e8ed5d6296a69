"""What is searched for: the most accurate architecture within budgets, all of them tables.

Axes: N population, P block position, C choice of a block, R resolution.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from ofa.errors import UserError
from ofa.space import Genotypes, Space
from ofa.table import Stacked, Table
from specialize.accuracy import percent

__all__ = [
    "REPORTED",
    "Budget",
    "Limit",
    "Objective",
    "Problem",
    "Tradeoff",
    "budgets_of",
    "enough",
    "format_quantity",
    "minimum",
    "parse_budget",
    "parse_duration",
]

FloatArray = NDArray[np.float64]
Quantity = Literal["latency", "macs", "parameters", "sram", "flash", "accuracy"]

#: Suffix, in small letters -> quantity, what one of it is in the quantity's own unit.
_UNITS: dict[str, tuple[Quantity, float]] = {
    "us": ("latency", 1e-3),
    "ms": ("latency", 1.0),
    "s": ("latency", 1e3),
    "macs": ("macs", 1.0),
    "kmacs": ("macs", 1e3),
    "mmacs": ("macs", 1e6),
    "gmacs": ("macs", 1e9),
    "params": ("parameters", 1.0),
    "kparams": ("parameters", 1e3),
    "mparams": ("parameters", 1e6),
}
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "kib": 1024.0, "mib": 1024.0**2}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_EXAMPLES = "20ms, 300MMACs or 3Mparams"

#: Quantity -> unit that it is reported in, and how many of its own unit that is.
REPORTED: dict[Quantity, tuple[str, float]] = {
    "latency": ("ms", 1.0),
    "macs": ("MMACs", 1e6),
    "parameters": ("Mparams", 1e6),
    "sram": ("kB", 1e3),
    "flash": ("MB", 1e6),
    "accuracy": ("%", 1.0),
}

#: Float sums differ in their last bits: every comparison with a limit allows this.
SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on one quantity: ms, MACs, parameters or bytes; or the least accuracy in %.

    own: it is the device's own, and not what somebody asked for.
    """

    quantity: Quantity
    limit: float
    own: bool = False

    def __str__(self) -> str:
        return format_quantity(self.quantity, self.limit)


def format_quantity(quantity: Quantity, value: float) -> str:
    """A value with its unit, as ``parse_budget`` reads it."""
    unit, size = REPORTED[quantity]
    return f"{value / size:.4g}{unit}"


def enough(quantity: Quantity, value: float) -> str:
    """A budget that is at least ``value``, in two digits."""
    size = REPORTED[quantity][1]
    digit = 10 ** np.floor(np.log10(value / size) - 1)
    return format_quantity(quantity, float(np.ceil(value / size / digit) * digit * size))


def parse_budget(text: str, memory: Literal["sram", "flash"] | None = None) -> Budget:
    """The budget that a text like ``20ms`` says, or one like ``256kB`` of a memory.

    Raises UserError.
    """
    where, examples = (
        ("--budget", _EXAMPLES) if memory is None else (f"--{memory}", "256kB or 1MiB")
    )
    some = ("ms", "MMACs", "Mparams") if memory is None else ("kB", "MB")
    value, unit = _value_and_unit(f"budget {text!r}", text, some, where, examples)
    units = _UNITS if memory is None else {name: (memory, size) for name, size in _BYTES.items()}
    if memory is None and unit in _BYTES:
        raise UserError(
            f"budget {text!r} is in bytes, of which memory?",
            where,
            f"write --sram {text} or --flash {text}",
        )
    if unit not in units:
        raise UserError(f"budget {text!r} has an unknown unit", where, f"write {examples}")
    quantity, size = units[unit]
    limit = value * size
    if not 0 < limit < np.inf:  # scaling can leave the range of floats
        raise _unusable(f"budget {text!r}", where, examples)
    return Budget(quantity, limit)


def parse_duration(text: str) -> float:
    """The seconds that a text like ``5m``, ``90s`` or ``1h`` says. Raises UserError."""
    where, examples = "--finetune", "5m, 90s or 1h"
    value, unit = _value_and_unit(f"time {text!r}", text, tuple(_SECONDS), where, examples)
    if unit not in _SECONDS:
        raise UserError(f"time {text!r} has an unknown unit", where, f"write {examples}")
    seconds = value * _SECONDS[unit]
    if not seconds < np.inf:
        raise _unusable(f"time {text!r}", where, examples)
    return seconds


def _value_and_unit(
    what: str, text: str, units: Sequence[str], where: str, examples: str
) -> tuple[float, str]:
    """A positive number, and its unit in small letters. units: what to name where there is none."""
    match = re.fullmatch(
        r"\s*([-+]?[0-9.]+(?:e[-+]?\d+)?|[-+]?inf|nan)\s*([a-z]*)\s*", text.lower()
    )
    if match is None:
        raise UserError(f"{what} is not a number with a unit", where, f"write {examples}")
    number, unit = match.groups()
    try:
        value = float(number)
    except ValueError:
        raise UserError(f"{what} is not a number", where, f"write {examples}") from None
    if not 0 < value < np.inf:
        raise _unusable(what, where, examples)
    if not unit:
        *first, last = [number + one for one in units]
        raise UserError(f"{what} has no unit", where, f"write {', '.join(first)} or {last}")
    return value, unit


def _unusable(what: str, where: str, examples: str) -> UserError:
    return UserError(f"{what} is not positive and finite", where, f"write {examples}")


def budgets_of(budget: str | Sequence[str], sram: str | None, flash: str | None) -> list[Budget]:
    """The budgets that these texts say, in all. Raises UserError."""
    texts = [budget] if isinstance(budget, str) else budget
    budgets = [parse_budget(text) for text in texts]
    budgets += [parse_budget(sram, "sram")] if sram is not None else []
    budgets += [parse_budget(flash, "flash")] if flash is not None else []
    return budgets


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """A budget as the search sees it: the table must not exceed ``most``.

    most: in the table's unit. For a latency it is the budget divided by the factor from point to
    bound, so that the bound keeps the budget.
    """

    budget: Budget
    table: Table | Stacked
    most: float


@dataclass(frozen=True, slots=True, eq=False)
class Tradeoff:
    """An objective: accuracy in percent + ``weight`` * log(latency in ms), with a weight below 0.

    The form of hardware-aware searches without a hard budget (Tan et al. 2019, sec. 3.1, in its
    logarithm). accuracy: table of logits. latency: table of ms.
    """

    accuracy: Table
    latency: Table
    weight: float

    def join(self, logits: FloatArray, ms: FloatArray) -> FloatArray:
        """The objective; it grows with ``logits`` and falls with ``ms``."""
        return percent(logits) + self.weight * np.log(ms)

    def price(self, genotypes_NP: Genotypes) -> FloatArray:
        """(N,) objective of each genotype."""
        return self.join(self.accuracy.price(genotypes_NP), self.latency.price(genotypes_NP))


@dataclass(frozen=True, slots=True)
class Objective:
    """What is best: the highest accuracy, unless one of the others is asked for.

    minimize: a quantity that shall be least; min_accuracy: the percentage that must be reached
    then. tradeoff: the weight, below 0, of log(latency in ms) beside accuracy in percent.
    Raises UserError where they contradict each other.
    """

    minimize: Quantity | None = None
    min_accuracy: float | None = None
    tradeoff: float | None = None

    def __post_init__(self) -> None:
        costs = [quantity for quantity in REPORTED if quantity != "accuracy"]
        if self.minimize is not None and self.minimize not in costs:
            raise UserError(
                f"cannot minimize {self.minimize!r}", "--minimize", f"take {', '.join(costs)}"
            )
        if self.minimize is not None and self.tradeoff is not None:
            raise UserError("--minimize and --tradeoff contradict each other", fix="take one")
        if self.minimize is not None and self.min_accuracy is None:
            raise UserError(
                "the least of anything is useless without an accuracy that it must reach",
                "--minimize",
                "add --min-accuracy 95",
            )
        if self.min_accuracy is not None:
            if self.minimize is None:
                raise UserError(
                    "an accuracy to reach leaves open what is best",
                    "--min-accuracy",
                    "add --minimize latency",
                )
            if not 0 < self.min_accuracy < 100:
                raise UserError(
                    f"{self.min_accuracy:g} is not between 0 and 100 percent", "--min-accuracy"
                )
        if self.tradeoff is not None and not -np.inf < self.tradeoff < 0:
            raise UserError(
                f"a weight of {self.tradeoff:g} does not punish latency",
                "--tradeoff",
                "it is added as weight * log(latency): give one below 0, such as -2",
            )

    def __str__(self) -> str:
        if self.minimize is not None:
            return f"least {self.minimize} with at least {self.min_accuracy:g} % accuracy"
        if self.tradeoff is not None:
            return f"highest accuracy in % {self.tradeoff:+g} * log(latency in ms)"
        return "highest accuracy"

    def merit(self, accuracy: float, costs: Mapping[Quantity, float]) -> float:
        """How good a measured accuracy in percent is at these costs: higher is better.

        Where an accuracy must be reached, any that does is better than any that does not.
        """
        if self.minimize is not None:
            assert self.min_accuracy is not None
            if accuracy >= self.min_accuracy:
                return 1 / costs[self.minimize]
            return accuracy - 100
        if self.tradeoff is not None:
            return accuracy + self.tradeoff * math.log(costs["latency"])
        return accuracy


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Maximize ``value`` over ``space`` within all ``limits``.

    value: a sum; or a minimum, which makes the least of a maximum. device: for messages.
    """

    space: Space
    value: Table | Stacked | Tradeoff
    limits: tuple[Limit, ...]
    device: str

    def excess(self, genotypes_NP: Genotypes) -> FloatArray:
        """(N,) what exceeds a limit, as a share of it, summed; 0 where all limits are kept."""
        total: FloatArray = np.zeros(len(genotypes_NP))
        for limit in self.limits:
            over = limit.table.price(genotypes_NP) - (limit.most + SLACK)
            total += np.maximum(over, 0.0) / (abs(limit.most) or 1.0)
        return total

    def feasible(self, genotypes_NP: Genotypes) -> NDArray[np.bool_]:
        """(N,) whether all limits are kept."""
        fits: NDArray[np.bool_] = self.excess(genotypes_NP) == 0
        return fits

    def tightened(
        self, quantity: Quantity, factor: float, row: NDArray[np.int16] | None = None
    ) -> Problem:
        """The same, with ``factor`` times what a quantity may cost.

        row: (1 + P,), of a network that took too much: of what it is priced at, where that is less,
        so that it is out.
        """

        def tight(limit: Limit) -> Limit:
            if limit.budget.quantity != quantity:
                return limit
            most = limit.most
            if row is not None:
                most = min(most, float(limit.table.price(row[None])[0]))
            return replace(limit, most=most * factor)

        return replace(self, limits=tuple(map(tight, self.limits)))

    def within_reach(self, quantity: Quantity, room: float) -> Problem:
        """The same for what will be measured: there no bound refuses all, a point may.

        Where a limit is below the least that is possible, and the budget itself is not, it becomes
        ``room`` times that least, as far as the budget allows.
        """

        def widened(limit: Limit) -> Limit:
            if limit.budget.quantity != quantity:
                return limit
            least, _ = minimum(self.space, limit.table)
            if not limit.most < least <= limit.budget.limit:
                return limit
            return replace(limit, most=min(room * least, limit.budget.limit))

        return replace(self, limits=tuple(map(widened, self.limits)))

    @property
    def possible(self) -> bool:
        """Whether each limit alone can be kept."""
        return all(
            minimum(self.space, limit.table)[0] <= limit.most + SLACK for limit in self.limits
        )

    def check_possible(self) -> None:
        """Raise UserError, with the least value the space reaches, where a budget is below it."""
        for limit in self.limits:
            least, _ = minimum(self.space, limit.table)
            if least > limit.most + SLACK:
                quantity = limit.budget.quantity
                # A bound's factor lies between the two; there is none where the limit is 0.
                reached = least * (limit.budget.limit / limit.most if limit.most else 1.0)
                bound = " (bound)" if quantity == "latency" else ""
                if limit.budget.own:
                    raise UserError(
                        f"no architecture of {self.space.name!r} fits the {limit.budget} of "
                        f"{quantity} that {self.device!r} has: the least is "
                        f"{format_quantity(quantity, reached)}",
                        "--device",
                        "take a checkpoint of smaller networks, such as mcu-cifar10",
                    )
                raise UserError(
                    f"no architecture of {self.space.name!r} fits {limit.budget} on "
                    f"{self.device!r}: the least is {format_quantity(quantity, reached)}{bound}",
                    f"--{quantity}" if quantity in ("sram", "flash") else "--budget",
                    f"try {enough(quantity, reached)}",
                )

    def refuse_together(self) -> NoReturn:
        """Raise UserError: each budget is possible, but nothing was found that keeps all."""
        names = " and ".join(str(limit.budget) for limit in self.limits)
        raise UserError(
            f"no architecture of {self.space.name!r} was found within {names} on {self.device!r}",
            "--budget",
            "relax one of them",
        )


def minimum(space: Space, table: Table | Stacked) -> tuple[float, Genotypes]:
    """The least cost that any architecture has under a table, and its genotype (1 + P,).

    Exact: stages are independent given the resolution, and so are the blocks of a stage given its
    depth.
    """
    if isinstance(table, Stacked):
        found = []
        costs = np.append(table.peak.fixed_R, table.peak.cost_RPC)
        for level in np.unique(costs[np.isfinite(costs)]):
            over_R, over_RPC = table.peak.fixed_R > level, table.peak.cost_RPC > level
            kept = Table(
                np.where(over_R, np.inf, table.kept.fixed_R),
                np.where(over_RPC, np.inf, table.kept.cost_RPC),
            )
            least, genotype = minimum(space, kept)
            found.append((level + least, genotype))
        return min(found, key=lambda pair: pair[0])
    combine = np.add if table.reduce == "sum" else np.maximum
    best = (np.inf, np.zeros(1 + len(space.positions), np.int16))
    choices = table.cost_RPC[:, :, 1:]
    cheapest_RP, which_RP = choices.min(2), choices.argmin(2) + 1
    for r in range(len(space.resolutions)):
        total, row, start = table.fixed_R[r], [r], 0
        for stage in space.stages:
            most = stage.depths[-1]
            costs = combine.accumulate(cheapest_RP[r, start : start + most])
            depth = min(stage.depths, key=lambda d: costs[d - 1])
            total = combine(total, costs[depth - 1])
            row += [*which_RP[r, start : start + depth], *[0] * (most - depth)]
            start += most
        if total < best[0]:
            best = (float(total), np.array(row, np.int16))
    return best
