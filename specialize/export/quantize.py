"""Full integer networks: int8 activations and weights, int32 biases.

The scheme is TFLite's ("8-bit quantization specification"; Jacob et al. 2018): weights symmetric,
one scale an output channel; activations one scale and zero point a tensor; a bias in units of input
scale times weight scale. Ranges are those of least squared error, and biases are corrected for what
quantization shifts their outputs by on average (Nagel et al. 2019, sec. 4.2).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ofa.errors import UserError
from ofa.layers import INPUT, Layer
from ofa.weights import Array, Weights
from specialize.export import IMAGE
from specialize.export.onnx import IR_VERSION, OPSET, linear_nodes

__all__ = [
    "REPRESENTATIVE_IMAGES",
    "Quantized",
    "QuantizedWeights",
    "Scale",
    "check_quantizable",
    "qdq_model",
    "quantize",
]

#: More than tens gained nothing where it was measured.
REPRESENTATIVE_IMAGES = 32

_SHRINKS = np.linspace(1.0, 0.3, 29)  # of a range, to find the one of least squared error
_BINS, _SAMPLE = 2048, 2**20


@dataclass(frozen=True, slots=True)
class Scale:
    """A tensor's numbers: real = scale * (integer - zero), the integer in [-128, 127]."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Scale:
        """For a range, widened to hold 0, which is then exact: padding writes it."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32(max(high - low, 1e-6) / 255))
        return cls(scale, int(np.clip(round(-128 - low / scale), -128, 127)))

    def integers(self, values: Array) -> NDArray[np.int8]:
        """The nearest integers of real values."""
        steps = np.rint(values * np.float32(1 / self.scale)) + self.zero
        return np.asarray(np.clip(steps, -128, 127), np.int8)

    def rounded(self, values: Array) -> Array:
        """The values that the integers stand for."""
        steps = np.rint(values * np.float32(1 / self.scale))
        np.clip(steps, -128 - self.zero, 127 - self.zero, out=steps)
        return np.asarray(steps * np.float32(self.scale), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeights:
    """weight: int8, shaped as the folded one. bias: int32 (out,). scale: (out,), of the weight."""

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    scale: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """The integers of a network. tensors: of the input and of each layer's output, by name."""

    tensors: dict[str, Scale]
    weights: dict[str, QuantizedWeights]


def check_quantizable(layers: Sequence[Layer]) -> None:
    """Raise UserError where a network has what integers are not written for."""
    others = {layer.activation for layer in layers} | {layer.op for layer in layers}
    others &= {"relu", "hswish", "hsigmoid", "squeeze", "scale"}
    if others:
        raise UserError(
            f"int8 files are of relu6 networks, and this one has {', '.join(sorted(others))}",
            "--precision",
            "take a supernet of the space lite or mcu, or float32 where the device runs it",
        )


def quantize(layers: Sequence[Layer], folded: Weights, images: Array) -> Quantized:
    """Integers for a network, from representative images (N, 3, H, W), normalized.

    The network is run layer by layer in float and, beside it, as the integers will do; each range
    is chosen, and each bias corrected, where the first is reached. Tens of images are enough.
    Raises UserError for images of another size, and for a network that is not of relu6 alone.
    """
    check_quantizable(layers)
    height, width, channels = layers[0].in_shape
    if images.shape[1:] != (channels, height, width):
        raise UserError(
            f"representative images of {images.shape[1:]}, the network takes "
            f"{(channels, height, width)}",
            fix="resize them as the preprocessing says",
        )
    last = {source: i for i, layer in enumerate(layers) for source in layer.inputs}
    tensors = {INPUT: _best_scale(images)}
    exact, rounded = {INPUT: images}, {INPUT: tensors[INPUT].rounded(images)}
    weights: dict[str, QuantizedWeights] = {}
    for i, layer in enumerate(layers):
        step = _Step(layer)
        own = folded.get(layer.name, {})
        wanted = step([exact[source] for source in layer.inputs], own)
        given = [rounded[source] for source in layer.inputs]
        if own:
            size_in = tensors[layer.inputs[0]].scale
            scale = _weight_scale(own["weight"], own["bias"], size_in)
            per_channel = scale.reshape(-1, *[1] * (own["weight"].ndim - 1))
            integers = np.clip(np.rint(own["weight"] / per_channel), -127, 127)
            coarse = {"weight": (integers * per_channel).astype(np.float32), "bias": own["bias"]}
            found = step(given, coarse)
            axes = (0, *range(2, found.ndim))
            shift = found.mean(axes, dtype=np.float64) - wanted.mean(axes, dtype=np.float64)
            units = scale.astype(np.float64) * size_in
            bias = np.rint((own["bias"] - shift) / units)
            moved = (bias * units - own["bias"]).astype(np.float32)
            found += moved.reshape(-1, *[1] * (found.ndim - 2))
            weights[layer.name] = QuantizedWeights(
                integers.astype(np.int8), bias.astype(np.int32), scale
            )
        else:
            found = step(given, own)
        if layer.activation == "relu6":
            for values in (wanted, found):
                np.clip(values, 0, 6, out=values)
        tensors[layer.name] = _best_scale(wanted)
        exact[layer.name], rounded[layer.name] = wanted, tensors[layer.name].rounded(found)
        for source in [source for source in layer.inputs if last[source] == i]:
            exact.pop(source, None)
            rounded.pop(source, None)
    return Quantized(tensors, weights)


def _best_scale(values: Array) -> Scale:
    """Of ranges between the values' own and a third of it, that of least squared error."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 1e-6)
    sample = values.ravel()[:: max(1, values.size // _SAMPLE)]
    counts, edges = np.histogram(sample, _BINS, (low, high))
    middles = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    scales = [Scale.of(low * shrink, high * shrink) for shrink in _SHRINKS]
    errors = [counts @ (scale.rounded(middles) - middles) ** 2 for scale in scales]
    return scales[int(np.argmin(errors))]


def _weight_scale(weight: Array, bias: Array, size_in: float) -> NDArray[np.float32]:
    """(out,): the largest weight is 127, and a bias fits 32 bits though all weights are 0."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
    least = np.maximum(np.abs(bias) / (size_in * 2**30), 1e-12)
    return np.asarray(np.maximum(largest, least), np.float32)


class _Step:
    """One layer without its activation, in ONNX Runtime; weights are given at each call."""

    def __init__(self, layer: Layer) -> None:
        parts = ["weight", "bias"] if layer.op in ("conv", "depthwise", "linear") else []
        self.inputs = [f"x{i}" for i in range(len(layer.inputs))] + parts
        given = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.inputs
        ]
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        model = helper.make_model(
            helper.make_graph(linear_nodes(layer, self.inputs, "y"), "step", given, [y]),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, x: Sequence[Array], own: dict[str, Array]) -> Array:
        given = [*x, *(own[name] for name in self.inputs[len(x) :])]
        y: Array = self.session.run(None, dict(zip(self.inputs, given, strict=True)))[0]
        return y


def qdq_model(model: bytes, images: Array) -> bytes:
    """The ONNX file of a float network with its activations as uint8 and its weights as int8.

    By ONNX Runtime's own quantizer, in QuantizeLinear and DequantizeLinear nodes; unsigned
    activations are the faster ones on x86. Weights are of 7 bits: processors with AVX2 and no VNNI
    add two products in 16 bits, which 8 bits overflow there. Input and output stay float.
    images: (N, 3, H, W), normalized.
    """
    from onnxruntime import quantization as q  # heavy

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self.left, None)
            return None if image is None else {IMAGE: image[None]}

    logging.getLogger().addFilter(_no_advice)
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "quantized.onnx"
            q.quantize_static(
                onnx.load_from_string(model), target, Reader(),
                quant_format=q.QuantFormat.QDQ, per_channel=True, reduce_range=True,
                activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
            )  # fmt: skip
            quantized = onnx.load(target)
    finally:
        logging.getLogger().removeFilter(_no_advice)
    about = onnx.load_from_string(model).metadata_props
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(about)
    data: bytes = quantized.SerializeToString(deterministic=True)
    return data


def _no_advice(record: logging.LogRecord) -> bool:
    """The quantizer recommends a step that fuses what is fused here already."""
    return "pre-processing" not in record.getMessage()
