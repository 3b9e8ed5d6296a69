"""A network as C++ sources for TensorFlow Lite Micro: ``model.h`` and ``model.cc``."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ofa.layers import INPUT, Layer, Op
from ofa.preprocessing import Preprocessing
from specialize.export.quantize import Quantized

__all__ = ["ETHOS_U", "c_sources", "operators_of"]

#: Operation -> the method of MicroMutableOpResolver that adds its kernel.
_ADDS: dict[Op, str] = {
    "conv": "AddConv2D",
    "depthwise": "AddDepthwiseConv2D",
    "add": "AddAdd",
    "mean": "AddMean",
    "linear": "AddFullyConnected",
}
#: What runs a file that Vela compiled.
ETHOS_U = ("AddEthosU",)

_HEADER = """\
// {name}, made by ofa-specialize. model.cc holds the bytes of {file}.
{needs}#pragma once

// {arena_about}
constexpr int kModelArenaBytes = {arena};

// The image: {side} x {side} RGB, channels last. A pixel p of channel c becomes the integer
// round((p - kModelMean[c]) / kModelStd[c] / kModelInputScale) + kModelInputZeroPoint.
constexpr int kModelImageSide = {side};
constexpr float kModelMean[3] = {{{mean}}};
constexpr float kModelStd[3] = {{{std}}};
constexpr float kModelInputScale = {scale};
constexpr int kModelInputZeroPoint = {zero};

constexpr int kModelClasses = {classes};
constexpr const char* kModelLabels[kModelClasses] = {{
{labels}
}};

extern const unsigned char g_model[];
extern const unsigned int g_model_len;

// The kernels that the model needs, for a tflite::MicroMutableOpResolver<kModelOperators>.
constexpr int kModelOperators = {count};
template <typename Resolver>
bool AddModelOperators(Resolver& resolver) {{
  return {adds};
}}
"""

#: Its pull requests 2602 (it refuses such a layer) and 2673 (it takes it).
_NEEDS = """\
// TensorFlow Lite Micro must be of October 2024 or newer: one of before June 2024 takes one scale
// for all weights of a fully connected layer, and answers wrongly.
"""

_SOURCE = """\
#include "model.h"

alignas(16) extern const unsigned char g_model[] = {{
{rows}
}};
extern const unsigned int g_model_len = {size};
"""


def operators_of(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The resolver's methods for these layers, in alphabetical order."""
    adds = {_ADDS[layer.op] for layer in layers}
    if not all(layer.is_same for layer in layers):
        adds.add("AddPad")
    return tuple(sorted(adds))


def c_sources(
    name: str,
    file: str,
    model: bytes,
    layers: Sequence[Layer],
    quantized: Quantized,
    labels: Sequence[str],
    preprocessing: Preprocessing,
    operators: Sequence[str],
    arena: int,
    arena_about: str,
) -> dict[str, bytes]:
    """``model.h`` and ``model.cc`` of an int8 file. operators: see ``operators_of``."""
    image = quantized.tensors[INPUT]
    header = _HEADER.format(
        name=name,
        file=file,
        needs=_NEEDS if "AddFullyConnected" in operators else "",
        arena=arena,
        arena_about=arena_about,
        side=layers[0].in_shape[0],
        mean=", ".join(f"{float(value)!r}f" for value in preprocessing.mean),
        std=", ".join(f"{float(value)!r}f" for value in preprocessing.std),
        scale=f"{float(image.scale)!r}f",
        zero=image.zero,
        classes=len(labels),
        # JSON's escapes are C's, but for what is not ASCII: UTF-8 goes as it is.
        labels="\n".join(f"    {json.dumps(label, ensure_ascii=False)}," for label in labels),
        count=len(operators),
        adds=" && ".join(f"resolver.{add}() == 0" for add in operators),
    )
    rows = "\n".join(
        "    " + ",".join(str(byte) for byte in model[start : start + 24]) + ","
        for start in range(0, len(model), 24)
    )
    source = _SOURCE.format(rows=rows, size=len(model))
    return {"model.h": header.encode(), "model.cc": source.encode()}
