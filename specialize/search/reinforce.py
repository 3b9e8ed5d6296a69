"""Reinforcement learning: a controller generates architectures and learns from what they are worth.

REINFORCE (Williams 1992) with a moving average as the baseline, in the manner of Zoph and Le 2017;
the controller is a softmax for each gene, independent of the others, which is all that additive
tables call for. The reward is value + weight * log(cost / limit) (the form of Tan et al. 2019, sec.
3.1, in its logarithm), with a weight below 0: smooth on both sides of the limit, where a penalty of
the excess alone leaves the controller astray. Which weight leads to the limit is unknown before, so
it is learned beside: dual ascent on the mean of the logarithm.

Axes: N samples, G gene, V value of a gene, K limit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa.space import Genotypes
from specialize.problem import Limit, Problem
from specialize.search import SearchResult, Tell
from specialize.search.genes import Genes
from specialize.search.pool import Pool

__all__ = ["Controller", "scale", "search", "softmax"]

FloatArray = NDArray[np.float64]

_PROBES = 512  # random architectures that tell how far values and costs spread
_SAMPLES = 20
_STEPS = 1000
_SMOOTHING = 0.9  # of the baseline
_ENTROPY = 0.02
_DUAL_RATE = 0.05
_LEAST = 1e-3  # share of a limit below which all costs are alike: prices may be 0 or less


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
    rng = np.random.default_rng(seed)
    pool = Pool.begun(problem, starts, tell)
    probes = pool.genes.random(rng, _PROBES)
    spread = scale(pool.add(probes)[0])
    scale_K = [scale(over_N) for over_N in _logarithms(problem, pool.genes.genotypes(probes)).T]

    controller = Controller(pool.genes)
    weight_K = np.ones(len(problem.limits))
    baseline = 0.0
    for step in range(_STEPS):
        rows = controller.rows(controller.logits_GV + controller.noise(rng, _SAMPLES))
        values, _ = pool.add(rows)
        over_NK = _logarithms(problem, pool.genes.genotypes(rows)) / scale_K
        reward_N = values / spread - np.einsum("nk,k->n", over_NK, weight_K)
        kept = _SMOOTHING if step else 0.0
        baseline = kept * baseline + (1 - kept) * float(reward_N.mean())
        controller.ascend(controller.slope(rows, reward_N - baseline))
        weight_K = np.maximum(weight_K + _DUAL_RATE * over_NK.mean(0), 0.0)
    return pool.result(count, distance)


class Controller:
    """A softmax for each gene, trained with Adam (Kingma and Ba 2015).

    logits_GV: -inf where a gene has fewer values.
    """

    def __init__(self, genes: Genes) -> None:
        self.genes = genes
        absent_GV = np.arange(genes.values.max()) >= genes.values[:, None]
        self.logits_GV: FloatArray = np.where(absent_GV, -np.inf, 0.0)
        self._mean_GV, self._square_GV = np.zeros((2, *absent_GV.shape))
        self._steps = 0

    def noise(self, rng: np.random.Generator, count: int) -> FloatArray:
        """(N, G, V) of the standard Gumbel distribution.

        The largest of logits + noise is a draw from the softmax of the logits (Gumbel 1954).
        """
        return rng.gumbel(size=(count, *self.logits_GV.shape))

    def rows(self, logits_NGV: FloatArray) -> Genotypes:
        """(N, G) genes of the largest logits."""
        chosen: Genotypes = (self.genes.first + logits_NGV.argmax(-1)).astype(np.int16)
        return chosen

    def slope(self, rows: Genotypes, advantage_N: FloatArray) -> FloatArray:
        """(G, V) gradient of the expected reward and of the entropy."""
        p_GV = softmax(self.logits_GV)
        chosen_NGV = (rows - self.genes.first)[..., None] == np.arange(p_GV.shape[1])
        learned_GV = np.einsum("n,ngv->gv", advantage_N, chosen_NGV - p_GV) / len(rows)
        log_GV = np.log(np.maximum(p_GV, np.finfo(float).tiny))
        entropy_G = -(p_GV * log_GV).sum(1)
        return np.asarray(learned_GV - _ENTROPY * p_GV * (log_GV + entropy_G[:, None]))

    def ascend(self, slope_GV: FloatArray, rate: float = 0.05) -> None:
        """One step of Adam."""
        self._steps += 1
        self._mean_GV += 0.1 * (slope_GV - self._mean_GV)
        self._square_GV += 0.001 * (slope_GV**2 - self._square_GV)
        mean_GV = self._mean_GV / (1 - 0.9**self._steps)
        square_GV = self._square_GV / (1 - 0.999**self._steps)
        self.logits_GV += rate * mean_GV / (np.sqrt(square_GV) + 1e-8)


def scale(values: FloatArray) -> float:
    """(N,) values' standard deviation; 1 where they differ by rounding only."""
    deviation = float(values.std())
    return deviation if deviation > 1e-9 * np.abs(values).max() else 1.0


def softmax(logits: FloatArray) -> FloatArray:
    """Over the last axis."""
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shares / shares.sum(-1, keepdims=True))


def _logarithms(problem: Problem, genotypes: Genotypes) -> FloatArray:
    """(N, K) log of cost over limit."""
    columns = [_logarithm(limit, genotypes) for limit in problem.limits]
    return np.stack(columns, axis=1) if columns else np.empty((len(genotypes), 0))


def _logarithm(limit: Limit, genotypes: Genotypes) -> FloatArray:
    """(N,) of a limit that is not positive, such as that on minus the logits, the difference."""
    cost = limit.table.price(genotypes)
    if limit.most <= 0:
        return cost - limit.most
    return np.asarray(np.log(np.maximum(cost / limit.most, _LEAST)))
