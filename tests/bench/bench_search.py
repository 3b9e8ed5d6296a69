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
from specialize.accuracy import fit, rank
from specialize.problem import Budget, Limit, Problem
from specialize.search import exact
from specialize.search.evolution import search as evolve
from tests.bench.record import record, table
from tests.specialize.tables import plausible_accuracy

REPEATS = 5
POPULATION = 200_000
DEVICES = ("pixel4-1large1med", "iphone7", "a03s")
SHARES = (0.005, 0.05, 0.3, 0.9)
TRUTHS = 3


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
    record("search", f"## Search\n\n{table(header, rows)}\n\n{text}\n\n{regrets}", ("scipy",))


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
