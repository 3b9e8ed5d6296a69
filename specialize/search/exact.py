"""The optimum under additive tables, with proof: dynamic programming and best-first search.

A *front* holds ways to choose some of the blocks, cost ascending and value strictly ascending. Of
two ways, one that costs no more and is worth no less serves every choice of the other blocks as
well; so only fronts are carried on, from the last stage to the first, and nothing is lost. That
gives at once what the stages from ``s`` on can add within any cost that is left, and this is the
perfect bound of a best-first search (A*): architectures come out of it in the order of their
values. A limit on a maximum (peak memory) removes choices; memory that is a maximum and a sum (a
tensor arena) is searched in *cases*, one for each value of the maximum. (Of a second arena, on
another device, the least peak that goes with the value is charged, and what comes out is looked
at.) Where several sums are limited, the first one is carried exactly and the others are priced into
the value with Lagrange multipliers (Fisher 1981): the bound is then an upper one, hardly above the
truth, and the search stays exact.

Axes: N ways, K limited sums, J arena, Q case, R resolution, S stage, P block position, C choice of
a block.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count as counter

import numpy as np
from numpy.typing import NDArray

from ofa.errors import UserError
from ofa.space import Genotypes
from ofa.table import Stacked, Table
from specialize.problem import SLACK, Budget, Limit, Problem, Tradeoff
from specialize.search import SearchResult, Tell, evolution

__all__ = ["Front", "front", "search"]

FloatArray = NDArray[np.float64]

_HALVINGS = 12
_GROUPS = 32
_MOST_NODES = 1_000_000  # children remembered, 12 bytes each; enough but for odd combinations
_MOST_POPS = 20_000  # looked at for some that are distinct


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """Ways to choose blocks that no other way beats.

    cost: (N,) ascending. value: (N,) strictly ascending. rows: (N, blocks) choices; for whole
    architectures genotypes. other: (N, K - 1) what else they cost.
    """

    cost: FloatArray
    value: FloatArray
    rows: Genotypes
    other: FloatArray

    def within(self, limit: FloatArray | float) -> NDArray[np.intp]:
        """Index of the best way that costs at most ``limit``; -1 where there is none."""
        return np.asarray(np.searchsorted(self.cost, limit + SLACK, side="right") - 1)


def front(problem: Problem) -> Front:
    """The whole front over the first limited sum, whatever its limit: every budget in one.

    Limits on maxima hold; further sums are ignored. Of a ``Tradeoff`` it is the front of its
    accuracy over its latency.
    """
    program = _Program(problem)
    wholes = [
        _merged(program.start(q), suffixes[0])
        for q, suffixes in enumerate(program.suffixes(np.zeros(len(program.most) - 1)))
        if program.open[q]
    ]
    return _pruned(*(np.concatenate([getattr(w, part) for w in wholes]) for part in _PARTS))


def search(
    problem: Problem,
    *,
    seed: int = 0,
    count: int = 10,
    distance: int = 2,
    starts: Genotypes | None = None,  # noqa: ARG001  nothing is better than the best
    tell: Tell | None = None,
) -> SearchResult:
    """See ``Strategy``. The first is the optimum, and ``bound`` its proof.

    Where several sums are limited the proof can take too long. Then the evolution's best are
    returned, and ``bound`` is what no architecture can exceed.
    """
    began = time.perf_counter()
    problem.check_possible()
    if isinstance(problem.value, Table) and problem.value.reduce == "min":
        return _least_maximum(problem, began, seed=seed, count=count, distance=distance, tell=tell)
    program = _Program(problem)
    chosen: list[Genotypes] = []
    bound = -np.inf
    pops = 0
    for limit, row in program.ranked():
        bound = max(bound, limit)
        if row is None and not chosen:
            found = evolution.search(problem, seed=seed, count=count, distance=distance, tell=tell)
            return replace(found, bound=bound)
        if row is None:
            break
        pops += 1
        if all((row != other).sum() >= distance for other in chosen):
            chosen.append(row)
        if tell is not None:
            tell(pops, bound)
        if len(chosen) == count or pops == _MOST_POPS:
            break
    if not chosen:
        problem.refuse_together()
    # Sums in another order differ in their last bits: the table's own sum is the value.
    genotypes = np.stack(chosen)
    values = problem.value.price(genotypes)
    order = np.argsort(-values, kind="stable")
    best = float(values[order[0]])
    return SearchResult(
        genotypes[order],
        values[order],
        pops,
        time.perf_counter() - began,
        ((1, best),),
        max(bound, best),
    )


def _least_maximum(
    problem: Problem,
    began: float,
    *,
    seed: int,
    count: int,
    distance: int,
    tell: Tell | None,
) -> SearchResult:
    """The least maximum (peak memory) that the limits allow: a bisection of limits on it.

    Of the architectures that have it, those deepest within the first limit on a sum come first;
    where an accuracy must be reached, these are the most accurate.
    """
    assert isinstance(problem.value, Table)
    peak = problem.value.scaled(-1)
    tables = [limit.table for limit in problem.limits if isinstance(limit.table, Table)]
    sums = [table for table in tables if table.reduce == "sum"]
    slack = sums[0].scaled(-1) if sums else _free(peak)

    def best(level: float, count: int) -> SearchResult | None:
        within = Limit(Budget("sram", level), peak, level)
        limited = replace(problem, value=slack, limits=(*problem.limits, within))
        try:
            return search(limited, seed=seed, count=count, distance=distance, tell=tell)
        except UserError:  # nothing fits
            return None

    costs = np.concatenate([peak.fixed_R, peak.cost_RPC.ravel()])
    levels = np.unique(costs[np.isfinite(costs)])
    low, high = -1, len(levels) - 1
    evaluations = 0
    while high - low > 1:
        middle = (low + high) // 2
        found = best(levels[middle], 1)
        evaluations += 0 if found is None else found.evaluations
        low, high = (middle, high) if found is None else (low, middle)
    found = best(levels[high], count)
    if found is None:
        problem.refuse_together()
    least = -float(levels[high])
    return SearchResult(
        found.genotypes,
        problem.value.price(found.genotypes),
        evaluations + found.evaluations,
        time.perf_counter() - began,
        ((1, least),),
        least,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Ways:
    """All ways to choose a stage: values (N,), costs (N, K), rows (N, blocks)."""

    value: FloatArray
    cost: FloatArray
    rows: Genotypes


class _Program:
    """The problem as cases, each of stages of ways.

    A case is a resolution; and of a ``Stacked`` cost a value of the peak too, which is charged as a
    part of the sum and must not be exceeded. Of further ones it is the least that their peaks are.
    """

    def __init__(self, problem: Problem) -> None:
        self.space = problem.space
        value, self.tradeoff = problem.value, None
        stacks: list[Stacked] = []
        if isinstance(value, Stacked):
            stacks.append(value.scaled(-1))
            value = value.kept
        sums: list[tuple[Table, float, int | None]] = []  # table, limit, which arena's
        for limit in problem.limits:
            if isinstance(limit.table, Stacked):
                sums.append((limit.table.kept, limit.most, len(stacks)))
                stacks.append(limit.table)
            elif limit.table.reduce == "sum":
                sums.append((limit.table, limit.most, None))
        if isinstance(value, Tradeoff):
            self.tradeoff, value = value, value.accuracy
            own = self.tradeoff.latency
            most = min((most for table, most, _ in sums if table is own), default=np.inf)
            sums = [(own, most, None), *(one for one in sums if one[0] is not own)]
        tables = [table for table, *_ in sums] or [_free(value)]
        self.most = np.array([most for _, most, _ in sums] or [0.0])
        resolutions = range(len(value.fixed_R))
        self.arenas = [limit for limit in problem.limits if isinstance(limit.table, Stacked)]
        self.leading = stacks[0].peak if stacks else None
        cases = [(r, levels_J) for r in resolutions for levels_J in _levels(stacks, r)]
        self.resolution_Q = np.array([r for r, _ in cases])
        self.level_QJ = np.array([levels_J for _, levels_J in cases])
        self.value_Q = value.fixed_R[self.resolution_Q]
        self.fixed_QK = np.stack([table.fixed_R for table in tables], axis=-1)[self.resolution_Q]
        for k, (*_, arena) in enumerate(sums):
            if arena is not None:
                self.fixed_QK[:, k] += self.level_QJ[:, arena]
        if isinstance(problem.value, Stacked):
            self.value_Q = self.value_Q - self.level_QJ[:, 0]
        cost_RPCK = np.stack([table.cost_RPC for table in tables], axis=-1)
        allowed_RPC = np.isfinite(cost_RPCK.max(-1))
        open_R = np.ones(len(resolutions), bool)  # whether it keeps all maxima
        for limit in problem.limits:
            if isinstance(limit.table, Table) and limit.table.reduce == "max":
                open_R &= limit.table.fixed_R <= limit.most + SLACK
                allowed_RPC &= limit.table.cost_RPC <= limit.most + SLACK
        self.ways = []
        for r, levels_J in cases:
            allowed_PC = allowed_RPC[r]
            if self.leading is not None:
                allowed_PC = allowed_PC & (self.leading.cost_RPC[r] <= levels_J[0] + SLACK)
            self.ways.append(self._ways(value.cost_RPC[r], cost_RPCK[r], allowed_PC))
        self.open = open_R[self.resolution_Q]
        self.open &= [all(len(ways.value) for ways in stages) for stages in self.ways]

    @property
    def _cases(self) -> range:
        return range(len(self.value_Q))

    def _ways(
        self, value_PC: FloatArray, cost_PCK: FloatArray, allowed_PC: NDArray[np.bool_]
    ) -> list[_Ways]:
        stages, start = [], 0
        for stage in self.space.stages:
            deepest = stage.depths[-1]
            way = _Ways(np.zeros(1), np.zeros((1, len(self.most))), np.empty((1, 0), np.int16))
            kept = []
            for depth in range(1, deepest + 1):
                p = start + depth - 1
                choices = 1 + np.flatnonzero(allowed_PC[p, 1:])
                way = _Ways(
                    (way.value[:, None] + value_PC[p, choices]).reshape(-1),
                    (way.cost[:, None] + cost_PCK[p, choices]).reshape(-1, len(self.most)),
                    np.column_stack(
                        [
                            np.repeat(way.rows, len(choices), axis=0),
                            np.tile(choices, len(way.rows)),
                        ]
                    ).astype(np.int16),
                )
                if depth in stage.depths:
                    absent = np.zeros((len(way.rows), deepest - depth), np.int16)
                    kept.append(_Ways(way.value, way.cost, np.hstack([way.rows, absent])))
            stages.append(
                _Ways(
                    np.concatenate([w.value for w in kept]),
                    np.concatenate([w.cost for w in kept]),
                    np.concatenate([w.rows for w in kept]),
                )
            )
            start += deepest
        return stages

    def start(self, q: int) -> Front:
        """The front of no block at all: what a resolution costs and is worth."""
        fixed, row = self.fixed_QK[q], self.resolution_Q[q]
        return Front(fixed[:1], self.value_Q[[q]], np.full((1, 1), row, np.int16), fixed[None, 1:])

    def suffixes(self, price: FloatArray) -> list[list[Front]]:
        """Per case and stage, the front of the stages from there on (one more: of none).

        price: (K - 1,) multipliers, by which the other costs lower the value.
        """
        nothing = Front(
            np.zeros(1), np.zeros(1), np.empty((1, 0), np.int16), np.zeros((1, len(price)))
        )
        found = []
        for q in self._cases:
            fronts = [nothing]
            for ways in reversed(self.ways[q] if self.open[q] else []):
                other = ways.cost[:, 1:]
                stage = _pruned(ways.cost[:, 0], ways.value - other @ price, ways.rows, other)
                fronts.append(_merged(stage, fronts[-1]))
            found.append(fronts[::-1])
        return found

    def relaxed(self, price: FloatArray) -> tuple[float, FloatArray]:
        """Upper bound on the optimum for these multipliers, and the other costs where it lies."""
        best = (-np.inf, np.zeros(len(price)))
        for q, suffixes in enumerate(self.suffixes(price)):
            if not self.open[q]:
                continue
            fixed = self.fixed_QK[q]
            at = int(suffixes[0].within(self.most[0] - fixed[0]))
            if at >= 0:
                other = fixed[1:] + suffixes[0].other[at]
                value = self.value_Q[q] + suffixes[0].value[at] + price @ (self.most - fixed)[1:]
                if value > best[0]:
                    best = (float(value), other)
        return best

    def multipliers(self) -> FloatArray:
        """(K - 1,) multipliers whose bound is low, by bisection on one after the other."""
        limits = self.most[1:]
        best = price = np.zeros(len(limits))
        if self.tradeoff is not None:
            return price
        lowest, other = self.relaxed(price)
        if (other <= limits + SLACK).all():
            return price

        def exceeds(k: int, value: float) -> bool:
            nonlocal best, lowest
            trial = best.copy()
            trial[k] = value
            bound, other = self.relaxed(trial)
            if bound < lowest:
                best, lowest = trial, bound
            return bool(other[k] > limits[k] + SLACK)

        for _ in range(min(len(limits), 2)):
            for k, limit in enumerate(limits):
                low, high = 0.0, 1 / max(abs(limit), SLACK)
                for _ in range(_HALVINGS):
                    if not exceeds(k, high):
                        break
                    low, high = high, 4 * high
                for _ in range(_HALVINGS):
                    middle = (low + high) / 2
                    low, high = (middle, high) if exceeds(k, middle) else (low, middle)
        return best

    def ranked(self) -> Iterator[tuple[float, Genotypes | None]]:
        """Architectures within all limits, best first, each with its value.

        Given up after ``_MOST_NODES``: then the last is (what no other can exceed, None).
        """
        price = self.multipliers()
        suffixes = self.suffixes(price)
        cheapest = [self._cheapest(q) for q in self._cases]
        heap: list[tuple[float, int, _Node, int]] = []
        tie, size = counter(), 0

        def expand(parent: _Node) -> int:
            q, s = parent.case, parent.stage
            ways, rest = self.ways[q][s], suffixes[q][s + 1]
            value, cost = parent.value + ways.value, parent.cost + ways.cost
            left = self.most - cost
            fits = (left - cheapest[q][s + 1] >= -SLACK).all(1)
            if self.tradeoff is not None:
                bound = self._best_join(self.tradeoff, value, cost[:, 0], rest, self.most[0])
            elif s + 1 == len(self.space.stages):
                bound = value
            else:
                at = rest.within(left[:, 0])
                fits &= at >= 0
                bound = value + rest.value[at] + left[:, 1:] @ price
            bound = np.where(fits, bound, -np.inf)
            order = np.argsort(-bound, kind="stable")[: np.count_nonzero(bound > -np.inf)]
            parent.order, parent.bound = order.astype(np.int32), bound[order]
            if len(order):
                heapq.heappush(heap, (-parent.bound[0], next(tie), parent, 0))
            return len(order)

        for q in np.flatnonzero(self.open):
            row = self.resolution_Q[[q]].astype(np.int16)
            size += expand(_Node(int(q), 0, float(self.value_Q[q]), self.fixed_QK[q], row))
        while heap:
            bound, _, parent, index = heapq.heappop(heap)
            if size > _MOST_NODES:
                yield -bound, None
                return
            if index + 1 < len(parent.order):
                heapq.heappush(heap, (-parent.bound[index + 1], next(tie), parent, index + 1))
            ways, way = self.ways[parent.case][parent.stage], parent.order[index]
            row = np.concatenate([parent.row, ways.rows[way]])
            value, cost = parent.value + ways.value[way], parent.cost + ways.cost[way]
            if parent.stage + 1 < len(self.space.stages):
                size += expand(_Node(parent.case, parent.stage + 1, float(value), cost, row))
            elif self._belongs(parent.case, row):
                yield -bound, row

    def _belongs(self, q: int, row: Genotypes) -> bool:
        """Whether an architecture has the peak of this case; a smaller one is of another.

        And whether it keeps all arenas' limits: further peaks may be above what was charged.
        """
        if self.leading is None:
            return True
        has_it = self.leading.price(row[None])[0] >= self.level_QJ[q, 0] - SLACK
        return bool(has_it) and all(
            arena.table.price(row[None])[0] <= arena.most + SLACK for arena in self.arenas
        )

    @staticmethod
    def _best_join(
        tradeoff: Tradeoff, value: FloatArray, cost: FloatArray, rest: Front, most: float
    ) -> FloatArray:
        """(N,) a bound on the objective of each way with any of the rest, of a cost up to ``most``.

        Exact for a short front; of a long one neighbours are taken together, the highest value at
        the lowest cost.
        """
        best = np.full(len(value), -np.inf)
        for group in np.array_split(np.arange(len(rest.cost)), min(len(rest.cost), _GROUPS)):
            more, dearer = rest.value[group[-1]], rest.cost[group[0]]
            joined = tradeoff.join(value + more, cost + dearer)
            best = np.where(cost + dearer <= most + SLACK, np.maximum(best, joined), best)
        return best

    def _cheapest(self, q: int) -> FloatArray:
        """(S + 1, K) least that the stages from each on cost, of each sum on its own."""
        least = [ways.cost.min(0, initial=np.inf) for ways in self.ways[q]]
        return np.cumsum([np.zeros(len(self.most)), *least[::-1]], axis=0)[::-1]


@dataclass(slots=True, eq=False)
class _Node:
    """Stages before ``stage`` are chosen; ``order`` are the ways of it, by descending ``bound``."""

    case: int
    stage: int
    value: float
    cost: FloatArray
    row: Genotypes
    order: NDArray[np.int32] = None  # type: ignore[assignment]
    bound: FloatArray = None  # type: ignore[assignment]


def _levels(stacks: Sequence[Stacked], r: int) -> FloatArray:
    """(Q, J) every value of the first peak at a resolution, and the least of the others with it."""
    if not stacks:
        return np.empty((1, 0))
    fixed_J1 = np.array([[stack.peak.fixed_R[r]] for stack in stacks])
    costs_JN = np.array([stack.peak.cost_RPC[r, :, 1:].ravel() for stack in stacks])
    costs_JN = costs_JN[:, np.isfinite(costs_JN[0])]
    # What has a value of the first peak has it beside the blocks, or by a choice that has it.
    peaks_JN = np.hstack([fixed_J1, np.maximum(costs_JN, fixed_J1)])
    levels, which = np.unique(peaks_JN[0], return_inverse=True)
    least_QJ = np.full((len(levels), len(stacks)), np.inf)
    np.minimum.at(least_QJ, which, peaks_JN.T)
    return least_QJ


def _free(table: Table) -> Table:
    """Of the same choices, which all cost nothing."""
    return Table(np.zeros_like(table.fixed_R), np.where(np.isfinite(table.cost_RPC), 0.0, np.inf))


_PARTS = ("cost", "value", "rows", "other")


def _merged(a: Front, b: Front) -> Front:
    """The front of all ways of ``a`` with all ways of ``b``."""
    cost, value = (np.add.outer(x, y).ravel() for x, y in ((a.cost, b.cost), (a.value, b.value)))
    kept = _kept(cost, value)
    i, j = np.divmod(kept, len(b.cost))
    return Front(
        cost[kept],
        value[kept],
        np.hstack([a.rows[i], b.rows[j]]),
        a.other[i] + b.other[j],
    )


def _pruned(cost: FloatArray, value: FloatArray, rows: Genotypes, other: FloatArray) -> Front:
    kept = _kept(cost, value)
    return Front(cost[kept], value[kept], rows[kept], other[kept])


def _kept(cost: FloatArray, value: FloatArray) -> NDArray[np.intp]:
    """Indices of what nothing beats, in the order of cost."""
    order = np.lexsort((-value, cost))
    values = value[order]
    better = np.ones(len(order), bool)
    better[1:] = values[1:] > np.maximum.accumulate(values)[:-1]
    return np.asarray(order[better])
