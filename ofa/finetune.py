"""Train one subnet of a supernet alone, for a given time, on images of its classes."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ofa.checkpoint import Checkpoint
from ofa.data import Splits
from ofa.errors import UserError
from ofa.images import Images
from ofa.recipe import Phase, Recipe
from ofa.space import Arch
from ofa.train import Progress, Run
from ofa.weights import Array

__all__ = ["Trained", "train_alone"]

#: From weights that are good already: a low rate, and images that are nearly whole, as in use.
RECIPE = Recipe(
    name="finetune",
    teacher="largest",
    lr=3e-4,
    warmup=20,
    phases=(Phase("alone", share=1.0, crop=0.5),),
)
#: As good as endless: the learning rate hardly falls until the first steps have been timed.
_MOST_STEPS = 10**6
_TELL_EVERY = 15  # seconds


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """tensors: the shared ones, good for this subnet only. epochs: passes over images."""

    tensors: dict[str, Array]
    steps: int
    epochs: float
    seconds: float


def train_alone(
    source: Checkpoint,
    arch: Arch,
    images: Images,
    seconds: float,
    *,
    threads: int,
    seed: int,
    tell: Callable[[str], None],
) -> Trained:
    """Train ``arch`` from the weights of ``source`` for ``seconds``, at least one step.

    How many steps there are is corrected after each of them, by the time that they take: so the
    learning rate is near zero when the time is up, on a machine with other work too. Raises
    UserError where it collapses, or its state cannot be written.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            source.space, RECIPE, Splits(images, images, None, ()), source.tensors, None,
            Path(folder), seed=seed, only=arch, preprocessing=source.preprocessing,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )  # fmt: skip
        began = told = time.monotonic()  # from here on: to load and set up torch takes seconds
        counted = itertools.count(1)  # a step that is repeated after a collapse takes time too

        def keep_time(progress: Progress) -> None:
            nonlocal told
            now = time.monotonic()
            each = (now - began) / next(counted)
            run.steps = progress.step + max(0, int((began + seconds - now) / each) - 1)
            if now - told > _TELL_EVERY:
                told = now
                left = began + seconds - now
                tell(f"step {progress.step}: loss {progress.loss:.3f}, {left:.0f} s left")

        try:
            run.train(_MOST_STEPS, keep_time)
        except UserError as error:  # its advice is of a folder that stays
            raise UserError(error.what, "--finetune", "leave it out: the subnet as cut") from error
        taken = time.monotonic() - began
    tensors = {name: value.detach().cpu().numpy() for name, value in run.weights.items()}
    return Trained(tensors, run.step, run.step * run.loader.batch / len(images), taken)
