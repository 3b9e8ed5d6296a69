"""The accuracy model recovers an additive truth, ranks within MACs bands, and knows its error."""

from __future__ import annotations

import numpy as np
import pytest

from ofa.checkpoint import Evaluated
from ofa.spaces import get_space
from ofa.table import Table, tabulate
from specialize.accuracy import fit, kendall_tau, logit, rank

SPACE = get_space("lite")


def evaluated(count: int, seed: int, noise: float = 0.05) -> tuple[Evaluated, np.ndarray]:
    """Subnets whose logits are additive in the blocks, and what they are without noise."""
    truth_rng, rng = np.random.default_rng(5), np.random.default_rng(seed)
    macs = tabulate(SPACE, lambda layer: layer.macs)
    per_block = np.sqrt(
        macs.cost_RPC.mean(0, keepdims=True).repeat(len(SPACE.resolutions), 0) / 1e6
    )
    cost = 0.05 * per_block + truth_rng.normal(0.08, 0.06, macs.cost_RPC.shape[1:])
    cost[:, :, 0] = 0
    genotypes = SPACE.sample(rng, count)
    truth = Table(0.1 * np.arange(len(SPACE.resolutions)), cost).price(genotypes)
    share = 1 / (1 + np.exp(-(truth + rng.normal(0, noise, count))))
    return Evaluated(genotypes, 100 * share, np.full(count, 1500)), truth


def test_it_ranks_what_it_has_not_seen_better_than_macs() -> None:
    data, _ = evaluated(250, 0)
    ranking = rank(SPACE, data)
    macs = tabulate(SPACE, lambda layer: layer.macs).price(data.genotypes)
    bands = np.array_split(np.argsort(macs), ranking.bands)
    by_macs = np.mean([kendall_tau(macs[b], data.accuracy[b]) for b in bands])
    assert ranking.overall > 0.8
    assert ranking.within_bands > max(0.6, by_macs + 0.2)


def test_its_posterior_covers_fresh_subnets() -> None:
    data, _ = evaluated(200, 1)
    fresh, truth = evaluated(400, 2)
    logits, deviation = fit(SPACE, data).predict(fresh.genotypes)
    inside = abs(logits - truth) <= 1.96 * deviation
    assert 0.85 < inside.mean() <= 1
    assert deviation.mean() < 0.1 < truth.std()


def test_percent_is_a_percentage() -> None:
    data, _ = evaluated(100, 3)
    model = fit(SPACE, data)
    percent = model.percent(model.table.price(data.genotypes))
    assert (percent > 0).all()
    assert (percent < 100).all()
    assert abs(percent - data.accuracy).mean() < 2


def test_perfect_scores_have_finite_logits() -> None:
    data = Evaluated(
        SPACE.sample(np.random.default_rng(0), 2), np.array([0.0, 100.0]), np.array([50, 50])
    )
    assert np.isfinite(logit(data)).all()


@pytest.mark.parametrize(("b", "tau"), [([1, 2, 3], 1), ([3, 2, 1], -1), ([1, 1, 1], 0)])
def test_tau(b: list[int], tau: float) -> None:
    assert kendall_tau(np.array([1.0, 2, 3]), np.array(b, float)) == tau
