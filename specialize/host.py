"""This machine as a device: its latency is measured, in the runtime that will run the file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from devices.calibrate import fit_profile
from devices.measure import Backend, Measurement, measure_interleaved
from devices.profile import Hardware, Profile, Runtime
from devices.reach import HOSTS
from ofa.checkpoint import Checkpoint
from ofa.layers import Layer, lower
from ofa.machine import processor_name
from ofa.sampling import spread
from ofa.space import Arch
from ofa.weights import Weights, extract, fold
from specialize.export.onnx import onnx_model
from specialize.export.tflite import tflite_model

__all__ = ["Host"]

#: Measured to fit a profile: ten networks do most of the work (see docs/devices.md).
_SAMPLES = 14


class Host:
    """Measures subnets of a checkpoint in one runtime of this machine, with one thread."""

    def __init__(self, name: str, checkpoint: Checkpoint) -> None:
        self.name, self.checkpoint = name, checkpoint
        self.backend: Backend = HOSTS[name](threads=1)

    def calibrate(self, seed: int) -> Profile:
        """A profile fitted to a spread of measured subnets."""
        rng = np.random.default_rng(seed)
        # Of a larger spread, since a small one is the ends of each resolution and nothing between.
        wide = spread(self.checkpoint.space, 5 * _SAMPLES, rng)
        archs = [wide[i] for i in rng.choice(len(wide), min(_SAMPLES, len(wide)), replace=False)]
        measured = self.measure(archs)
        samples = [
            (lower(self.checkpoint.space, arch), m.median_ms)
            for arch, m in zip(archs, measured, strict=True)
        ]
        processor = processor_name()
        return fit_profile(
            self.name,
            f"this machine ({processor}), {self.backend.name}, 1 thread, float32",
            samples,
            Hardware("this machine", processor, "1", processor, None),
            Runtime(self.backend.name, self.backend.version, "cpu", 1, "float32", 1),
        )

    def measure(self, archs: Sequence[Arch]) -> list[Measurement]:
        """Latency of each, measured in turns so that a drift of the machine hits all alike.

        Latency does not depend on the weights' values, so batch norms are not recalibrated.
        """
        with tempfile.TemporaryDirectory() as name:
            paths = []
            for index, arch in enumerate(archs):
                layers = lower(self.checkpoint.space, arch)
                path = Path(name) / f"{index}{self.backend.suffix}"
                path.write_bytes(self._file(layers, self._weights(layers)))
                paths.append(path)
            return measure_interleaved(self.backend, paths)

    def _weights(self, layers: tuple[Layer, ...]) -> Weights:
        weights = extract(layers, self.checkpoint.tensors)
        plain = {
            layer.name: (
                np.zeros(layer.out_shape[2], np.float32),
                np.ones(layer.out_shape[2], np.float32),
            )
            for layer in layers
            if layer.has_batch_norm
        }
        return fold(layers, weights, plain, self.checkpoint.space.bn_eps)

    def _file(self, layers: tuple[Layer, ...], folded: Weights) -> bytes:
        write = tflite_model if self.backend.suffix == ".tflite" else onnx_model
        c = self.checkpoint
        return write(layers, folded, c.labels, c.preprocessing, c.name)
