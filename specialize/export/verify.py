"""Run the files that are handed over, and hold them against each other and the scored graph."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from devices.backends.litert import Litert
from devices.backends.ort import OnnxRuntime
from ofa.errors import UserError
from ofa.preprocessing import Preprocessing
from ofa.weights import Array
from specialize.export.metadata import LABEL_FILE

__all__ = ["ExportError", "Verification", "verify"]

_LEAST_DB = 10.0
_BATCH = 20  # images at a time, so that memory stays small: 12 MB at 224 pixels


class ExportError(RuntimeError):
    """A file does not compute what was scored: a bug of this program, not of its user."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What the files did on the sample.

    images: number of images. largest_logit: of the reference, absolute.
    tflite_reference, onnx_reference, tflite_onnx: largest absolute difference of any logit.
    agreeing: images with the same top-1 in both files and the reference.
    """

    images: int
    largest_logit: float
    tflite_reference: float
    onnx_reference: float
    tflite_onnx: float
    agreeing: int

    @property
    def largest_difference(self) -> float:
        """Of any logit, between any two; not finite if an output is not."""
        return max(self.tflite_reference, self.onnx_reference, self.tflite_onnx)

    def __str__(self) -> str:
        return (
            f"TFLite and reference {self.tflite_reference:.3g}, "
            f"ONNX and reference {self.onnx_reference:.3g}, "
            f"TFLite and ONNX {self.tflite_onnx:.3g}, logits up to {self.largest_logit:.3g}, "
            f"same top-1 on {self.agreeing} of {self.images} images"
        )


def verify(
    tflite: Path | bytes,
    onnx: Path | bytes,
    pixels: NDArray[np.uint8],
    reference: Array,
    labels: Sequence[str],
    preprocessing: Preprocessing,
    *,
    tolerance: float = 1e-4,
    precision: str = "float32",
    threads: int = 1,
) -> Verification:
    """Compare the files on images, in LiteRT and ONNX Runtime, with what the float network said.

    pixels: (N, H, W, 3) uint8 at the network's resolution. reference: (N, classes) logits.
    tolerance: largest difference of a logit, as a share of the largest logit of the reference.
    Two runtimes sum in different orders: about 1e-6 for the networks here (measured), and a wrong
    weight, padding or activation is far above 1e-4. precision: of the files; int8 ones round, and
    their noise is held 10 dB below the logits (measured: 20 to 30).

    Raises ExportError, with the figures, beyond the tolerance, and where a file has other labels or
    does not run.
    """
    for file, found in (("TFLite", _tflite_labels(tflite)), ("ONNX", _onnx_labels(onnx))):
        if found != list(labels):
            raise ExportError(f"the {file} file has labels {found}, the network {list(labels)}")
    # Side by side: LiteRT gains nothing from a second thread.
    litert, ort = Litert(), OnnxRuntime(threads=max(1, threads - 1))
    outputs: list[tuple[Array, Array]] = []
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(pixels), _BATCH):
            x_NHWC = preprocessing.normalize(pixels[start : start + _BATCH])
            x_NCHW = np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2))
            runs = pool.submit(litert.run, tflite, x_NHWC), pool.submit(ort.run, onnx, x_NCHW)
            try:
                outputs.append((runs[0].result(), runs[1].result()))
            except UserError as error:  # not the user's file
                raise ExportError(f"a file that was written cannot be run: {error}") from error
    from_tflite, from_onnx = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    answer = reference.argmax(1)
    result = Verification(
        images=len(pixels),
        largest_logit=float(np.abs(reference).max()),
        tflite_reference=_distance(from_tflite, reference),
        onnx_reference=_distance(from_onnx, reference),
        tflite_onnx=_distance(from_tflite, from_onnx),
        agreeing=int(((from_tflite.argmax(1) == answer) & (from_onnx.argmax(1) == answer)).sum()),
    )
    if precision == "int8":
        power = float((reference**2).mean())
        noise = max(float(((y - reference) ** 2).mean()) for y in (from_tflite, from_onnx))
        wrong = not noise <= power * 10 ** (-_LEAST_DB / 10)
    else:
        wrong = not result.largest_difference <= tolerance * result.largest_logit
    if wrong:
        raise ExportError(f"the files do not compute what was scored: {result}")
    return result


def _distance(a: Array, b: Array) -> float:
    """Largest absolute difference; infinite where there is a NaN, since max() may lose one."""
    return float(np.nan_to_num(np.abs(a - b), nan=np.inf, posinf=np.inf).max())


def _tflite_labels(model: Path | bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(model) if isinstance(model, bytes) else model) as archive:
        return archive.read(LABEL_FILE).decode().splitlines()


def _onnx_labels(model: Path | bytes) -> list[str]:
    proto = ModelProto.FromString(model if isinstance(model, bytes) else model.read_bytes())
    return next((json.loads(p.value) for p in proto.metadata_props if p.key == "labels"), [])
