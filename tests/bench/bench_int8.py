"""Int8 files against the float network and against an independent quantizer.

pip install litert-quantizer      (the referee, on the float TFLite file)
python -m tests.bench.bench_int8                          the shipped test images
python -m tests.bench.bench_int8 --test cifar10-test.zip  of mcu-cifar10 all 10,000
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from devices.backends.litert import Litert
from devices.backends.ort import OnnxRuntime
from devices.profile import get_profile
from ofa.checkpoint import find_checkpoint, read_checkpoint
from ofa.images import open_images
from ofa.weights import Array
from specialize.accuracy import fit
from specialize.export import IMAGE
from specialize.export.onnx import onnx_model
from specialize.export.quantize import REPRESENTATIVE_IMAGES, qdq_model
from specialize.export.tflite import tflite_model
from specialize.pose import cost_tables, pose
from specialize.problem import Objective, budgets_of
from specialize.score import Int8Scorer
from specialize.search import exact
from tests.bench.record import record, table

#: Supernet -> a profile, and budgets on it.
_CHOICES = {
    "lite-imagenette": ("pixel4-int8", "3ms", "5ms", "10ms"),
    "mcu-cifar10": ("stm32h7", "1MMACs", "4MMACs", "12.5MMACs"),
}


def main() -> None:
    """Measure and record."""
    rows = [row for name in _CHOICES for row in rows_of(name)]
    header = ["subnet", "file", "test, %", "n", "answers as float, %", "noise, dB", "s"]
    text = (
        f"The most accurate subnets within budgets, {REPRESENTATIVE_IMAGES} representative images, "
        "n test images; noise: how far below the logits. Seconds: with cutting and recalibration "
        "for ours."
    )
    record("int8", f"## Int8\n\n{text}\n\n{table(header, rows)}", ("litert-quantizer",))


def rows_of(name: str) -> list[list[object]]:
    """Float, our int8, the referee's, and ONNX of a supernet's choices."""
    checkpoint = read_checkpoint(find_checkpoint(name))
    device, *texts = _CHOICES[name]
    space, test = checkpoint.space, checkpoint.test()
    if name == "mcu-cifar10" and "--test" in sys.argv:
        test = open_images(Path(sys.argv[sys.argv.index("--test") + 1]))["train"]
    recalibration, _ = checkpoint.samples()
    scorer = Int8Scorer(checkpoint, recalibration, 2)
    profile = get_profile(device)
    accuracy = fit(space, checkpoint.evaluated).table
    costs = cost_tables(space, profile, checkpoint.labels, "int8")
    rows: list[list[object]] = []
    for text in texts:
        budgets = budgets_of(text, None, None)
        problem = pose(space, accuracy, costs, profile, budgets, Objective(), 0.9)
        arch = space.decode(exact.search(problem, count=1).genotypes[0])
        began = time.perf_counter()
        cut = scorer.cut(arch)
        content = (cut.layers, cut.folded, checkpoint.labels, checkpoint.preprocessing, "bench")
        ours = tflite_model(*content, cut.quantized)
        seconds = time.perf_counter() - began
        images = scorer.representative(arch)
        exact_logits = scorer.float_logits(cut, test)
        x_NHWC = checkpoint.preprocessing.normalize(test.pixels(arch.resolution))
        x_NCHW = np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2))
        began = time.perf_counter()
        theirs = by_referee(tflite_model(*content), images.transpose(0, 2, 3, 1))
        seconds_theirs = time.perf_counter() - began
        began = time.perf_counter()
        qdq = qdq_model(onnx_model(*content), images)
        seconds_qdq = time.perf_counter() - began
        litert = Litert(threads=2)
        for what, logits, taken in (
            ("float", exact_logits, None),
            ("**ours, TFLite**", litert.run(ours, x_NHWC), seconds),
            ("litert-quantizer", litert.run(theirs, x_NHWC), seconds_theirs),
            ("ONNX, QDQ", OnnxRuntime(threads=2).run(qdq, x_NCHW), seconds_qdq),
        ):
            rows.append([
                f"`{name}`, {text}, {arch.resolution} px", what,
                f"{100 * (logits.argmax(1) == test.labels).mean():.2f}", len(test),
                f"{100 * (logits.argmax(1) == exact_logits.argmax(1)).mean():.1f}",
                "" if taken is None else f"{decibels(exact_logits, logits):.1f}",
                "" if taken is None else f"{taken:.1f}",
            ])  # fmt: skip
    return rows


def by_referee(model: bytes, images: Array) -> bytes:
    """What litert-quantizer makes of the float file: static, full integer."""
    from litert_quantizer import quantizer, recipe

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.tflite", Path(folder) / "int8.tflite"
        source.write_bytes(model)
        q = quantizer.Quantizer(str(source))
        q.load_quantization_recipe(recipe.static_wi8_ai8())
        found = q.calibrate({"serving_default": [{IMAGE: image[None]} for image in images]})
        q.quantize(found).export_model(str(target), overwrite=True)
        return target.read_bytes()


def decibels(exact_logits: Array, logits: Array) -> float:
    """How far the noise is below the logits."""
    noise = ((logits - exact_logits) ** 2).mean()
    return float(10 * np.log10((exact_logits**2).mean() / noise))


if __name__ == "__main__":
    main()
