"""Find, cut and export the subnet that is most accurate on a device within a budget.

from specialize import specialize

result = specialize(device="pixel", budget="20ms", output="pixel-20ms")
print(result.report.architecture, result.tflite)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specialize.pipeline import Result, specialize
    from specialize.report import Report

__all__ = ["Report", "Result", "specialize"]


def __getattr__(name: str) -> Any:  # lazily, so that `ofa-specialize --help` stays fast
    if name == "Report":
        from specialize.report import Report

        return Report
    if name in ("Result", "specialize"):
        from specialize import pipeline

        return getattr(pipeline, name)
    raise AttributeError(name)
