"""``lower(space, arch)``: the one list of layers that everything else reads.

MACs, latency features, the torch network, ONNX and TFLite are all made from it; no second
description of a network exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ofa.space import Activation, Arch, Padding, Space

__all__ = ["INPUT", "Layer", "divisible", "lower", "macs", "parameters", "same_padding"]

#: The name by which layers refer to the image.
INPUT = "input"

Op = Literal["conv", "depthwise", "add", "mean", "linear", "squeeze", "scale"]
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator, with batch norm and activation counted to the convolution before them.

    name: unique in the network, and the prefix of its tensors in the supernet.
    inputs: names of the layers that it reads (``input`` is the image).
    in_shape, out_shape: (H, W, C). A ``linear`` layer has H = W = 1. ``squeeze`` is a mean over the
    map that stays one, of a pixel; ``scale`` multiplies a map (its first input) by such a pixel.
    padding: see ``Space``. norm: a batch norm follows; else there is a bias if ``bias`` says so.
    block: (stage, index) of the block that it belongs to; None for stem, head and classifier.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    in_shape: Shape
    out_shape: Shape
    kernel: int = 1
    stride: int = 1
    activation: Activation = "none"
    block: tuple[int, int] | None = None
    padding: Padding = "same"
    norm: bool = True
    bias: bool = True

    @property
    def pads(self) -> tuple[int, int]:
        """(before, after) pixels of padding on either axis."""
        if self.padding == "same":
            return same_padding(self.in_shape[0], self.kernel, self.stride)
        return self.kernel // 2, self.kernel // 2

    @property
    def is_same(self) -> bool:
        """Whether that is TensorFlow's SAME padding, which every runtime fuses."""
        return self.pads == same_padding(self.in_shape[0], self.kernel, self.stride)

    @property
    def has_batch_norm(self) -> bool:
        """A convolution has one, but for those of a squeeze-and-excitation."""
        return self.op in ("conv", "depthwise") and self.norm

    @property
    def has_weights(self) -> bool:
        """Whether anything is learned in it."""
        return self.op in ("conv", "depthwise", "linear")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image, of convolutions and matrix products only."""
        height, width, channels = self.out_shape
        match self.op:
            case "conv":
                return height * width * channels * self.in_shape[2] * self.kernel**2
            case "depthwise":
                return height * width * channels * self.kernel**2
            case "linear":
                return self.in_shape[2] * channels
            case _:
                return 0

    @property
    def parameters(self) -> int:
        """Weights and biases with the batch norm folded in."""
        channels = self.out_shape[2]
        match self.op:
            case "conv":
                return channels * (self.in_shape[2] * self.kernel**2 + 1)
            case "depthwise":
                return channels * (self.kernel**2 + 1)
            case "linear":
                return channels * (self.in_shape[2] + self.bias)
            case _:
                return 0


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """(before, after) of TensorFlow's SAME padding on a side of ``size`` pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@lru_cache(maxsize=512)  # every table of a space goes through the same architectures
def lower(space: Space, arch: Arch) -> tuple[Layer, ...]:
    """The layers of ``arch``, in order of execution; the last one is the classifier.

    Raises UserError if ``arch`` is not in ``space``.
    """
    space.check(arch)
    layers: list[Layer] = []
    shape: Shape = (arch.resolution, arch.resolution, 3)

    def emit(
        name: str,
        op: Op,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        activation: Activation = "none",
        block: tuple[int, int] | None = None,
        shortcut: Layer | None = None,
        norm: bool = True,
        bias: bool = True,
    ) -> None:
        nonlocal shape
        previous = layers[-1].name if layers else INPUT
        if shortcut is not None:
            shape = shortcut.out_shape
        out = (-(-shape[0] // stride), -(-shape[1] // stride), channels)
        if op in ("mean", "linear", "squeeze"):
            out = (1, 1, channels)
        layers.append(
            Layer(
                name=name,
                op=op,
                inputs=(previous,) if shortcut is None else (shortcut.name, previous),
                in_shape=shape,
                out_shape=out,
                kernel=kernel,
                stride=stride,
                activation=activation,
                block=block,
                padding=space.padding,
                norm=norm,
                bias=bias,
            )
        )
        shape = out

    emit("stem", "conv", space.stem, kernel=3, stride=2, activation=space.activation)
    for s, (stage, blocks) in enumerate(zip(space.stages, arch.stages, strict=True)):
        for b, block in enumerate(blocks):
            at, prefix, start, act = (s, b), f"s{s}.b{b}", layers[-1], stage.activation
            stride, width = (stage.stride if b == 0 else 1), shape[2]
            middle = width if block.expand == 1 else divisible(width * block.expand)
            if block.expand != 1:
                emit(f"{prefix}.expand", "conv", middle, activation=act, block=at)
            emit(
                f"{prefix}.depthwise", "depthwise", middle, block.kernel, stride,
                activation=act, block=at,
            )  # fmt: skip
            if stage.squeeze:
                inside, few = layers[-1], divisible(middle // 4)
                emit(f"{prefix}.squeeze", "squeeze", middle, block=at)
                emit(f"{prefix}.reduce", "conv", few, activation="relu", block=at, norm=False)
                emit(
                    f"{prefix}.excite", "conv", middle,
                    activation="hsigmoid", block=at, norm=False,
                )  # fmt: skip
                emit(f"{prefix}.scale", "scale", middle, block=at, shortcut=inside)
            emit(f"{prefix}.project", "conv", stage.width, block=at)
            if stride == 1 and width == stage.width:
                emit(f"{prefix}.add", "add", stage.width, block=at, shortcut=start)
    if space.head:
        emit("head", "conv", space.head, activation=space.activation)
    emit("pool", "mean", shape[2])
    if space.mix:
        emit("mix", "linear", space.mix, activation=space.activation, bias=False)
    emit("classifier", "linear", space.classes)
    return tuple(layers)


def divisible(target: int) -> int:
    """A number of channels, rounded to a multiple of 8.

    Rounded down by at most a tenth (``make_divisible`` of the MobileNets).
    """
    rounded = max(8, int(target + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * target else rounded + 8


def macs(layers: Iterable[Layer]) -> int:
    """Multiply-accumulates of one image."""
    return sum(layer.macs for layer in layers)


def parameters(layers: Iterable[Layer]) -> int:
    """Parameters with batch norms folded."""
    return sum(layer.parameters for layer in layers)
