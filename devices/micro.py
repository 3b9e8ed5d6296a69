"""An int8 file in the runtimes of microcontrollers: its answers, and what it takes.

No time comes out of these. ``tflm`` is TensorFlow Lite Micro's own interpreter; ``cortex-m55`` the
same with CMSIS-NN on an emulated processor.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devices.backends.litert import Litert
from devices.backends.qemu import Qemu
from devices.backends.tflm import Tflm

__all__ = ["Checked", "check"]

_IMAGES = 4


@dataclass(frozen=True, slots=True)
class Checked:
    """A run of a file on random images, held against LiteRT's reference kernels.

    steps: largest difference of an output, in steps of its scale. differing: outputs that differ,
    of ``outputs``. arena: bytes of the tensor arena. instructions: of one image, to within 10,000.
    """

    runtime: str
    images: int
    outputs: int
    differing: int
    steps: int
    arena: int
    instructions: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        said = [f"{self.arena:,} bytes of arena"]
        if self.instructions is not None:
            said.append(f"{self.instructions / 1e6:.2f} million instructions an image")
        answers = f"all {self.outputs} outputs of {self.images} random images equal those of"
        if self.differing:
            answers = (
                f"{self.differing} of {self.outputs} outputs of {self.images} random images are "
                f"up to {self.steps} step{'s' * (self.steps != 1)} from those of"
            )
        return f"{'; '.join(said)}; {answers} LiteRT's reference kernels; {self.runtime}"


def check(name: str, model: Path) -> Checked:
    """Run a file in the runtime of that name. Raises UserError."""
    content = model.read_bytes()
    reference = Litert(delegate="reference")
    rng = np.random.default_rng(0)
    shape = (_IMAGES, *reference.image_shape(model))
    images = rng.integers(-128, 128, shape).astype(np.int8)
    wanted = reference.run_integers(model, images)
    instructions = None
    if name == "tflm":
        tflm = Tflm()
        outputs, used = tflm.run(content, images)
        arena, runtime = used.total, f"tflite-micro {tflm.version}"
    else:
        qemu = Qemu()
        # Counted last: what goes wrong without is told.
        runs = [
            qemu.run(content, image, wanted[0].size, count=index == _IMAGES - 1)
            for index, image in enumerate(images)
        ]
        outputs = np.stack([run.output for run in runs]).reshape(wanted.shape)
        arena, instructions = runs[-1].arena, runs[-1].instructions
        runtime = f"{qemu.firmware} in {qemu.version}"
    apart = abs(outputs.astype(int) - wanted)
    differing, most = int((apart > 0).sum()), int(apart.max())
    return Checked(runtime, len(images), apart.size, differing, most, arena, instructions)
