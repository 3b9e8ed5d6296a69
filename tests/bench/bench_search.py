"""How fast the tables price a population, how fast the search is, and what it leaves unfound.

python -m tests.bench.bench_search
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from devices.cost import latency_table
from devices.profile import get_profile
from ofa.checkpoint import find_checkpoint, read_checkpoint
from ofa.space import Space
from ofa.table import Table
from specialize.accuracy import fit, percent, rank
from specialize.problem import Budget, Limit, Problem
from specialize.search import STRATEGIES, exact, get_strategy
from specialize.search.evolution import search as evolve
from tests.bench.record import record, table
from tests.specialize.tables import plausible_accuracy

REPEATS = 5
POPULATION = 200_000
DEVICES = ("pixel4-1large1med", "iphone7", "a03s")
SHARES = (0.005, 0.05, 0.3, 0.9)
TRUTHS = 3
SEEDS = 5


def main() -> None:
    """Measure and record."""
    checkpoint = read_checkpoint(find_checkpoint("lite-imagenette"))
    space, evaluated = checkpoint.space, checkpoint.evaluated
    model = fit(space, evaluated)
    latency = latency_table(space, get_profile("pixel"))
    genotypes = space.sample(np.random.default_rng(0), POPULATION)

    def seconds(call) -> float:  # type: ignore[no-untyped-def]
        taken = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
        return median(taken)

    both = seconds(lambda: (latency.price(genotypes), model.table.price(genotypes)))
    rows: list[list[object]] = [
        ["architectures a second, latency and accuracy", f"{POPULATION / both:,.0f}", "1,000,000"],
        ["fit of the accuracy model, s", seconds(lambda: fit(space, evaluated)), "-"],
        ["its cross-validated ranking, s", seconds(lambda: rank(space, evaluated)), "-"],
    ]
    for ms in (5.0, 10.0, 20.0, 30.0):
        limit = Limit(Budget("latency", ms), latency, ms)
        problem = Problem(space, model.table, (limit,), "pixel")
        search = seconds(lambda problem=problem: evolve(problem))
        rows.append([f"search, {ms:g} ms on pixel, s", search, "1"])
    ranking = rank(space, evaluated)
    text = (
        f"Kendall's tau of the accuracy model on subnets left out of the fit ({ranking.n} in "
        f"{ranking.bands} folds): {ranking.overall:.3f} overall, {ranking.within_bands:.3f} within "
        f"bands of equal MACs."
    )
    header = ["what", f"median of {REPEATS}", "target"]
    text += (
        "\n\nAgainst the optimum, found by dynamic programming: "
        f"{TRUTHS} made-up tables of accuracy (logits), budgets that {', '.join(map(str, SHARES))} "
        "of random architectures keep. Regret: how far below the optimum the search ends."
    )
    regrets = table(
        ["device", "optimum found", "mean regret", "worst"],
        [regret_figures(space, device) for device in DEVICES],
    )
    real = (
        f"On the shipped checkpoint's own tables, `pixel`, {SEEDS} seeds. Regret: points of "
        "accuracy below what the exact search proves to be the best."
    )
    header_real = ["strategy", "budget", "mean regret", "worst", "evaluations", "s"]
    record(
        "search",
        f"## Search\n\n{table(header, rows)}\n\n{text}\n\n{regrets}\n\n{real}\n\n"
        f"{table(header_real, real_regrets(space, model.table))}",
        ("scipy",),
    )


def real_regrets(space: Space, accuracy: Table) -> list[list[object]]:
    """Each strategy on real tables; the default one is given what the exact search found."""
    latency = latency_table(space, get_profile("pixel"))
    rows: list[list[object]] = []
    for name in ("default", *STRATEGIES):
        search = get_strategy("evolution" if name == "default" else name)
        for ms in (10.0, 20.0, 30.0):
            problem = Problem(
                space, accuracy, (Limit(Budget("latency", ms), latency, ms),), "pixel"
            )
            regrets, evaluations, seconds = [], [], []
            for seed in range(SEEDS):
                began = time.perf_counter()
                proof = exact.search(problem, seed=seed, count=10)
                if name != "default":
                    began = time.perf_counter()
                starts = proof.genotypes if name == "default" else None
                found = search(problem, seed=seed, count=10, starts=starts)
                seconds.append(time.perf_counter() - began)
                evaluations.append(found.evaluations)
                best, reached = percent(np.array([proof.bound, found.values[0]]))
                regrets.append(round(float(best - reached), 9))
            rows.append([
                name, f"{ms:g} ms", f"{np.mean(regrets):.3f}", f"{max(regrets):.3f}",
                f"{median(evaluations):,.0f}", f"{median(seconds):.2f}",
            ])  # fmt: skip
    return rows


def regret_figures(space: Space, device: str) -> list[object]:
    """Device, how often the optimum is found, mean and worst regret."""
    cost = latency_table(space, get_profile(device))
    random = cost.price(space.sample(np.random.default_rng(1), 20_000))
    regrets = []
    for share in SHARES:
        most = float(np.quantile(random, share))
        for seed in range(TRUTHS):
            value = plausible_accuracy(space, seed)
            problem = Problem(space, value, (Limit(Budget("latency", most), cost, most),), device)
            best = exact.search(problem, count=1).bound
            found = evolve(problem, seed=seed, count=1)
            # Sums in another order differ in their last bits.
            regrets.append(round(best - float(found.values[0]), 9))
    optima = f"{sum(regret == 0 for regret in regrets)} of {len(regrets)}"
    return [device, optima, float(np.mean(regrets)), max(regrets)]


if __name__ == "__main__":
    main()
