"""What a network costs on a device: a price for each layer, a point and a bound for the sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from devices.profile import Profile
from ofa.errors import UserError
from ofa.layers import Layer
from ofa.space import Space
from ofa.table import Table, tabulate

__all__ = [
    "Latency",
    "bound_factor",
    "features",
    "latency_table",
    "nearest_confidence",
    "predict",
    "price",
    "warnings_for",
]

#: Families of networks, and the largest kernel of their depthwise convolutions; of others 7.
_LARGEST_KERNEL = dict.fromkeys(
    (
        "dscnn", "fdmobilenet", "mbv1", "mbv1-0.25", "mbv1-0.5", "mbv1-0.75", "mbv1-1.0", "mbv2",
        "mbv2-0.35", "mbv2-0.5", "mbv2-0.75", "mbv2-1.0", "mbv2-1.3", "mbv2-1.4", "mobilenet_v1",
        "mobilenet_v1_1.0_224", "mobilenet_v2", "mobilenet_v2_1.0_224", "resnet8", "resnet_v1_32",
        "resnet_v1_8", "squeezenet", "st_mnist_v1",
    ),
    3,
) | dict.fromkeys(
    (
        "efficientnet-lite", "lite", "mcu", "mobilenet_v3_large_1.0_224",
        "mobilenet_v3_small_1.0_224", "v3", "v3min",
    ),
    5,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Latency:
    """A predicted latency in ms: ``bound`` holds with ``confidence``."""

    point: float
    bound: float
    confidence: float


def features(layer: Layer) -> dict[str, float]:
    """What a layer is priced by (``layer-features/1``), in millions of elements or MACs.

    The depthwise terms are cumulative, so that a larger kernel is never cheaper than a smaller
    one. SAME padding, relu and relu6 are fused and cost nothing of their own; other padding and
    h-swish are operators of their own. Raises ValueError for one that the profiles do not price.
    """
    height, width, channels = layer.out_shape
    into = layer.in_shape[0] * layer.in_shape[1] * layer.in_shape[2] / 1e6
    out = height * width * channels / 1e6
    macs, taps = layer.macs / 1e6, layer.kernel**2
    found = {"n": 1.0}
    elementwise = 0.0
    if layer.activation == "hswish":
        elementwise += 2 * out
        found["n"] += 1
    if not layer.is_same:
        side = layer.in_shape[0] + sum(layer.pads)
        elementwise += into + side**2 * layer.in_shape[2] / 1e6
        found["n"] += 1
    if elementwise:
        found["mem.io"] = elementwise
    match layer.op:
        case "conv" if layer.in_shape[2] <= 4:
            found |= {"stem.macs": macs, "stem.io": into + out}
        case "conv" if layer.in_shape[:2] == (1, 1):  # of a squeeze-and-excitation
            found["fc.w"] = layer.in_shape[2] * channels / 1e6
        case "conv" if layer.kernel == 1:
            found |= {
                "pw.macs": macs,
                "pw.in": into / layer.stride**2,
                "pw.out": out,
                "pw.w": layer.in_shape[2] * channels / 1e6,
            }
        case "conv":
            weights = taps * layer.in_shape[2] * channels / 1e6
            found |= {"conv.macs": macs, "conv.in": into, "conv.out": out, "conv.w": weights}
        case "depthwise":
            found |= {"dw.k3": out * min(taps, 9), "dw.in": into, "dw.out": out}
            if taps > 9:
                found["dw.k5"] = out * (min(taps, 25) - 9)
            if taps > 25:
                found["dw.k7"] = out * (taps - 25)
            if layer.stride > 1:
                found["dw.s2"] = out
        case "linear":
            found["fc.w"] = layer.in_shape[2] * channels / 1e6
        case "add" | "scale":
            found["mem.io"] = 3 * out
        case "mean" | "squeeze":
            found["pool.ops"] = into
        case _:
            raise ValueError(f"profiles do not price {layer.op!r} (layer {layer.name!r})")
    return found


def price(profile: Profile, layer: Layer) -> float:
    """ms of one layer; the network adds ``profile.coefficients["const"]`` once."""
    return sum(profile.coefficients[name] * value for name, value in features(layer).items())


def latency_table(space: Space, profile: Profile) -> Table:
    """The table of predicted latency (point, ms)."""
    constant = profile.coefficients["const"]
    return tabulate(space, lambda layer: price(profile, layer), constant)


def predict(profile: Profile, layers: Iterable[Layer], confidence: float = 0.9) -> Latency:
    """Predicted latency of a network. Raises UserError as ``bound_factor`` does."""
    point = profile.coefficients["const"] + sum(price(profile, layer) for layer in layers)
    return Latency(point, point * bound_factor(profile, confidence), confidence)


def bound_factor(profile: Profile, confidence: float) -> float:
    """Factor from a predicted latency to one that holds with ``confidence``, one-sided.

    From quantiles of actual / predicted on networks left out of the fit, interpolated linearly;
    never below 1. Raises UserError beyond the highest confidence that the data supports.
    """
    known = sorted(profile.bound.items())
    confidences = [c for c, _ in known]
    if not confidences[0] <= confidence <= confidences[-1]:
        raise UserError(
            f"profile {profile.name!r} has no bound at confidence {confidence:g}",
            "--confidence",
            f"from {confidences[0]:g} to {confidences[-1]:g} there is data",
        )
    factors = np.maximum.accumulate([max(1.0, factor) for _, factor in known])
    return float(np.interp(confidence, confidences, factors))


def nearest_confidence(profile: Profile, confidence: float) -> float:
    """Where a profile has a bound, ``confidence``; else the nearest at which it has one."""
    return min(max(confidence, min(profile.bound)), max(profile.bound))


def warnings_for(profile: Profile, layers: Sequence[Layer], point_ms: float) -> list[str]:
    """One sentence for each way in which a network lies outside of what was measured."""
    found = []
    low, high = profile.valid.resolution
    side = layers[0].in_shape[0]
    if not low <= side <= high:
        span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        found.append(
            f"the profile was fitted on networks of {span} px; this one has {side} px, "
            "so the bound is weaker than its confidence says"
        )
    low, high = profile.valid.ms
    if not low <= point_ms <= high:
        found.append(
            f"the profile's networks took {low:g} to {high:g} ms; "
            f"this one, at {point_ms:.3g} ms, is outside"
        )
    met = max((_LARGEST_KERNEL.get(family, 7) for family in profile.valid.families), default=7)
    if any(one.op == "depthwise" and one.kernel > met for one in layers):
        found.append(
            f"larger depthwise kernels than {met}x{met} were not measured there: their price is a "
            "guess, which no bound covers"
        )
    if profile.grade in "CD":
        networks = profile.provenance.get("networks", "few")
        found.append(f"grade {profile.grade}: the profile rests on {networks} networks")
    return found
