"""A small checkpoint made in the tests: random weights, real (drawn) images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ofa.checkpoint import write_checkpoint
from ofa.images import open_images, split, write_zip
from ofa.layers import lower, macs
from ofa.preprocessing import LITE0
from ofa.space import Space
from ofa.weights import Array, shapes
from tests.strategies import TINY


def random_tensors(space: Space = TINY, seed: int = 0) -> dict[str, Array]:
    """Shared tensors of sane scale, with kernel transforms that are not the identity."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes(space).items():
        value = rng.normal(size=shape)
        if name.endswith(".bn.weight"):
            value = 1 + 0.1 * value
        elif len(shape) == 2 and ".to" in name:
            value = np.eye(shape[0]) + 0.1 * value
        elif len(shape) > 1:
            value = value * np.sqrt(2 / np.prod(shape[1:]))
        tensors[name] = value.astype(np.float32)
    return tensors


def write_tiny_checkpoint(images_folder: Path, folder: Path, space: Space = TINY) -> Path:
    """A checkpoint of ``space`` whose evaluated accuracies follow MACs, with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    images = open_images(images_folder)["train"]
    rest, held = split(images, 100, 0)
    write_zip(folder / "c.zip", {"train/": split(rest, 64, 1)[1], "val/": held})
    write_zip(folder / "t.zip", {"": split(rest, 50, 2)[1]})
    rng = np.random.default_rng(0)
    archs = [space.decode(row) for row in np.unique(space.sample(rng, 80), axis=0)]
    rows = []
    for arch in archs:
        size = macs(lower(space, arch))
        rows.append((arch, size, float(50 + 5 * np.log(size / 1e5) + rng.normal(0, 0.5)), 500))
    write_checkpoint(
        folder / "tiny",
        space=replace(space, classes=len(images.classes)),
        classes=images.classes,
        labels=images.classes,
        preprocessing=LITE0,
        tensors=random_tensors(space),
        card={"name": "tiny"},
        evaluated=rows,
        files={"calibration.zip": folder / "c.zip", "test.zip": folder / "t.zip"},
    )
    return folder / "tiny"
