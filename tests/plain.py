"""A training step in torch's stock layers, written without thought of a processor.

What ``ofa.train`` does has to have these gradients, and is measured against this speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa.layers import INPUT, lower
from ofa.recipe import Recipe
from ofa.space import Space
from ofa.train import View
from ofa.weights import Array, cut

__all__ = ["parameters", "plain_forward", "plain_outputs", "plain_step"]

_ACTIVATIONS = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hswish": F.hardswish,
    "hsigmoid": F.hardsigmoid,
}


def parameters(
    tensors: Mapping[str, Array], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Shared weights in torch's usual layout."""
    return {
        name: torch.from_numpy(value).to(dtype, copy=True).requires_grad_()
        for name, value in tensors.items()
    }


def plain_forward(space: Space, view: View, shared: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """(N, classes) logits for normalized images x (N, 3, H, W)."""
    return plain_outputs(space, view, shared, x)[1]


def plain_outputs(
    space: Space, view: View, shared: Mapping[str, Tensor], x: Tensor
) -> tuple[Tensor, Tensor]:
    """(N, features) that the classifier reads, and its logits."""
    outputs = {INPUT: x}
    for layer in lower(space, view.arch):
        first, *others = (outputs[name] for name in layer.inputs)
        if layer.op == "add":
            y = first + others[0]
        elif layer.op == "scale":
            y = first * others[0]
        elif layer.op == "mean":
            y = first.mean((2, 3))
        elif layer.op == "squeeze":
            y = first.mean((2, 3), keepdim=True)
        else:
            own = {part: value.contiguous() for part, value in cut(layer, shared).items()}
            if layer.op == "linear":
                y = F.linear(first, own["weight"], own.get("bias"))
            else:
                before, after = pads = layer.pads
                if before != after:
                    first, pads = F.pad(first, (before, after, before, after)), (0, 0)
                groups = first.shape[1] if layer.op == "depthwise" else 1
                y = F.conv2d(
                    first, own["weight"], own.get("bias"), layer.stride, pads[0], 1, groups
                )
            if "gamma" in own:
                gamma, beta = own["gamma"], own["beta"]
                y = F.batch_norm(y, None, None, gamma, beta, True, 0.0, space.bn_eps)
        outputs[layer.name] = _ACTIVATIONS[layer.activation](y)
    return first, outputs[layer.name]


def plain_step(
    space: Space,
    recipe: Recipe,
    shared: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    views: Sequence[View],
    images: Mapping[int, Tensor],
    labels: Tensor,
) -> float:
    """In-place distillation, one whole forward and backward a subnet; the mean of their losses.

    images: resolution -> (N, 3, H, W). views: the largest subnet first.
    """
    optimizer.zero_grad()
    total = 0.0
    for view in views:
        logits = plain_forward(space, view, shared, images[view.arch.resolution])
        if view.role == "largest":
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.smoothing)
            soft = logits.detach().softmax(1)
        else:
            loss = F.cross_entropy(logits, soft)
        loss.backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(list(shared.values()), recipe.clip)
    optimizer.step()
    return total / len(views)
