"""Budgets held in a closed loop: what was searched is packed, compiled or measured, and tightened.

A search works with tables. What a candidate really takes is known once its memory is laid out, its
file is compiled, or it has run on the device: those that miss a budget then are left out, and
where none is left the limit is tightened by what was missed, and searched again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from devices.measure import Measurement
from devices.profile import Profile
from devices.reach import Compiler
from ofa.errors import UserError
from ofa.space import Arch
from specialize.bench import Bench
from specialize.calibration import p90_at_most
from specialize.problem import SLACK, Budget, Problem, Quantity, enough
from specialize.search import SearchResult

__all__ = [
    "NEAR_LEAST",
    "TIGHTENINGS",
    "keep_compiled",
    "keep_fitting",
    "keep_measured",
    "measured_last",
    "shares",
]

#: Searches, with a limit that is tightened where candidates do not hold when they are measured or
#: scored on images, and loosened where they leave room; twice as many where they are measured.
TIGHTENINGS = 4
#: Measurements of a candidate, and the share of a latency budget that all must be within for one
#: more to keep it: on a shared machine one more of a network just within is often above.
_TIMES, _SURE = 3, 0.95
#: What a measured latency may leave of that, as a factor, before the search uses it.
_ROOM = 1.05
#: Where the bound of no network keeps a budget, those are measured first whose latency is within
#: this of the least.
NEAR_LEAST = 1.1


def keep_fitting(
    problem: Problem,
    found: SearchResult,
    arenas: Callable[[Sequence[Arch]], list[int]],
    look: Callable[[Problem, int], SearchResult],
    seed: int,
    tell: Callable[[str], None],
) -> SearchResult:
    """Only candidates whose memory, packed as it will be, keeps its budget.

    The search knows what exists at once, and packing may leave gaps. Where no candidate fits, the
    limit is tightened by what the smallest exceeds it, and the search is repeated.
    """
    most = [limit.budget.limit for limit in problem.limits if limit.budget.quantity == "sram"]
    if not most:
        return found
    bound = found.bound  # what is proven is of what was asked, not of a tightened limit
    for attempt in range(TIGHTENINGS):
        sizes = np.array(arenas([problem.space.decode(row) for row in found.genotypes]))
        fits = sizes <= min(most)
        if fits.any():
            return replace(
                found, genotypes=found.genotypes[fits], values=found.values[fits], bound=bound
            )
        tell(f"none of {len(sizes)} candidates fits into the memory when it is packed")
        if attempt == TIGHTENINGS - 1:
            break
        smallest = int(sizes.argmin())
        factor = min(most) / sizes[smallest]
        problem = problem.tightened("sram", factor, found.genotypes[smallest])
        found = look(problem, seed + attempt + 1)
    raise UserError(
        f"no subnet was found that packs into {Budget('sram', min(most))}",
        "--sram",
        f"try {enough('sram', float(sizes.min()))}",
    )


def keep_measured(
    bench: Bench,
    profile: Profile,
    problem: Problem,
    found: SearchResult,
    look: Callable[[Problem, int], SearchResult],
    seed: int,
    tell: Callable[[str], None],
    loosen: bool = True,
) -> SearchResult:
    """Only candidates that were measured within the latency budget three times, with some room.

    A compiler's answer is the same each time, so there one within the budget is enough. Within:
    what the 90th percentile is at most. Where none is, the limit is tightened by what the
    fastest missed, down to the fastest that there are; where even the slowest leaves room, and
    ``loosen``, it is loosened by that; and the search is repeated.
    """
    budgets = [limit.budget.limit for limit in problem.limits if limit.budget.quantity == "latency"]
    if not budgets:
        return found
    budget = min(budgets)
    times, limit = (1, budget) if bench.deterministic else (_TIMES, _SURE * budget)
    kept: SearchResult | None = None
    least = np.inf
    for attempt in range(2 * TIGHTENINGS):  # a disturbed moment tightens too far: that is undone
        archs = [problem.space.decode(row) for row in found.genotypes]
        p90 = np.zeros(len(archs))
        for _ in range(times):
            holds = np.flatnonzero(p90 <= limit)
            if len(holds):
                again = p90_at_most(bench, [archs[i] for i in holds], profile)
                p90[holds] = np.maximum(p90[holds], again)
        holds = np.flatnonzero(p90 <= limit)
        least = min(least, p90.min())
        tell(f"measured {len(archs)} candidates: {len(holds)} keep {budget:g} ms")
        if len(holds):
            if kept is None or found.values[holds[0]] > kept.values[0]:
                kept = replace(found, genotypes=found.genotypes[holds], values=found.values[holds])
        elif kept is not None:
            break
        nearest = p90[holds].max() if len(holds) else p90.min()
        if len(holds) and (not loosen or limit < _ROOM * nearest):
            break
        tight = problem.tightened("latency", 0.98 * limit / nearest)
        if not bench.deterministic:
            tight = tight.within_reach("latency", 1.0)
        try:
            found = look(tight, seed + attempt + 1)
        except UserError:
            if kept is None and not bench.deterministic:
                continue  # none can, which tells of a disturbed moment: the same once more
            break
        problem = tight
        if kept is not None and found.values[0] <= kept.values[0]:
            break  # the room is of no use
    if kept is not None:
        return kept
    sure = "" if bench.deterministic else f", with {100 * (1 - _SURE):.0f} % to spare"
    raise UserError(
        f"no subnet was measured within {budget:g} ms{sure}; the nearest: {least:.2f} (p90)",
        f"--device {bench.name}",
        f"give a larger --budget{'' if bench.deterministic else ', or repeat on an idle machine'}",
    )


def measured_last(
    bench: Bench, file: bytes, budgets: Sequence[Budget], tell: Callable[[str], None]
) -> tuple[Measurement, str | None]:
    """The chosen network's own file, within the latency budget, and what to say of more tries.

    A moment that others disturb is measured again; where each try misses the budget it is refused.
    """
    most = min((one.limit for one in budgets if one.quantity == "latency"), default=np.inf)
    missed: list[float] = []
    for _ in range(1 if bench.deterministic else _TIMES):
        (found,) = bench.measure_files([file])
        if found.p90_ms <= most * (1 + SLACK):
            told = ", ".join(f"{ms:.4g}" for ms in missed)
            return found, f"measured again, after {told} ms (p90) in other tries" if told else None
        missed.append(found.p90_ms)
        tell(f"the chosen network took {found.p90_ms:.4g} ms (p90), the budget is {most:g}")
    raise UserError(
        f"the chosen network kept {most:g} ms before, and no longer; the nearest: "
        f"{min(missed):.4g} (p90)",
        f"--device {bench.name}",
        "repeat on an idle machine, or give a larger --budget",
    )


def keep_compiled(
    meter: Compiler,
    problem: Problem,
    archs: Sequence[Arch],
    costs: Sequence[Mapping[Quantity, float]],
    last: bool,
    tell: Callable[[str], None],
) -> tuple[list[int], Problem]:
    """Which candidates' own files keep the budgets as the compiler has it; what to search next.

    costs: what it says that each of ``archs`` takes. It packs weights by their values, and those of
    a candidate are known once it is quantized. Where none keeps the budgets, what the nearest
    exceeds is tightened, so that it is out, unless this is the last attempt.
    """
    taken = [shares(problem, one) for one in costs]
    excesses = [max(share.values(), default=0) for share in taken]
    kept = [index for index, excess in enumerate(excesses) if excess <= 1]
    if kept:
        return kept, problem
    nearest = int(np.argmin(excesses))
    for quantity, share in taken[nearest].items():
        if share > 1:
            (row,) = problem.space.encode([archs[nearest]])
            problem = problem.tightened(quantity, 0.99 / share, row)
    over = f"the nearest exceeds them by {100 * (excesses[nearest] - 1):.1f} %"
    if last or not problem.possible:
        raise UserError(
            f"no subnet keeps the budgets when it is compiled; {over}",
            f"--device {meter.device}",
            "give a larger budget, or more --candidates",
        )
    tell(f"none of {len(costs)} candidates keeps the budgets when it is compiled; {over}")
    return [], problem


def shares(problem: Problem, costs: Mapping[Quantity, float]) -> dict[Quantity, float]:
    """What costs take of each budget, as a share."""
    budgets = sorted((limit.budget for limit in problem.limits), key=lambda one: -one.limit)
    return {  # of several budgets for one quantity the smallest
        one.quantity: costs[one.quantity] / one.limit for one in budgets if one.quantity in costs
    }
