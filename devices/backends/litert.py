"""LiteRT (``ai-edge-litert``), or the older ``tflite-runtime`` where that is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.errors import UserError

__all__ = ["Litert"]


def _interpreter() -> tuple[Any, str, str]:
    """(Interpreter class, name, version) of the runtime that is installed."""
    for package, name in (("ai-edge-litert", "LiteRT"), ("tflite-runtime", "tflite-runtime")):
        try:
            module = importlib.import_module(f"{package.replace('-', '_')}.interpreter")
        except ImportError:
            continue
        return module.Interpreter, name, version(package)
    raise UserError("no TFLite runtime is installed", fix="pip install ai-edge-litert")


class Litert:
    """TFLite files on this machine, with XNNPACK as both packages come."""

    suffix = ".tflite"

    def __init__(self, threads: int = 1) -> None:
        self._class, self.name, self.version = _interpreter()
        self.threads = threads

    def open(self, model: Path | bytes) -> Callable[[], None]:
        """Load a model, and give what runs it once on zeros. Raises UserError."""
        interpreter = self._load(model)
        detail = interpreter.get_input_details()[0]
        interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        invoke: Callable[[], None] = interpreter.invoke
        return invoke

    def run(self, model: Path | bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output (N, classes) of normalized images x (N, H, W, 3), one at a time.

        One at a time is as fast as a batch here, and is what the device does.
        """
        interpreter = self._load(model)
        given, got = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        if tuple(x.shape[1:]) != tuple(given["shape"][1:]):
            raise UserError(f"input {x.shape[1:]}, the model takes {tuple(given['shape'][1:])}")
        outputs = []
        for image in x:
            interpreter.set_tensor(given["index"], image[None])
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(got["index"])[0])
        return np.stack(outputs)

    def _load(self, model: Path | bytes) -> Any:
        source = (
            {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        )
        try:
            interpreter = self._class(num_threads=self.threads, **source)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            where = "" if isinstance(model, bytes) else str(model)
            raise UserError(f"{self.name} cannot load the model ({error})", where) from error
        return interpreter
