"""Evaluate, refit, search again: real scorings spent where the choice is made.

A model fitted to subnets that are spread over a space is least sure where a budget search ends.
Thompson sampling (Thompson 1933) draws tables from its posterior and scores what is best under
each: sure parts are exploited, unsure ones are tried. A few hundred scorings replace the tens of
thousands that a search on real accuracies needs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ofa.checkpoint import Checkpoint, Evaluated
from ofa.errors import UserError
from ofa.images import Images
from ofa.space import Genotypes
from ofa.table import Table
from specialize.accuracy import AccuracyModel, fit
from specialize.problem import Problem
from specialize.score import Scorer
from specialize.search import exact

__all__ = ["BATCH", "evaluate_more", "suggest"]

BATCH = 10  # between fits
_ANCHORS = 4
_RANKED = 20  # looked at for one that was not evaluated before


def evaluate_more(
    source: Checkpoint,
    scorer: Scorer,
    held_out: Images,
    pose: Callable[[Table], Problem],
    count: int,
    seed: int,
    tell: Callable[[str], None],
) -> Evaluated:
    """The checkpoint's evaluated subnets, and ``count`` more scored on ``held_out``.

    pose: gives the problem for a table of accuracy. A few of the checkpoint's own subnets are
    scored first: what they differ by on these images is taken off.
    """
    rng = np.random.default_rng([seed, 1])
    space, evaluated = source.space, source.evaluated
    model = fit(space, evaluated)
    fits = np.flatnonzero(pose(model.table).feasible(evaluated.genotypes))
    if not len(fits):
        fits = np.arange(len(evaluated.genotypes))
    # By the model: those with the highest accuracy had luck too, which they do not have again.
    best_first = fits[np.argsort(-model.table.price(evaluated.genotypes[fits]), kind="stable")]
    anchors = best_first[: min(_ANCHORS, count // 2)]

    def score(genotypes: Genotypes) -> Evaluated:
        archs = [space.decode(row) for row in genotypes]
        accuracy = [value for _, value in scorer.score(archs, held_out)]
        images = np.full(len(genotypes), len(held_out))
        return Evaluated(genotypes, np.array(accuracy, np.float64), images)

    known = evaluated.take(anchors)
    again = score(known.genotypes) if len(anchors) else known
    left = count - len(anchors)
    while left > 0:
        rows = suggest(model, pose, evaluated.genotypes, min(BATCH, left), rng)
        if not len(rows):
            break  # all that is near the best has been scored
        # By resolution, so that the images are resized once for each.
        found = score(rows[np.argsort(rows[:, 0], kind="stable")])
        evaluated = evaluated.joined(found.as_beside(known, again) if len(anchors) else found)
        model = fit(space, evaluated)
        left -= len(rows)
        tell(f"{count - left} of {count} evaluations: the best {found.accuracy.max():.1f} %")
    return evaluated


def suggest(
    model: AccuracyModel,
    pose: Callable[[Table], Problem],
    known: Genotypes,
    count: int,
    rng: np.random.Generator,
) -> Genotypes:
    """(N, 1 + P), at most ``count``: the best, not ``known``, under the mean and under draws.

    A draw under which nothing reaches the accuracy that is asked for suggests nothing.
    """
    seen = {row.tobytes() for row in known}
    found = []
    for table in [model.table, *(model.sample(rng) for _ in range(count - 1))]:
        try:
            best = exact.search(pose(table), count=_RANKED, distance=1)
        except UserError:
            continue
        new = [row for row in best.genotypes if row.tobytes() not in seen][:1]
        found += new
        seen |= {row.tobytes() for row in new}
    return np.array(found, np.int16)
