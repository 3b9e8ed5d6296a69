"""From a few measured networks to a profile.

A device's coefficients are a nonnegative mix of those of known devices: ten measured networks then
predict as well as eighty would with coefficients of the device's own, and a mix inherits what every
fit must keep (no negative price, a larger depthwise kernel never cheaper). One-sided bounds are the
leave-one-out ratios of actual to predicted at the conformal rank (Vovk et al. 2005; Lei et al.
2018, sec. 2), valid for networks drawn like the measured ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

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

__all__ = ["Sample", "fit_profile"]

FloatArray = NDArray[np.float64]

#: A network's layers, and its measured latency in ms.
Sample = tuple[Sequence[Layer], float]

_RIDGE = 1e-3  # toward no contribution: keeps a mix of many alike devices small
_CONFIDENCES = (0.5, 0.8, 0.9)


def fit_profile(
    name: str, title: str, samples: Sequence[Sample], hardware: Hardware, runtime: Runtime
) -> Profile:
    """The profile of a device from measured networks; at least 9 for a bound at 0.9.

    The mixed devices are the shipped CPU profiles of the same precision with a grade of A or B.
    Raises ValueError for fewer than 9 samples.
    """
    if len(samples) < 9:
        raise ValueError(f"{len(samples)} samples; a bound at 0.9 needs 9")
    x = np.stack([_vector(layers) for layers, _ in samples])
    y = np.array([ms for _, ms in samples])
    sources = [
        profile
        for profile in load_profiles()
        if profile.grade in "AB"
        and profile.runtime.precision == runtime.precision
        and profile.runtime.delegate not in ("gpu", "npu")
        and profile.limits is None
        and not profile.mix_of
    ]
    library = np.array([[p.coefficients[f] for f in FEATURES] for p in sources])
    weights = _mix(x, y, library)
    coefficients = weights @ library
    ratios = []
    for out in range(len(y)):
        rest = np.arange(len(y)) != out
        predicted = x[out] @ (_mix(x[rest], y[rest], library) @ library)
        ratios.append(y[out] / predicted)
    ratios.sort()
    errors = abs(1 / np.array(ratios) - 1)
    bound = {c: max(1.0, ratios[ceil((len(y) + 1) * c) - 1]) for c in _CONFIDENCES}
    sides = [layers[0].in_shape[0] for layers, _ in samples]
    mape = float(100 * errors.mean())
    grade: Literal["A", "B", "C"] = (
        "A" if len(y) >= 30 and mape <= 5 else "B" if len(y) >= 12 and mape <= 10 else "C"
    )
    return Profile(
        name=name,
        aliases=(),
        title=title,
        hardware=hardware,
        runtime=runtime,
        limits=None,
        coefficients=dict(zip(FEATURES, map(float, coefficients), strict=True)),
        fit="nonnegative mix of other profiles",
        mix_of={p.name: float(w) for p, w in zip(sources, weights, strict=True) if w > 0},
        errors={
            "leave_one_out": {
                "n": len(y),
                "mape": mape,
                "rmspe": float(100 * np.sqrt((errors**2).mean())),
                "ratio_max": float(ratios[-1]),
            }
        },
        bound=bound,
        grade=grade,
        valid=Valid(
            (min(sides), max(sides)),
            (float(y.min()), float(y.max())),
            ("the space that was measured",),
        ),
        provenance={
            "source": MEASURED_HERE,
            "date": date.today().isoformat(),
            "statistic": "median of single runs, models in turns",
            "networks": len(y),
        },
    )


def _vector(layers: Sequence[Layer]) -> FloatArray:
    """(21,) a network in the features of a profile."""
    total = dict.fromkeys(FEATURES, 0.0)
    total["const"] = 1.0
    for layer in layers:
        for name, value in features(layer).items():
            total[name] += value
    return np.array([total[name] for name in FEATURES])


def _mix(x: FloatArray, y: FloatArray, library: FloatArray) -> FloatArray:
    """Weights of the library's profiles: nonnegative least squares of relative errors.

    Each profile is first scaled by its median ratio, so that the ridge treats a slow device like a
    fast one.
    """
    prices = x @ library.T
    scale = np.median(y[:, None] / prices, axis=0)
    relative = prices * scale / y[:, None]
    ridge = np.sqrt(_RIDGE * len(y)) * np.eye(len(library))
    weights, _ = nnls(
        np.vstack([relative, ridge]), np.concatenate([np.ones(len(y)), np.zeros(len(library))])
    )
    return np.asarray(weights * scale)
