"""One training step, against the same step in torch's stock layers, and what it is made of.

    python -m tests.bench.bench_step      (on an idle machine; some minutes)

A step is the sandwich rule with in-place distillation: the largest subnet, the smallest and two
random ones, and one update by AdamW. glibc's allocator is set when a process starts, so there are
two processes, of which one waits while the other takes its step. All take turns in every round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ofa.checkpoint import find_checkpoint, read_checkpoint
from ofa.cli import KEEP_MEMORY
from ofa.data import Splits
from ofa.recipe import RECIPES
from ofa.spaces import get_space
from ofa.supernet import initial
from ofa.train import Run
from tests.bench.record import record, table
from tests.plain import parameters, plain_step

ROUNDS, WARM, BATCH = 5, 1, 64
#: Space -> resolution.
SETTINGS = {"lite": 128, "mbv3-w1.0": 64}

OURS, PLAIN, PLAIN_KEPT = "ours", "stock layers", "stock layers, memory kept"

#: Kind -> words in the names of torch's operators.
KINDS = {
    "convolution": ("conv", "aten::mm", "aten::addmm"),
    "batch norm": ("batch_norm", "var_mean"),
    "activation": ("hard", "relu", "threshold", "clamp_min"),
    "padding and copies": ("pad", "copy_", "fill_", "zero_"),
}


class Step:
    """The same step in both ways, on images and weights of the shipped checkpoint."""

    def __init__(self, name: str) -> None:
        checkpoint = read_checkpoint(find_checkpoint("lite-imagenette"))
        resolution = SETTINGS[name]
        classes = len(checkpoint.classes)
        self.space = replace(get_space(name), resolutions=(resolution,), classes=classes)
        self.tensors = checkpoint.tensors if name == "lite" else initial(self.space)
        self.recipe = replace(RECIPES["sandwich"], batch=BATCH)
        images = checkpoint.test()
        splits = Splits(images, images, None, ())
        self.run = Run(self.space, self.recipe, splits, self.tensors, None, Path())
        self.views = self.run._plan(0, (1,))
        self.batch = self.run.loader.load(0, 0, [resolution], 0.35)
        self.x = self.batch.x[resolution].contiguous()
        self.shared = parameters(self.tensors)
        self.optimizer = torch.optim.AdamW(self.shared.values(), lr=0.0)

    def ours(self) -> None:
        """At a learning rate of zero, so that every step is the same."""
        self.run._update(self.batch, self.views, 0.0)

    def plain(self) -> None:
        """The same in torch's stock layers."""
        self._plain(self.shared, self.optimizer)

    def _plain(self, shared: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        x = {SETTINGS[self.space.name]: self.x.to(shared["stem.weight"].dtype)}
        plain_step(self.space, self.recipe, shared, optimizer, self.views, x, self.batch.labels)

    def images(self) -> None:
        """What a thread does for the next step meanwhile."""
        self.run.loader.load(0, 0, [SETTINGS[self.space.name]], 0.35)

    def errors(self) -> dict[str, tuple[float, float]]:
        """Relative error and cosine of the gradient, against stock layers in float64."""
        self.ours()
        self.plain()
        exact = parameters(self.tensors, torch.float64)
        self._plain(exact, torch.optim.AdamW(exact.values(), lr=0.0))
        names = [n for n, p in self.run.model.shared.items() if p.grad is not None]

        def flat(shared: dict[str, Any]) -> Tensor:
            return torch.cat([shared[name].grad.double().reshape(-1) for name in names])

        true = flat(exact)
        return {
            way: (
                float((value - true).norm() / true.norm()),
                float(torch.cosine_similarity(value, true, 0)),
            )
            for way, value in ((OURS, flat(self.run.model.shared)), (PLAIN, flat(self.shared)))
        }

    def parts(self) -> dict[str, float]:
        """Milliseconds of a step of ours by pass and kind of operator: torch's profiler."""
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            self.ours()
        spent: dict[str, float] = defaultdict(float)
        for event in profiler.events():
            above, names = event, []
            while above is not None:
                names.append(above.name)
                above = above.cpu_parent
            kind = next(
                (kind for kind, words in KINDS.items() if any(w in event.name for w in words)),
                "other",
            )
            if any(name.startswith("Optimizer") for name in names):
                kind = "optimizer"
            elif any(name.startswith("autograd::engine") for name in names):
                kind += ", backward"
            else:
                kind += ", forward"
            spent[kind] += event.self_cpu_time_total / 1e3
        return spent


def work(name: str) -> None:
    """Do what the lines of standard input ask for; answer each with a line of JSON."""
    step = Step(name)
    for line in sys.stdin:
        began = time.perf_counter()
        answer = getattr(step, line.strip())()
        seconds = time.perf_counter() - began
        sys.stdout.write(json.dumps(seconds if answer is None else answer) + "\n")
        sys.stdout.flush()


class Worker:
    """A process that takes steps when asked."""

    def __init__(self, name: str, keeps_memory: bool) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in KEEP_MEMORY}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bench_step", name],
            env=environment | (KEEP_MEMORY if keeps_memory else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, what: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


def measure(name: str) -> tuple[list[list[object]], list[list[object]], list[list[object]]]:
    """Rows of speed, of gradients and of the parts of a step."""
    usual, keeping = Worker(name, False), Worker(name, True)
    ways: dict[str, Callable[[], float]] = {
        PLAIN: lambda: usual("plain"),
        PLAIN_KEPT: lambda: keeping("plain"),
        OURS: lambda: keeping("ours"),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(WARM + ROUNDS):
        for way, take in ways.items():
            seconds = take()
            if turn >= WARM:
                taken[way].append(seconds)
    setting = f"`{name}`, {SETTINGS[name]} px"
    speed: list[list[object]] = [
        [
            setting,
            way,
            f"{1e3 * median(seconds):.0f}",
            BATCH / median(seconds),
            *(
                f"{np.median(np.divide(taken[plain], seconds)):.2f}"
                for plain in (PLAIN, PLAIN_KEPT)
            ),
        ]
        for way, seconds in taken.items()
    ]
    gradients: list[list[object]] = [
        [setting, way, f"{error:.1e}", f"{cosine:.6f}"]
        for way, (error, cosine) in keeping("errors").items()
    ]
    spent = keeping("parts")
    whole = sum(spent.values())
    parts: list[list[object]] = [
        [setting, part, f"{ms:.0f}", f"{100 * ms / whole:.0f}"]
        for part, ms in sorted(spent.items(), key=lambda item: -item[1])
    ]
    seconds = median(keeping("images") for _ in range(ROUNDS))
    parts.append([setting, "images, in a thread beside it", f"{1e3 * seconds:.0f}", ""])
    for worker in (usual, keeping):
        worker.end()
    return speed, gradients, parts


def main() -> None:
    """Measure and record."""
    speed, gradients, parts = (
        [row for rows in column for row in rows]
        for column in zip(*map(measure, SETTINGS), strict=True)
    )
    text = (
        f"The largest subnet, the smallest and two random ones on the same {BATCH} images, "
        "in-place distillation, clipping, one step of AdamW. Stock layers: one whole forward and "
        "backward a subnet, float32, contiguous (NCHW), SAME padding by `F.pad`, batch norm and "
        "activation as torch has them. Memory kept: glibc's allocator gives none back "
        f"(`MALLOC_*`, which `ofa-train` sets). Median of {ROUNDS} rounds, all ways in turn; "
        "ratios are medians of those within a round."
    )
    speed_header = ["step", "way", "ms", "images/s", "against stock layers", "with memory kept"]
    exactness = "Gradient of the whole step against that of stock layers in float64:"
    made = "A step of ours by operators (self time in torch's profiler, two threads):"
    record(
        "step",
        f"## A training step\n\n{text}\n\n{table(speed_header, speed)}\n\n{exactness}\n\n"
        f"{table(['step', 'way', 'relative error', 'cosine'], gradients)}\n\n{made}\n\n"
        f"{table(['step', 'part', 'ms', '%'], parts)}",
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        work(sys.argv[1])
    else:
        main()
