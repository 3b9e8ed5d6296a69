"""The accuracy model: from a checkpoint's evaluated subnets to a table that the search can use.

A Bayesian linear model over the logit of accuracy. Each entry of the table, (block position,
kernel, expand ratio) or resolution, has a Gaussian prior that is shared at several levels: what a
block, a larger kernel or a wider block brings anywhere, in one stage, at one position, and alone.
How much each level matters is learned from the data (maximum marginal likelihood; MacKay 1992).
A few hundred evaluations thus fit a table of a hundred entries, and the posterior says how sure it
is. The logit makes effects additive near 100 % and keeps every estimate below it; it is monotone,
so the search may maximize it.

Axes: N evaluated subnets, E entries of the table; P, C, R as in ``ofa.table``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from ofa.checkpoint import Evaluated
from ofa.space import Genotypes, Space
from ofa.table import Table, tabulate

__all__ = ["AccuracyModel", "Ranking", "fit", "kendall_tau", "rank"]

FloatArray = NDArray[np.float64]

_BANDS = 5
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class AccuracyModel:
    """A fitted model. ``table`` holds logits; ``percent`` turns its prices into accuracy."""

    table: Table
    _entries: _Entries
    _mean_x: FloatArray
    _covariance_EE: FloatArray

    def percent(self, logits: FloatArray) -> FloatArray:
        """Accuracy in percent of prices under ``table``."""
        return 100 / (1 + np.exp(-np.asarray(logits)))

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """(N,) logits and their posterior standard deviations."""
        x = self._entries.design(genotypes) - self._mean_x
        variance = np.einsum("ne,ef,nf->n", x, self._covariance_EE, x)
        return self.table.price(genotypes), np.sqrt(np.maximum(variance, 0))


@dataclass(frozen=True, slots=True)
class Ranking:
    """Kendall's tau between predicted and evaluated accuracy of subnets left out of the fit.

    within_bands: mean over ``bands`` bands of equal MACs, where the search has to choose.
    """

    overall: float
    within_bands: float
    bands: int
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class _Entries:
    """The entries of the table: resolutions first, then (position, choice) in order."""

    space: Space

    @property
    def blocks(self) -> list[tuple[int, int, int]]:
        """(position, stage, choice) of each block entry; choices count from 0."""
        return [
            (p, s, c)
            for p, (s, _) in enumerate(self.space.positions)
            for c in range(len(self.space.stages[s].choices))
        ]

    def design(self, genotypes: Genotypes) -> FloatArray:
        """(N, E) zeros and ones: which entries an architecture has."""
        columns = [genotypes[:, 0] == r for r in range(len(self.space.resolutions))]
        columns += [genotypes[:, 1 + p] == 1 + c for p, _, c in self.blocks]
        return np.stack(columns, axis=1).astype(np.float64)

    def levels(self) -> list[FloatArray]:
        """Factors A of the prior covariances A A', each (E, effects of the level)."""
        resolutions, blocks = len(self.space.resolutions), self.blocks
        choices = [self.space.stages[s].choices[c] for _, s, c in blocks]
        # What the entry of a block is made of: being there, its kernel, its expand ratio.
        kernels, expands = _code([b.kernel for b in choices]), _code([b.expand for b in choices])
        effects = np.stack([np.ones(len(blocks)), kernels, expands], axis=1)

        def grouped(groups: list[int]) -> FloatArray:
            """The three effects, separate for each group of blocks."""
            which = np.equal.outer(groups, sorted(set(groups))).astype(float)
            spread = (which[:, :, None] * effects[:, None, :]).reshape(len(blocks), -1)
            return np.vstack([np.zeros((resolutions, spread.shape[1])), spread])

        alone = np.eye(resolutions + len(blocks))
        pixels = _code(list(self.space.resolutions))
        smooth = np.zeros((resolutions + len(blocks), 2))
        smooth[:resolutions] = np.stack([pixels, pixels**2], axis=1)
        return [
            smooth,
            alone[:, :resolutions],
            grouped([0] * len(blocks)),
            grouped([s for _, s, _ in blocks]),
            grouped([p for p, _, _ in blocks]),
            alone[:, resolutions:],
        ]


def fit(space: Space, evaluated: Evaluated) -> AccuracyModel:
    """The model of a checkpoint's evaluated subnets."""
    entries = _Entries(space)
    x = entries.design(evaluated.genotypes)
    y = logit(evaluated)
    prior, noise = _learn_prior(x, y, entries.levels())
    return _posterior(entries, x, y, prior, noise)


def rank(space: Space, evaluated: Evaluated, seed: int = 0) -> Ranking:
    """How the model ranks subnets that it was not fitted to: cross-validated in five folds.

    The strengths of the prior's levels are learned once, on all of them; the fit is not.
    """
    entries = _Entries(space)
    x, y = entries.design(evaluated.genotypes), logit(evaluated)
    prior, noise = _learn_prior(x, y, entries.levels())
    fold = np.random.default_rng(seed).permutation(len(y)) % _FOLDS
    predicted = np.empty(len(y))
    for f in range(_FOLDS):
        out = fold == f
        model = _posterior(entries, x[~out], y[~out], prior, noise)
        predicted[out] = model.table.price(evaluated.genotypes[out])
    sizes = tabulate(space, lambda layer: layer.macs).price(evaluated.genotypes)
    bands = np.array_split(np.argsort(sizes, kind="stable"), _BANDS)
    within = [kendall_tau(predicted[band], y[band]) for band in bands]
    return Ranking(kendall_tau(predicted, y), float(np.mean(within)), _BANDS, len(y))


def kendall_tau(a: FloatArray, b: FloatArray) -> float:
    """Tau-b (Kendall 1945); 0 where one of them is constant."""
    upper = np.triu_indices(len(a), 1)
    da, db = (np.sign(np.subtract.outer(v, v))[upper] for v in (a, b))
    scale = np.sqrt(np.count_nonzero(da) * np.count_nonzero(db))
    return float((da * db).sum() / scale) if scale else 0.0


def logit(evaluated: Evaluated) -> FloatArray:
    """(N,) log odds of a right answer; half an image away from 0 and 100 %."""
    margin = 0.5 / evaluated.images
    share = np.clip(evaluated.accuracy / 100, margin, 1 - margin)
    return np.asarray(np.log(share / (1 - share)))


def _code(values: list[int]) -> FloatArray:
    """Standardized; zeros where all are equal."""
    array = np.array(values, float)
    return np.asarray((array - array.mean()) / (array.std() or 1.0))


def _learn_prior(
    x: FloatArray, y: FloatArray, levels: list[FloatArray]
) -> tuple[FloatArray, float]:
    """Prior covariance (E, E) and noise variance of maximum marginal likelihood.

    Every level's kernel is scaled to a mean diagonal of 1 on the data, so that its strength is
    comparable; log strengths have a weak normal prior.
    """
    x, y = x - x.mean(0), y - y.mean()
    scale = y.std() or 1.0
    target = y / scale
    kernels, factors = [], []
    for level in levels:
        z = x @ level
        size = np.einsum("ij,ij->i", z, z).mean()
        factors.append(level / np.sqrt(size) if size > 1e-12 else level * 0.0)
        kernels.append((x @ factors[-1]) @ (x @ factors[-1]).T)
    kernels.append(np.eye(len(y)))
    stack = np.stack(kernels)

    def loss(log_strength: FloatArray) -> tuple[float, FloatArray]:
        strength = np.exp(log_strength)
        factor = cho_factor(np.tensordot(strength, stack, 1) + 1e-9 * np.eye(len(y)), lower=True)
        alpha = cho_solve(factor, target)
        inverse = cho_solve(factor, np.eye(len(y)))
        value = 0.5 * target @ alpha + np.log(np.diag(factor[0])).sum()
        slope = -0.5 * strength * np.tensordot(stack, np.outer(alpha, alpha) - inverse, 2)
        return value + ((log_strength + 1) ** 2).sum() / 18, slope + (log_strength + 1) / 9

    start = np.full(len(kernels), -1.0)
    bounds = [(-9.0, 4.0)] * len(kernels)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30}
    )
    strength = np.exp(found.x) * scale**2
    prior = sum(v * factor @ factor.T for v, factor in zip(strength, factors, strict=False))
    return np.asarray(prior), float(strength[-1])


def _posterior(
    entries: _Entries, x: FloatArray, y: FloatArray, prior: FloatArray, noise: float
) -> AccuracyModel:
    mean_x, mean_y = x.mean(0), float(y.mean())
    centred = x - mean_x
    covered = centred @ prior
    factor = cho_factor(covered @ centred.T + noise * np.eye(len(y)), lower=True)
    theta = covered.T @ cho_solve(factor, y - mean_y)
    covariance = prior - covered.T @ cho_solve(factor, covered)

    space = entries.space
    resolutions = len(space.resolutions)
    most = max(len(stage.choices) for stage in space.stages)
    cost = np.full((resolutions, len(space.positions), 1 + most), np.inf)
    cost[:, :, 0] = 0.0
    for value, (p, _, c) in zip(theta[resolutions:], entries.blocks, strict=True):
        cost[:, p, 1 + c] = value
    fixed = mean_y - float(mean_x @ theta) + theta[:resolutions]
    return AccuracyModel(Table(fixed, cost), entries, mean_x, covariance)
