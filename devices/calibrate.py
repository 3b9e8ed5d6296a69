"""From a few measured networks to a profile.

A device's coefficients are a nonnegative mix of those of known devices and of five simple ones
that each price a single thing. The simple ones are held back, since they know nothing of networks
unlike the measured ones, unless they err clearly less on measured networks left out; then one more
prices weights beyond those of the lightest measured network, which a cache keeps, and from many
networks there may be one for each feature. A mix inherits what every fit must keep: no negative
price of a layer, and a larger depthwise kernel never cheaper than a smaller one. docs/devices.md
has the errors.

One-sided bounds are leave-one-out ratios of actual to predicted, for networks drawn like the
measured ones. The conformal rank holds on average over calibrations (Vovk et al. 2005; Lei et al.
2018, sec. 2); this one calibration is to hold too, so the rank is that of a tolerance limit (Vovk
2012, prop. 2a), as far as there are measurements. The point is of the median run, the bound of the
90th percentile, which a budget is measured by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import bdtr

from devices.cost import features
from devices.profile import (
    FEATURES,
    MEASURED_HERE,
    Hardware,
    Profile,
    Runtime,
    Valid,
    load_profiles,
)
from ofa.layers import Layer

__all__ = ["FEWEST_SAMPLES", "Sample", "fit_profile", "informative", "write_profile"]

FloatArray = NDArray[np.float64]

#: A network's layers, and its measured latency in ms: of the median run, and the 90th percentile.
Sample = tuple[Sequence[Layer], float, float]

# Toward no contribution: keeps a mix of many alike devices small, and simple ones held back.
_RIDGE, _RIDGE_HELD = 1e-3, 3e-2
_CLEARLY = 0.8  # of the error, of few networks, for a mix with more freedom to be taken
_CONFIDENCES = (0.5, 0.8, 0.9, 0.95)
FEWEST_SAMPLES = 9  # for a bound at 0.9
_MANY = 50

_DEPTHWISE = ("dw.k3", "dw.k5", "dw.k7")
_WEIGHTS = ("conv.w", "pw.w", "fc.w")
#: Simple devices: name -> the features that cost 1 each there. Depthwise MACs are in two of them,
#: so that they never become cheaper than dense ones.
_SIMPLE = {
    "per network": ("const",),
    "per operator": ("n",),
    "MACs": ("stem.macs", "conv.macs", "pw.macs", *_DEPTHWISE),
    "depthwise MACs": _DEPTHWISE,
    "memory": (
        "stem.io", "conv.in", "conv.out", "conv.w", "pw.in", "pw.out", "pw.w", "dw.in", "dw.out",
        "dw.s2", "fc.w", "mem.io", "pool.ops",
    ),
}  # fmt: skip
#: The same with a device for each feature; 1x1 MACs only together with depthwise ones, as above.
_FINE = {f: (f,) for f in FEATURES if f != "pw.macs"} | {
    "1x1 and depthwise MACs": ("pw.macs", *_DEPTHWISE)
}


def fit_profile(
    name: str,
    title: str,
    samples: Sequence[Sample],
    hardware: Hardware,
    runtime: Runtime,
    source: str,
    space: str,
) -> Profile:
    """The profile of a device from measured networks; at least 9, for a bound at 0.9.

    The known devices are the CPU profiles of the same precision with a grade of A or B.
    source: ``MEASURED_HERE`` or ``CALIBRATED``. space: that the networks are of.
    Raises ValueError for fewer than 9 samples.
    """
    if len(samples) < FEWEST_SAMPLES:
        raise ValueError(f"{len(samples)} samples; a bound at 0.9 needs {FEWEST_SAMPLES}")
    x = np.stack([_vector(layers) for layers, _, _ in samples])
    y = np.array([ms for _, ms, _ in samples])
    tails = np.array([p90 / ms for _, ms, p90 in samples])
    precision, many = runtime.precision, len(samples) >= _MANY
    best = _Fit(x, y, _Library.of(precision, _SIMPLE, _RIDGE_HELD))
    lightest = float(x[:, [FEATURES.index(f) for f in _WEIGHTS]].sum(axis=1).min())
    for simple in (_SIMPLE, _FINE) if many else (_SIMPLE,):
        freer = _Fit(x, y, _Library.of(precision, simple, _RIDGE).beyond(lightest))
        if freer.errors.mean() < best.errors.mean() * (1.0 if many else _CLEARLY):
            best = freer
    ratios, errors = best.ratios, best.errors
    mape = float(100 * errors.mean())
    sides = [layers[0].in_shape[0] for layers, _, _ in samples]
    runs = "single runs" if source == MEASURED_HERE else "repeats (means)"
    return Profile(
        name=name,
        aliases=(),
        title=title,
        hardware=hardware,
        runtime=runtime,
        limits=None,
        coefficients=dict(zip(FEATURES, map(float, best.coefficients), strict=True)),
        fit="nonnegative mix of other profiles and of simple ones",
        mix_of=best.mix_of,
        errors={
            "leave_one_out": {
                "n": len(y),
                "mape": mape,
                "rmspe": float(100 * np.sqrt((errors**2).mean())),
                "bias": float(100 * (1 / ratios - 1).mean()),
                "ratio_max": float(ratios.max()),
            }
        },
        bound=_bounds(np.sort(ratios * tails)),
        grade=_grade(len(y), mape),
        valid=Valid(
            (min(sides), max(sides)),
            (float(y.min()), float(y.max())),
            (space,),
        ),
        provenance={
            "source": source,
            "date": date.today().isoformat(),
            "statistic": f"latency of {runs}, models in turns",
            "networks": len(y),
        },
    )


def informative(networks: Sequence[Sequence[Layer]], count: int) -> list[int]:
    """Indices of the networks that tell most about a device, in the order in which they do.

    Each is the one whose price a linear model of the features is least sure of after the others
    (greedy D-optimal design; Fedorov 1972). Features are relative to the network's MACs, since a
    fit is of relative errors, and scaled alike.
    """
    x = np.stack([_vector(layers) for layers in networks])
    x /= np.array([sum(layer.macs for layer in layers) for layers in networks])[:, None]
    x /= np.maximum(np.sqrt((x**2).mean(0)), 1e-12)
    covariance = np.eye(x.shape[1])
    chosen: list[int] = []
    for _ in range(min(count, len(x))):
        reach = x @ covariance
        unsure = np.einsum("ne,ne->n", reach, x)
        unsure[chosen] = -np.inf
        best = int(unsure.argmax())
        chosen.append(best)
        covariance -= np.outer(reach[best], reach[best]) / (1 + unsure[best])
    return chosen


def write_profile(profile: Profile, path: Path) -> None:
    """Write a profile as JSON, whole or not at all; ``get_profile`` reads it by its path."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(profile.as_dict(), indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


@dataclass(frozen=True, slots=True, eq=False)
class _Library:
    """The devices that are mixed: coefficients (D, 21), and how far each is held back."""

    names: tuple[str, ...]
    coefficients: FloatArray
    ridge: FloatArray

    @classmethod
    def of(
        cls, precision: str, simple: Mapping[str, tuple[str, ...]], ridge_simple: float
    ) -> _Library:
        """Known devices of that precision, then simple ones."""
        known = [
            profile
            for profile in load_profiles()
            if profile.grade in "AB"
            and profile.runtime.precision == precision
            and profile.runtime.delegate not in ("gpu", "npu")
            and profile.limits is None
            and not profile.mix_of
        ]
        rows = [[profile.coefficients[f] for f in FEATURES] for profile in known]
        rows += [[float(f in priced) for f in FEATURES] for priced in simple.values()]
        return cls(
            (*(profile.name for profile in known), *simple),
            np.array(rows),
            np.repeat((_RIDGE, ridge_simple), (len(known), len(simple))),
        )

    def beyond(self, lightest: float) -> _Library:
        """With one more, simple as the last: weights cost 1, ``lightest`` millions of them nothing.

        Its constant is negative, its price of a network that has as many weights is not.
        """
        row = [float(f in _WEIGHTS) for f in FEATURES]
        row[FEATURES.index("const")] = -lightest
        return _Library(
            (*self.names, "weights beyond the lightest network's"),
            np.vstack([self.coefficients, row]),
            np.append(self.ridge, self.ridge[-1]),
        )


def _vector(layers: Sequence[Layer]) -> FloatArray:
    """(21,) a network in the features of a profile."""
    total = dict.fromkeys(FEATURES, 0.0)
    total["const"] = 1.0
    for layer in layers:
        for name, value in features(layer).items():
            total[name] += value
    return np.array([total[name] for name in FEATURES])


class _Fit:
    """A mix of a library of devices, fitted to x (N, 21), y (N,) in ms.

    ratios: actual / predicted of each network by the fit to the others; errors: of them, relative
    to the actual.
    """

    def __init__(self, x: FloatArray, y: FloatArray, library: _Library) -> None:
        weights = _mix(x, y, library)
        self.coefficients = weights @ library.coefficients
        self.mix_of = {n: float(w) for n, w in zip(library.names, weights, strict=True) if w > 0}
        self.ratios = _left_out(x, y, library)
        self.errors = abs(1 / self.ratios - 1)


def _mix(x: FloatArray, y: FloatArray, library: _Library) -> FloatArray:
    """(D,) weights: nonnegative least squares of relative errors.

    Each device is first scaled to predict y on average, so that the ridge treats a slow one like a
    fast one. One that prices none of these networks gets no weight.
    """
    relative = x @ library.coefficients.T / y[:, None]
    scale = relative.mean(axis=0)
    scale[scale == 0] = 1.0
    relative /= scale
    ridge = np.diag(np.sqrt(library.ridge * len(y)))
    weights, _ = nnls(
        np.vstack([relative, ridge]), np.concatenate([np.ones(len(y)), np.zeros(len(ridge))])
    )
    return np.asarray(weights / scale)


def _left_out(x: FloatArray, y: FloatArray, library: _Library) -> FloatArray:
    """(N,) actual / predicted of each network by the fit to the others."""
    ratios = np.empty(len(y))
    for out in range(len(y)):
        rest = np.arange(len(y)) != out
        weights = _mix(x[rest], y[rest], library)
        ratios[out] = y[out] / (x[out] @ (weights @ library.coefficients))
    return ratios


def _bounds(ratios: FloatArray) -> dict[float, float]:
    """Confidence -> the ratio that this share of networks keeps, at least 1; ratios ascend.

    A confidence whose conformal rank, ceil((n + 1) confidence), is beyond n is not to be had from
    so few. Of the others the rank, at most n, is that below which the share is smaller for at most
    one calibration in ten.
    """
    n = len(ratios)
    found = {}
    for c in _CONFIDENCES:
        if ceil((n + 1) * c) <= n:
            fewer = bdtr(np.arange(n), n, c)  # P(at most k of n are below)
            rank = min(int(np.searchsorted(fewer, 0.9)), n - 1)
            found[c] = max(1.0, float(ratios[rank]))
    return found


def _grade(n: int, mape: float) -> Literal["A", "B", "C", "D"]:
    """As docs/devices.md has it, from the number of networks and their left-out error."""
    if n >= 30 and mape <= 5:
        return "A"
    if n >= 12 and mape <= 10:
        return "B"
    return "C" if mape <= 20 else "D"
