"""TensorFlow Lite Micro's interpreter, as its Python package runs it on this machine.

Its answers are those of a microcontroller's reference kernels; its arena is that of a 64-bit host,
which holds the same activations and larger bookkeeping. Neither says how long a network takes.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.backends.litert import REDIRECTING
from ofa.errors import UserError

__all__ = ["Arena", "Tflm", "missing_operator"]

_PACKAGE = "tflite-micro"
_MOST = 64 << 20


@dataclass(frozen=True, slots=True)
class Arena:
    """Bytes of a tensor arena as the interpreter recorded them.

    head: activations and scratch, which share memory. tail: what lives as long as the interpreter.
    """

    head: int
    tail: int

    @property
    def total(self) -> int:
        """What a firmware must reserve."""
        return self.head + self.tail


class Tflm:
    """Int8 TFLite files in tflite-micro."""

    def __init__(self) -> None:
        try:
            from tflite_micro import runtime

            self.version = version(_PACKAGE)
        except (ImportError, PackageNotFoundError) as error:
            raise UserError(f"{_PACKAGE} is not installed", fix="pip install '.[mcu]'") from error
        self._runtime = runtime

    def run(self, model: bytes, images: NDArray[np.int8]) -> tuple[NDArray[np.int8], Arena]:
        """The output (N, classes) of an int8 file for images (N, H, W, 3), and its arena.

        Raises UserError.
        """
        outputs = []

        def work() -> None:
            interpreter = self._runtime.Interpreter.from_bytes(model, arena_size=_MOST)
            for image in images:
                interpreter.set_input(image[None], 0)
                interpreter.invoke()
                outputs.append(interpreter.get_output(0)[0])
            interpreter.print_allocations()

        told, error = _told(work)
        if error is not None:
            why = missing_operator(told) or " ".join(str(error).split())
            raise UserError(f"{_PACKAGE} cannot run the model ({why})") from error
        found = dict(re.findall(r"Arena allocation (head|tail) (\d+)", told))
        if len(found) < 2:
            raise UserError(f"{_PACKAGE} {self.version} does not tell its arena")
        return np.stack(outputs), Arena(int(found["head"]), int(found["tail"]))


def missing_operator(told: str) -> str:
    """Of what the interpreter wrote, the operator that it lacks; empty where it lacks none."""
    found = re.search(r"(?:find op for builtin opcode|registration from op code) '?(\w+)", told)
    return f"it has no operator {found[1]}" if found else ""


def _told(work: Callable[[], Any]) -> tuple[str, Exception | None]:
    """What ``work`` writes past Python to stdout and stderr, and the error that ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    with REDIRECTING, tempfile.TemporaryFile() as kept:
        before = [os.dup(descriptor) for descriptor in (1, 2)]
        try:
            for descriptor in (1, 2):
                os.dup2(kept.fileno(), descriptor)
            work()
            error = None
        except (RuntimeError, ValueError, SystemError) as raised:
            error = raised
        finally:
            for descriptor, saved in zip((1, 2), before, strict=True):
                os.dup2(saved, descriptor)
                os.close(saved)
        kept.seek(0)
        return kept.read().decode(errors="replace"), error
