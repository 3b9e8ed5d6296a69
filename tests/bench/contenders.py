"""Searches to compare, ours and others', counted and timed by one meter.

Axes: N architectures, P block position, C choice of a block, R resolution, G gene.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ofa.checkpoint import Evaluated
from ofa.errors import UserError
from ofa.space import Genotypes, Space
from specialize.accuracy import fit
from specialize.problem import SLACK, Limit, Problem
from specialize.refine import BATCH, suggest
from specialize.search import evolution, exact, get_strategy
from specialize.search.genes import Genes

__all__ = ["CONTENDERS", "Contender", "Meter", "Task", "Value", "prune", "require_pymoo"]

FloatArray = NDArray[np.float64]

POPULATION = 100
PARENTS = 25
MUTANTS = 50  # of a generation's children; the others are crossed
RATE = 0.1  # of a mutation
IMAGES = 10_000  # that the published predictor's accuracies are of


class Value(Protocol):
    """What is searched for: accuracy in percent."""

    def price(self, genotypes: Genotypes, /) -> FloatArray:
        """(N,) of each genotype."""


@dataclass(frozen=True)
class Task:
    """The highest ``value`` within ``limit``.

    generations: of the population searches. first, more: architectures that models are fitted to
    before their first search, and in all.
    """

    space: Space
    value: Value
    limit: Limit
    generations: int
    first: int
    more: int

    def posed(self, value: Value) -> Problem:
        return Problem(self.space, value, (self.limit,), "the table")  # type: ignore[arg-type]


class Meter:
    """The value of a task; counts architectures, each once however often it is priced.

    trace: (evaluations, best value so far that fits, CPU seconds) wherever that improves; the
    seconds are those of the search, not of the meter.
    cost, value: what nothing evaluated beats, whatever the limit, both ascending.
    """

    def __init__(self, task: Task) -> None:
        self.evaluations, self.trace = 0, [(0, -np.inf, 0.0)]
        self.cost, self.value = np.empty(0), np.empty(0)
        self._task, self._seen = task, set[int]()
        # Equal genotypes have equal keys, and others practically never.
        self._weights = np.random.default_rng(0).integers(
            2**64, size=1 + len(task.space.positions), dtype=np.uint64
        )
        self._paused, self._began = 0.0, time.process_time()

    @property
    def seconds(self) -> float:
        return time.process_time() - self._began - self._paused

    def price(self, genotypes: Genotypes) -> FloatArray:
        values = self._task.value.price(genotypes)
        now, began = self.seconds, time.process_time()
        keys, first = np.unique(genotypes.astype(np.uint64) @ self._weights, return_index=True)
        fresh = np.zeros(len(values), bool)
        fresh[first] = [key not in self._seen for key in keys.tolist()]
        self._seen.update(keys.tolist())
        count = self.evaluations + np.cumsum(fresh)
        self.evaluations = int(count[-1])
        cost = self._task.limit.table.price(genotypes)
        fitting = np.where(cost <= self._task.limit.most + SLACK, values, -np.inf)
        best = np.maximum.accumulate(np.append(self.trace[-1][1], fitting))
        self.trace += [
            (int(count[i]), float(best[1 + i]), now) for i in np.flatnonzero(best[1:] > best[:-1])
        ]
        at = np.searchsorted(self.cost, cost, side="right") - 1
        good = values > np.append(self.value, -np.inf)[at]  # -1, where nothing is cheaper
        if good.any():
            self.cost, self.value = prune(
                np.append(self.cost, cost[good]), np.append(self.value, values[good])
            )
        self._paused += time.process_time() - began
        return values

    def __getattr__(self, name: str) -> Any:
        """What else the value has: strategies that need a table find one, if it is one."""
        return getattr(self._task.value, name)


def prune(cost: FloatArray, value: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Without what another beats: cost ascending, value strictly ascending."""
    order = np.lexsort((-value, cost))
    best = np.append(-np.inf, np.maximum.accumulate(value[order]))
    kept = order[best[1:] > best[:-1]]
    return cost[kept], value[kept]


Contender = Callable[[Task, Meter, int], None]


def ours(name: str, task: Task, meter: Meter, seed: int) -> None:
    """One of ``STRATEGIES``."""
    get_strategy(name)(task.posed(meter), seed=seed, count=1)


def modelled(task: Task, meter: Meter, seed: int) -> None:
    """What a user of a checkpoint gets: a model, its exact best, and the evolution from there.

    The model is of random subnets, as many as a card may have.
    """
    rng = np.random.default_rng(seed)
    model = fit(task.space, scored(meter, task.space.sample(rng, task.more)))
    best = exact.search(task.posed(model.table))
    evolution.search(task.posed(meter), seed=seed, count=1, starts=best.genotypes)


def refined(task: Task, meter: Meter, seed: int) -> None:
    """Evaluate, refit, search again: ``specialize.refine`` with the value itself as the scorer.

    It begins with random architectures near the limit.
    """
    rng = np.random.default_rng(seed)
    drawn = task.space.sample(rng, 200 * task.first)
    share = task.limit.table.price(drawn) / task.limit.most
    evaluated = scored(meter, drawn[(share > 0.6) & (share <= 1)][: task.first])
    model = fit(task.space, evaluated)
    while meter.evaluations < task.more:
        rows = suggest(model, task.posed, evaluated.genotypes, BATCH, rng)
        if not len(rows):
            return
        evaluated = evaluated.joined(scored(meter, rows))
        model = fit(task.space, evaluated)


def scored(meter: Meter, genotypes: Genotypes) -> Evaluated:
    return Evaluated(genotypes, meter.price(genotypes), np.full(len(genotypes), IMAGES))


class Separate:
    """The encoding of the 2020 work: kernels and expand ratios are genes of their own.

    One architecture is a row of 1 + S + P + P indices: resolution, depths, kernels, expand ratios.
    """

    def __init__(self, space: Space) -> None:
        self.genes = Genes(space)
        stages = [space.stages[s] for s, _ in space.positions]
        self.head = 1 + len(space.stages)
        self.expands = np.array([len(stage.expands) for stage in stages])
        kernels = np.array([len(stage.kernels) for stage in stages])
        self.values = np.concatenate([self.genes.values[: self.head], kernels, self.expands])

    def random(self, rng: np.random.Generator, count: int) -> Genotypes:
        return rng.integers(self.values, size=(count, len(self.values))).astype(np.int16)

    def genotypes(self, rows: Genotypes) -> Genotypes:
        head, kernel, expand = np.split(rows, [self.head, self.head + len(self.expands)], axis=1)
        return self.genes.genotypes(np.hstack([head, 1 + kernel * self.expands + expand]))


def reference(task: Task, meter: Meter, seed: int) -> None:
    """The evolution of the 2020 work, with its settings (its tutorial's ``evolution_finder``).

    Elitist truncation: the best quarter are parents, half of the children are mutants, half are
    crossed gene by gene; each is drawn again until it fits. The two genes of a block mutate
    together.
    """
    rng = np.random.default_rng(seed)
    code = Separate(task.space)
    blocks = len(task.space.positions)

    def until_fitting(draw: Callable[[NDArray[np.intp]], Genotypes], count: int) -> Genotypes:
        rows = draw(np.arange(count))
        over = np.arange(count)
        while len(over):
            rows[over] = draw(over)
            cost = task.limit.table.price(code.genotypes(rows[over]))
            over = over[cost > task.limit.most + SLACK]
        return rows

    def mutants(rows: Genotypes) -> Genotypes:
        redrawn = rng.random((len(rows), code.head + blocks)) < RATE
        redrawn = np.hstack([redrawn, redrawn[:, code.head :]])
        return np.where(redrawn, code.random(rng, len(rows)), rows)

    def crossed(mothers: Genotypes, fathers: Genotypes) -> Genotypes:
        return np.where(rng.random(mothers.shape) < 0.5, mothers, fathers)

    rows = until_fitting(lambda which: code.random(rng, len(which)), POPULATION)
    values = meter.price(code.genotypes(rows))
    for _ in range(task.generations):
        best = np.argsort(-values, kind="stable")[:PARENTS]
        rows, values = rows[best], values[best]
        one = rows[rng.integers(PARENTS, size=MUTANTS)]
        two, three = rows[rng.integers(PARENTS, size=(2, POPULATION - MUTANTS))]
        children = np.vstack(
            [
                until_fitting(lambda w, one=one: mutants(one[w]), len(one)),
                until_fitting(lambda w, a=two, b=three: crossed(a[w], b[w]), len(two)),
            ]
        )
        rows = np.vstack([rows, children])
        values = np.append(values, meter.price(code.genotypes(children)))


def require_pymoo() -> None:
    """Raise UserError where it is not installed: it is no dependency of this project."""
    try:
        importlib.import_module("pymoo.optimize")
    except ImportError as cause:
        raise UserError(
            f"pymoo cannot be imported: {cause}",
            fix="pip install --target DIR pymoo, and PYTHONPATH=DIR",
        ) from cause


def of_pymoo(kind: str, operator: str, task: Task, meter: Meter, seed: int) -> None:
    """Pymoo's GA within the limit, or its NSGA-II over accuracy and latency, both on integers.

    operator: "sbx", which pymoo's documentation shows for integers, or "uniform" crossover.
    What does not fit is worth nothing to the GA and is not evaluated for it.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import Problem as Parent
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.crossover.ux import UX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    code = Separate(task.space)
    free = np.flatnonzero(code.values > 1)
    alone = kind == "GA"

    class Posed(Parent):  # type: ignore[misc]
        def __init__(self) -> None:
            last = code.values[free] - 1
            shape = {"n_obj": 1, "n_ieq_constr": 1} if alone else {"n_obj": 2}
            super().__init__(n_var=len(free), xl=0 * last, xu=last, vtype=int, **shape)

        def _evaluate(self, x: FloatArray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
            rows = np.zeros((len(x), len(code.values)), np.int16)
            rows[:, free] = x
            genotypes = code.genotypes(rows)
            over = task.limit.table.price(genotypes) - (task.limit.most + SLACK)
            if not alone:
                out["F"] = np.column_stack([-meter.price(genotypes), over])
                return
            out["F"], out["G"] = np.zeros((len(x), 1)), over[:, None]
            if (over <= 0).any():
                out["F"][over <= 0, 0] = -meter.price(genotypes[over <= 0])

    whole = {"vtype": float, "repair": RoundingRepair()}
    crossover = UX() if operator == "uniform" else SBX(prob=1.0, eta=3.0, **whole)
    algorithm = (GA if alone else NSGA2)(
        pop_size=POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=crossover,
        mutation=PM(prob=1.0, eta=3.0, **whole),
        eliminate_duplicates=True,
    )
    minimize(Posed(), algorithm, ("n_gen", 1 + task.generations), seed=seed, verbose=False)


CONTENDERS: dict[str, Contender] = {
    "ours: exact": partial(ours, "exact"),
    "ours: evaluate, refit, search again": refined,
    "ours: model, exact, then evolution": modelled,
    "ours: evolution": partial(ours, "evolution"),
    "ours: REINFORCE": partial(ours, "reinforce"),
    "ours: gradient": partial(ours, "gradient"),
    "ours: random, repaired": partial(ours, "random"),
    "evolution of the 2020 work": reference,
    "pymoo GA, SBX": partial(of_pymoo, "GA", "sbx"),
    "pymoo GA, uniform": partial(of_pymoo, "GA", "uniform"),
    "pymoo NSGA-II": partial(of_pymoo, "NSGA-II", "uniform"),
}
