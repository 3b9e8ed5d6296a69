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
from ofa.layers import Layer
from ofa.space import Activation

__all__ = ["convolve", "run"]


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hswish": F.hardswish,
    "hsigmoid": F.hardsigmoid,
}
#: Of a depthwise kernel, that oneDNN's own backward of its weights takes.
_COLUMNS = 3


def convolve(
    x: Tensor,
    weight: Tensor,
    stride: int,
    pads: tuple[int, int],
    groups: int,
    bias: Tensor | None,
) -> Tensor:
    """Convolution with (before, after) pixels of padding on either axis. x: (N, C, H, W).

    For stride 2 and an even side SAME pads one pixel more after than before. Instead of many
    channels of an activation a depthwise kernel is padded, by a zero row on top and a zero column
    at the left: the same output with even padding. Of a dense kernel's input, the image, it is
    faster to pad the three channels.
    """
    before, after = pads
    if groups > 1 and torch.is_autocast_enabled("cpu"):
        # oneDNN's depthwise kernels for bfloat16 are so slow that steps would take twice as long.
        with torch.autocast("cpu", enabled=False):
            return convolve(x.float(), weight.float(), stride, pads, groups, bias)
    if groups > 1 and bias is None and _gains(x, weight, pads):
        y: Tensor = _Depthwise.apply(x, weight, stride, pads)  # type: ignore[no-untyped-call]
        return y
    if before != after and groups > 1:
        weight, before = F.pad(weight, (1, 0, 1, 0)), after
    elif before != after:
        x, before = F.pad(x, (before, after, before, after)), 0
    return F.conv2d(x, weight, bias, stride, before, 1, groups)


def _gains(x: Tensor, weight: Tensor, pads: tuple[int, int]) -> bool:
    """Whether oneDNN's backward would miss its depthwise kernel, and ``_Depthwise`` can help.

    It cannot where the last columns of the kernel read nothing but padding.
    """
    columns = weight.shape[3]
    return (
        (columns > _COLUMNS or pads[0] != pads[1])
        and x.shape[3] + pads[0] >= columns - 2
        and x.device.type == "cpu"
    )


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution, the weights' gradient of which is computed some columns at a time.

    oneDNN's backward of depthwise weights takes three columns and no uneven padding; wider kernels
    go to one for ordinary convolutions, which multiplies eight channels by eight.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, pads: tuple[int, int]) -> Tensor:
        """x: (N, C, H, W). weight: (C, 1, k, k). See ``convolve``."""
        before, after = pads
        ctx.stride, ctx.pads = stride, pads
        zeros = after - before
        padded = F.pad(weight, (zeros, 0, zeros, 0)) if zeros else weight
        ctx.save_for_backward(x, weight, padded)
        return F.conv2d(x, padded, None, stride, after, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of x and weight."""
        x, weight, padded = ctx.saved_tensors
        (before, after), stride, (grad,) = ctx.pads, ctx.stride, grads

        def of(x: Tensor, weight: Tensor, pad: int, which: int) -> Tensor:
            mask = [which == 0, which == 1, False]
            found = torch.ops.aten.convolution_backward(
                grad, x, weight, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0],
                len(weight), mask,
            )[which]  # fmt: skip
            assert isinstance(found, Tensor)
            return found

        below = stride * (grad.shape[2] - 1) + weight.shape[2] - x.shape[2] - before
        parts, first = [], 0
        for part in weight.tensor_split(-(-weight.shape[3] // _COLUMNS), 3):
            # Moved so that these columns need no padding in the convolution.
            left, columns = before - first, part.shape[3]
            right = stride * (grad.shape[3] - 1) + columns - x.shape[3] - left
            parts.append(of(F.pad(x, (left, right, before, below)), part, 0, 1))
            first += columns
        return of(x, padded, after, 0), torch.cat(parts, 3), None, None


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
    """The output of the last of ``layers`` for ``x`` (N, C, H, W), which the first of them reads.

    tensors: gives the tensors of a layer: ``weight, gamma, beta`` (normalized by the batch's own
    statistics) or ``weight, bias`` (batch norm already folded in).
    statistics: where given, each layer's batch (mean, biased variance) is added to it. Without,
    and where several processes train, the batch is that of all of them.
    """
    layers = tuple(layers)
    outputs: dict[str, Tensor] = {layers[0].inputs[0]: x}
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
