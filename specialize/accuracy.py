"""The accuracy model: from a checkpoint's evaluated subnets to a table that the search can use.

A Bayesian linear model over the logit of accuracy. Each entry of the table, (block position,
kernel, expand ratio) or resolution, has a Gaussian prior that is shared at several levels: what a
block, a larger kernel or a wider block brings anywhere, in one stage, at one position, and alone.
How much each level matters is learned from the data (maximum marginal likelihood; MacKay 1992).
A few hundred evaluations thus fit a table of a hundred entries, and the posterior says how sure it
is; those on more images count for more. The logit makes effects additive near 100 % and keeps every
estimate below it; it is monotone, so the search may maximize it.

The algebra is in the space of the table's entries, about a hundred, however many subnets there
are, and keeps clear of what BLAS spreads over threads: they wait for each other by spinning, and
beside another busy process that made the fit a hundred times slower.

Axes: N subnets, E entries of the table; P, C, R as in ``ofa.table``.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lu_factor, lu_solve
from scipy.optimize import minimize

from ofa.checkpoint import Evaluated
from ofa.errors import UserError
from ofa.sampling import one_hot
from ofa.space import Genotypes, Space
from ofa.table import Table, tabulate

__all__ = ["AccuracyModel", "Ranking", "fit", "kendall_tau", "logits", "percent", "rank"]

FloatArray = NDArray[np.float64]

_BANDS = 5
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class AccuracyModel:
    """A fitted model. ``table`` holds logits; ``percent()`` turns its prices into accuracy.

    residual: variance of an evaluation around the table, in logits squared: what is not additive,
    and the chance of being tested on these images.
    """

    table: Table
    residual: float
    _entries: _Entries
    _mean_E: FloatArray
    _theta_E: FloatArray
    _covariance_EE: FloatArray

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """(N,) logits, and their posterior standard deviations without ``residual``."""
        x = one_hot(self._entries.space, genotypes) - self._mean_E
        variance = np.einsum("ne,ne->n", _product(x, self._covariance_EE), x)
        return self.table.price(genotypes), np.sqrt(np.maximum(variance, 0))

    def sample(self, rng: np.random.Generator) -> Table:
        """A table drawn from the posterior, for Thompson sampling."""
        # Eigenvectors come from the symmetric solver: draws of a singular covariance are sound.
        values, vectors = np.linalg.eigh(self._covariance_EE)
        drawn = np.sqrt(np.maximum(values, 0)) * rng.standard_normal(len(values))
        change = np.einsum("ef,f->e", vectors, drawn)
        center = float(self.table.fixed_R[0] - self._theta_E[0])
        center -= float(np.einsum("e,e", self._mean_E, change))
        return _table(self._entries, self._theta_E + change, center)

    def interval(
        self, genotypes: Genotypes, confidence: float = 0.95
    ) -> tuple[FloatArray, FloatArray]:
        """(N,) lowest and highest accuracy, in percent, that an evaluation is expected to give.

        An evaluation on as many images as those of the fit had on average.
        """
        logits, deviation = self.predict(genotypes)
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(deviation**2 + self.residual)
        return percent(logits - reach), percent(logits + reach)


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
    """The entries of the table, as in ``one_hot``."""

    space: Space

    @property
    def blocks(self) -> list[tuple[int, int, int]]:
        """(position, stage, choice) of each block entry; choices count from 0."""
        return [
            (p, s, c)
            for p, (s, _) in enumerate(self.space.positions)
            for c in range(len(self.space.stages[s].choices))
        ]

    def levels(self) -> list[FloatArray]:
        """Factors A of the prior covariances A A', each (E, effects of the level).

        Two for the resolutions, a smooth curve and each alone; four for the blocks, with effects
        common to all, to a stage, to a position, and of each (position, choice) alone.
        """
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
    """The model of a checkpoint's evaluated subnets. Raises UserError where it has but one."""
    if len(evaluated.accuracy) < 2:
        raise UserError(
            "the checkpoint has one evaluated subnet: there is nothing to choose from",
            "--checkpoint", "train a supernet, without --arch",
        )  # fmt: skip
    entries, y, error = _Entries(space), evaluated.logits(), _relative_error(evaluated)
    moments = _moments(one_hot(space, evaluated.genotypes), y, error)
    return _posterior(entries, moments, *_learn_prior(moments, entries.levels()))


def rank(space: Space, evaluated: Evaluated, seed: int = 0) -> Ranking:
    """How the model ranks subnets that it was not fitted to: cross-validated in five folds.

    The strengths of the prior's levels are learned once, on all of them; the fit is not.
    """
    entries, y, error = _Entries(space), evaluated.logits(), _relative_error(evaluated)
    x = one_hot(space, evaluated.genotypes)
    prior, residual = _learn_prior(_moments(x, y, error), entries.levels())
    fold = np.random.default_rng(seed).permutation(len(y)) % _FOLDS
    predicted = np.empty(len(y))
    for f in range(_FOLDS):
        out = fold == f
        moments = _moments(x[~out], y[~out], error[~out])
        model = _posterior(entries, moments, prior, residual)
        predicted[out] = model.table.price(evaluated.genotypes[out])
    sizes = tabulate(space, lambda layer: layer.macs).price(evaluated.genotypes)
    bands = np.array_split(np.argsort(sizes, kind="stable"), _BANDS)
    within = [kendall_tau(predicted[band], y[band]) for band in bands]
    return Ranking(kendall_tau(predicted, y), float(np.mean(within)), _BANDS, len(y))


def percent(logits: FloatArray | float) -> FloatArray:
    """Accuracy in percent of logits, such as prices under ``AccuracyModel.table``."""
    return np.asarray(100 / (1 + np.exp(-np.asarray(logits))))


def logits(percentage: float) -> float:
    """The logit of an accuracy in percent."""
    return float(np.log(percentage / (100 - percentage)))


def kendall_tau(a: FloatArray, b: FloatArray) -> float:
    """Tau-b (Kendall 1945); 0 where one of them is constant."""
    upper = np.triu_indices(len(a), 1)
    da, db = (np.sign(np.subtract.outer(v, v))[upper] for v in (a, b))
    scale = np.sqrt(np.count_nonzero(da) * np.count_nonzero(db))
    return float((da * db).sum() / scale) if scale else 0.0


def _relative_error(evaluated: Evaluated) -> FloatArray:
    """(N,) binomial variance of each logit, as a multiple of their mean.

    Only the ratios are taken from the binomial: subnets are scored on the same images and err
    together, so how large the variance is must be learned.
    """
    share = percent(evaluated.logits()) / 100
    variance = 1 / (evaluated.images * share * (1 - share))
    return np.asarray(variance / variance.mean())


def _code(values: list[int]) -> FloatArray:
    """Standardized; zeros where all are equal."""
    array = np.array(values, float)
    return np.asarray((array - array.mean()) / (array.std() or 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """All that a fit needs of its data: moments around the means, weighted by 1 / error."""

    n: int
    mean_E: FloatArray
    mean: float
    xx_EE: FloatArray
    xy_E: FloatArray
    yy: float


def _moments(x: FloatArray, y: FloatArray, error: FloatArray) -> _Moments:
    """x: (N, E) design. y: (N,) logits. error: (N,) relative variances of y."""
    mean_E = np.average(x, axis=0, weights=1 / error)
    mean = float(np.average(y, weights=1 / error))
    x, y = (x - mean_E) / np.sqrt(error)[:, None], (y - mean) / np.sqrt(error)
    xy_E = np.einsum("ne,n->e", x, y)
    return _Moments(len(y), mean_E, mean, _product(x.T, x), xy_E, float(np.einsum("n,n", y, y)))


def _solve(
    moments: _Moments, prior: FloatArray, residual: float
) -> tuple[FloatArray, FloatArray, float]:
    """X' K^-1 X, X' K^-1 y and log |K| of the covariance K = X prior X' + residual * error.

    By the Woodbury identity; of log |K| the constant sum of log error is left out.
    """
    xx, xy = moments.xx_EE / residual, moments.xy_E / residual
    factor = lu_factor(np.eye(len(xx)) + _product(xx, prior))
    log_determinant = np.log(np.abs(np.diag(factor[0]))).sum() + moments.n * np.log(residual)
    # Column by column: solved at once, they would be spread over threads.
    xkx = np.stack([lu_solve(factor, column) for column in xx.T], axis=1)
    return xkx, lu_solve(factor, xy), float(log_determinant)


def _learn_prior(moments: _Moments, levels: list[FloatArray]) -> tuple[FloatArray, float]:
    """Prior covariance (E, E) and residual variance of maximum marginal likelihood.

    Every level is scaled to a mean variance of 1 on the data, so that its strength is comparable;
    log strengths have a weak normal prior.
    """
    scale = moments.yy / moments.n or 1.0
    stack = np.stack([_product(level, level.T) for level in levels])
    size = np.einsum("lef,ef->l", stack, moments.xx_EE) / moments.n
    stack *= np.where(size > 1e-12, scale / np.maximum(size, 1e-12), 0.0)[:, None, None]

    def loss(log_strength: FloatArray) -> tuple[float, FloatArray]:
        *strength, residual = np.exp(log_strength)
        prior = np.einsum("l,lef->ef", strength, stack)
        xkx, xky, log_determinant = _solve(moments, prior, residual * scale)
        explained = np.einsum("e,ef,f", xky, prior, xky)
        left = (moments.yy - np.einsum("e,ef,f", moments.xy_E, prior, xky)) / (residual * scale)
        slope = np.append(
            strength * np.einsum("lef,ef->l", stack, xkx - np.multiply.outer(xky, xky)),
            moments.n - np.einsum("ef,ef", prior, xkx) - left + explained,
        )
        # The weak prior: mean -1, standard deviation 3.
        weak = log_strength + 1
        value = (left + log_determinant) / 2 + (weak**2).sum() / 18
        return float(value), slope / 2 + weak / 9

    count = len(levels) + 1
    found = minimize(
        loss,
        np.full(count, -1.0),
        jac=True,
        method="SLSQP",  # SciPy's L-BFGS-B calls LAPACK in ways that start threads
        bounds=[(-9.0, 4.0)] * count,
        options={"maxiter": 60, "ftol": 1e-5},
    )
    *strength, residual = np.exp(found.x)
    return np.asarray(np.einsum("l,lef->ef", strength, stack)), float(residual * scale)


def _posterior(
    entries: _Entries, moments: _Moments, prior: FloatArray, residual: float
) -> AccuracyModel:
    """The model given its prior (E, E) and residual variance."""
    xkx, xky, _ = _solve(moments, prior, residual)
    theta = np.einsum("ef,f->e", prior, xky)
    covariance = prior - _product(_product(prior, xkx), prior)
    center = moments.mean - float(np.einsum("e,e", moments.mean_E, theta))
    table = _table(entries, theta, center)
    return AccuracyModel(table, residual, entries, moments.mean_E, theta, covariance)


def _table(entries: _Entries, theta: FloatArray, center: float) -> Table:
    """Entries (E,) as a table of logits."""
    space = entries.space
    resolutions = len(space.resolutions)
    most = max(len(stage.choices) for stage in space.stages)
    cost = np.full((resolutions, len(space.positions), 1 + most), np.inf)
    cost[:, :, 0] = 0.0
    for value, (p, _, c) in zip(theta[resolutions:], entries.blocks, strict=True):
        cost[:, p, 1 + c] = value
    return Table(center + theta[:resolutions], cost)


def _product(a: FloatArray, b: FloatArray) -> FloatArray:
    """a @ b in NumPy's own loops, on this thread."""
    return np.asarray(np.einsum("ij,jk->ik", a, b))
