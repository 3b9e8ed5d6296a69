"""How well accuracy models rank subnets, from few evaluated ones.

python -m tests.bench.bench_accuracy
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa.checkpoint import Evaluated, find_checkpoint, read_checkpoint
from ofa.sampling import one_hot
from ofa.space import Space
from ofa.table import tabulate
from specialize.accuracy import fit, kendall_tau
from tests.bench.record import record, table

FloatArray = NDArray[np.float64]

SIZES = (50, 100, 200)
DRAWS = 10
BANDS = 5
STRENGTHS = np.logspace(-2, 3, 11)


def main() -> None:
    """Fit to random subsets, rank the rest, and record."""
    checkpoint = read_checkpoint(find_checkpoint("lite-imagenette"))
    space, evaluated = checkpoint.space, checkpoint.evaluated
    sizes = tabulate(space, lambda layer: layer.macs).price(evaluated.genotypes)
    taus: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(sizes))
        for n in SIZES:
            known, rest = order[:n], order[n:]
            given = Evaluated(
                evaluated.genotypes[known], evaluated.accuracy[known], evaluated.images[known]
            )
            ranked = {
                "hierarchical Bayes": fit(space, given).table.price(evaluated.genotypes[rest]),
                "ridge, one-hot": ridge(space, given, evaluated.genotypes[rest]),
                "MACs alone": sizes[rest],
            }
            truth = evaluated.accuracy[rest]
            bands = np.array_split(np.argsort(sizes[rest], kind="stable"), BANDS)
            for name, guess in ranked.items():
                within = [kendall_tau(guess[band], truth[band]) for band in bands]
                taus.setdefault((name, n), []).append(
                    (kendall_tau(guess, truth), float(np.mean(within)))
                )
    rows = []
    for name in ("hierarchical Bayes", "ridge, one-hot", "MACs alone"):
        means = [np.mean(taus[name, n], axis=0) for n in SIZES]
        rows.append([name, *(f"{overall:.3f} / {bands:.3f}" for overall, bands in means)])
    header = ["model", *(f"{n} subnets" for n in SIZES)]
    text = (
        f"Kendall's tau on the subnets left over of {len(sizes)} (`lite-imagenette`), overall / "
        f"within {BANDS} bands of equal MACs, mean of {DRAWS} draws. The ridge's strength is the "
        "best by leave-one-out."
    )
    record("accuracy", f"## Accuracy model\n\n{text}\n\n{table(header, rows)}", ("scipy",))


def ridge(space: Space, given: Evaluated, genotypes: NDArray[np.int16]) -> FloatArray:
    """(N,) logits by ridge regression over one column for each choice."""
    x, y = one_hot(space, given.genotypes), given.logits()
    center, mean = x.mean(0), y.mean()
    x = x - center
    best: tuple[float, FloatArray] = (np.inf, np.zeros(x.shape[1]))
    for strength in STRENGTHS:
        inverse = np.linalg.inv(x.T @ x + strength * np.eye(x.shape[1]))
        theta = inverse @ x.T @ (y - mean)
        leverage = np.einsum("ne,ef,nf->n", x, inverse, x) + 1 / len(y)
        error = float(np.mean(((y - mean - x @ theta) / (1 - leverage)) ** 2))
        best = min(best, (error, theta), key=lambda pair: pair[0])
    return np.asarray((one_hot(space, genotypes) - center) @ best[1] + mean)


if __name__ == "__main__":
    main()
