"""ONNX Runtime on the CPU of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ofa.errors import UserError

__all__ = ["OnnxRuntime"]

_DTYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(int64)": np.int64,
}  # fmt: skip
_BATCH = 8  # images at a time: larger batches fall out of the caches


class OnnxRuntime:
    """ONNX files on this machine."""

    name = "ONNX Runtime"
    delegate = "cpu"
    suffix = ".onnx"

    def __init__(self, threads: int = 1) -> None:
        self.version: str = onnxruntime.__version__
        self.threads = threads

    def open(self, model: Path | bytes) -> Callable[[], None]:
        """Load a model, and give what runs it once on zeros. Raises UserError."""
        session = self._load(model)
        where = "" if isinstance(model, bytes) else str(model)
        feeds = {}
        for given in session.get_inputs():
            if not all(isinstance(side, int) for side in given.shape[1:]):
                raise UserError(
                    "the size of its images is open", where, "export it with a fixed one"
                )
            if given.type not in _DTYPES:
                raise UserError(f"its input {given.name!r} is a {given.type}", where)
            shape = [side if isinstance(side, int) else 1 for side in given.shape]
            feeds[given.name] = np.zeros(shape, _DTYPES[given.type])

        def once() -> None:
            session.run(None, feeds)

        return once

    def run(self, model: Path | bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output (N, classes) of normalized images x (N, 3, H, W)."""
        session = self._load(model)
        name = session.get_inputs()[0].name
        parts = np.split(x, range(_BATCH, len(x), _BATCH))
        return np.concatenate([session.run(None, {name: part})[0] for part in parts])

    def _load(self, model: Path | bytes) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        source = model if isinstance(model, bytes) else str(model)
        try:
            return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no class of their own
            where = "" if isinstance(model, bytes) else str(model)
            reason = " ".join(str(error).split())
            raise UserError(f"ONNX Runtime cannot load the model ({reason})", where) from error
