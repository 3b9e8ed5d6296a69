"""``specialize()``: the main job, from a checkpoint and a device to verified files and a report."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from devices.backends.litert import Litert
from devices.backends.ort import OnnxRuntime
from devices.cost import bound_factor, latency_table, warnings_for
from devices.measure import Measurement, measure_interleaved
from devices.profile import Profile, get_profile
from ofa.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from ofa.errors import UserError
from ofa.images import Images, open_images, split
from ofa.layers import macs, parameters
from ofa.wilson import wilson
from specialize import report as r
from specialize.accuracy import AccuracyModel, fit, kendall
from specialize.export.onnx import onnx_model
from specialize.export.tflite import tflite_model
from specialize.export.verify import Verification, verify
from specialize.host import HOSTS, Host
from specialize.problem import Budget, Problem, parse_budget, tables_of
from specialize.score import Cut, Scorer, percent_right
from specialize.search import SearchResult
from specialize.search.evolution import evolve

__all__ = ["Result", "specialize"]

#: Held-out images on which all candidates are scored; the best few are scored on all of them.
_FIRST_LOOK = 256
_FINALISTS = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What ``specialize`` made."""

    report: r.Report
    output: Path

    @property
    def tflite(self) -> Path:
        """The TFLite file."""
        return self.output / "model.tflite"

    @property
    def onnx(self) -> Path:
        """The ONNX file."""
        return self.output / "model.onnx"


def specialize(
    device: str,
    budget: str | Sequence[str],
    *,
    checkpoint: str | Path = "lite-imagenette",
    output: str | Path | None = None,
    confidence: float = 0.9,
    candidates: int = 10,
    images: str | Path | None = None,
    threads: int | None = None,
    seed: int = 0,
    force: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    """Find, cut, verify and write the subnet that is most accurate on ``device`` in ``budget``.

    device: a profile's name, alias or file, or ``host``, ``host-onnxruntime``. budget: one or
    several texts with units ("20ms", "300MMACs", "3Mparams"). output: by default a folder of the
    working directory named after both. images: the user's own, to recalibrate and choose with.
    tell: called with a line of text after each step. Same seed, same architecture and files.
    Raises UserError for what the caller can mend; then nothing is written.
    """
    clock = _Clock()
    texts = [budget] if isinstance(budget, str) else list(budget)
    target = Path(output) if output is not None else _default_output(device, texts)
    command = _command(device, texts, checkpoint, confidence, candidates, images, seed)
    budgets = [parse_budget(text) for text in texts]
    host = device if device in HOSTS else None
    profile = None if host else get_profile(device)
    _check_output(target, command, force)
    with clock("load"):
        source = read_checkpoint(find_checkpoint(str(checkpoint)))
        recalibration, held_out = _samples(source, images)
        scorer = Scorer(source, recalibration, threads or os.cpu_count() or 1)
    bench = Host(host, source) if host else None
    if bench is not None:
        tell("measuring a spread of subnets on this machine")
        with clock("calibrate"):
            profile = bench.calibrate(seed)
    assert profile is not None

    with clock("accuracy model"):
        evaluated = source.evaluated
        model = fit(source.space, evaluated.genotypes, evaluated.accuracy, evaluated.images)
        ranking = kendall(source.space, evaluated.genotypes, evaluated.accuracy, evaluated.images)
    with clock("search"):
        problem = make_problem(source.space, model, profile, budgets, confidence)
        found = evolve(problem, seed=seed, k=candidates)
    tell(f"{found.evaluations} architectures searched in {found.seconds:.2f} s")
    if bench is not None:
        with clock("measure candidates"):
            found = _tighten(bench, problem, found, budgets, seed, tell)

    with clock("score"):
        archs = [source.space.decode(row) for row in found.genotypes]
        scored = _score(scorer, archs, model.percent(found.values), held_out, tell)
    winner = scored[0]
    with clock("test"):
        test = source.test()
        logits = scorer.logits(winner.cut, test)
