"""``python -m tests.ofa.tiny_run [sgd] IMAGES FOLDER STEPS``: train the tiny space, or go on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from ofa import ranks
from ofa.data import splits_of
from ofa.recipe import Phase, Recipe
from ofa.supernet import initial
from ofa.train import Run
from ofa.weights import Array
from tests.strategies import TINY

RECIPE = Recipe(
    name="tiny",
    teacher="largest",
    batch=16,
    lr=5e-3,
    warmup=10,
    hard=0.0,
    phases=(
        Phase("largest", 0.4, kernels=(), depths=(), expands=(), random=0, smallest=0.0),
        Phase("kernel and depth", 0.3, expands=(), random=1),
        Phase("width", 0.3, random=1, sort=True),
    ),
)
#: Adam makes full steps of rounding noise, and sorting swaps channels by it; this recipe's weights
#: can be compared.
SGD = replace(
    RECIPE,
    name="sgd",
    optimizer="sgd",
    lr=0.02,
    warmup=1,
    phases=tuple(replace(phase, sort=False) for phase in RECIPE.phases),
)


def tiny_run(
    images: Path,
    folder: Path,
    recipe: Recipe = RECIPE,
    taught: Array | None = None,
    init: str = "none",
) -> Run:
    """A run that is ready to train; it continues where ``folder`` has a state."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    splits = splits_of(images, None, 60, 0)
    space = replace(TINY, classes=len(splits.train.classes))
    origin = {"init": init}
    run = Run(space, recipe, splits, initial(space), None, folder, taught=taught, origin=origin)
    if ranks.from_first((folder / "state.pt").exists):
        run.resume()
    return run


if __name__ == "__main__":
    name, images, folder, steps = ["", *sys.argv[1:]][-4:]
    with ranks.group():
        run = tiny_run(Path(images), Path(folder), SGD if name == "sgd" else RECIPE)
        run.train(int(steps), lambda progress: sys.stdout.write(f"{progress.step}\n") and None)
