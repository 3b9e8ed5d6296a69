"""How fast the tables price a population, and how fast the search is.

python -m tests.bench.bench_search
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from devices.cost import latency_table
from devices.profile import get_profile
from ofa.checkpoint import find_checkpoint, read_checkpoint
from specialize.accuracy import fit, rank
from specialize.problem import Budget, Limit, Problem
from specialize.search.evolution import evolve
from tests.bench.record import record, table

REPEATS = 5
POPULATION = 200_000


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
    record("search", f"## Search\n\n{table(header, rows)}\n\n{text}", ("scipy",))


if __name__ == "__main__":
    main()
