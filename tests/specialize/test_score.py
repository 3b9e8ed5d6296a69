"""Laws 1 and 6: what ONNX Runtime does without torch is what torch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given

from ofa.checkpoint import read_checkpoint
from ofa.data import to_tensor
from ofa.evaluate import Evaluator, recalibrate
from ofa.layers import lower
from ofa.space import Arch
from ofa.supernet import Supernet
from ofa.weights import RECALIBRATION_BATCH, extract
from specialize.score import Scorer, percent_right
from tests.strategies import TINY, archs
from tests.tiny_checkpoint import write_tiny_checkpoint

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scorer(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    folder = write_tiny_checkpoint(shapes_folder, tmp_path_factory.mktemp("score"))
    checkpoint = read_checkpoint(folder)
    return Scorer(checkpoint, checkpoint.samples()[0], threads=1)


@pytest.mark.slow
def test_statistics_are_those_of_training_mode(scorer: Scorer) -> None:
    @given(archs())
    def law(arch: Arch) -> None:
        pixels = scorer.recalibration.pixels(arch.resolution)
        layers = lower(TINY, arch)
        ours = scorer.recalibrate(layers, extract(layers, scorer.checkpoint.tensors), pixels)
        supernet = Supernet(TINY, scorer.checkpoint.tensors)
        theirs = recalibrate(
            TINY, arch, supernet.shared, iter(to_tensor(pixels).split(RECALIBRATION_BATCH))
        )
        assert list(ours) == list(theirs)
        for name, (mean, variance) in theirs.items():
            scale = np.sqrt(variance).max()
            np.testing.assert_allclose(ours[name][0], mean, atol=2e-3 * scale, err_msg=name)
            np.testing.assert_allclose(ours[name][1], variance, rtol=5e-3, atol=1e-3 * scale**2)

    law()


def test_accuracy_is_that_of_torch(scorer: Scorer) -> None:
    """On the same images, up to one image whose two best logits are equal within float error."""
    held_out = scorer.checkpoint.samples()[1]
    shared = Supernet(TINY, scorer.checkpoint.tensors).shared
    evaluator = Evaluator(scorer.recalibration, held_out)
    for arch in (TINY.smallest(), TINY.largest(), TINY.largest(32)):
        cut = scorer.cut(arch)
        logits = scorer.logits(cut, held_out)
        assert logits.shape == (100, TINY.classes)
        ours = percent_right(logits, held_out.labels)
        assert abs(ours - evaluator.accuracy(TINY, arch, shared)) <= 1
