"""A float32 or int8 TFLite file, written directly from the one list of layers.

No converter and no TensorFlow: the file is a flatbuffer whose few tables are named below, in the
order of their schema. ``_OPERATORS`` says how each operation of ``ofa.layers`` is written.

Sources, slot and enum numbers: tensorflow/tflite-micro,
tensorflow/compiler/mlir/lite/schema/schema.fbs. Operator versions: google-ai-edge/LiteRT,
tflite/converter/tools/versioning/op_version.cc and runtime_version.cc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.layers import INPUT, Layer, Op
from ofa.preprocessing import Preprocessing
from ofa.weights import Weights
from specialize.export import IMAGE, LOGITS
from specialize.export.flatbuffer import Schema, Table, finish
from specialize.export.metadata import append_labels, metadata
from specialize.export.quantize import Quantized

__all__ = ["tflite_model"]

_MODEL = Schema(
    "version:uint32",
    "operator_codes:[table]",
    "subgraphs:[table]",
    "description:string",
    "buffers:[table]",
    "metadata_buffer:[int32]",
    "metadata:[table]",
    "signature_defs:[table]",
)
_OPERATOR_CODE = Schema(
    "deprecated_builtin_code:int8", "custom_code:string", "version:int32", "builtin_code:int32"
)
_SUBGRAPH = Schema(
    "tensors:[table]", "inputs:[int32]", "outputs:[int32]", "operators:[table]", "name:string"
)
_QUANTIZATION = Schema(
    "min:[float32]", "max:[float32]", "scale:[float32]", "zero_point:[int64]", "details:union",
    "quantized_dimension:int32",
)  # fmt: skip
_TENSOR = Schema("shape:[int32]", "type:int8", "buffer:uint32", "name:string", "quantization:table")
_OPERATOR = Schema(
    "opcode_index:uint32", "inputs:[int32]", "outputs:[int32]", "builtin_options:union"
)
_BUFFER = Schema("data:data")
_METADATA = Schema("name:string", "buffer:uint32")
_SIGNATURE_DEF = Schema(
    "inputs:[table]", "outputs:[table]", "signature_key:string", "_", "subgraph_index:uint32"
)
_TENSOR_MAP = Schema("name:string", "tensor_index:uint32")

_ADD_OPTIONS = Schema("activation:int8", member=11)
_CONV_2D_OPTIONS = Schema(
    "padding:int8", "stride_w:int32", "stride_h:int32", "activation:int8", member=1
)
_DEPTHWISE_CONV_2D_OPTIONS = Schema(
    "padding:int8",
    "stride_w:int32",
    "stride_h:int32",
    "depth_multiplier:int32",
    "activation:int8",
    member=2,
)
_FULLY_CONNECTED_OPTIONS = Schema("activation:int8", member=8)
_MUL_OPTIONS = Schema("activation:int8", member=21)
_PAD_OPTIONS = Schema(member=22)
_HARD_SWISH_OPTIONS = Schema(member=91)
_REDUCER_OPTIONS = Schema("keep_dims:bool", member=27)

_ADD, _CONV_2D, _DEPTHWISE_CONV_2D, _FULLY_CONNECTED, _MEAN = 0, 3, 4, 9, 40  # BuiltinOperator
_MUL, _PAD, _HARD_SWISH = 18, 34, 117
_INT8_VERSIONS = {
    _ADD: 2, _CONV_2D: 3, _DEPTHWISE_CONV_2D: 3, _FULLY_CONNECTED: 4, _MEAN: 2, _PAD: 2,
}  # fmt: skip
_TYPES = {"float32": 0, "int32": 2, "int8": 9}  # TensorType
#: ActivationFunctionType; the others are operators of their own, see ``_Graph.activated``.
_ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 3}
_SAME, _VALID = 0, 1  # Padding


@dataclass(frozen=True, slots=True)
class _Operator:
    """How a layer is written: a BuiltinOperator, its options, and its constants.

    constants: part -> array, in the order in which they follow the layer's inputs. channels: the
    axis of a weight's output channels.
    """

    code: int
    options: Table
    constants: Mapping[str, NDArray[Any]]
    channels: int = 0


def _fused(layer: Layer) -> int:
    return _ACTIVATIONS.get(layer.activation, 0)


def _write_conv(layer: Layer, own: Mapping[str, NDArray[Any]]) -> _Operator:
    options = _CONV_2D_OPTIONS(
        padding=_SAME if layer.is_same else _VALID,
        stride_w=layer.stride,
        stride_h=layer.stride,
        activation=_fused(layer),
    )
    weight_OHWI = own["weight"].transpose(0, 2, 3, 1)
    return _Operator(_CONV_2D, options, {"weight": weight_OHWI, "bias": own["bias"]})


def _write_depthwise(layer: Layer, own: Mapping[str, NDArray[Any]]) -> _Operator:
    options = _DEPTHWISE_CONV_2D_OPTIONS(
        padding=_SAME if layer.is_same else _VALID,
        stride_w=layer.stride,
        stride_h=layer.stride,
        depth_multiplier=1,
        activation=_fused(layer),
    )
    weight_1HWC = own["weight"].transpose(1, 2, 3, 0)
    constants = {"weight": weight_1HWC, "bias": own["bias"]}
    return _Operator(_DEPTHWISE_CONV_2D, options, constants, channels=3)


def _write_add(layer: Layer, own: Mapping[str, NDArray[Any]]) -> _Operator:  # noqa: ARG001
    return _Operator(_ADD, _ADD_OPTIONS(activation=_fused(layer)), {})


def _write_scale(layer: Layer, own: Mapping[str, NDArray[Any]]) -> _Operator:  # noqa: ARG001
    return _Operator(_MUL, _MUL_OPTIONS(activation=_fused(layer)), {})


def _write_mean(layer: Layer, own: Mapping[str, NDArray[Any]]) -> _Operator:  # noqa: ARG001
    axes = np.array([1, 2], np.int32)
    return _Operator(_MEAN, _REDUCER_OPTIONS(keep_dims=layer.op == "squeeze"), {"axes": axes})


def _write_linear(layer: Layer, own: Mapping[str, NDArray[Any]]) -> _Operator:
    options = _FULLY_CONNECTED_OPTIONS(activation=_fused(layer))
    return _Operator(_FULLY_CONNECTED, options, {"weight": own["weight"], "bias": own["bias"]})


_OPERATORS: dict[Op, Callable[[Layer, Mapping[str, NDArray[Any]]], _Operator]] = {
    "conv": _write_conv,
    "depthwise": _write_depthwise,
    "add": _write_add,
    "mean": _write_mean,
    "squeeze": _write_mean,
    "scale": _write_scale,
    "linear": _write_linear,
}

#: The first TensorFlow release whose runtime has all of a network's operators, by
#: runtime_version.cc: in float that of MEAN, or of HARD_SWISH where there is one. In int8 the
#: oldest that it was run in: by its source an old kernel of fully connected layers knows one scale
#: only and would answer wrongly, which that table does not tell.
_MIN_RUNTIME, _MIN_RUNTIME_HARD_SWISH, _MIN_RUNTIME_INT8 = "1.6.0", "1.15.0", "2.14.0"


def tflite_model(
    layers: Sequence[Layer],
    folded: Weights,
    labels: Sequence[str],
    preprocessing: Preprocessing,
    name: str,
    quantized: Quantized | None = None,
) -> bytes:
    """The TFLite file of a network, labels and preprocessing included.

    folded: layer name -> weight (out, in / groups, k, k), or (out, in) of ``linear``; bias (out,).
    Input ``image``, the normalized image (1, H, W, 3); output ``logits`` (1, classes); signature
    ``serving_default``. Runtimes may resize the batch, and the image too.
    quantized: integers to write in place of ``folded``; input and output are int8 then, in the
    scale and zero point that the file gives them.
    Raises ValueError if there is not one label a class.
    """
    if len(labels) != layers[-1].out_shape[2]:
        raise ValueError(f"{len(labels)} labels, but {layers[-1].out_shape[2]} classes")
    graph = _Graph()
    resolution = layers[0].in_shape[0]
    kind = "float32" if quantized is None else "int8"
    tensor = {
        INPUT: graph.tensor(IMAGE, (1, *layers[0].in_shape), kind, scale=_scale(quantized, INPUT))
    }
    for layer in layers:
        operator = _OPERATORS[layer.op](layer, _constants(layer, folded, quantized))
        inputs = [tensor[source] for source in layer.inputs]
        if not layer.is_same:
            scale = _scale(quantized, layer.inputs[0])
            inputs[0] = graph.padded(layer, inputs[0], kind, scale)
        for part, value in operator.constants.items():
            scale = _scale_of_constant(layer, part, operator.channels, quantized)
            inputs.append(graph.constant(f"{layer.name}.{part}", value, scale))
        name_out = LOGITS if layer is layers[-1] else layer.name
        alone = layer.activation not in _ACTIVATIONS
        output = graph.tensor(
            f"{name_out}.linear" if alone else name_out, _shape(layer), kind,
            scale=_scale(quantized, layer.name),
        )  # fmt: skip
        version = 1 if quantized is None else _INT8_VERSIONS[operator.code]
        graph.operator(operator, version, inputs, output)
        tensor[layer.name] = graph.activated(layer, output) if alone else output

    start, end = tensor[INPUT], tensor[layers[-1].name]
    runtime = _MIN_RUNTIME if quantized is None else _MIN_RUNTIME_INT8
    if (_HARD_SWISH, 1) in graph.codes:
        runtime = _MIN_RUNTIME_HARD_SWISH
    about = metadata(name, resolution, len(labels), preprocessing)
    model = _MODEL(
        version=3,
        operator_codes=graph.operator_codes(),
        subgraphs=[
            _SUBGRAPH(
                tensors=graph.tensors,
                inputs=[start],
                outputs=[end],
                operators=graph.operators,
                name="main",
            )
        ],
        description=name,
        metadata=[
            _METADATA(
                name="min_runtime_version",
                buffer=graph.buffer(runtime.encode().ljust(16, b"\0")),  # as converters write it
            ),
            _METADATA(name="TFLITE_METADATA", buffer=graph.buffer(about)),
        ],
        signature_defs=[
            _SIGNATURE_DEF(
                inputs=[_TENSOR_MAP(name=IMAGE, tensor_index=start)],
                outputs=[_TENSOR_MAP(name=LOGITS, tensor_index=end)],
                signature_key="serving_default",
                subgraph_index=0,
            )
        ],
        buffers=graph.buffers,
    )
    return append_labels(finish(model, b"TFL3"), labels)


def _shape(layer: Layer) -> tuple[int, ...]:
    """(1, H, W, C), or (1, C) of what has no map."""
    if layer.op in ("mean", "linear"):
        return (1, layer.out_shape[2])
    return (1, *layer.out_shape)


def _constants(
    layer: Layer, folded: Weights, quantized: Quantized | None
) -> Mapping[str, NDArray[Any]]:
    if quantized is None or layer.name not in quantized.weights:
        return folded.get(layer.name, {})
    own = quantized.weights[layer.name]
    return {"weight": own.weight, "bias": own.bias}


def _scale(quantized: Quantized | None, name: str) -> Table | None:
    """What a tensor's integers stand for."""
    if quantized is None:
        return None
    own = quantized.tensors[name]
    return _QUANTIZATION(scale=[own.scale], zero_point=[own.zero], quantized_dimension=0)


def _scale_of_constant(
    layer: Layer, part: str, channels: int, quantized: Quantized | None
) -> Table | None:
    """The same of a weight, whose output channels are the axis ``channels``, and of a bias."""
    if quantized is None or layer.name not in quantized.weights:
        return None
    scale = quantized.weights[layer.name].scale
    if part == "bias":
        scale, channels = scale * np.float32(quantized.tensors[layer.inputs[0]].scale), 0
    zeros = np.zeros(len(scale), np.int64)
    return _QUANTIZATION(scale=scale, zero_point=zeros, quantized_dimension=channels)


@dataclass(slots=True)
class _Graph:
    """The tables of a model as they grow; what is added is known by its index from then on."""

    tensors: list[Table] = field(default_factory=list)
    operators: list[Table] = field(default_factory=list)
    #: The first buffer is empty by convention: tensors without data refer to it.
    buffers: list[Table] = field(default_factory=lambda: [_BUFFER()])
    codes: dict[tuple[int, int], int] = field(default_factory=dict)  # (code, version) -> index

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: str,
        buffer: int = 0,
        scale: Table | None = None,
    ) -> int:
        """A tensor; ``buffer`` is the index of its data if it is constant."""
        self.tensors.append(
            _TENSOR(shape=shape, type=_TYPES[kind], buffer=buffer, name=name, quantization=scale)
        )
        return len(self.tensors) - 1

    def constant(self, name: str, value: NDArray[Any], scale: Table | None) -> int:
        """A tensor with data."""
        return self.tensor(name, value.shape, value.dtype.name, self.buffer(value), scale)

    def buffer(self, data: bytes | NDArray[Any]) -> int:
        """Bytes, or the values of an array."""
        self.buffers.append(_BUFFER(data=data))
        return len(self.buffers) - 1

    def operator(
        self, operator: _Operator, version: int, inputs: Sequence[int], output: int
    ) -> None:
        """One step of the graph, from tensors to a tensor."""
        key = (operator.code, version)
        self.operators.append(
            _OPERATOR(
                opcode_index=self.codes.setdefault(key, len(self.codes)),
                inputs=inputs,
                outputs=[output],
                builtin_options=operator.options,
            )
        )

    def padded(self, layer: Layer, source: int, kind: str, scale: Table | None) -> int:
        """A layer's input with its own pads of zeros, in the input's own integers."""
        height, width, channels = layer.in_shape
        pads = np.array([(0, 0), layer.pads, layer.pads, (0, 0)], np.int32)
        amount = self.constant(f"{layer.name}.pads", pads, None)
        side = sum(layer.pads)
        shape = (1, height + side, width + side, channels)
        output = self.tensor(f"{layer.name}.padded", shape, kind, scale=scale)
        version = 1 if scale is None else _INT8_VERSIONS[_PAD]
        self.operator(_Operator(_PAD, _PAD_OPTIONS(), {}), version, [source, amount], output)
        return output

    def activated(self, layer: Layer, source: int) -> int:
        """A layer's output after an activation that no operator fuses."""
        shape = _shape(layer)
        output = self.tensor(layer.name, shape, "float32")
        if layer.activation == "hswish":
            self.operator(_Operator(_HARD_SWISH, _HARD_SWISH_OPTIONS(), {}), 1, [source], output)
            return output
        # A hard sigmoid is relu6(x + 3) / 6.
        three, sixth = (
            self.constant(f"{layer.name}.{name}", np.array([value], np.float32), None)
            for name, value in (("three", 3), ("sixth", 1 / 6))
        )
        moved = self.tensor(f"{layer.name}.moved", shape, "float32")
        relu6 = _ADD_OPTIONS(activation=_ACTIVATIONS["relu6"])
        self.operator(_Operator(_ADD, relu6, {}), 1, [source, three], moved)
        self.operator(_Operator(_MUL, _MUL_OPTIONS(activation=0), {}), 1, [moved, sixth], output)
        return output

    def operator_codes(self) -> list[Table]:
        """Each (operator, version) in use, in the order of their indices."""
        return [
            _OPERATOR_CODE(
                deprecated_builtin_code=min(code, 127), version=version, builtin_code=code
            )
            for code, version in self.codes
        ]
