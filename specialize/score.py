"""Cut, recalibrate and score subnets on real images; torch is not needed.

Extraction is slicing; recalibrating batch norms and scoring are forward passes, of float networks
in ONNX Runtime, of int8 ones in LiteRT. ``ofa.evaluate`` does the former in torch, and the tests
hold the two equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from devices.backends.litert import Litert
from ofa.checkpoint import Checkpoint
from ofa.errors import UserError
from ofa.images import Images, Pixels
from ofa.layers import INPUT, Layer, lower
from ofa.space import Arch
from ofa.weights import (
    RECALIBRATION_BATCH,
    Array,
    Statistics,
    Weights,
    extract,
    fold,
    recalibration_images,
)
from specialize.export.onnx import (
    SIX,
    ZERO,
    activation_node,
    conv_node,
    linear_nodes,
    onnx_model,
)
from specialize.export.quantize import REPRESENTATIVE_IMAGES, Quantized, quantize
from specialize.export.tflite import tflite_model

__all__ = ["Cut", "Int8Scorer", "Scorer", "statistics_model"]

_FEWEST_REPRESENTATIVE = 10
_KEPT = 4  # sets of resized images: to recalibrate and to score with, at two resolutions


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A subnet on its own: layers, and weights with recalibrated batch norms folded in.

    quantized: its integers, where it is an int8 one.
    """

    arch: Arch
    layers: tuple[Layer, ...]
    folded: Weights
    quantized: Quantized | None = None


class Scorer:
    """Cuts subnets out of a checkpoint and scores them.

    Images are scored by ``threads`` sessions of one thread each, which waste less than all threads
    in one session, where they wait for each other. A pass for statistics is one session, since it
    takes hundreds of MB at high resolutions.
    Resized images are kept for two resolutions: ask for one after the other.
    """

    def __init__(self, checkpoint: Checkpoint, recalibration: Images, threads: int) -> None:
        self.checkpoint, self.threads = checkpoint, threads
        few = min(recalibration_images(checkpoint.space), len(recalibration))
        self.recalibration = recalibration.interleaved().take(range(few))
        #: Images, resolution -> (N, r, r, 3), kept for the next time.
        self.pixels_of = lru_cache(_KEPT)(Images.pixels)

    def of(self, checkpoint: Checkpoint) -> Self:
        """The same of other weights; recalibration images and resized ones are shared."""
        other = copy(self)
        other.checkpoint = checkpoint
        return other

    def cut(self, arch: Arch) -> Cut:
        """The subnet, recalibrated."""
        space = self.checkpoint.space
        layers = lower(space, arch)
        weights = extract(layers, self.checkpoint.tensors)
        pixels = self.pixels_of(self.recalibration, arch.resolution)
        statistics = self.recalibrate(layers, weights, pixels)
        return Cut(arch, layers, fold(layers, weights, statistics, space.bn_eps))

    def score(self, archs: Iterable[Arch], images: Images) -> Iterator[tuple[Cut, float]]:
        """Each subnet in turn, and its accuracy on ``images``."""
        for arch in archs:
            cut = self.cut(arch)
            yield cut, self.accuracy(cut, images)

    def recalibrate(
        self, layers: tuple[Layer, ...], weights: Weights, pixels: Pixels
    ) -> Statistics:
        """Layer name -> (mean, variance): batch statistics of (N, r, r, 3) images, averaged."""
        model = statistics_model(layers, weights, self.checkpoint.space.bn_eps)
        session = self._session(model, self.threads)
        names = [output.name for output in session.get_outputs()]
        totals = [np.zeros(output.shape[1], np.float64) for output in session.get_outputs()]
        for start in range(0, len(pixels), RECALIBRATION_BATCH):
            x = self._normalized(pixels[start : start + RECALIBRATION_BATCH])
            for total, value in zip(totals, session.run(names, {INPUT: x}), strict=True):
                total += value.reshape(-1) * (len(x) / len(pixels))
        means = [total.astype(np.float32) for total in totals]
        normalized = [layer.name for layer in layers if layer.has_batch_norm]
        return {
            name: (means[2 * i], np.maximum(means[2 * i + 1], 0))
            for i, name in enumerate(normalized)
        }

    def logits(self, cut: Cut, images: Images) -> Array:
        """(N, classes) logits."""
        model = onnx_model(
            cut.layers, cut.folded, self.checkpoint.labels, self.checkpoint.preprocessing, "scored"
        )
        session = self._session(model)
        name = session.get_inputs()[0].name
        pixels = self.pixels_of(images, cut.arch.resolution)
        batch = max(1, 32 * 128**2 // cut.arch.resolution**2)

        def run(start: int) -> Array:
            x = self._normalized(pixels[start : start + batch])
            output: Array = session.run(None, {name: x})[0]
            return output

        with ThreadPoolExecutor(self.threads) as pool:
            return np.concatenate(list(pool.map(run, range(0, len(pixels), batch))))

    def accuracy(self, cut: Cut, images: Images) -> float:
        """Top-1 in percent."""
        return percent_right(self.logits(cut, images), images.labels)

    def _session(self, model: bytes, threads: int = 1) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A planned memory layout is larger and, at these sizes, slower than the arena alone.
        options.enable_mem_pattern = False
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _normalized(self, pixels: Pixels) -> Array:
        """(N, 3, r, r) input of (N, r, r, 3) pixels."""
        x = self.checkpoint.preprocessing.normalize(pixels)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


class Int8Scorer(Scorer):
    """The same of int8 networks: scored as the file that will be handed over, in LiteRT.

    Raises UserError where the images are too few to choose the integers' ranges by.
    """

    def __init__(self, checkpoint: Checkpoint, recalibration: Images, threads: int) -> None:
        super().__init__(checkpoint, recalibration, threads)
        if len(recalibration) < _FEWEST_REPRESENTATIVE:
            raise UserError(
                f"only {len(recalibration)} images to choose int8 ranges by",
                "--images",
                f"at least {_FEWEST_REPRESENTATIVE} are needed, beside as many to choose with",
            )

    def cut(self, arch: Arch) -> Cut:
        """The subnet, recalibrated and quantized."""
        cut = super().cut(arch)
        integers = quantize(cut.layers, cut.folded, self.representative(arch))
        return replace(cut, quantized=integers)

    def representative(self, arch: Arch) -> Array:
        """(N, 3, r, r) normalized images to choose ranges by."""
        pixels = self.pixels_of(self.recalibration, arch.resolution)
        return self._normalized(pixels[:REPRESENTATIVE_IMAGES])

    def logits(self, cut: Cut, images: Images) -> Array:
        """(N, classes) logits."""
        c = self.checkpoint
        model = tflite_model(
            cut.layers, cut.folded, c.labels, c.preprocessing, "scored", cut.quantized
        )
        parts = np.array_split(self.pixels_of(images, cut.arch.resolution), self.threads)

        def run(pixels: Pixels) -> Array:
            return Litert().run(model, c.preprocessing.normalize(pixels))

        with ThreadPoolExecutor(self.threads) as pool:
            return np.concatenate(list(pool.map(run, [part for part in parts if len(part)])))

    def float_logits(self, cut: Cut, images: Images) -> Array:
        """(N, classes) logits of the network before quantization."""
        return super().logits(cut, images)


def percent_right(logits: Array, labels: NDArray[np.int64]) -> float:
    """Top-1 in percent of (N, classes) logits."""
    return float(100 * (logits.argmax(1) == labels).mean())


def statistics_model(layers: tuple[Layer, ...], weights: Weights, eps: float) -> bytes:
    """An ONNX graph that normalizes by batch statistics and returns them.

    Training-mode batch norm in plain operators: mean and E[y^2] - mean^2 through two global
    pools (the fastest form measured), then one multiply and one add. Of a 1x1 convolution y = W x
    that widens, both come from its smaller input: W E[x], and the diagonal of W E[x x'] W'; then
    the norm is folded into W. Outputs: for each layer with a batch norm its mean and its biased
    variance, (1, C, 1, 1), in order.
    """
    nodes, constants, outputs = [], [], []

    def constant(name: str, value: object, kind: type = np.float32) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    if any(layer.activation == "relu6" for layer in layers):
        constants += [ZERO, SIX]
    epsilon = constant("epsilon", eps)
    flat, row = constant("flat", [0, 0, -1], np.int64), constant("row", [1, -1, 1, 1], np.int64)
    column, list_ = constant("column", [-1, 1, 1, 1], np.int64), constant("list", [-1], np.int64)
    last_axis = constant("last_axis", [1], np.int64)
    for layer in layers:
        if layer.op == "mean":
            break  # everything after the last batch norm
        name, x = layer.name, layer.inputs[0]
        active = layer.activation != "none"
        result = f"{name}.normalized" if active else name
        if not layer.has_batch_norm:
            own = weights.get(name, {})
            parts = [constant(f"{name}.{part}", np.ascontiguousarray(own[part])) for part in own]
            nodes += linear_nodes(layer, [*layer.inputs, *parts], result)
            if active:
                nodes.append(activation_node(layer.activation, result, name))
            continue
        own, channels = weights[name], (1, -1, 1, 1)
        weight = constant(f"{name}.weight", np.ascontiguousarray(own["weight"]))
        widens = layer.op == "conv" and layer.kernel == 1 and layer.out_shape[2] > layer.in_shape[2]
        y = f"{name}.y"
        if widens:
            pooled = node("GlobalAveragePool", [x], f"{name}.pooled")
            mean_in = node("ReduceMean", [pooled], f"{name}.mean_in", axes=[0], keepdims=1)
            mean = node("Conv", [mean_in, weight], f"{name}.mean")
            pixels = node("Reshape", [x, flat], f"{name}.pixels")
            turned = node("Transpose", [pixels], f"{name}.turned", perm=[0, 2, 1])
            products = node("MatMul", [pixels, turned], f"{name}.products")
            sums = node("ReduceMean", [products], f"{name}.sums", axes=[0], keepdims=0)
            matrix = own["weight"][:, :, 0, 0]
            scaled = constant(f"{name}.scaled", matrix / (layer.in_shape[0] * layer.in_shape[1]))
            half = node("MatMul", [scaled, sums], f"{name}.half")
            both = node("Mul", [half, constant(f"{name}.matrix", matrix)], f"{name}.both")
            moment = node("ReduceSum", [both, last_axis], f"{name}.moment", keepdims=0)
            second = node("Reshape", [moment, row], f"{name}.second_moment")
        else:
            nodes.append(conv_node(layer, [x, weight], y))
            pooled = node("GlobalAveragePool", [y], f"{name}.pooled")
            mean = node("ReduceMean", [pooled], f"{name}.mean", axes=[0], keepdims=1)
            square = node("Mul", [y, y], f"{name}.square")
            pooled = node("GlobalAveragePool", [square], f"{name}.pooled_square")
            second = node("ReduceMean", [pooled], f"{name}.second_moment", axes=[0], keepdims=1)
        mean_square = node("Mul", [mean, mean], f"{name}.mean_square")
        variance = node("Sub", [second, mean_square], f"{name}.variance")
        safe = node("Add", [variance, epsilon], f"{name}.safe_variance")
        deviation = node("Sqrt", [safe], f"{name}.deviation")
        gamma = constant(f"{name}.gamma", own["gamma"].reshape(channels))
        scale = node("Div", [gamma, deviation], f"{name}.scale")
        shifted = node("Mul", [mean, scale], f"{name}.mean_scaled")
        beta = constant(f"{name}.beta", own["beta"].reshape(channels))
        shift = node("Sub", [beta, shifted], f"{name}.shift")
        if widens:
            factors = node("Reshape", [scale, column], f"{name}.factors")
            folded = node("Mul", [weight, factors], f"{name}.folded")
            bias = node("Reshape", [shift, list_], f"{name}.bias")
            nodes.append(conv_node(layer, [x, folded, bias], result))
        else:
            normalized = node("Mul", [y, scale], f"{name}.scaled_output")
            node("Add", [normalized, shift], result)
        if active:
            nodes.append(activation_node(layer.activation, result, name))
        for output in (mean, variance):
            shape = [1, layer.out_shape[2], 1, 1]
            outputs.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
    side = layers[0].in_shape[0]
    image = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, side, side])
    graph = helper.make_graph(nodes, "statistics", [image], outputs, constants)
    opset = [helper.make_opsetid("", 17)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return model
