"""``mcu-cifar10`` in microcontrollers' runtimes, and beside MLPerf Tiny's ResNet-8.

python -m tests.bench.bench_micro                          the shipped test images
python -m tests.bench.bench_micro --test cifar10-test.zip  all 10,000, as class/name.jpg
... --tflite-runtime PYTHON                                of an environment with tflite-runtime
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from devices.backends.litert import Litert
from devices.backends.qemu import Qemu
from devices.backends.tflm import Tflm
from devices.cost import predict
from devices.memory import ENGINES, arena_bytes
from devices.profile import get_profile
from ofa.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from ofa.images import Images, open_images
from ofa.layers import lower, macs
from ofa.sampling import Sampler
from ofa.space import Arch
from ofa.wilson import wilson
from specialize import specialize
from specialize.export.tflite import tflite_model
from specialize.score import Int8Scorer, percent_right
from tests.bench.record import record, table

_SUBNETS = 50
#: MACs -> the accuracy that is asked for.
_ASKED = {"12.5MMACs": 90, "4MMACs": 86, "1MMACs": 80}
#: Published ms of the reference ResNet-8, int8, on boards that have a profile: mlcommons/
#: tiny_results, closed, round and submitter as stated there.
_RESNET8 = {
    "ek-ra8d1": (8.48, "v1.2 Renesas"),
    "nucleo-h7a3zi": (40.8, "v1.2 ST"),
    "disco-f746ng": (62.6, "v1.2 Bosch"),
    "nucleo-u575zi": (111.1, "v1.2 ST"),
    "psoc62": (162.2, "v1.2 Bosch"),
    "nucleo-l4r5zi": (165.1, "v1.2 ST"),
    "nrf5340-dk": (316.2, "v1.0 OctoML"),
    "nucleo-g0b1re": (1522, "v1.2 Bosch"),
}


def main() -> None:
    """Measure and record."""
    checkpoint = read_checkpoint(find_checkpoint("mcu-cifar10"))
    record("micro", runtimes(checkpoint), ("tflite-micro", "mlia-ethos-u"))
    test = checkpoint.test()
    if "--test" in sys.argv:
        test = open_images(Path(sys.argv[sys.argv.index("--test") + 1]))["train"]
    record("tiny", tiny(checkpoint, test))


def runtimes(checkpoint: Checkpoint) -> str:
    """Arenas and answers of subnets spread over MACs."""
    tflm, qemu = Tflm(), Qemu()
    reference, xnnpack = Litert(delegate="reference"), Litert()
    scorer = Int8Scorer(checkpoint, checkpoint.samples()[0], 2)
    sampler, rng = Sampler(checkpoint.space), np.random.default_rng(0)
    resolutions = checkpoint.space.resolutions
    archs = [sampler.draw(rng, resolutions[i % len(resolutions)]) for i in range(_SUBNETS)]
    above: dict[str, list[float]] = {"host": [], "cortex-m55": []}
    apart: dict[str, list[np.ndarray]] = {"tflm": [], "cortex-m55": [], "xnnpack": []}
    seconds: dict[str, list[float]] = {"export": [], "emulator": []}
    for arch in archs:
        began = time.perf_counter()
        model = int8_file(scorer, arch)
        seconds["export"].append(time.perf_counter() - began)
        layers = lower(checkpoint.space, arch)
        images = rng.integers(-128, 128, (4, *layers[0].in_shape)).astype(np.int8)
        wanted = reference.run_integers(model, images).astype(int)
        answers, arena = tflm.run(model, images)
        began = time.perf_counter()
        run = qemu.run(model, images[0], wanted.shape[1])
        seconds["emulator"].append(time.perf_counter() - began)
        for name, recorded in (("host", arena.total), ("cortex-m55", run.arena)):
            above[name].append(100 * (arena_bytes(layers, ENGINES[name]) / recorded - 1))
        apart["tflm"].append(abs(answers - wanted))
        apart["cortex-m55"].append(abs(run.output - wanted[0]))
        apart["xnnpack"].append(abs(xnnpack.run_integers(model, images) - wanted))
        old = in_tflite_runtime(model, images)
        if old is not None:
            apart.setdefault("tflite-runtime 2.14, reference", []).append(abs(old[0] - wanted))
            apart.setdefault("tflite-runtime 2.14", []).append(abs(old[1] - wanted))
    arenas = [
        [name, f"{min(found):+.3f}", f"{np.mean(found):+.3f}", f"{max(found):+.3f}"]
        for name, found in above.items()
    ]
    steps = []
    for name, found in apart.items():
        every = np.concatenate([one.ravel() for one in found])
        steps.append([name, every.size, f"{100 * (every > 0).mean():.2f}", int(every.max())])
    return "\n\n".join([
        "## Microcontrollers' runtimes",
        f"{_SUBNETS} subnets of `mcu-cifar10`, recalibrated and quantized. The arena from the "
        "layers, against the recorded one:",
        table(["engine", "least error, %", "mean", "largest"], arenas),
        "Logits against those of LiteRT's reference kernels, random images:",
        table(["runtime", "logits", "differ, %", "by steps, at most"], steps),
        f"Seconds a subnet, median: cutting, recalibrating, quantizing and writing "
        f"{np.median(seconds['export']):.2f}; the emulator {np.median(seconds['emulator']):.2f}.",
    ])  # fmt: skip


_OLD = """
import sys, numpy as np
from tflite_runtime.interpreter import Interpreter, OpResolverType
folder = sys.argv[1]
images, found = np.load(f"{folder}/images.npy"), []
for kind in (OpResolverType.BUILTIN_REF, OpResolverType.AUTO):
    it = Interpreter(f"{folder}/model.tflite", experimental_op_resolver_type=kind)
    it.allocate_tensors()
    given, got = it.get_input_details()[0]["index"], it.get_output_details()[0]["index"]
    for image in images:
        it.set_tensor(given, image[None])
        it.invoke()
        found.append(it.get_tensor(got)[0])
np.save(f"{folder}/found.npy", np.stack(found).reshape(2, len(images), -1))
"""


def in_tflite_runtime(model: bytes, images: np.ndarray) -> np.ndarray | None:
    """(2, N, classes) by its reference kernels and by what it runs; None where none is given."""
    if "--tflite-runtime" not in sys.argv:
        return None
    python = sys.argv[sys.argv.index("--tflite-runtime") + 1]
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "model.tflite").write_bytes(model)
        np.save(Path(name) / "images.npy", images)
        subprocess.run([python, "-c", _OLD, name], check=True, capture_output=True)
        return np.load(Path(name) / "found.npy")


def int8_file(scorer: Int8Scorer, arch: Arch) -> bytes:
    """The file of a subnet."""
    cut, c = scorer.cut(arch), scorer.checkpoint
    return tflite_model(cut.layers, cut.folded, c.labels, c.preprocessing, "bench", cut.quantized)


def tiny(checkpoint: Checkpoint, test: Images) -> str:
    """What is reached within MACs, as the main job chooses it, and what that takes on boards."""
    scorer = Int8Scorer(checkpoint, checkpoint.samples()[0], 2)
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for budget, asked in _ASKED.items():
            made = specialize("stm32h7", budget, candidates=20, output=Path(folder) / budget)
            arch = Arch.parse(made.report.architecture)
            layers = lower(checkpoint.space, arch)
            integer = accuracy(made.tflite.read_bytes(), checkpoint, test, arch)
            plain = percent_right(scorer.float_logits(scorer.cut(arch), test), test.labels)
            low, high = wilson(integer, len(test))
            boards = [predict(get_profile(name), layers).point for name in _RESNET8]
            rows.append([
                f"within {budget.replace('MMACs', '')}", f"{macs(layers) / 1e6:.2f}", str(asked),
                f"**{integer:.2f}** ({low:.1f} to {high:.1f})", f"{plain:.2f}",
                f"{arena_bytes(layers, ENGINES['cortex-m']) / 1e3:.0f}",
                f"{made.tflite.stat().st_size / 1e3:.0f}", *(f"{ms:.3g}" for ms in boards),
            ])  # fmt: skip
    published = [f"{ms:g}" for ms, _ in _RESNET8.values()]
    rows.append(["ResNet-8, published", "12.5", "", "85 (asked)", "", "-", "96", *published])
    header = [
        "subnet", "MMACs", "asked, %", "int8, % (95 % interval)", "float, %",
        "arena (Cortex-M7), kB", "flash, kB", *(f"`{name}`" for name in _RESNET8),
    ]  # fmt: skip
    sources = ", ".join(f"{name} {source}" for name, (_, source) in _RESNET8.items())
    return "\n\n".join([
        "## MLPerf Tiny's image classification",
        "The most accurate subnets within MACs, chosen on held-out images among 20, on "
        f"{len(test)} test images of CIFAR-10 (its JPEG copy). Boards: ms, predicted for the "
        "subnets, by profiles that have met no 5x5 depthwise convolution and price it by its MACs; "
        "published for the reference network (mlcommons/tiny_results, closed: "
        f"{sources}; 96 kB: Banbury et al. 2021; its arena is not published there, and 85 % is "
        "what a submission must reach).",
        table(header, rows),
    ])  # fmt: skip


def accuracy(model: bytes, checkpoint: Checkpoint, test: Images, arch: Arch) -> float:
    """Top-1 of the file in LiteRT."""
    parts = np.array_split(test.pixels(arch.resolution), 8)
    with ThreadPoolExecutor(2) as pool:
        logits = pool.map(
            lambda part: Litert().run(model, checkpoint.preprocessing.normalize(part)), parts
        )
        return percent_right(np.concatenate(list(logits)), test.labels)


if __name__ == "__main__":
    main()
