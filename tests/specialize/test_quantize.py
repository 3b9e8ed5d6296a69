"""Int8 networks: their numbers by definition, in real runtimes, and close to the float network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import numpy_helper

from devices.backends.litert import Litert
from devices.backends.ort import OnnxRuntime
from devices.memory import flash_table
from ofa.errors import UserError
from ofa.layers import INPUT, Layer
from ofa.preprocessing import LITE0
from ofa.space import Arch, Padding
from ofa.spaces import get_space
from ofa.weights import Array, Weights
from specialize.export.onnx import onnx_model
from specialize.export.quantize import Quantized, Scale, qdq_model, quantize
from specialize.export.tflite import tflite_model
from specialize.export.verify import ExportError, verify
from tests.networks import labels_of, network, pixels_of
from tests.strategies import TINY, archs

Network = tuple[tuple[Layer, ...], Weights]
ARCH = Arch.parse("r24 3x3e1 3x3e2,5x5e4 7x7e3,3x3e2,5x5e3")


def images(layers: tuple[Layer, ...], count: int = 16) -> Array:
    """Normalized (N, H, W, 3)."""
    return LITE0.normalize(pixels_of(layers, count))


def integers_of(layers: tuple[Layer, ...], folded: Weights) -> Quantized:
    return quantize(layers, folded, np.ascontiguousarray(images(layers).transpose(0, 3, 1, 2)))


def int8_file(layers: tuple[Layer, ...], folded: Weights, quantized: Quantized) -> bytes:
    return tflite_model(layers, folded, labels_of(layers), LITE0, "test", quantized)


def by_definition(layer: Layer, q: Quantized, inputs: list[NDArray[np.int8]]) -> Array:
    """A layer's integers by TFLite's specification, from those of its inputs, with exact sums."""
    out, scales = q.tensors[layer.name], [q.tensors[source] for source in layer.inputs]
    x = [values.astype(np.float64) - s.zero for values, s in zip(inputs, scales, strict=True)]
    own = q.weights.get(layer.name)
    match layer.op:
        case "add":
            real = x[0] * scales[0].scale + x[1] * scales[1].scale
        case "mean":
            real = x[0].mean((1, 2)) * scales[0].scale
        case "linear":
            real = x[0] @ own.weight.T.astype(np.float64) + own.bias
        case _:
            padded = np.pad(x[0], ((0, 0), layer.pads, layer.pads, (0, 0)))
            window = sliding_window_view(padded, (layer.kernel,) * 2, (1, 2))
            window = window[:, :: layer.stride, :: layer.stride]
            if layer.op == "conv":
                real = np.einsum("nhwcij,ocij->nhwo", window, own.weight, optimize=True) + own.bias
            else:
                real = np.einsum("nhwcij,cij->nhwc", window, own.weight[:, 0], optimize=True)
                real = real + own.bias
    if own is not None:
        real = real * own.scale.astype(np.float64) * scales[0].scale
    if layer.activation == "relu6":
        real = real.clip(0, 6)
    return (np.rint(real / out.scale) + out.zero).clip(-128, 127)


def assert_by_definition(layers: tuple[Layer, ...], q: Quantized, file: bytes) -> None:
    """Every layer of LiteRT's reference kernels, from its own inputs: a step of rounding apart."""
    interpreter = Interpreter(
        model_content=file,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], q.tensors[INPUT].integers(images(layers, 1)))
    interpreter.invoke()
    index = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    names = {INPUT: "image", layers[-1].name: "logits"}

    def integers(name: str) -> NDArray[np.int8]:
        return interpreter.get_tensor(index[names.get(name, name)])

    for layer in layers:
        expected = by_definition(layer, q, [integers(source) for source in layer.inputs])
        assert np.abs(integers(layer.name) - expected).max() <= 1, layer.name


def decibels(signal: Array, noise: Array) -> float:
    return float(10 * np.log10((signal**2).mean() / (noise**2).mean()))


@given(st.floats(-100, 100), st.floats(-100, 100), st.lists(st.floats(-100, 100), min_size=1))
def test_rounding_is_within_half_a_step(a: float, b: float, numbers: list[float]) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    scale = Scale.of(low, high)
    assert scale.rounded(np.zeros(1, np.float32))[0] == 0
    values = np.array(numbers, np.float32).clip(low, high)
    rounded = scale.rounded(values)
    # The zero point is an integer, so a range may end half a step early.
    assert np.abs(rounded - values).max() <= 1.001 * scale.scale
    again = (scale.integers(values).astype(np.float32) - scale.zero) * np.float32(scale.scale)
    np.testing.assert_allclose(again, rounded, rtol=1e-6, atol=1e-6 * scale.scale)


@pytest.mark.slow
@given(archs(), st.sampled_from(["same", "symmetric"]))
def test_the_file_computes_what_its_numbers_say(arch: Arch, padding: Padding) -> None:
    """In the kernels that microcontrollers share, and nearly so in XNNPACK."""
    layers, folded = network(replace(TINY, padding=padding), arch)
    quantized = integers_of(layers, folded)
    file = int8_file(layers, folded, quantized)
    assert file == int8_file(layers, folded, integers_of(layers, folded))
    assert_by_definition(layers, quantized, file)
    x, step = images(layers, 4), quantized.tensors[layers[-1].name].scale
    reference = Litert(delegate="reference").run(file, x)
    assert np.abs(Litert().run(file, x) - reference).max() < 6.5 * step


@pytest.mark.parametrize("seed", range(3))
def test_it_is_close_to_the_float_network(seed: int) -> None:
    layers, folded = network(TINY, ARCH, seed)
    x = images(layers, 64)
    model = onnx_model(layers, folded, labels_of(layers), LITE0, "test")
    x_NCHW = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    exact = OnnxRuntime().run(model, x_NCHW)
    ours = Litert().run(int8_file(layers, folded, integers_of(layers, folded)), x)
    theirs = OnnxRuntime().run(qdq_model(model, x_NCHW[:16]), x_NCHW)
    assert decibels(exact, ours - exact) > 20
    assert decibels(exact, ours - exact) > decibels(exact, theirs - exact) - 1
    # On average nothing is shifted: that is what the biases were corrected for.
    steps = np.abs((ours - exact).mean(0)) / np.abs(ours - exact).max()
    assert steps.max() < 0.5


def test_images_of_another_size_are_refused() -> None:
    layers, folded = network(TINY, TINY.largest(32))
    with pytest.raises(
        UserError, match=r"images of \(3, 24, 24\), the network takes \(3, 32, 32\)"
    ):
        quantize(layers, folded, np.zeros((16, 3, 24, 24), np.float32))


def test_onnx_overflows_on_no_processor() -> None:
    """AVX2 without VNNI adds two products of uint8 and int8 in 16 bits, and saturates."""
    layers, folded = network(TINY, ARCH)
    x = np.ascontiguousarray(images(layers).transpose(0, 3, 1, 2))
    qdq = qdq_model(onnx_model(layers, folded, labels_of(layers), LITE0, "test"), x)
    weights = [
        numpy_helper.to_array(tensor).astype(int)
        for tensor in onnx.load_from_string(qdq).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8
    ]
    largest = max(np.abs(weight).max() for weight in weights)
    assert largest > 60
    assert 2 * 255 * largest < 2**15


def test_every_operator_is_int8_and_xnnpack_takes_it() -> None:
    space = get_space("lite")
    layers, folded = network(space, space.smallest())
    interpreter = Interpreter(model_content=int8_file(layers, folded, integers_of(layers, folded)))
    interpreter.allocate_tensors()
    operators = [operator["op_name"] for operator in interpreter._get_ops_details()]
    assert operators[len(layers) :] == ["DELEGATE"]
    kinds = {detail["dtype"] for detail in interpreter.get_tensor_details() if detail["name"]}
    assert kinds == {np.int8, np.int32}
    for detail in (interpreter.get_input_details()[0], interpreter.get_output_details()[0]):
        assert detail["dtype"] == np.int8


def test_a_channel_without_weights_keeps_its_bias() -> None:
    """Its scale is chosen by the bias, which would not fit 32 bits otherwise."""
    layers, folded = network(TINY, ARCH)
    own = folded["s1.b0.project"]
    weight, bias = own["weight"].copy(), own["bias"].copy()
    weight[0], bias[0] = 0, 3.0
    folded = {**folded, "s1.b0.project": {"weight": weight, "bias": bias}}
    quantized = integers_of(layers, folded)
    assert_by_definition(layers, quantized, int8_file(layers, folded, quantized))


def test_verify_refuses_a_wrong_scale() -> None:
    layers, folded = network(TINY, ARCH)
    quantized, labels, pixels = (
        integers_of(layers, folded),
        labels_of(layers),
        pixels_of(layers, 20),
    )
    x_NCHW = np.ascontiguousarray(LITE0.normalize(pixels).transpose(0, 3, 1, 2))
    model = onnx_model(layers, folded, labels, LITE0, "test")
    reference = OnnxRuntime().run(model, x_NCHW)
    qdq = qdq_model(model, x_NCHW)
    good = int8_file(layers, folded, quantized)
    assert verify(good, qdq, pixels, reference, labels, LITE0, precision="int8").images == 20
    name = layers[-1].name
    own = quantized.weights[name]
    tripled = {**quantized.weights, name: replace(own, scale=own.scale * 3)}
    wrong = int8_file(layers, folded, Quantized(quantized.tensors, tripled))
    with pytest.raises(ExportError, match="do not compute what was scored"):
        verify(wrong, qdq, pixels, reference, labels, LITE0, precision="int8")
    with pytest.raises(ExportError, match="do not compute what was scored"):
        verify(good, qdq, pixels, reference, labels, LITE0)  # as if it were a float one


@pytest.mark.parametrize("name", ["lite", "mcu"])
def test_flash_is_never_below_the_int8_file_and_hardly_above(name: str) -> None:
    """Of small networks too, where what is not weights counts."""
    space = replace(get_space(name), classes=10)
    smallest = space.encode([space.smallest()])
    for row in np.concatenate([smallest, space.sample(np.random.default_rng(0), 3)]):
        layers, folded = network(space, space.decode(row))
        labels = labels_of(layers)
        bound = flash_table(space, labels, "int8").price(row[None])[0]
        noise = np.random.default_rng(0).normal(size=(1, 3, *layers[0].in_shape[:2]))
        file = int8_file(layers, folded, quantize(layers, folded, noise.astype(np.float32)))
        assert 0.985 * bound < len(file) <= bound
