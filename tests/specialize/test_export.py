"""Law 1 on the side of the files, and what readers of TFLite and ONNX files expect to find."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ofa.layers import INPUT, Layer, lower, same_padding
from ofa.preprocessing import LITE0
from ofa.space import Arch, Space
from ofa.spaces import get_space
from ofa.weights import Array, Weights
from specialize.export.flatbuffer import Schema
from specialize.export.onnx import onnx_model
from specialize.export.tflite import tflite_model
from specialize.export.verify import ExportError, verify
from tests.networks import labels_of, network, pixels_of
from tests.strategies import TINY, archs, spaces

#: An architecture with both strides, every kernel and shortcuts.
ARCH = Arch.parse("r24 3x3e1 3x3e2,5x5e4 7x7e3,3x3e2,5x5e3")


def written(layers: Sequence[Layer], folded: Weights) -> tuple[bytes, bytes]:
    """The TFLite and the ONNX file."""
    arguments = (layers, folded, labels_of(layers), LITE0, "test")
    return tflite_model(*arguments), onnx_model(*arguments)


def interpret(layers: Sequence[Layer], folded: Weights, x_NHWC: Array) -> NDArray[np.float64]:
    """The layer list by its definition, in float64: (N, classes)."""
    values: dict[str, NDArray[Any]] = {INPUT: x_NHWC.astype(np.float64)}
    for layer in layers:
        x = values[layer.inputs[0]]
        own = folded.get(layer.name, {})
        match layer.op:
            case "add":
                y = x + values[layer.inputs[1]]
            case "mean":
                y = x.mean((1, 2))
            case "linear":
                y = x @ own["weight"].T + own["bias"]
            case _:
                pads = [same_padding(size, layer.kernel, layer.stride) for size in x.shape[1:3]]
                padded = np.pad(x, ((0, 0), *pads, (0, 0)))
                window = sliding_window_view(padded, (layer.kernel,) * 2, (1, 2))
                window = window[:, :: layer.stride, :: layer.stride]
                if layer.op == "conv":
                    y = np.einsum("nhwcij,ocij->nhwo", window, own["weight"], optimize=True)
                else:
                    y = np.einsum("nhwcij,cij->nhwc", window, own["weight"][:, 0], optimize=True)
                y = y + own["bias"]
        values[layer.name] = y.clip(0, 6) if layer.activation == "relu6" else y
    return values[layers[-1].name]


def in_litert(model: bytes, x_NHWC: Array) -> Array:
    interpreter = Interpreter(model_content=model)
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x_NHWC.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x_NHWC)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


def in_onnxruntime(model: bytes, x_NHWC: Array) -> Array:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": x_NHWC.transpose(0, 3, 1, 2)})[0]


def assert_one_network(space: Space, arch: Arch) -> None:
    layers, folded = network(space, arch)
    x = LITE0.normalize(pixels_of(layers))
    tflite, onnx_file = written(layers, folded)
    expected = interpret(layers, folded, x)
    close = {"rtol": 1e-4, "atol": 1e-5 * max(1.0, np.abs(expected).max())}
    np.testing.assert_allclose(in_onnxruntime(onnx_file, x), expected, **close)
    np.testing.assert_allclose(in_litert(tflite, x), expected, **close)


@given(archs())
def test_both_files_compute_the_layer_list(arch: Arch) -> None:
    assert_one_network(TINY, arch)


@given(st.data(), st.integers(5, 35))
def test_padding_is_right_at_every_resolution(data: st.DataObject, resolution: int) -> None:
    """Even sides are padded unevenly under a stride of 2; some sides are below the kernel's."""
    space = replace(TINY, resolutions=(resolution,))
    assert_one_network(space, data.draw(archs(space)))


@given(st.data(), spaces(other=False))
def test_both_files_compute_the_layer_list_of_any_space(data: st.DataObject, space: Space) -> None:
    assert_one_network(space, data.draw(archs(space)))


@given(archs())
def test_same_network_same_bytes(arch: Arch) -> None:
    assert written(*network(TINY, arch)) == written(*network(TINY, arch))


def test_signature_names_and_shapes_of_tflite() -> None:
    layers, folded = network(TINY, ARCH)
    interpreter = Interpreter(model_content=written(layers, folded)[0])
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["logits"]}
    }
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["name"], tuple(given["shape"]), given["dtype"]) == (
        "image", (1, 24, 24, 3), np.float32,
    )  # fmt: skip
    assert (result["name"], tuple(result["shape"])) == ("logits", (1, 5))
    x = LITE0.normalize(pixels_of(layers, 1))
    logits = interpreter.get_signature_runner("serving_default")(image=x)["logits"]
    np.testing.assert_allclose(logits, interpret(layers, folded, x), rtol=1e-4, atol=1e-4)


def test_tflite_runs_at_another_resolution() -> None:
    """The file fixes one image of one size; runtimes may resize both."""
    layers, folded = network(TINY, ARCH)
    other = lower(TINY, replace(ARCH, resolution=40))
    x = LITE0.normalize(pixels_of(other, 3))
    logits = in_litert(written(layers, folded)[0], x)
    np.testing.assert_allclose(logits, interpret(other, folded, x), rtol=1e-4, atol=1e-4)


def test_tflite_is_what_its_schema_asks() -> None:
    """Identifier, aligned data, version and both codes of each operator; nothing twice."""
    layers, folded = network(TINY, ARCH)
    data = written(layers, folded)[0]
    assert data[4:8] == b"TFL3"
    model = schema.Model.GetRootAs(data)
    assert model.Version() == 3
    assert model.Description() == b"test"
    graph = model.Subgraphs(0)
    assert graph.OperatorsLength() == len(layers)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    assert [(c.BuiltinCode(), c.DeprecatedBuiltinCode(), c.Version()) for c in codes] == [
        (3, 3, 1), (4, 4, 1), (0, 0, 1), (40, 40, 1), (9, 9, 1),
    ]  # fmt: skip
    assert model.Buffers(0).DataLength() == 0
    for i in range(1, model.BuffersLength()):
        buffer = model.Buffers(i)
        assert buffer.DataLength()
        assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0
    used = [graph.Tensors(i).Buffer() for i in range(graph.TensorsLength())]
    used += [model.Metadata(i).Buffer() for i in range(model.MetadataLength())]
    assert sorted(b for b in used if b) == list(range(1, model.BuffersLength()))


def test_xnnpack_takes_every_operator() -> None:
    """A network of the lite space runs in one piece, so nothing falls back to slow kernels."""
    layers, folded = network(get_space("lite"), get_space("lite").smallest())
    interpreter = Interpreter(model_content=written(layers, folded)[0])
    interpreter.allocate_tensors()
    operators = [operator["op_name"] for operator in interpreter._get_ops_details()]
    assert operators[len(layers) :] == ["DELEGATE"]


class Reader:
    """Reads a flatbuffer by slot numbers: none of the writer's code, and no generated code."""

    def __init__(self, data: bytes, at: int | None = None) -> None:
        self.data = data
        self.at = self.integer(0) if at is None else at

    def integer(self, at: int, size: int = 4, signed: bool = False) -> int:
        return int.from_bytes(self.data[at : at + size], "little", signed=signed)

    def where(self, slot: int) -> int:
        vtable = self.at - self.integer(self.at, signed=True)
        inside = 4 + 2 * slot < self.integer(vtable, 2)
        offset = self.integer(vtable + 4 + 2 * slot, 2) if inside else 0
        assert offset, f"slot {slot} is empty"
        return self.at + offset

    def scalar(self, slot: int, size: int) -> int:
        return self.integer(self.where(slot), size)

    def table(self, slot: int) -> Reader:
        return Reader(self.data, self.where(slot) + self.integer(self.where(slot)))

    def tables(self, slot: int) -> list[Reader]:
        at = self.table(slot).at
        items = [at + 4 + 4 * i for i in range(self.integer(at))]
        return [Reader(self.data, item + self.integer(item)) for item in items]

    def text(self, slot: int) -> str:
        at = self.table(slot).at
        return self.data[at + 4 : at + 4 + self.integer(at)].decode()

    def floats(self, slot: int) -> list[float]:
        at = self.table(slot).at
        return np.frombuffer(self.data, "<f4", self.integer(at), at + 4).tolist()


def test_tflite_metadata() -> None:
    """Slots and enums of tflite-support's metadata_schema.fbs."""
    layers, folded = network(TINY, ARCH)
    data = written(layers, folded)[0]
    model = schema.Model.GetRootAs(data)
    entries = {
        model.Metadata(i).Name(): model.Buffers(model.Metadata(i).Buffer()).DataAsNumpy().tobytes()
        for i in range(model.MetadataLength())
    }
    assert entries[b"min_runtime_version"] == b"1.6.0" + bytes(11)
    assert entries[b"TFLITE_METADATA"][4:8] == b"M001"
    about = Reader(entries[b"TFLITE_METADATA"])
    assert about.text(0) == "test"
    assert about.text(7) == "1.0.0"  # min_parser_version
    (subgraph,) = about.tables(3)
    (image,), (logits,) = subgraph.tables(2), subgraph.tables(3)

    assert image.text(0) == "image"
    assert LITE0.resize in image.text(1)
    assert image.table(3).scalar(0, 1) == 2  # content: ImageProperties
    properties = image.table(3).table(1)
    assert properties.scalar(0, 1) == 1  # RGB
    assert [properties.table(1).scalar(i, 4) for i in (0, 1)] == [24, 24]
    (unit,) = image.tables(4)
    assert unit.scalar(0, 1) == 1  # NormalizationOptions
    assert unit.table(1).floats(0) == list(LITE0.mean)
    assert unit.table(1).floats(1) == list(LITE0.std)
    assert image.table(5).floats(0) == [1.0] * 3  # max of a normalized image
    assert image.table(5).floats(1) == [-127 / 128] * 3

    assert logits.text(0) == "logits"
    assert logits.table(3).scalar(0, 1) == 1  # content: FeatureProperties
    (file,) = logits.tables(6)
    assert (file.text(0), file.scalar(2, 1)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.getinfo("labels.txt").date_time == (1980, 1, 1, 0, 0, 0)
        assert archive.read("labels.txt").decode().split("\n") == [*labels_of(layers), ""]


@given(archs())
def test_onnx_passes_the_checker(arch: Arch) -> None:
    model = onnx.load_from_string(written(*network(TINY, arch))[1])
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]


def test_onnx_says_what_it_takes_and_gives() -> None:
    layers, folded = network(TINY, ARCH)
    session = onnxruntime.InferenceSession(
        written(layers, folded)[1], providers=["CPUExecutionProvider"]
    )
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, given.type) == ("image", ["N", 3, 24, 24], "tensor(float)")
    assert (result.name, result.shape) == ("logits", ["N", 5])
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["labels"]) == labels_of(layers)
    assert json.loads(properties["preprocessing"]) == LITE0.as_dict() | {"layout": "NCHW"}


def test_labels_must_fit() -> None:
    """One label a class; one line a label, since the label file of TFLite has one a line."""
    layers, folded = network(TINY, ARCH)
    for write in (tflite_model, onnx_model):
        with pytest.raises(ValueError, match="2 labels, but 5 classes"):
            write(layers, folded, ["a", "b"], LITE0, "test")
    for bad in ("two\nlines", "", "two\u2028lines"):
        with pytest.raises(ValueError, match="one line"):
            tflite_model(layers, folded, ["a", "b", "c", "d", bad], LITE0, "test")
    names = ["é", "a b", "日本", '"', "c,d"]
    with zipfile.ZipFile(io.BytesIO(tflite_model(layers, folded, names, LITE0, "test"))) as archive:
        assert archive.read("labels.txt").decode().splitlines() == names


def test_schema_refuses_a_field_that_it_does_not_have() -> None:
    with pytest.raises(TypeError, match="no field 'z' among x, y"):
        Schema("x:int32", "y:int32")(x=1, z=2)


def broken(file: bytes, weight: Array) -> bytes:
    """The file with one output channel of a weight negated: the sign bits of its floats flipped."""
    at = file.index(np.ascontiguousarray(weight).tobytes())
    flipped = bytearray(file)
    for byte in range(at + 3, at + weight[0].nbytes, 4):
        flipped[byte] ^= 0x80
    return bytes(flipped)


def test_verify_accepts_what_was_scored_and_refuses_anything_else() -> None:
    layers, folded = network(TINY, ARCH)
    labels, pixels = labels_of(layers), pixels_of(layers, 70)
    tflite, onnx_file = written(layers, folded)
    reference = in_onnxruntime(onnx_file, LITE0.normalize(pixels))

    result = verify(tflite, onnx_file, pixels, reference, labels, LITE0)
    assert result.images == 70
    assert result.agreeing == 70
    assert result.agreeing == result.images
    assert result.largest_difference < 1e-5 * result.largest_logit

    weight = folded["s1.b0.project"]["weight"]
    bad_tflite = broken(tflite, weight.transpose(0, 2, 3, 1))
    bad_onnx = broken(onnx_file, weight)
    for pair in ((bad_tflite, onnx_file), (tflite, bad_onnx), (bad_tflite, bad_onnx)):
        with pytest.raises(ExportError, match="do not compute what was scored: TFLite and ref"):
            verify(*pair, pixels, reference, labels, LITE0)
    with pytest.raises(ExportError, match="reference inf"):
        verify(tflite, onnx_file, pixels, reference * np.float32(np.nan), labels, LITE0)
    with pytest.raises(ExportError, match="the TFLite file has labels"):
        verify(tflite, onnx_file, pixels, reference, labels[::-1], LITE0)
    with pytest.raises(ExportError, match="cannot be run"):
        verify(tflite.replace(b"TFL3", b"TFL2", 1), onnx_file, pixels, reference, labels, LITE0)


def test_verify_reads_files(tmp_path: Any) -> None:
    layers, folded = network(TINY, ARCH)
    paths = tmp_path / "model.tflite", tmp_path / "model.onnx"
    for path, data in zip(paths, written(layers, folded), strict=True):
        path.write_bytes(data)
    pixels = pixels_of(layers, 3)
    reference = interpret(layers, folded, LITE0.normalize(pixels)).astype(np.float32)
    assert verify(*paths, pixels, reference, labels_of(layers), LITE0, threads=2).images == 3
