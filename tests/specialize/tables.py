"""Tables to search under, and what is best under them, found without a search."""

from __future__ import annotations

from itertools import chain, product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ofa.space import Genotypes, Space
from ofa.table import Table, tabulate
from tests.strategies import TINY

FloatArray = NDArray[np.float64]
#: (costs, values) of architectures, both ascending.
Front = tuple[FloatArray, FloatArray]

#: Few enough architectures to list them all.
SMALL = TINY.restrict(kernels=(3, 5), expands=(1, 2), resolutions=(24, 32))


def everything(space: Space) -> Genotypes:
    """All genotypes of a small space."""
    stages = []
    for stage in space.stages:
        rows = []
        for depth in stage.depths:
            absent = [0] * (stage.depths[-1] - depth)
            choices = range(1, 1 + len(stage.choices))
            rows += [(*blocks, *absent) for blocks in product(choices, repeat=depth)]
        stages.append(rows)
    whole = product(range(len(space.resolutions)), product(*stages))
    return np.array([[r, *chain.from_iterable(parts)] for r, parts in whole], np.int16)


def random_table(
    space: Space,
    rng: np.random.Generator,
    least: int = -3,
    reduce: Literal["sum", "max"] = "sum",
) -> Table:
    """Multiples of 1/2 from ``least`` / 2, so that ties abound."""
    real = tabulate(space, lambda layer: layer.macs).cost_RPC
    cost = np.where(np.isfinite(real), rng.integers(least, 9, real.shape) / 2, np.inf)
    cost[:, :, 0] = 0
    return Table(rng.integers(1, 5, len(space.resolutions)).astype(float), cost, reduce)


def plausible_accuracy(space: Space, seed: int) -> Table:
    """Logits of accuracy: larger blocks and images help, each position in its own way."""
    macs = tabulate(space, lambda layer: layer.macs / 1e6).cost_RPC
    luck = np.random.default_rng(seed).normal(0.08, 0.06, macs.shape[1:])
    cost: FloatArray = np.stack([0.05 * np.sqrt(macs.mean(0)) + luck] * len(macs))
    cost[:, :, 0] = 0
    return Table(np.arange(len(space.resolutions)) / 10, cost)


def exact_best(space: Space, value: Table, cost: Table, limit: float) -> float:
    """The highest value within ``limit``, by dynamic programming over additive tables.

    Of two ways to choose some of the blocks, one that costs no more and is worth no less serves
    every choice of the others as well; so only the front of each part is carried on.
    """
    best = -np.inf
    for r in range(len(space.resolutions)):
        whole: Front = (cost.fixed_R[[r]], value.fixed_R[[r]])
        start = 0
        for stage in space.stages:
            part: Front = (np.zeros(1), np.zeros(1))
            by_depth = []
            for p in range(start, start + stage.depths[-1]):
                one = slice(1, 1 + len(stage.choices))
                part = _merged(part, (cost.cost_RPC[r, p, one], value.cost_RPC[r, p, one]))
                if p - start + 1 in stage.depths:
                    by_depth.append(part)
            whole = _merged(whole, _pruned(*map(np.concatenate, zip(*by_depth, strict=True))))
            start += stage.depths[-1]
        best = max(best, *whole[1][whole[0] <= limit + 1e-9], -np.inf)
    return float(best)


def _merged(a: Front, b: Front) -> Front:
    return _pruned(*((x[:, None] + y).ravel() for x, y in zip(a, b, strict=True)))


def _pruned(costs: FloatArray, values: FloatArray) -> Front:
    order = np.lexsort((-values, costs))
    costs, values = costs[order], values[order]
    better = np.append(True, values[1:] > np.maximum.accumulate(values)[:-1])
    return costs[better], values[better]
