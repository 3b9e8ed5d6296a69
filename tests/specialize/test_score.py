"""Laws 1 and 6: what ONNX Runtime does without torch is what torch does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ofa.checkpoint import read_checkpoint
from ofa.data import to_tensor
from ofa.evaluate import Evaluator, recalibrate
from ofa.layers import lower
from ofa.space import Arch
from ofa.supernet import Supernet
from ofa.weights import RECALIBRATION_BATCH, extract, shapes
from specialize.merge import merged
from specialize.score import Scorer, percent_right, statistics_model
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
        weights = extract(layers, scorer.checkpoint.tensors)
        (ours,) = scorer.recalibrate([layers], [weights], pixels)
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


def test_subnets_together_are_what_each_is_alone(scorer: Scorer) -> None:
    """What they share is computed once, and nothing that they do not."""
    held_out = scorer.checkpoint.samples()[1].take(range(20))

    @given(st.lists(archs(), min_size=2, max_size=4))
    def law(several: list[Arch]) -> None:
        several = [replace(arch, resolution=several[0].resolution) for arch in several]
        cuts = scorer.cuts(several)
        logits = scorer.all_logits(cuts, held_out)
        for arch, cut, together in zip(several, cuts, logits, strict=True):
            alone = scorer.cut(arch)
            assert (cut.arch, cut.layers) == (alone.arch, alone.layers)
            for name, parts in alone.folded.items():
                for part, value in parts.items():
                    np.testing.assert_allclose(cut.folded[name][part], value, 1e-4, 1e-5)
            np.testing.assert_allclose(together, scorer.logits(cut, held_out), 1e-4, 1e-5)

    law()


@given(archs(), archs())
def test_what_is_the_same_is_in_a_graph_once(one: Arch, other: Arch) -> None:
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=shape) for name, shape in shapes(TINY).items()}

    def model(arch: Arch) -> bytes:
        layers = lower(TINY, arch)
        return statistics_model(layers, extract(layers, tensors), TINY.bn_eps)

    def nodes(data: bytes) -> int:
        return len(onnx.load_from_string(data).graph.node)

    other = replace(other, resolution=one.resolution)
    models = [model(one), model(other), model(one)]
    whole, (first, _, again) = merged(models)
    onnx.checker.check_model(onnx.load_from_string(whole), full_check=True)
    assert first == again
    begin_alike = 0
    for mine, theirs in zip(lower(TINY, one), lower(TINY, other), strict=False):
        if mine != theirs:
            break
        begin_alike += 1
    shared = nodes(models[0]) + nodes(models[1]) - nodes(whole)
    assert shared >= (nodes(models[0]) if one == other else begin_alike)
    assert nodes(merged(models[::2])[0]) == nodes(models[0])
