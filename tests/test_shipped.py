"""The shipped checkpoints: their cards' claims are measured again, and they are small."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch

from ofa.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from ofa.evaluate import Evaluator
from ofa.layers import lower, macs
from ofa.space import Arch
from ofa.wilson import wilson
from specialize.accuracy import rank
from specialize.score import Int8Scorer, Scorer, percent_right

#: Name -> MACs that the smallest evaluated subnet stays below and the largest exceeds.
SHIPPED = {"lite-imagenette": (25e6, 380e6), "mcu-cifar10": (0.4e6, 13.5e6)}


@pytest.fixture(scope="module", params=SHIPPED)
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return read_checkpoint(find_checkpoint(request.param))


def test_its_table_is_a_fair_sample(checkpoint: Checkpoint) -> None:
    space, evaluated = checkpoint.space, checkpoint.evaluated
    archs = [space.decode(row) for row in evaluated.genotypes]
    assert len(set(archs)) == len(archs) >= 250
    assert evaluated.images.min() >= 1500
    assert {arch.resolution for arch in archs} == set(space.resolutions)
    sizes = [macs(lower(space, arch)) for arch in archs]
    least, most = SHIPPED[checkpoint.name]
    assert min(sizes) < least
    assert max(sizes) > most
    ranking = rank(space, evaluated)
    assert ranking.overall > 0.7
    assert ranking.within_bands > 0.4


def test_it_is_small(checkpoint: Checkpoint) -> None:
    sizes = {path.name: path.stat().st_size for path in checkpoint.path.iterdir() if path.is_file()}
    assert sizes["weights.safetensors"] <= 9e6
    assert sizes["calibration.zip"] + sizes["test.zip"] <= 12e6
    recalibration, held_out = checkpoint.samples()
    parts = (recalibration, held_out, checkpoint.test())
    contents = [{images.bytes_of(i) for i in range(len(images))} for images in parts]
    assert not contents[0] & contents[1]
    assert not (contents[0] | contents[1]) & contents[2]


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1], ids=["one end", "the other end"])
def test_its_claimed_accuracy_is_measured_again(checkpoint: Checkpoint, index: int) -> None:
    """In ONNX Runtime, on the shipped test images, where the card's figure is torch's."""
    claim = checkpoint.card["reached"][index]
    arch, test = Arch.parse(claim["arch"]), checkpoint.test()
    value, count = claim["test"]["value"], claim["test"]["n"]
    scorer = Scorer(checkpoint, checkpoint.samples()[0], threads=2)
    measured = scorer.accuracy(scorer.cut(arch), test)
    # float16 weights and another runtime's sums move an image or two across the line.
    shared = {name: torch.from_numpy(array) for name, array in checkpoint.tensors.items()}
    evaluator = Evaluator(checkpoint.samples()[0], test, checkpoint.preprocessing)
    assert abs(measured - evaluator.accuracy(checkpoint.space, arch, shared)) <= 0.8
    # Where a part of the test images ships, three standard errors of such a part.
    part = (1 - len(test) / count) / len(test)
    assert abs(measured - value) <= 0.8 + 3 * sqrt(value * (100 - value) * part)
    low, high = wilson(value, count)
    assert (claim["test"]["low"], claim["test"]["high"]) == pytest.approx((low, high))
    assert np.isclose(claim["macs"], macs(lower(checkpoint.space, arch)))


@pytest.mark.slow
def test_integers_cost_at_most_a_point(checkpoint: Checkpoint) -> None:
    """The subnet of median accuracy, on the shipped test images."""
    evaluated = checkpoint.evaluated
    middle = evaluated.genotypes[evaluated.accuracy.argsort()[len(evaluated.accuracy) // 2]]
    scorer, test = Int8Scorer(checkpoint, checkpoint.samples()[0], threads=2), checkpoint.test()
    cut = scorer.cut(checkpoint.space.decode(middle))
    plain = percent_right(scorer.float_logits(cut, test), test.labels)
    assert scorer.accuracy(cut, test) >= plain - 1
