"""The search judged from outside: spaces, tables and benchmarks that others published.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=DIR \
        python -m tests.bench.bench_external DATA [--seeds 20] [--jobs 1] [--dry]

DATA is the folder of published tables, which this repository does not hold. DIR has pymoo:
``pip install --target DIR pymoo``. --dry prints and records nothing. --generations makes the
population searches shorter than in the 2020 work, to try the script.

Axes: N architectures, P block position, C choice of a block, R resolution.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from devices.cost import latency_table
from devices.profile import get_profile
from ofa.checkpoint import find_checkpoint, read_checkpoint
from ofa.errors import UserError
from ofa.sampling import one_hot
from ofa.space import Genotypes, Space, Stage
from ofa.table import Table
from specialize.accuracy import fit
from specialize.problem import Budget, Limit, Problem
from specialize.search import exact
from tests.bench.contenders import CONTENDERS, Meter, Task, prune, require_pymoo
from tests.bench.record import machine, record, table

FloatArray = NDArray[np.float64]

GENERATIONS = 500  # of the 2020 work
LIMIT = 25.0  # ms
FITTED = 20_000  # random architectures that the additive predictor is fitted to
FRONT_LIMITS = (15.0, 20.0, 25.0, 30.0, 40.0, 50.0)
FRONT_END = 60.0  # ms, the largest budget that the 2020 work's tutorial admits
FRONT_SEEDS = 5
REPEATS = 5
REFINED, THEIRS = "ours: evaluate, refit, search again", "evolution of the 2020 work"

MBV3 = Space(
    "mbv3-w1.2",
    stem=24,
    stages=tuple(
        Stage(width, stride, depths=(2, 3, 4), kernels=(3, 5, 7), expands=(3, 4, 6))
        for width, stride in zip((32, 48, 96, 136, 192), (2, 2, 2, 1, 2), strict=True)
    ),
    head=1152,
    resolutions=(160, 176, 192, 208, 224),
)
#: NAS-Bench-Macro: every layer is there and has one of three operations. The kernel says which: 1
#: identity, 3 for kernel 3 with expand ratio 3, 5 for kernel 5 with expand ratio 6.
MACRO = Space(
    "nasbench-macro",
    stem=32,
    stages=tuple(
        Stage(width, 2, depths=(depth,), kernels=(1, 3, 5), expands=(1,))
        for width, depth in ((64, 2), (128, 3), (256, 3))
    ),
    head=1280,
    resolutions=(32,),
    classes=10,
)


@dataclass(frozen=True)
class Predictor:
    """The published accuracy predictor: accuracy in percent by a network of three hidden layers."""

    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

    def price(self, genotypes: Genotypes) -> FloatArray:
        """(N,) accuracy. Input: kernels, then expand ratios, one-hot, then the resolution."""
        n, blocks = np.arange(len(genotypes)), genotypes[:, 1:] > 0
        kernel, expand = np.divmod(genotypes[:, 1:] - 1, 3)
        first = 3 * np.arange(blocks.shape[1])
        x = np.zeros((len(n), 128), np.float32)
        x[n[:, None], first + kernel] = blocks
        x[n[:, None], 60 + first + expand] = blocks
        x[n, 120 + (np.array(MBV3.resolutions)[genotypes[:, 0]] - 112) // 16] = 1
        for i, (weight, bias) in enumerate(self.layers):
            x = (x if i == 0 else np.maximum(x, 0)) @ weight.T + bias
        return 100 * x[:, 0].astype(np.float64)


@dataclass(frozen=True)
class Listed:
    """Accuracy of every architecture of ``MACRO``, by its operations as digits of base 3."""

    accuracy: FloatArray

    def price(self, genotypes: Genotypes) -> FloatArray:
        digits = 3 ** np.arange(genotypes.shape[1] - 2, -1, -1)
        return self.accuracy[((genotypes[:, 1:] - 1) * digits).sum(1)]


@dataclass(frozen=True)
class Case:
    """A comparison. best: the optimum; None where the best that any contender finds stands for it.

    marks: evaluations after which the regret is read.
    """

    title: str
    about: str
    task: Task
    names: tuple[str, ...]
    marks: tuple[int, ...]
    best: float | None


@dataclass(frozen=True)
class Run:
    """What the meter of one run showed."""

    trace: Sequence[tuple[int, float, float]]
    evaluations: int
    seconds: float
    cost: FloatArray
    value: FloatArray

    def reached(self, value: float) -> tuple[float, float]:
        """Evaluations and seconds after which the best was at least ``value``; or infinite."""
        return next(((n, s) for n, best, s in self.trace if best >= value), (np.inf, np.inf))

    def best(self, evaluations: float = np.inf) -> float:
        return max(best for n, best, _ in self.trace if n <= evaluations)


def main() -> None:
    """Compare and record."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_external")
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--generations", type=int, default=GENERATIONS)
    parser.add_argument("--more", type=int, default=400, help="evaluations of the model-based")
    parser.add_argument("--only", help="contenders with this in their names")
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    try:
        require_pymoo()
        cases = read_cases(args.data, args.generations, args.more)
        with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
            text = report(cases, args.seeds, args.only or "", pool)
    except UserError as error:
        sys.exit(f"error: {error}")
    if args.dry or args.only:  # never half a section
        sys.stdout.write(f"{text}\n\n{machine(('scipy', 'pymoo'))}\n")
    else:
        record("external", text, ("scipy", "pymoo"))


def report(cases: Sequence[Case], seeds: int, only: str, pool: ProcessPoolExecutor) -> str:
    parts = [
        "## The search from outside",
        f"Seeds: {seeds}. An evaluation is of the accuracy of one architecture that was not "
        "evaluated before; costs are looked up and free. To: median evaluations until the best is "
        "that near to the optimum, a run that never is counting as infinite, and how many runs "
        "were. Regret: mean distance of the best from the optimum, in points. Seconds: CPU time, "
        "median. The evolution of the 2020 work has its own settings: population 100, "
        f"{cases[0].task.generations} generations ({cases[-1].task.generations} in the small "
        "benchmark), mutation 0.1, parents 0.25, and draws many children twice; pymoo has the same "
        "population and generations, and its GA is not charged for what does not fit.",
    ]
    for case in cases:
        names = [name for name in case.names if only in name]
        if not names:
            continue
        runs = {name: run_all(case.task, name, seeds, pool) for name in names}
        parts += [f"### {case.title}", case.about, compared(case, runs)]
        if REFINED in runs and THEIRS in runs and case.best is None:
            parts += [claim(runs[REFINED], runs[THEIRS])]
        if isinstance(case.task.value, Table):
            parts += [fronts(case.task, runs, min(seeds, FRONT_SEEDS), pool)]
    return "\n\n".join([*parts, "### Speed of the exact search", speed(cases[0].task)])


def run_all(task: Task, name: str, seeds: int, pool: ProcessPoolExecutor) -> list[Run]:
    began = time.perf_counter()
    runs = list(pool.map(partial(run, task, name), range(seeds)))
    spent = time.perf_counter() - began
    sys.stderr.write(f"{task.space.name}, {task.limit.budget}: {name}: {spent:.0f} s\n")
    return runs


def run(task: Task, name: str, seed: int) -> Run:
    """One contender; in a process of its own."""
    meter = Meter(task)
    CONTENDERS[name](task, meter, seed)
    return Run(meter.trace, meter.evaluations, meter.seconds, meter.cost, meter.value)


def compared(case: Case, runs: dict[str, list[Run]]) -> str:
    """The table of a case."""
    found = max(r.best() for each in runs.values() for r in each)
    best = found if case.best is None else case.best
    assert found <= best + 1e-9, "better than the optimum"
    near = [best - 0.5, best - 0.1, best - best / 1000]
    rows = []
    for name, each in runs.items():
        reached = np.array([[r.reached(value - 1e-9) for value in near] for r in each])  # N, 3, 2
        regrets = [np.mean([best - r.best(n) for r in each]) for n in (*case.marks, np.inf)]
        rows.append(
            [
                name,
                *(_median(reached[:, i, 0], ",.0f") for i in range(3)),
                _median(reached[:, 2, 1], ".2f"),
                # A run may have stopped, or not have begun to search: inf is not a figure.
                *(f"{regret:.3f}" if np.isfinite(regret) else "-" for regret in regrets),
                f"{np.mean([r.evaluations for r in each]):,.0f}",
                f"{median(r.seconds for r in each):.2f}",
            ]
        )
    header = [
        "strategy", "to 0.5 points", "to 0.1 points", "to 0.1 %", "s to 0.1 %",
        *(f"regret after {mark:,}" for mark in case.marks), "regret", "evaluations", "s",
    ]  # fmt: skip
    what = "Best found by any" if case.best is None else "Optimum"
    return f"{what}: {best:.3f}.\n\n{table(header, rows)}"


def claim(refined: Sequence[Run], theirs: Sequence[Run]) -> str:
    """No worse than the evolution of the 2020 work, with a tenth of its evaluations?"""
    a, b = ([r.best() for r in runs] for runs in (refined, theirs))
    m, n = (np.mean([r.evaluations for r in runs]) for runs in (refined, theirs))
    won = sum(x >= y for x, y in zip(a, b, strict=True))
    return (
        f"Evaluate, refit, search again: {np.mean(a):.3f} on average, worst {min(a):.3f}, with "
        f"{m:,.0f} evaluations. The evolution of the 2020 work: {np.mean(b):.3f}, worst "
        f"{min(b):.3f}, with {n:,.0f}, {n / m:.0f} times as many. The former is no worse in {won} "
        f"of {len(a)} seeds."
    )


def _median(values: FloatArray, form: str) -> str:
    """And how many are finite, where not all are."""
    finite = int(np.isfinite(values).sum())
    middle = f"{np.median(values):{form}}" if 2 * finite > len(values) else "-"
    return middle if finite == len(values) else f"{middle} ({finite} of {len(values)})"


def fronts(task: Task, runs: dict[str, list[Run]], seeds: int, pool: ProcessPoolExecutor) -> str:
    """Hypervolume of all that was evaluated, as a share of the exact front's."""
    began = time.process_time()
    front = exact.front(task.posed(task.value))
    spent = time.process_time() - began
    corner = float(front.value[0])

    def volume(cost: FloatArray, value: FloatArray) -> float:
        """The area that the front dominates, to its dearest end and its lowest value."""
        kept = (cost <= FRONT_END) & (value > corner)
        edges = np.append(cost[kept], FRONT_END)
        return float((np.diff(edges) * (value[kept] - corner)).sum())

    whole = volume(front.cost, front.value)
    rows: list[list[object]] = [["ours: exact front", "100", "100", "0", f"{spent:.2f}"]]

    def add(name: str, many: Iterable[Sequence[Run]]) -> None:
        """many: per seed, the runs whose evaluations make one front."""
        shares, evaluations, seconds = [], [], []
        for each in many:
            cost, value = prune(*(np.concatenate([getattr(r, a) for r in each]) for a in _AXES))
            shares.append(100 * volume(cost, value) / whole)
            evaluations.append(sum(r.evaluations for r in each))
            seconds.append(sum(r.seconds for r in each))
        rows.append(
            [name, f"{np.mean(shares):.2f}", f"{min(shares):.2f}", f"{np.mean(evaluations):,.0f}",
             f"{median(seconds):.2f}"]
        )  # fmt: skip

    if "pymoo NSGA-II" in runs:
        add("pymoo NSGA-II, one run", ([r] for r in runs["pymoo NSGA-II"]))
    each_limit = f"once for each of {', '.join(f'{ms:g}' for ms in FRONT_LIMITS)} ms"
    for name in (THEIRS, "ours: evolution"):
        if name in runs:
            limited = [replace(task, limit=latency_limit(task, ms)) for ms in FRONT_LIMITS]
            by_limit = [run_all(each, name, seeds, pool) for each in limited]
            add(f"{name}, {each_limit}; {seeds} of the seeds", zip(*by_limit, strict=True))
    header = ["front of latency and accuracy", "hypervolume, %", "worst", "evaluations", "s"]
    about = (
        "Hypervolume of all that was evaluated, up to "
        f"{FRONT_END:g} ms and above the accuracy of the cheapest of the exact front."
    )
    return f"{table(header, rows)}\n\n{about}"


_AXES = ("cost", "value")


def latency_limit(task: Task, ms: float) -> Limit:
    return Limit(Budget("latency", ms), task.limit.table, ms)


def speed(task: Task) -> str:
    """Of the exact search, on the additive predictor and on the shipped checkpoint."""
    checkpoint = read_checkpoint(find_checkpoint("lite-imagenette"))
    lite, pixel = checkpoint.space, latency_table(checkpoint.space, get_profile("pixel"))
    value = fit(lite, checkpoint.evaluated).table
    assert isinstance(task.value, Table)
    single = replace(
        task,
        space=task.space.restrict(resolutions=task.space.resolutions[-1:]),
        limit=replace(task.limit, table=_last_resolution(task.limit.table)),
    ).posed(_last_resolution(task.value))
    every = task.posed(task.value)
    whole = Problem(lite, value, (Limit(Budget("latency", 20.0), pixel, 20.0),), "pixel")
    jobs: list[tuple[str, Callable[[], object], str]] = [
        (f"whole front, 7371^5 architectures ({MBV3.resolutions[-1]} px), s",
         lambda: exact.front(single), "2"),
        ("whole front, all 5 resolutions, s", lambda: exact.front(every), "-"),
        (f"the best within {LIMIT:g} ms, all 5 resolutions, s",
         lambda: exact.search(every, count=1), "-"),
        (f"whole front of `lite`, all {len(lite.resolutions)} resolutions, s",
         lambda: exact.front(whole), "1"),
    ]  # fmt: skip
    rows: list[list[object]] = []
    for name, job, target in jobs:
        taken = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            job()
            taken.append(time.perf_counter() - began)
        rows.append([name, median(taken), target])
    return table(["what", f"median of {REPEATS}, wall clock", "target"], rows)


def _last_resolution(whole: Table) -> Table:
    return Table(whole.fixed_R[-1:], whole.cost_RPC[-1:])


def read_cases(data: Path, generations: int, more: int) -> list[Case]:
    """The comparisons. Raises UserError where a file is missing."""
    names = ["note10_mbv3_table.csv", "ofa_acc_predictor.npz", "nasbench_macro.csv.gz"]
    for name in names:
        if not (data / name).is_file():
            raise UserError(f"there is no {name}", str(data), "name the folder of NAS tables")
    latency, predictor = read_latency(data / names[0]), read_predictor(data / names[1])
    limit = Limit(Budget("latency", LIMIT), latency, LIMIT)
    published = Task(MBV3, predictor, limit, generations, first=50, more=more)
    additive, error = additive_fit(predictor)
    tabled = replace(published, value=additive)
    accuracy, macro_limit = read_macro(data / names[2])
    macro = Task(MACRO, accuracy, macro_limit, min(generations, 60), first=20, more=100)
    fitting = accuracy.accuracy[macro_limit.table.price(all_macro()) <= macro_limit.most]
    models = (REFINED, "ours: model, exact, then evolution")
    needs_table = ("ours: exact", "ours: gradient")
    others = tuple(name for name in CONTENDERS if name not in (*models, *needs_table))
    return [
        Case(
            "Additive: the optimum is known",
            "The MobileNetV3 space of the 2020 work (width 1.2, 5 resolutions of 7371^5 "
            f"architectures), its Note10 latencies, {LIMIT:g} ms; accuracy: an additive fit to its "
            f"predictor (standard error {error:.2f} points), in percent. The exact search "
            "evaluates only what it found.",
            tabled,
            tuple(name for name in CONTENDERS if name not in models),
            (1_000, 10_000),
            float(exact.search(tabled.posed(additive), count=1).bound),
        ),
        Case(
            "Not additive: the published predictor",
            "The same space and limit; accuracy: the predictor itself, a network, in percent. "
            f"Evaluate, refit, search again: from {published.first} random architectures between "
            f"0.6 and 1 of the limit to {more}. Model, exact, then evolution: the model is fitted "
            f"to {more} random ones.",
            published,
            (*models, *others),
            (400, 1_000, 10_000),
            None,
        ),
        Case(
            "A tabular benchmark: NAS-Bench-Macro",
            "All 6,561 architectures were trained three times; accuracy: the mean of the three on "
            "CIFAR-10; limit: the median of FLOPs. It has no depths, so the space is one of fixed "
            "depth whose choices are the three operations. The model-based begin with "
            f"{macro.first} and {macro.more} architectures.",
            macro,
            (*models, *others),
            (50, 100, 500),
            float(fitting.max()),
        ),
    ]


def read_latency(path: Path) -> Table:
    """The Note10 table, in ms."""
    choices = {choice: 1 + c for c, choice in enumerate(MBV3.stages[0].choices)}
    fixed_R = np.full(len(MBV3.resolutions), np.nan)
    cost_RPC = np.full((len(fixed_R), len(MBV3.positions), 1 + len(choices)), np.nan)
    cost_RPC[:, :, 0] = 0
    with path.open() as lines:
        for row in csv.DictReader(lines):
            r, p = MBV3.resolutions.index(int(row["resolution"])), int(row["position"])
            if p < 0:
                fixed_R[r] = float(row["note10_ms"])
            else:
                choice = choices[int(row["kernel"]), int(row["expand"])]
                cost_RPC[r, p, choice] = float(row["note10_ms"])
    if np.isnan(fixed_R).any() or np.isnan(cost_RPC).any():
        raise UserError("some rows are missing", str(path))
    return Table(fixed_R, cost_RPC)


def read_predictor(path: Path) -> Predictor:
    with np.load(path) as file:
        return Predictor(tuple((file[f"W{i}"], file[f"b{i}"]) for i in range(4)))


def additive_fit(predictor: Predictor) -> tuple[Table, float]:
    """The least-squares table of a predictor, in percent, and its standard error."""
    genotypes = MBV3.sample(np.random.default_rng(0), FITTED)
    x, y = one_hot(MBV3, genotypes), predictor.price(genotypes)
    theta = np.linalg.lstsq(x, y)[0]
    error = float((y - x @ theta).std())
    resolutions, positions = len(MBV3.resolutions), len(MBV3.positions)
    cost_PC = np.pad(theta[resolutions:].reshape(positions, -1), ((0, 0), (1, 0)))
    cost_RPC = np.repeat(cost_PC[None], resolutions, axis=0)
    return Table(theta[:resolutions], cost_RPC), error


def read_macro(path: Path) -> tuple[Listed, Limit]:
    """Accuracy of every architecture, and the limit: the median of FLOPs, an additive table."""
    with gzip.open(path, "rt") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: row["arch"])
    flops = np.array([float(row["flops"]) for row in rows])
    accuracy = np.array([[float(row[f"acc{i}"]) for i in (1, 2, 3)] for row in rows]).mean(1)
    layers = len(MACRO.positions)
    cost_PC = np.zeros((layers, 4))
    for p in range(layers):
        for c in range(3):
            cost_PC[p, 1 + c] = flops[c * 3 ** (layers - 1 - p)] - flops[0]
    costs = Table(flops[:1], cost_PC[None])
    if not np.array_equal(costs.price(all_macro()), flops):
        raise UserError("its FLOPs are not additive, or rows are missing", str(path))
    most = float(np.median(flops))
    return Listed(accuracy), Limit(Budget("macs", most), costs, most)


def all_macro() -> Genotypes:
    """Every architecture of ``MACRO``, ascending by digits."""
    layers = len(MACRO.positions)
    digits = np.indices((3,) * layers).reshape(layers, -1).T
    return np.hstack([np.zeros((len(digits), 1)), 1 + digits]).astype(np.int16)


if __name__ == "__main__":
    main()
