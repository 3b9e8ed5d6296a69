"""LiteRT (``ai-edge-litert``), or the older ``tflite-runtime`` where that is installed."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ofa.errors import UserError

__all__ = ["REDIRECTING", "Litert"]

#: What runs the operators -> the runtime's name for it.
_RESOLVERS = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}


def _runtime() -> tuple[Any, str, str]:
    """(module, name, version) of the runtime that is installed. Raises UserError."""
    for package, name in (("ai-edge-litert", "LiteRT"), ("tflite-runtime", "tflite-runtime")):
        try:
            module = importlib.import_module(f"{package.replace('-', '_')}.interpreter")
        except ImportError:
            continue
        found = version(package)
        if name == "tflite-runtime" and np.lib.NumpyVersion(np.__version__) >= "2.0.0":
            raise UserError(
                f"{name} {found} is built for NumPy 1, not {np.__version__}",
                fix="pip install 'numpy<2'",
            )
        return module, name, found
    raise UserError("no TFLite runtime is installed", fix="pip install ai-edge-litert")


class Litert:
    """TFLite files on this machine.

    delegate: what runs the operators: ``xnnpack`` as both packages come, ``builtin`` the
    optimized kernels without it, ``reference`` the plain ones that others are compared with.
    """

    suffix = ".tflite"

    def __init__(
        self, threads: int = 1, delegate: Literal["xnnpack", "builtin", "reference"] = "xnnpack"
    ) -> None:
        self._module, self.name, self.version = _runtime()
        self.threads = threads
        self.delegate: str = delegate

    def open(self, model: Path | bytes) -> Callable[[], None]:
        """Load a model, and give what runs it once on zeros. Raises UserError."""
        interpreter = self._load(model)
        detail = interpreter.get_input_details()[0]
        if (detail["shape_signature"][1:] < 0).any():
            where = "" if isinstance(model, bytes) else str(model)
            raise UserError("the size of its images is open", where, "export it with a fixed one")
        interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        invoke: Callable[[], None] = interpreter.invoke
        return invoke

    def run(self, model: Path | bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output (N, classes) of normalized images x (N, H, W, 3), one at a time.

        One at a time is as fast as a batch here, and is what the device does. Of an int8 model x is
        quantized and the output dequantized, as its user does.
        """
        interpreter = self._load(model)
        given, got = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        if tuple(x.shape[1:]) != tuple(given["shape"][1:]):
            raise UserError(f"input {x.shape[1:]}, the model takes {tuple(given['shape'][1:])}")
        integer = given["dtype"] == np.int8
        if integer:
            scale, zero = given["quantization"]
            steps = np.rint(x * np.float32(1 / scale)) + zero
            x = np.clip(steps, -128, 127).astype(np.int8)
        found = _answers(interpreter, x)
        if integer:
            scale, zero = got["quantization"]
            return np.asarray((found - np.float32(zero)) * np.float32(scale))
        return found

    def run_integers(self, model: Path | bytes, images: NDArray[np.int8]) -> NDArray[np.int8]:
        """The output (N, classes) of an int8 model for images (N, H, W, 3), as integers."""
        return np.asarray(_answers(self._load(model), images), np.int8)

    def image_shape(self, model: Path | bytes) -> tuple[int, ...]:
        """(H, W, 3) of what an int8 model takes. Raises UserError where it takes no int8."""
        given = self._load(model).get_input_details()[0]
        if given["dtype"] != np.int8:
            where = "" if isinstance(model, bytes) else str(model)
            raise UserError(
                "not an int8 model, which microcontrollers run", where,
                "ofa-specialize --precision int8 writes one",
            )  # fmt: skip
        return tuple(int(side) for side in given["shape"][1:])

    def _load(self, model: Path | bytes) -> Any:
        source = (
            {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        )
        resolver = getattr(self._module.OpResolverType, _RESOLVERS[self.delegate])
        try:
            interpreter = self._module.Interpreter(
                num_threads=self.threads, experimental_op_resolver_type=resolver, **source
            )
            with _without_chatter():
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            where = "" if isinstance(model, bytes) else str(model)
            reason = " ".join(str(error).split())
            raise UserError(f"{self.name} cannot load the model ({reason})", where) from error
        return interpreter


def _answers(interpreter: Any, images: NDArray[Any]) -> NDArray[Any]:
    """The output of each image, one at a time."""
    given, got = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    outputs = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(got["index"])[0])
    return np.stack(outputs)


#: There is one stderr: two threads that redirect it at once would lose it.
REDIRECTING = threading.Lock()


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep the runtime's INFO lines off stderr, where it writes past Python; pass the rest on."""
    sys.stderr.flush()
    with REDIRECTING, tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            for line in kept:
                if not line.startswith(b"INFO:"):
                    os.write(2, line)
