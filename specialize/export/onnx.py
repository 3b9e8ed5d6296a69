"""An ONNX file, written directly from the one list of layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ofa.layers import INPUT, Layer
from ofa.preprocessing import Preprocessing
from ofa.space import Activation
from ofa.weights import Weights
from specialize.export import IMAGE, LOGITS

__all__ = [
    "IR_VERSION", "OPSET", "SIX", "ZERO", "activation_node", "conv_node", "linear_nodes",
    "onnx_model",
]  # fmt: skip

#: The newest pair that runtimes of the last three years load, those inside apps included.
OPSET, IR_VERSION = 17, 8

#: The constants that a relu6 refers to, by name.
ZERO, SIX = (
    numpy_helper.from_array(np.array(value, np.float32), name)
    for name, value in (("zero", 0), ("six", 6))
)


def conv_node(layer: Layer, inputs: Sequence[str], output: str) -> NodeProto:
    """The node of a ``conv`` or ``depthwise`` layer: inputs are data, weight and, if any, bias.

    TensorFlow's SAME padding is uneven where the stride is 2, so the pads are written out.
    """
    before, after = layer.pads
    return helper.make_node(
        "Conv",
        inputs,
        [output],
        name=output,
        kernel_shape=[layer.kernel] * 2,
        strides=[layer.stride] * 2,
        pads=[before, before, after, after],
        group=layer.in_shape[2] if layer.op == "depthwise" else 1,
    )


def activation_node(activation: Activation, x: str, output: str) -> NodeProto:
    """The node of an activation other than ``none``; relu6 needs ``ZERO`` and ``SIX``."""
    match activation:
        case "relu6":
            return helper.make_node("Clip", [x, ZERO.name, SIX.name], [output], name=output)
        case "hsigmoid":
            return helper.make_node(
                "HardSigmoid", [x], [output], name=output, alpha=1 / 6, beta=0.5
            )
    op = {"relu": "Relu", "hswish": "HardSwish"}[activation]
    return helper.make_node(op, [x], [output], name=output)


def linear_nodes(layer: Layer, inputs: Sequence[str], output: str) -> list[NodeProto]:
    """A layer without its activation. inputs: its own, then weight and bias where it has them."""

    def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
        return helper.make_node(op, inputs, [output], name=output, **attributes)

    match layer.op:
        case "add":
            return [node("Add", inputs, output)]
        case "scale":
            return [node("Mul", inputs, output)]
        case "squeeze":
            return [node("GlobalAveragePool", inputs, output)]
        case "mean":
            pooled = f"{output}.map"
            return [node("GlobalAveragePool", inputs, pooled), node("Flatten", [pooled], output)]
        case "linear":
            return [node("Gemm", inputs, output, transB=1)]
    return [conv_node(layer, inputs, output)]


def onnx_model(
    layers: Sequence[Layer],
    folded: Weights,
    labels: Sequence[str],
    preprocessing: Preprocessing,
    name: str,
) -> bytes:
    """The ONNX file of a network; labels and preprocessing are JSON in its metadata.

    folded: layer name -> weight (out, in / groups, k, k), or (out, in) of ``linear``; bias (out,).
    Input ``image``, normalized images (N, 3, H, W); output ``logits`` (N, classes); N is free.
    Raises ValueError if there is not one label a class.
    """
    classes = layers[-1].out_shape[2]
    if len(labels) != classes:
        raise ValueError(f"{len(labels)} labels, but {classes} classes")
    nodes: list[NodeProto] = []
    relu6 = any(layer.activation == "relu6" for layer in layers)
    constants: list[TensorProto] = [ZERO, SIX] if relu6 else []
    names = {layer.name: layer.name for layer in layers}
    names |= {INPUT: IMAGE, layers[-1].name: LOGITS}

    def constant(name: str, value: NDArray[Any]) -> str:
        array = np.asarray(value, np.float32, order="C")
        constants.append(numpy_helper.from_array(array, name))
        return name

    for layer in layers:
        inputs, output = [names[source] for source in layer.inputs], names[layer.name]
        if layer.name in folded:
            own = folded[layer.name]
            inputs += [constant(f"{layer.name}.{part}", own[part]) for part in ("weight", "bias")]
        result = output if layer.activation == "none" else f"{output}.linear"
        nodes += linear_nodes(layer, inputs, result)
        if layer.activation != "none":
            nodes.append(activation_node(layer.activation, result, output))

    height, width, channels = layers[0].in_shape
    image = helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, ["N", channels, height, width])
    logits = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["N", classes])
    model = helper.make_model(
        helper.make_graph(nodes, name, [image], [logits], constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ofa-specializer",
    )
    # The layout is this file's; the rest is as it is everywhere.
    about = {**preprocessing.as_dict(), "layout": "NCHW"}
    helper.set_model_props(
        model, {"labels": json.dumps(list(labels)), "preprocessing": json.dumps(about)}
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data
