"""``--finetune``: train the chosen subnet alone, and keep it if it is better.

The training itself is ``ofa.finetune``, which needs torch; all else is what candidates go through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ofa.errors import UserError
from ofa.images import Images
from ofa.machine import check_torch
from specialize import report as r
from specialize.problem import parse_duration
from specialize.score import Cut, Scorer

__all__ = ["check_trainable", "tune"]


def check_trainable(duration: str, images: str | Path | None) -> float:
    """The seconds that ``duration`` says. Raises UserError, also where training is not possible."""
    seconds = parse_duration(duration)
    if images is None:
        raise UserError(
            "there is nothing to train on: checkpoints have no training images", "--finetune",
            "add --images DIR, labelled images of its classes",
        )  # fmt: skip
    check_torch("training", "--finetune")
    return seconds


def tune(
    scorer: Scorer,
    cut: Cut,
    train: Images,
    held_out: Images,
    seconds: float,
    keeps_budgets: Callable[[Cut], bool],
    seed: int,
    tell: Callable[[str], None],
) -> tuple[Cut, r.Finetuned]:
    """``cut`` after ``seconds`` of training on ``train``, where that is better on ``held_out``.

    Else ``cut`` itself. Both are scored on the same images, recalibrated on the scorer's own, and
    of int8 networks as such. keeps_budgets: of what only the weights decide.
    """
    from ofa.finetune import train_alone

    tell(f"training the chosen subnet on {len(train)} images for {seconds:.0f} s")
    trained = train_alone(
        scorer.checkpoint, cut.arch, train, seconds,
        threads=scorer.threads, seed=seed, tell=tell,
    )  # fmt: skip
    tuned = scorer.of(replace(scorer.checkpoint, tensors=trained.tensors))
    after_cut = tuned.cut(cut.arch)
    before, after = (
        r.Share(value=one.accuracy(of, held_out), n=len(held_out))
        for one, of in ((scorer, cut), (tuned, after_cut))
    )
    kept = after.value > before.value and keeps_budgets(after_cut)
    about = r.Finetuned(
        seconds=round(trained.seconds, 3), steps=trained.steps, epochs=round(trained.epochs, 2),
        images=len(train), before=before, after=after, kept=kept,
    )  # fmt: skip
    tell(str(about))
    return (after_cut if kept else cut), about
