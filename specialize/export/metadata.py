"""TFLite metadata: how the input is prepared, and what the outputs are called.

Two parts, as the readers of tflite-support, Android Studio and MediaPipe expect them: a flatbuffer
inside the model (buffer ``TFLITE_METADATA``), and a zip with the label file behind the model.

Source: tensorflow/tflite-support, tensorflow_lite_support/metadata/metadata_schema.fbs
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import numpy as np

from ofa.preprocessing import Preprocessing
from specialize.export import IMAGE, LOGITS
from specialize.export.flatbuffer import Schema, finish

__all__ = ["LABEL_FILE", "append_labels", "metadata"]

LABEL_FILE = "labels.txt"

_ASSOCIATED_FILE = Schema("name:string", "description:string", "type:int8")
_TENSOR_AXIS_LABELS = 2  # AssociatedFileType
_FEATURE_PROPERTIES = Schema(member=1)
_IMAGE_SIZE = Schema("width:uint32", "height:uint32")
_IMAGE_PROPERTIES = Schema("color_space:int8", "default_size:table", member=2)
_RGB = 1  # ColorSpaceType
_CONTENT = Schema("content_properties:union")
_NORMALIZATION_OPTIONS = Schema("mean:[float32]", "std:[float32]", member=1)
_PROCESS_UNIT = Schema("options:union")
_STATS = Schema("max:[float32]", "min:[float32]")
_TENSOR_METADATA = Schema(
    "name:string",
    "description:string",
    "dimension_names:[string]",
    "content:table",
    "process_units:[table]",
    "stats:table",
    "associated_files:[table]",
)
_SUBGRAPH_METADATA = Schema(
    "name:string",
    "description:string",
    "input_tensor_metadata:[table]",
    "output_tensor_metadata:[table]",
)
_MODEL_METADATA = Schema(
    "name:string",
    "description:string",
    "version:string",
    "subgraph_metadata:[table]",
    "author:string",
    "license:string",
    "associated_files:[table]",
    "min_parser_version:string",
)


def metadata(name: str, resolution: int, classes: int, preprocessing: Preprocessing) -> bytes:
    """The flatbuffer of a classifier with one image as its input, and logits as its output."""
    limits = np.array(preprocessing.range, np.uint8)[:, None].repeat(3, axis=1)
    low, high = preprocessing.normalize(limits)
    image = _TENSOR_METADATA(
        name=IMAGE,
        description=(
            f"RGB image of {resolution} x {resolution}: {preprocessing.resize}; "
            "then (x - mean) / std"
        ),
        content=_CONTENT(
            content_properties=_IMAGE_PROPERTIES(
                color_space=_RGB,
                default_size=_IMAGE_SIZE(width=resolution, height=resolution),
            )
        ),
        process_units=[
            _PROCESS_UNIT(
                options=_NORMALIZATION_OPTIONS(mean=preprocessing.mean, std=preprocessing.std)
            )
        ],
        stats=_STATS(max=high, min=low),
    )
    logits = _TENSOR_METADATA(
        name=LOGITS,
        description="one logit a class, in the order of the label file; softmax gives shares",
        content=_CONTENT(content_properties=_FEATURE_PROPERTIES()),
        associated_files=[
            _ASSOCIATED_FILE(
                name=LABEL_FILE,
                description="name of each class, one a line",
                type=_TENSOR_AXIS_LABELS,
            )
        ],
    )
    model = _MODEL_METADATA(
        name=name,
        description=f"image classifier, {classes} classes",
        subgraph_metadata=[
            _SUBGRAPH_METADATA(input_tensor_metadata=[image], output_tensor_metadata=[logits])
        ],
        min_parser_version="1.0.0",  # of the newest field above
    )
    return finish(model, b"M001")


def append_labels(model: bytes, labels: Sequence[str]) -> bytes:
    """``model`` with a zip of the label file behind it; a model's own bytes stay as they are.

    Raises ValueError if a label holds a line break, since the file has one label a line.
    """
    for label in labels:
        if label.splitlines() != [label]:
            raise ValueError(f"label {label!r} is not one line of text")
    entry = zipfile.ZipInfo(LABEL_FILE)  # dated 1980-01-01: same labels, same bytes
    entry.create_system = 3
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(entry, "".join(f"{label}\n" for label in labels))
    return file.getvalue()
