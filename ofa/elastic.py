"""The operators of a supernet in torch: elastic because their weights are arguments.

``run`` executes a list of layers on tensors from anywhere: slices of a supernet's, or a subnet's
own. A few lines here decide the speed of training on a CPU; each says why it is written so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa import ranks
from ofa.layers import INPUT, Layer
from ofa.space import Activation

__all__ = ["convolve", "run"]


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hswish": F.hardswish,
    "hsigmoid": F.hardsigmoid,
}


def convolve(
    x: Tensor,
    weight: Tensor,
    stride: int,
    pads: tuple[int, int],
    groups: int,
    bias: Tensor | None,
) -> Tensor:
    """Convolution with (before, after) pixels of padding on either axis. x: (N, C, H, W).

    For stride 2 and an even side SAME pads one pixel more after than before. Instead of padding
    the activation, the kernel gets a zero row on top and a zero column at the left: the same
    output with the padding inside the convolution, 1.06 to 1.2 times as fast.
    """
    before, after = pads
    if before == after:
        return F.conv2d(x, weight, bias, stride, before, 1, groups)
    if after == before + 1:
        return F.conv2d(x, F.pad(weight, (1, 0, 1, 0)), bias, stride, after, 1, groups)
    return F.conv2d(F.pad(x, (before, after, before, after)), weight, bias, stride, 0, 1, groups)


class _SharedNorm(torch.autograd.Function):
    """Batch norm by the mean and biased variance of the batches of all processes together.

    Each holds as many images. Two small tensors are sent, one forward and one backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        """Normalized x (N, C, H, W); gamma, beta: (C,)."""
        within, own = torch.var_mean(_exact(x), (0, 2, 3), correction=0)
        # In float64 the difference of squares loses nothing of the variance between processes.
        square = within.double() + own.double().square()
        mean, square = ranks.mean_(torch.stack([own.double(), square]))
        variance = (square - mean.square()).to(own.dtype)
        mean = mean.to(own.dtype)
        ctx.save_for_backward(x, gamma, mean, (variance + eps).rsqrt())
        return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of gamma and beta the part of this process: parameters are summed up with the step."""
        x, gamma, mean, scale = ctx.saved_tensors
        grad = _exact(grads[0])
        normal = (_exact(x) - _wide(mean)) * _wide(scale)
        of_beta, of_gamma = grad.sum((0, 2, 3)), (grad * normal).sum((0, 2, 3))
        means = torch.stack([of_beta, of_gamma]) * (len(mean) / x.numel())
        of_mean, of_normal = ranks.mean_(means)
        of_x = (grad - _wide(of_mean) - normal * _wide(of_normal)) * _wide(gamma * scale)
        return of_x.to(x.dtype), of_gamma, of_beta, None


def _shared_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    y: Tensor = _SharedNorm.apply(x, gamma, beta, eps)  # type: ignore[no-untyped-call]
    return y


def _exact(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _wide(values: Tensor) -> Tensor:
    """(C, 1, 1) of (C,)."""
    return values[:, None, None]


def run(
    layers: Iterable[Layer],
    tensors: Callable[[Layer], Mapping[str, Tensor]],
    x: Tensor,
    eps: float,
    statistics: dict[str, tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """The output of the last of ``layers`` for images ``x`` (N, 3, H, W).

    tensors: gives the tensors of a layer: ``weight, gamma, beta`` (normalized by the batch's own
    statistics) or ``weight, bias`` (batch norm already folded in).
    statistics: where given, each layer's batch (mean, biased variance) is added to it. Without,
    and where several processes train, the batch is that of all of them.
    """
    outputs: dict[str, Tensor] = {INPUT: x}
    last_use = {name: layer.name for layer in layers for name in layer.inputs}
    for layer in layers:
        inputs = [outputs[name] for name in layer.inputs]
        match layer.op:
            case "add":
                y = inputs[0] + inputs[1]
            case "mean":
                y = inputs[0].mean((2, 3))
            case "squeeze":
                y = inputs[0].mean((2, 3), keepdim=True)
            case "scale":
                y = inputs[0] * inputs[1]
            case "linear":
                own = tensors(layer)
                y = F.linear(inputs[0], own["weight"], own.get("bias"))
            case _:
                own = tensors(layer)
                groups = layer.out_shape[2] if layer.op == "depthwise" else 1
                y = convolve(
                    inputs[0], own["weight"], layer.stride, layer.pads, groups, own.get("bias")
                )
                if "gamma" in own:
                    if statistics is not None:
                        variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
                        statistics[layer.name] = (mean, variance)
                    if statistics is None and ranks.count() > 1:
                        y = _shared_norm(y, own["gamma"], own["beta"], eps)
                    else:
                        y = F.batch_norm(y, None, None, own["gamma"], own["beta"], True, 0.0, eps)
        y = _ACTIVATIONS[layer.activation](y)
        outputs[layer.name] = y
        for name in set(layer.inputs):
            if last_use[name] == layer.name:
                del outputs[name]
    return outputs[layer.name]
