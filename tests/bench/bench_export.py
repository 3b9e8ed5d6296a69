"""How long an export takes, and whether an independent converter makes a better TFLite file.

    python -m tests.bench.bench_export

The referee is litert-torch: it traces the torch form of the same subnet and goes through MLIR. It
is 2 GB, so it is no dependency; install it beside this project in an environment of its own:

    python -m venv /tmp/referee
    /tmp/referee/bin/pip install . hypothesis torch litert-torch
    /tmp/referee/bin/python -m tests.bench.bench_export

Without it the export times are measured and recorded alone, and the text says so. Times are of
one thread; the two files are timed in turns, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from ofa.layers import INPUT, Layer, macs, same_padding
from ofa.preprocessing import LITE0
from ofa.spaces import get_space
from ofa.weights import Array, Weights
from specialize.export.onnx import onnx_model
from specialize.export.tflite import tflite_model
from specialize.export.verify import verify
from tests.bench.record import record, table
from tests.networks import labels_of, network, pixels_of

LITE = get_space("lite")
SUBNETS = {
    "smallest, 96 px": LITE.smallest(96),
    "largest, 128 px": LITE.largest(128),
    "largest, 224 px": LITE.largest(224),
}
REPEATS, INVOKES, IMAGES = 9, 60, 64
REFEREE = "litert_torch"


def main() -> None:
    """Measure, compare and record."""
    exports, referees = [], []
    has_referee = importlib.util.find_spec(REFEREE) is not None
    for title, arch in SUBNETS.items():
        layers, folded = network(LITE, arch)
        arguments = (layers, folded, labels_of(layers), LITE0, title)
        tflite, tflite_s = timed(partial(tflite_model, *arguments))
        onnx, onnx_s = timed(partial(onnx_model, *arguments))
        pixels = pixels_of(layers, IMAGES)
        reference = np.concatenate([in_litert(tflite)(x) for x in LITE0.normalize(pixels)[:, None]])
        start = time.perf_counter()
        verify(tflite, onnx, pixels, reference, labels_of(layers), LITE0)
        verify_ms = 1e3 * (time.perf_counter() - start) / IMAGES
        size = macs(layers) / 1e6
        exports.append([title, size, len(tflite) / 1e6, tflite_s, onnx_s, verify_ms])
        if has_referee:
            referees.append([title, *against_referee(layers, folded, tflite)])
        sys.stdout.write(f"{title}: done\n")

    text = "## Export\n\n" + (
        f"Median of {REPEATS}; verification of both files on {IMAGES} images, one thread.\n\n"
    )
    header = [
        "subnet of `lite`",
        "MMACs",
        "TFLite, MB",
        "TFLite, s",
        "ONNX, s",
        "verification, ms an image",
    ]
    text += table(header, exports)
    text += "\n\n### Against an independent converter\n\n"
    if has_referee:
        text += (
            "The same subnets through litert-torch, from a torch form. Latency in LiteRT, one "
            f"thread, {INVOKES} runs of each file in turns; ratio: ours / theirs, below 1 is "
            "faster.\n\n"
        )
        text += table(
            ["subnet of `lite`", "conversion, s", "largest logit", "largest difference",
             "ours, ms (min)", "theirs, ms (min)", "ratio of minima", "ratio of medians"],
            referees,
        )  # fmt: skip
    else:
        text += "Not measured: litert-torch was not installed."
    record("export", text, packages=["litert-torch"])


def timed(write: Callable[[], bytes]) -> tuple[bytes, float]:
    """What ``write`` gives, and the median of its seconds."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        data = write()
        seconds.append(time.perf_counter() - start)
    return data, median(seconds)


def in_litert(model: bytes) -> Callable[[Array], Array]:
    """The function that a file computes, (1, H, W, 3) to (1, classes), on one thread."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]

    def run(x: Array) -> Array:
        interpreter.set_tensor(given, x)
        interpreter.invoke()
        output: Array = interpreter.get_tensor(result)
        return output

    return run


def against_referee(layers: tuple[Layer, ...], folded: Weights, ours: bytes) -> list[float]:
    """The figures of a row: seconds, largest logit and difference, ms of both, two ratios."""
    start = time.perf_counter()
    theirs = convert(layers, folded)
    seconds = time.perf_counter() - start
    runs = [in_litert(ours), in_litert(theirs)]
    inputs = LITE0.normalize(pixels_of(layers, 8))[:, None]
    a, b = (np.concatenate([run(x) for x in inputs]) for run in runs)
    times: list[list[float]] = [[], []]
    for _ in range(INVOKES):
        for run, spent in zip(runs, times, strict=True):
            start = time.perf_counter()
            run(inputs[0])
            spent.append(1e3 * (time.perf_counter() - start))
    least, middle = [min(t) for t in times], [median(t) for t in times]
    return [
        seconds, float(abs(a).max()), float(abs(a - b).max()), *least,
        least[0] / least[1], middle[0] / middle[1],
    ]  # fmt: skip


def convert(layers: tuple[Layer, ...], folded: Weights) -> bytes:
    """The TFLite file that litert-torch makes of a plain torch form of the network.

    Not of ``ofa.supernet.Subnet``: that pads kernels instead of images where the stride is 2, and
    a kernel of 6x6 is one that XNNPACK has no fast depthwise code for.
    """
    import torch
    import torch.nn.functional as F

    class Plain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs = {INPUT: x}
            for layer in layers:
                inputs = [outputs[name] for name in layer.inputs]
                parts = folded.get(layer.name, {})
                own = [torch.from_numpy(parts[part]) for part in ("weight", "bias") if parts]
                match layer.op:
                    case "add":
                        y = inputs[0] + inputs[1]
                    case "mean":
                        y = inputs[0].mean((2, 3))
                    case "linear":
                        y = F.linear(inputs[0], *own)
                    case _:
                        before, after = same_padding(layer.in_shape[0], layer.kernel, layer.stride)
                        padded = F.pad(inputs[0], (before, after, before, after))
                        groups = layer.out_shape[2] if layer.op == "depthwise" else 1
                        y = F.conv2d(padded, *own, stride=layer.stride, groups=groups)
                outputs[layer.name] = F.relu6(y) if layer.activation == "relu6" else y
            return outputs[layers[-1].name]

    litert_torch: Any = importlib.import_module(REFEREE)
    channels_last = litert_torch.to_channel_last_io(Plain().eval(), args=[0])
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):  # it is chatty
        path = Path(folder) / "converted.tflite"
        model = litert_torch.convert(channels_last, (torch.zeros(1, *layers[0].in_shape),))
        model.export(str(path))
        return path.read_bytes()


if __name__ == "__main__":
    main()
