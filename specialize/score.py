"""Cut, recalibrate and score subnets on real images; torch is not needed.

Extraction is slicing; recalibrating batch norms and scoring are forward passes, of float networks
in ONNX Runtime, of int8 ones in LiteRT. ``ofa.evaluate`` does the former in torch, and the tests
hold the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, Self, TypeVar

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
from specialize.merge import merged

__all__ = ["Cut", "Int8Scorer", "Scorer", "statistics_model"]

_FEWEST_REPRESENTATIVE = 10
#: Subnets in one graph. Folded weights are each one's own, those of a pass for statistics shared.
_CUT_TOGETHER, _SCORED_TOGETHER = 10, 5
_KEPT = 4  # sets of resized images: to recalibrate and to score with, at two resolutions


_Item = TypeVar("_Item")


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

    Images are scored by ``threads`` runs at once of a session of one thread, which waste less than
    one run of all threads, where they wait for each other. A pass for statistics is one run at a
    time, since it takes hundreds of MB at high resolutions.
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
        return self.cuts([arch])[0]

    def cuts(self, archs: Sequence[Arch]) -> list[Cut]:
        """Subnets of one resolution, recalibrated together."""
        space = self.checkpoint.space
        pixels = self.pixels_of(self.recalibration, archs[0].resolution)
        lowered = [lower(space, arch) for arch in archs]
        weights = [extract(layers, self.checkpoint.tensors) for layers in lowered]
        statistics = self.recalibrate(lowered, weights, pixels)
        return [
            Cut(arch, layers, fold(layers, own, found, space.bn_eps))
            for arch, layers, own, found in zip(archs, lowered, weights, statistics, strict=True)
        ]

    def score(self, archs: Iterable[Arch], images: Images) -> Iterator[tuple[Cut, float]]:
        """Each subnet in turn, and its accuracy on ``images``."""
        for alike in _together(archs, lambda arch: arch.resolution, _CUT_TOGETHER):
            cuts = self.cuts(alike)
            yield from zip(cuts, self.accuracies(cuts, images), strict=True)

    def recalibrate(
        self,
        networks: Sequence[tuple[Layer, ...]],
        weights: Sequence[Weights],
        pixels: Pixels,
    ) -> list[Statistics]:
        """Of each network, layer name -> (mean, variance) of (N, r, r, 3) images.

        Statistics of batches, averaged.
        """
        eps = self.checkpoint.space.bn_eps
        model, wanted = merged(
            statistics_model(*network, eps) for network in zip(networks, weights, strict=True)
        )
        session = self._session(model, self.threads)
        names = [output.name for output in session.get_outputs()]
        totals = {output.name: np.zeros(output.shape) for output in session.get_outputs()}
        for start in range(0, len(pixels), RECALIBRATION_BATCH):
            x = self._normalized(pixels[start : start + RECALIBRATION_BATCH])
            for name, value in zip(names, session.run(names, {INPUT: x}), strict=True):
                totals[name] += value * (len(x) / len(pixels))
        found = {name: total.astype(np.float32) for name, total in totals.items()}

        def statistics(layers: tuple[Layer, ...], own: list[str]) -> Statistics:
            normalized = [layer.name for layer in layers if layer.has_batch_norm]
            return {
                name: (found[mean], np.maximum(found[variance], 0))
                for name, mean, variance in zip(normalized, own[::2], own[1::2], strict=True)
            }

        return [statistics(*network) for network in zip(networks, wanted, strict=True)]

    def logits(self, cut: Cut, images: Images) -> Array:
        """(N, classes) logits."""
        return self.all_logits([cut], images)[0]

    def all_logits(self, cuts: Sequence[Cut], images: Images) -> list[Array]:
        """(N, classes) logits of each of some subnets of one resolution."""
        c, resolution = self.checkpoint, cuts[0].arch.resolution
        model, wanted = merged(
            onnx_model(cut.layers, cut.folded, c.labels, c.preprocessing, "") for cut in cuts
        )
        session = self._session(model)
        name = session.get_inputs()[0].name
        pixels = self.pixels_of(images, resolution)
        batch = max(1, 16 * 128**2 // resolution**2)

        def run(start: int) -> list[Array]:
            x = self._normalized(pixels[start : start + batch])
            output: list[Array] = session.run([one for (one,) in wanted], {name: x})
            return output

        with ThreadPoolExecutor(self.threads) as pool:
            parts = list(pool.map(run, range(0, len(pixels), batch)))
        return [np.concatenate(own) for own in zip(*parts, strict=True)]

    def accuracies(self, cuts: Iterable[Cut], images: Images) -> list[float]:
        """Top-1 in percent of each; those of one resolution one after the other are faster."""
        return [
            percent_right(logits, images.labels)
            for alike in _together(cuts, lambda cut: cut.arch.resolution, _SCORED_TOGETHER)
            for logits in self.all_logits(alike, images)
        ]

    def accuracy(self, cut: Cut, images: Images) -> float:
        """Top-1 in percent."""
        return self.accuracies([cut], images)[0]

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

    def cuts(self, archs: Sequence[Arch]) -> list[Cut]:
        """Subnets of one resolution, recalibrated together and quantized."""
        images = self.representative(archs[0])
        return [
            replace(cut, quantized=quantize(cut.layers, cut.folded, images))
            for cut in super().cuts(archs)
        ]

    def representative(self, arch: Arch) -> Array:
        """(N, 3, r, r) normalized images to choose ranges by."""
        pixels = self.pixels_of(self.recalibration, arch.resolution)
        return self._normalized(pixels[:REPRESENTATIVE_IMAGES])

    def all_logits(self, cuts: Sequence[Cut], images: Images) -> list[Array]:
        """(N, classes) logits of each."""
        return [self._int8_logits(cut, images) for cut in cuts]

    def float_logits(self, cut: Cut, images: Images) -> Array:
        """(N, classes) logits of the network before quantization."""
        return super().all_logits([cut], images)[0]

    def _int8_logits(self, cut: Cut, images: Images) -> Array:
        c = self.checkpoint
        model = tflite_model(
            cut.layers, cut.folded, c.labels, c.preprocessing, "scored", cut.quantized
        )
        parts = np.array_split(self.pixels_of(images, cut.arch.resolution), self.threads)

        def run(pixels: Pixels) -> Array:
            return Litert().run(model, c.preprocessing.normalize(pixels))

        with ThreadPoolExecutor(self.threads) as pool:
            return np.concatenate(list(pool.map(run, [part for part in parts if len(part)])))


def _together(
    items: Iterable[_Item], resolution: Callable[[_Item], int], most: int
) -> Iterator[list[_Item]]:
    """Neighbours of one resolution, at most so many."""
    for _, group in groupby(items, resolution):
        while few := list(islice(group, most)):
            yield few


def percent_right(logits: Array, labels: NDArray[np.int64]) -> float:
    """Top-1 in percent of (N, classes) logits."""
    return float(100 * (logits.argmax(1) == labels).mean())


def statistics_model(layers: tuple[Layer, ...], weights: Weights, eps: float) -> bytes:
    """An ONNX graph that normalizes by batch statistics and returns them.

    Training-mode batch norm in inference's operators: mean and E[y^2] - mean^2 through two global
    pools (the fastest form measured), then BatchNormalization by them. Of a 1x1 convolution y = W x
    that widens, both come from its smaller input: W E[x], and the diagonal of W E[x x'] W'; then
    the norm is folded into W. Outputs: for each layer with a batch norm its mean and its biased
    variance, (C,), in order.
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
    epsilon, flat = constant("epsilon", eps), constant("flat", [0, 0, -1], np.int64)
    column = constant("column", [-1, 1], np.int64)
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
        own, y = weights[name], f"{name}.y"
        weight = np.ascontiguousarray(own["weight"])
        gamma, beta = (constant(f"{name}.{part}", own[part]) for part in ("gamma", "beta"))
        widens = layer.op == "conv" and layer.kernel == 1 and layer.out_shape[2] > layer.in_shape[2]
        if widens:
            matrix = constant(f"{name}.matrix", weight[:, :, 0, 0])
            pooled = node("GlobalAveragePool", [x], f"{name}.pooled")
            mean_in = node("ReduceMean", [pooled], f"{name}.mean_in", axes=[0, 2, 3], keepdims=0)
            mean = node("MatMul", [matrix, mean_in], f"{name}.mean")
            pixels = node("Reshape", [x, flat], f"{name}.pixels")
            turned = node("Transpose", [pixels], f"{name}.turned", perm=[0, 2, 1])
            products = node("MatMul", [pixels, turned], f"{name}.products")
            sums = node("ReduceMean", [products], f"{name}.sums", axes=[0], keepdims=0)
            count = constant(f"{name}.count", layer.in_shape[0] * layer.in_shape[1])
            moments = node("Div", [sums, count], f"{name}.moments")
            half = node("MatMul", [matrix, moments], f"{name}.half")
            both = node("Mul", [half, matrix], f"{name}.both")
            second = node("ReduceSum", [both, last_axis], f"{name}.second_moment", keepdims=0)
        else:
            nodes.append(conv_node(layer, [x, constant(f"{name}.weight", weight)], y))
            pooled = node("GlobalAveragePool", [y], f"{name}.pooled")
            mean = node("ReduceMean", [pooled], f"{name}.mean", axes=[0, 2, 3], keepdims=0)
            square = node("Mul", [y, y], f"{name}.square")
            pooled = node("GlobalAveragePool", [square], f"{name}.pooled_square")
            second = node(
                "ReduceMean", [pooled], f"{name}.second_moment", axes=[0, 2, 3], keepdims=0
            )
        mean_square = node("Mul", [mean, mean], f"{name}.mean_square")
        variance = node("Sub", [second, mean_square], f"{name}.variance")
        if widens:
            safe = node("Add", [variance, epsilon], f"{name}.safe_variance")
            deviation = node("Sqrt", [safe], f"{name}.deviation")
            scale = node("Div", [gamma, deviation], f"{name}.scale")
            shifted = node("Mul", [mean, scale], f"{name}.mean_scaled")
            bias = node("Sub", [beta, shifted], f"{name}.bias")
            factors = node("Reshape", [scale, column], f"{name}.factors")
            scaled = node("Mul", [matrix, factors], f"{name}.scaled")
            shape = constant(f"{name}.shape", weight.shape, np.int64)
            folded = node("Reshape", [scaled, shape], f"{name}.folded")
            nodes.append(conv_node(layer, [x, folded, bias], result))
        else:
            parts = [y, gamma, beta, mean, variance]
            node("BatchNormalization", parts, result, epsilon=eps)
        if active:
            nodes.append(activation_node(layer.activation, result, name))
        outputs += [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, [layer.out_shape[2]])
            for output in (mean, variance)
        ]
    side = layers[0].in_shape[0]
    image = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, side, side])
    graph = helper.make_graph(nodes, "statistics", [image], outputs, constants)
    opset = [helper.make_opsetid("", 17)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return model
