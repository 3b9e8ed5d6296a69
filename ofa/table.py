"""Every budget is a table: a quantity of an architecture, looked up block by block.

A quantity that is a sum over layers (latency, MACs, parameters, the accuracy model) or a maximum
(peak memory) is tabulated once from ``lower()``; a whole population is then priced by indexing.

Axes: N population, P block position, C choice of a block (0 = absent), R resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ofa.layers import Layer, lower
from ofa.space import Arch, Space

__all__ = ["Stacked", "Table", "tabulate", "tabulate_together"]

FloatArray = NDArray[np.float64]
Reduce = Literal["sum", "max", "min"]

_REDUCTIONS: dict[Reduce, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "sum": np.add,
    "max": np.maximum,
    "min": np.minimum,
}
_NEGATED: dict[Reduce, Reduce] = {"sum": "sum", "max": "min", "min": "max"}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Cost = ``fixed_R[r]`` and ``cost_RPC[r, p, choice]`` over all positions, summed or maximal
    (or minimal: a maximum times -1).

    fixed_R: what every architecture of a resolution costs (stem, head, classifier, constant).
    cost_RPC: 0 for the absent block (choice 0), inf where a stage has fewer choices.
    """

    fixed_R: FloatArray
    cost_RPC: FloatArray
    reduce: Reduce = "sum"

    def price(self, genotypes: NDArray[np.integer[Any]]) -> FloatArray:
        """(N,) cost of each (N, 1 + P) genotype, in the table's unit."""
        _, positions, choices = self.cost_RPC.shape
        flat = self.cost_RPC.ravel()
        total: FloatArray = self.fixed_R[genotypes[:, 0]]
        start = genotypes[:, 0].astype(np.intp) * (positions * choices)
        for p in range(positions):
            cost = flat.take(start + (p * choices) + genotypes[:, 1 + p])
            total = _REDUCTIONS[self.reduce](total, cost)
        return total

    def scaled(self, factor: float) -> Table:
        """The table of ``factor`` times the quantity."""
        missing = np.isposinf(self.cost_RPC)
        return Table(
            self.fixed_R * factor,
            np.where(missing, np.inf, np.where(missing, 0.0, self.cost_RPC) * factor),
            _NEGATED[self.reduce] if factor < 0 else self.reduce,
        )

    def mapped(self, rule: Callable[[float], float]) -> Table:
        """The table of ``rule`` of a maximum; it must not fall where that grows."""
        assert self.reduce == "max"
        each, missing = np.vectorize(rule, otypes=[float]), np.isposinf(self.cost_RPC)
        cost = np.where(missing, np.inf, each(np.where(missing, 0.0, self.cost_RPC)))
        return replace(self, fixed_R=each(self.fixed_R), cost_RPC=cost)


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """A maximum with a sum on top of it: memory that layers share, and what each keeps besides.

    ``peak`` is a maximum (or a minimum: times -1), ``kept`` a sum.
    """

    peak: Table
    kept: Table

    def price(self, genotypes: NDArray[np.integer[Any]]) -> FloatArray:
        """(N,) cost of each (N, 1 + P) genotype."""
        return self.peak.price(genotypes) + self.kept.price(genotypes)

    def scaled(self, factor: float) -> Stacked:
        """The table of ``factor`` times the quantity."""
        return Stacked(self.peak.scaled(factor), self.kept.scaled(factor))


def tabulate(
    space: Space,
    price: Callable[[Layer], float],
    constant: float = 0.0,
    reduce: Literal["sum", "max"] = "sum",
) -> Table:
    """The table of a quantity that is ``price`` summed (or maximal) over the layers.

    ``constant`` is what the network itself adds.
    """
    return tabulate_together(
        space, lambda layers: [price(layer) for layer in layers], constant, reduce
    )


def tabulate_together(
    space: Space,
    prices: Callable[[Sequence[Layer]], Sequence[float]],
    constant: float = 0.0,
    reduce: Literal["sum", "max"] = "sum",
) -> Table:
    """The same where a layer's price also depends on the others of its block.

    prices: gives the price of each layer of a network. A block's layers depend only on the
    resolution, its position and its own choice, so one pass over the choices fills the table.
    """
    combine = sum if reduce == "sum" else max
    positions = space.positions
    choices = [stage.choices for stage in space.stages]
    most = max(map(len, choices))
    fixed = np.zeros(len(space.resolutions))
    cost = np.full((len(space.resolutions), len(positions), 1 + most), np.inf)
    cost[:, :, 0] = 0.0
    for r, resolution in enumerate(space.resolutions):
        for c in range(most):
            arch = Arch(
                resolution,
                tuple(
                    (blocks[min(c, len(blocks) - 1)],) * stage.depths[-1]
                    for stage, blocks in zip(space.stages, choices, strict=True)
                ),
            )
            parts: dict[tuple[int, int] | None, list[float]] = {}
            layers = lower(space, arch)
            for layer, price in zip(layers, prices(layers), strict=True):
                parts.setdefault(layer.block, []).append(price)
            fixed[r] = combine([constant, *parts[None]])
            for p, position in enumerate(positions):
                if c < len(choices[position[0]]):
                    cost[r, p, 1 + c] = combine(parts[position])
    return Table(fixed, cost, reduce)
