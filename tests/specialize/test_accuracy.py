"""The accuracy model recovers an additive truth, ranks within MACs bands, and knows its error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ofa.checkpoint import Evaluated
from ofa.errors import UserError
from ofa.spaces import get_space
from ofa.table import tabulate
from specialize.accuracy import fit, kendall_tau, percent, rank
from tests.specialize.tables import plausible_accuracy

SPACE = get_space("lite")


def evaluated(
    count: int, seed: int, noise: float = 0.05, images: tuple[int, ...] = (1500,)
) -> tuple[Evaluated, np.ndarray]:
    """Subnets whose logits are additive but for ``noise``, and the additive part.

    images: each subnet is scored on one of these numbers. Where there is one number only, all are
    scored on the same images, and chance adds nothing between them.
    """
    rng = np.random.default_rng(seed)
    genotypes = SPACE.sample(rng, count)
    truth = plausible_accuracy(SPACE, 5).price(genotypes)
    share = 1 / (1 + np.exp(-(truth + rng.normal(0, noise, count))))
    tested = rng.choice(images, count)
    if len(images) > 1:
        share = rng.binomial(tested, share) / tested
    return Evaluated(genotypes, 100 * share, tested), truth


def test_it_ranks_what_it_has_not_seen_better_than_macs() -> None:
    data, _ = evaluated(250, 0)
    ranking = rank(SPACE, data)
    macs = tabulate(SPACE, lambda layer: layer.macs).price(data.genotypes)
    bands = np.array_split(np.argsort(macs), ranking.bands)
    by_macs = float(np.mean([kendall_tau(macs[b], data.accuracy[b]) for b in bands]))
    assert ranking.overall > 0.8
    assert ranking.within_bands > max(0.6, by_macs + 0.2)


def test_its_posterior_covers_fresh_subnets() -> None:
    """The table's own deviation covers the additive truth; the interval covers evaluations."""
    data, _ = evaluated(200, 1)
    fresh, truth = evaluated(400, 2)
    model = fit(SPACE, data)
    logits, deviation = model.predict(fresh.genotypes)
    assert 0.85 < (abs(logits - truth) <= 1.96 * deviation).mean() <= 1
    assert deviation.mean() < 0.1 < truth.std()
    for confidence in (0.5, 0.9):
        low, high = model.interval(fresh.genotypes, confidence)
        inside = (low <= fresh.accuracy) & (fresh.accuracy <= high)
        assert inside.mean() == pytest.approx(confidence, abs=0.07)


def test_its_prediction_is_its_table() -> None:
    """Shifted effects cancel: the design of an architecture gives what the table prices."""
    data, _ = evaluated(60, 4)
    model = fit(SPACE, data)
    changed = data.genotypes.copy()
    changed[:, 0] = 0
    shift = model.table.price(data.genotypes) - model.table.price(changed)
    by_resolution = model.table.fixed_R[data.genotypes[:, 0]] - model.table.fixed_R[0]
    assert shift == pytest.approx(by_resolution)
    assert model.predict(data.genotypes)[0].tolist() == model.table.price(data.genotypes).tolist()


def test_evaluations_on_many_images_count_for_more() -> None:
    data, _ = evaluated(250, 6, images=(60, 3000))
    fresh, truth = evaluated(300, 7)
    equal = replace(data, images=np.full(250, 1500))
    weighted, unweighted = (
        kendall_tau(fit(SPACE, seen).predict(fresh.genotypes)[0], truth) for seen in (data, equal)
    )
    assert weighted > unweighted + 0.02


def test_one_subnet_is_no_choice() -> None:
    """As in a checkpoint of ``ofa-train --arch``."""
    with pytest.raises(UserError, match="one evaluated subnet"):
        fit(SPACE, evaluated(1, 0)[0])


def test_percent_is_a_percentage() -> None:
    data, _ = evaluated(100, 3)
    model = fit(SPACE, data)
    shares = percent(model.table.price(data.genotypes))
    assert (shares > 0).all()
    assert (shares < 100).all()
    assert abs(shares - data.accuracy).mean() < 2


def test_perfect_scores_have_finite_logits() -> None:
    data = Evaluated(
        SPACE.sample(np.random.default_rng(0), 2), np.array([0.0, 100.0]), np.array([50, 50])
    )
    assert np.isfinite(data.logits()).all()


def test_what_other_images_differ_by_is_taken_off() -> None:
    """Of subnets that are all harder on them by half a logit."""
    data, _ = evaluated(30, 1)
    harder = replace(data, accuracy=percent(data.logits() - 0.5))
    few = np.arange(4)
    moved = harder.take(few + 9).as_beside(data.take(few), harder.take(few))
    np.testing.assert_allclose(moved.accuracy, data.accuracy[few + 9], rtol=1e-9)


@pytest.mark.parametrize(("b", "tau"), [([1, 2, 3], 1), ([3, 2, 1], -1), ([1, 1, 1], 0)])
def test_tau(b: list[int], tau: float) -> None:
    assert kendall_tau(np.array([1.0, 2, 3]), np.array(b, float)) == tau
