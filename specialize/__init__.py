"""Find, cut and export the subnet that is most accurate on a device within a budget.

from specialize import specialize

result = specialize(device="pixel", budget="20ms", output="pixel-20ms")
print(result.report.architecture, result.tflite)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specialize.export.onnx import onnx_model
    from specialize.export.tflite import tflite_model
    from specialize.pipeline import Result, specialize
    from specialize.report import Report
    from specialize.score import Cut, Scorer

__all__ = ["Cut", "Report", "Result", "Scorer", "onnx_model", "specialize", "tflite_model"]

_HOMES = {
    "export.onnx": ("onnx_model",),
    "export.tflite": ("tflite_model",),
    "pipeline": ("Result", "specialize"),
    "report": ("Report",),
    "score": ("Cut", "Scorer"),
}


def __getattr__(name: str) -> Any:  # lazily, so that `ofa-specialize --help` stays fast
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"specialize.{module}"), name)
    raise AttributeError(name)
