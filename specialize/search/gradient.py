"""Gradient search: architectures relaxed to probabilities, in which every table is a polynomial.

Gumbel-softmax (Jang et al. 2017; Maddison et al. 2017) as in differentiable architecture searches
(Wu et al. 2019): each gene is a softmax of logits and noise over a temperature, which falls until
it is nearly a choice. Budgets are kept by an augmented Lagrangian (Hestenes 1969; Powell 1969). The
gradient leads near the optimum and then sticks at a corner, since there any small change is too
dear or worth less: the local search of the evolution goes on from the best few.

Axes: T table, K limit, G gene, V value of a gene, S stage; R, P, C as in ``ofa.table``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa.space import Genotypes
from ofa.table import Stacked, Table
from specialize.accuracy import percent
from specialize.problem import Problem, Tradeoff
from specialize.search import SearchResult, Tell, distinct
from specialize.search.evolution import climb
from specialize.search.genes import Genes
from specialize.search.pool import Pool
from specialize.search.reinforce import Controller, scale, softmax

__all__ = ["Relaxed", "search"]

FloatArray = NDArray[np.float64]

_PROBES = 512  # random architectures that tell how far values and costs spread
_STEPS = 2000
_HOT, _COLD = 5.0, 0.1  # temperature, first and last
_PENALTY = 3.0
_DUAL_RATE = 0.05
_BATCH = 50  # steps whose architectures are priced at once
_CLIMBERS = 4
_APART = 4


def search(
    problem: Problem,
    *,
    seed: int = 0,
    count: int = 10,
    distance: int = 2,
    starts: Genotypes | None = None,
    tell: Tell | None = None,
) -> SearchResult:
    """See ``Strategy``. Never worse than the best of ``starts``."""
    pool = Pool.begun(problem, starts, tell)
    _descend(problem, pool, np.random.default_rng(seed))
    for climber in pool.rows[distinct(pool.genotypes, _CLIMBERS, _APART)]:
        climb(pool.genes, pool, climber)
    return pool.result(count, distance)


def _descend(problem: Problem, pool: Pool, rng: np.random.Generator) -> None:
    """Follow the gradient from where all is equally likely, and price what is drawn on the way."""
    probes = pool.genes.random(rng, _PROBES)
    spread = scale(pool.add(probes)[0])
    value = problem.value
    limits = [one for limit in problem.limits for one in _as_sums(limit.table, limit.most)]
    terms: list[Table]
    match value:
        case Tradeoff():
            terms = [value.accuracy, value.latency]
        case Stacked():
            terms = [value.peak, value.kept]
        case _:
            terms = [value]
    relaxed = Relaxed(pool.genes, [*terms, *(table for table, _ in limits)])
    most_K = np.array([most for _, most in limits])
    genotypes = pool.genes.genotypes(probes)
    scale_K = np.array([scale(table.price(genotypes)) for table, _ in limits])

    controller = Controller(pool.genes)
    multiplier_K = np.zeros(len(limits))
    drawn = []
    for temperature in np.geomspace(_HOT, _COLD, _STEPS):
        logits_GV = controller.logits_GV + controller.noise(rng, 1)[0]
        drawn.append(controller.rows(logits_GV))
        share_GV = softmax(logits_GV / temperature)
        price_T, slope_TGV = relaxed(share_GV)
        over_K = (price_T[len(terms) :] - most_K) / scale_K
        pull_K = np.maximum(multiplier_K + _PENALTY * over_K, 0.0)
        multiplier_K = np.maximum(multiplier_K + _DUAL_RATE * over_K, 0.0)
        weight_T = np.concatenate([_gains(value, price_T) / spread, -pull_K / scale_K])
        slope_GV = np.einsum("t,tgv->gv", weight_T, slope_TGV)
        # The chain rule through the softmax.
        slope_GV -= (share_GV * slope_GV).sum(1, keepdims=True)
        controller.ascend(share_GV * slope_GV / temperature)
        if len(drawn) == _BATCH:
            pool.add(np.stack(drawn))
            drawn = []


def _gains(value: Table | Stacked | Tradeoff, price_T: FloatArray) -> FloatArray:
    """What the value gains by each of its own tables: the chain rule through ``Tradeoff.join``."""
    if not isinstance(value, Tradeoff):
        return np.ones(2 if isinstance(value, Stacked) else 1)
    right = float(percent(price_T[0]))
    return np.array([right * (100 - right) / 100, value.weight / price_T[1]])


def _as_sums(table: Table | Stacked, most: float) -> list[tuple[Table, float]]:
    """The same limit on sums: no maximum is exceeded where the sum of what exceeds it is 0."""
    if isinstance(table, Stacked):  # each part beside the least of the other
        peak, kept = (float(part.fixed_R.min()) for part in (table.peak, table.kept))
        return [*_as_sums(table.peak, most - kept), *_as_sums(table.kept, most - peak)]
    if table.reduce == "sum":
        return [(table, most)]
    fixed_R, cost_RPC = (np.maximum(x - most, 0.0) for x in (table.fixed_R, table.cost_RPC))
    return [(Table(fixed_R, cost_RPC), 0.0)]


class Relaxed:
    """Prices of relaxed architectures under several tables, and how they change."""

    def __init__(self, genes: Genes, tables: list[Table]) -> None:
        cost_TRPC = np.stack([table.cost_RPC[:, :, 1:] for table in tables])
        self.fixed_TR = np.stack([table.fixed_R for table in tables])
        self.cost_TRPC = np.where(np.isfinite(cost_TRPC), cost_TRPC, 0.0)  # of no choice: no matter
        self.stages = len(genes.depths)
        # (P, S, V) whether a block is there at this depth of its stage.
        self.there_PSV = np.zeros((len(genes.stage_P), self.stages, genes.values.max()))
        for p, (s, index) in enumerate(zip(genes.stage_P, genes.index_P, strict=True)):
            self.there_PSV[p, s, : len(genes.depths[s])] = genes.depths[s] > index

    def __call__(self, share_GV: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(T,) prices and (T, G, V) slopes for the shares that each value has of its gene.

        A price is the sum over resolutions of share * (fixed + sum over blocks of gate * cost):
        the gate of a block is the probability that its stage is deep enough.
        """
        _, resolutions, _, choices = self.cost_TRPC.shape
        share_R = share_GV[0, :resolutions]
        share_SV = share_GV[1 : 1 + self.stages]
        share_PC = share_GV[1 + self.stages :, :choices]
        gate_P = np.einsum("psv,sv->p", self.there_PSV, share_SV)
        block_TRP = np.einsum("trpc,pc->trp", self.cost_TRPC, share_PC)
        whole_TR = self.fixed_TR + np.einsum("trp,p->tr", block_TRP, gate_P)
        slope_TGV = np.zeros((len(whole_TR), *share_GV.shape))
        slope_TGV[:, 0, :resolutions] = whole_TR
        gate_TP = np.einsum("r,trp->tp", share_R, block_TRP)
        slope_TGV[:, 1 : 1 + self.stages] = np.einsum("tp,psv->tsv", gate_TP, self.there_PSV)
        cost_TPC = np.einsum("r,trpc->tpc", share_R, self.cost_TRPC)
        slope_TGV[:, 1 + self.stages :, :choices] = gate_P[:, None] * cost_TPC
        return np.einsum("tr,r->t", whole_TR, share_R), slope_TGV
