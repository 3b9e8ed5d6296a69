"""The shipped checkpoint: its card's claims are measured again, and it is as small as said."""

from __future__ import annotations

import numpy as np
import pytest

from ofa.checkpoint import find_checkpoint, read_checkpoint
from ofa.layers import lower, macs
from ofa.space import Arch
from ofa.wilson import wilson
from specialize.accuracy import rank
from specialize.score import Scorer

CHECKPOINT = read_checkpoint(find_checkpoint("lite-imagenette"))


def test_its_table_is_a_fair_sample() -> None:
    space, evaluated = CHECKPOINT.space, CHECKPOINT.evaluated
    archs = [space.decode(row) for row in evaluated.genotypes]
    assert len(set(archs)) == len(archs) >= 250
    assert evaluated.images.min() >= 1500
    assert {arch.resolution for arch in archs} == set(space.resolutions)
    sizes = [macs(lower(space, arch)) for arch in archs]
    assert min(sizes) < 25e6
    assert max(sizes) > 380e6
    ranking = rank(space, evaluated)
    assert ranking.overall > 0.7
    assert ranking.within_bands > 0.4


def test_it_is_small() -> None:
    sizes = {path.name: path.stat().st_size for path in CHECKPOINT.path.iterdir() if path.is_file()}
    assert sizes["weights.safetensors"] <= 9e6
    assert sizes["calibration.zip"] + sizes["test.zip"] <= 12e6
    recalibration, held_out = CHECKPOINT.samples()
    parts = (recalibration, held_out, CHECKPOINT.test())
    names = [{name.split("/")[-1] for name in images.names} for images in parts]
    assert not names[0] & names[1]
    assert not (names[0] | names[1]) & names[2]


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1], ids=["one end", "the other end"])
def test_its_claimed_accuracy_is_measured_again(index: int) -> None:
    """In ONNX Runtime, on the shipped test images, where the card's figure is torch's."""
    claim = CHECKPOINT.card["reached"][index]
    arch, test = Arch.parse(claim["arch"]), CHECKPOINT.test()
    assert claim["test"]["n"] == len(test) == 500
    scorer = Scorer(CHECKPOINT, CHECKPOINT.samples()[0], threads=2)
    measured = scorer.accuracy(scorer.cut(arch), test)
    # float16 weights and another runtime's sums move an image or two across the line.
    assert abs(measured - claim["test"]["value"]) <= 0.8
    low, high = wilson(claim["test"]["value"], 500)
    assert (claim["test"]["low"], claim["test"]["high"]) == pytest.approx((low, high))
    assert np.isclose(claim["macs"], macs(lower(CHECKPOINT.space, arch)))
