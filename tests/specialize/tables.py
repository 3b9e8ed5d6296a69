"""Tables to search under, and lists of all that a small space holds."""

from __future__ import annotations

from itertools import chain, product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ofa.space import Genotypes, Space
from ofa.table import Table, tabulate
from tests.strategies import TINY

FloatArray = NDArray[np.float64]
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
