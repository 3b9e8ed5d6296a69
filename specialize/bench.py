"""Subnets of a checkpoint, measured: on this machine, on a phone, on a board."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from devices.backends.vela import Compiled
from devices.measure import Measurement
from devices.reach import Compiler, Farm, Meter
from ofa.checkpoint import Checkpoint
from ofa.layers import Layer, lower
from ofa.space import Arch
from ofa.weights import Weights, extract, fold
from specialize.export.onnx import onnx_model
from specialize.export.quantize import qdq_model, quantize
from specialize.export.tflite import tflite_model

__all__ = ["Bench"]


class Bench:
    """Exports subnets, and measures the files. name: of the device, for messages."""

    def __init__(
        self, name: str, meter: Meter, checkpoint: Checkpoint, precision: str = "float32"
    ) -> None:
        self.name, self.meter, self.checkpoint = name, meter, checkpoint
        self.precision = precision

    @property
    def deterministic(self) -> bool:
        """Whether a file always takes the same, as a compiler has it."""
        return isinstance(self.meter, Compiler)

    def measure(self, archs: Sequence[Arch]) -> list[Measurement]:
        """Latency of each, in repeats so that a drift of the device hits all alike.

        Latency does not depend on the weights' values (a compiler's a little: it is asked again
        with those of the candidates), so batch norms are not recalibrated, and integers are those
        of noise.
        """
        return self.measure_files([self.exported(arch) for arch in archs])

    def measure_beside(
        self, reference: Arch, archs: Sequence[Arch]
    ) -> list[tuple[Measurement, Measurement]]:
        """(reference, subnet) of each; several devices measure a reference each."""
        with self._written([self.exported(arch) for arch in (reference, *archs)]) as paths:
            if isinstance(self.meter, Farm):
                return self.meter.measure_beside(paths[0], paths[1:])
            first, *found = self.meter.measure(paths)
            return [(first, one) for one in found]

    def compile(self, archs: Sequence[Arch]) -> list[Compiled]:
        """What the compiler says of each, where the device is one that a compiler knows."""
        assert isinstance(self.meter, Compiler)
        return [self.meter.vela.compile(self.exported(arch)) for arch in archs]

    def exported(self, arch: Arch) -> bytes:
        """The file of a subnet."""
        layers = lower(self.checkpoint.space, arch)
        return self._file(layers, self._weights(layers))

    def measure_files(self, files: Sequence[bytes]) -> list[Measurement]:
        """The same of model files."""
        with self._written(files) as paths:
            return self.meter.measure(paths)

    @contextmanager
    def _written(self, files: Sequence[bytes]) -> Iterator[list[Path]]:
        with tempfile.TemporaryDirectory() as name:
            paths = [Path(name) / f"{i}{self.meter.suffix}" for i in range(len(files))]
            for path, file in zip(paths, files, strict=True):
                path.write_bytes(file)
            yield paths

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
        c = self.checkpoint
        content = (layers, folded, c.labels, c.preprocessing, c.name)
        tflite = self.meter.suffix == ".tflite"
        if self.precision == "float32":
            return tflite_model(*content) if tflite else onnx_model(*content)
        height, width, channels = layers[0].in_shape
        noise = np.random.default_rng(0).normal(size=(1, channels, height, width))
        images = noise.astype(np.float32)
        if tflite:
            return tflite_model(*content, quantize(layers, folded, images))
        return qdq_model(onnx_model(*content), images)
