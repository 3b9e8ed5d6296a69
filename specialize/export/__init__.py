"""One subnet as files that a device runs: TFLite and ONNX, checked against each other."""

from __future__ import annotations

__all__ = ["IMAGE", "LOGITS"]

#: Names of the input and the output in every model file. The input is the normalized image, the
#: output are logits: a softmax is one line for who wants it, and cannot be undone exactly.
IMAGE = "image"
LOGITS = "logits"
