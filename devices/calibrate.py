"""From a few measured networks to a profile.

A device's coefficients are a nonnegative mix of those of known devices and of five simple ones
that each price a single thing. From many networks it may have more freedom: a simple device for
each feature, where that errs less on networks left out. A mix inherits what every fit must keep: no
negative price, and a larger depthwise kernel never cheaper than a smaller one. docs/devices.md has
the errors.

One-sided bounds are the leave-one-out ratios of actual to predicted at the conformal rank
(Vovk et al. 2005; Lei et al. 2018, sec. 2), valid for networks drawn like the measured ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from math import ceil
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from devices.cost import features
from devices.profile import (
    FEATURES,
    Hardware,
    Profile,
    Runtime,
    Valid,
    load_profiles,
)
from ofa.layers import Layer

__all__ = ["Sample", "fit_profile", "informative", "write_profile"]

FloatArray = NDArray[np.float64]

#: A network's layers, and its measured latency in ms.
Sample = tuple[Sequence[Layer], float]

_RIDGE = 1e-3  # toward no contribution: keeps a mix of many alike devices small
_CONFIDENCES = (0.5, 0.8, 0.9, 0.95)
_FEWEST = 9  # for a bound at 0.9
_MANY = 50  # from here on a mix may have a simple device for each feature

_DEPTHWISE = ("dw.k3", "dw.k5", "dw.k7")
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
#: The same with a device for each feature; of depthwise MACs one for each step to a larger kernel.
_FINE = {f: (f,) for f in FEATURES if f not in ("pw.macs", *_DEPTHWISE)} | {
    "1x1 and depthwise MACs": ("pw.macs", *_DEPTHWISE),
    **{f"{f} and larger": _DEPTHWISE[i:] for i, f in enumerate(_DEPTHWISE)},
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
    if len(samples) < _FEWEST:
        raise ValueError(f"{len(samples)} samples; a bound at 0.9 needs {_FEWEST}")
    x = np.stack([_vector(layers) for layers, _ in samples])
    y = np.array([ms for _, ms in samples])
    choices = (_SIMPLE, _FINE) if len(samples) >= _MANY else (_SIMPLE,)
    fits = [_Fit(x, y, *_library(runtime.precision, simple)) for simple in choices]
    best = min(fits, key=lambda fit: fit.errors.mean())
    ratios, errors = best.ratios, best.errors
    mape = float(100 * errors.mean())
    sides = [layers[0].in_shape[0] for layers, _ in samples]
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
                "ratio_max": float(ratios[-1]),
            }
        },
        bound=_bounds(ratios),
        grade=_grade(len(y), mape),
        valid=Valid(
            (min(sides), max(sides)),
            (float(y.min()), float(y.max())),
            (space,),
        ),
        provenance={
            "source": source,
            "date": date.today().isoformat(),
            "statistic": "latency of single runs, models in turns",
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


def _library(precision: str, simple: Mapping[str, tuple[str, ...]]) -> tuple[list[str], FloatArray]:
    """(names, (D, 21) coefficients) of the devices that are mixed: known ones, then simple ones."""
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
    return [*(profile.name for profile in known), *simple], np.array(rows)


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

    ratios: ascending, actual / predicted of each network by the fit to the others; errors: of
    them, relative to the actual.
    """

    def __init__(
        self, x: FloatArray, y: FloatArray, names: Sequence[str], library: FloatArray
    ) -> None:
        weights = _mix(x, y, library)
        self.coefficients = weights @ library
        self.mix_of = {n: float(w) for n, w in zip(names, weights, strict=True) if w > 0}
        self.ratios = np.sort(_left_out(x, y, library))
        self.errors = abs(1 / self.ratios - 1)


def _mix(x: FloatArray, y: FloatArray, library: FloatArray) -> FloatArray:
    """(D,) weights: nonnegative least squares of relative errors.

    Each device is first scaled to predict y on average, so that the ridge treats a slow one like a
    fast one. One that prices none of these networks gets no weight.
    """
    relative = x @ library.T / y[:, None]
    scale = relative.mean(axis=0)
    scale[scale == 0] = 1.0
    relative /= scale
    ridge = np.sqrt(_RIDGE * len(y)) * np.eye(len(library))
    weights, _ = nnls(
        np.vstack([relative, ridge]), np.concatenate([np.ones(len(y)), np.zeros(len(library))])
    )
    return np.asarray(weights / scale)


def _left_out(x: FloatArray, y: FloatArray, library: FloatArray) -> FloatArray:
    """(N,) actual / predicted of each network by the fit to the others."""
    ratios = np.empty(len(y))
    for out in range(len(y)):
        rest = np.arange(len(y)) != out
        ratios[out] = y[out] / (x[out] @ (_mix(x[rest], y[rest], library) @ library))
    return ratios


def _bounds(ratios: FloatArray) -> dict[float, float]:
    """Confidence -> the ratio of rank ceil((n + 1) confidence), at least 1; ratios ascend.

    A confidence whose rank is beyond n is not to be had from so few.
    """
    n = len(ratios)
    ranks = {c: ceil((n + 1) * c) for c in _CONFIDENCES}
    return {c: max(1.0, float(ratios[rank - 1])) for c, rank in ranks.items() if rank <= n}


def _grade(n: int, mape: float) -> Literal["A", "B", "C", "D"]:
    """As docs/devices.md has it, from the number of networks and their left-out error."""
    if n >= 30 and mape <= 5:
        return "A"
    if n >= 12 and mape <= 10:
        return "B"
    return "C" if mape <= 20 else "D"
