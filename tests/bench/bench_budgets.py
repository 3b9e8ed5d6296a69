"""Budgets that hold on this machine: predicted by a calibrated profile, kept by measuring.

    python -m tests.bench.bench_budgets [host] [host-onnxruntime]

On an idle machine; about twenty minutes for each runtime, both where none is named. For each: a
profile from 20 measured subnets, as ``ofa-device calibrate`` makes it, its error on 50 others, and
of 20 budgets how many the best subnet for each keeps, by the profile alone and after the closed
loop. Kept: the measured 90th percentile is within the budget.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from devices.cost import predict
from devices.measure import relative
from devices.profile import Profile, get_profile
from devices.reach import HOSTS, here
from ofa.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from ofa.errors import UserError
from ofa.layers import lower, macs
from ofa.sampling import spread
from specialize.accuracy import fit
from specialize.bench import Bench
from specialize.calibration import at_pace_of, at_present_pace, calibrate
from specialize.closed_loop import NEAR_LEAST, keep_measured
from specialize.pose import cost_tables, pose
from specialize.problem import Budget, Objective, Problem
from specialize.search import SearchResult, exact
from tests.bench.record import record, table

SAMPLES, OTHERS, BUDGETS = 20, 50, 20


def main() -> None:
    """Measure and record."""
    checkpoint = read_checkpoint(find_checkpoint("lite-imagenette"))
    for name in sys.argv[1:] or HOSTS:
        bench = Bench(name, here(name), checkpoint)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CONFIG_HOME"] = folder
            began = time.perf_counter()
            profile = calibrated(bench)
            seconds = time.perf_counter() - began
            with patch("devices.calibrate._Library.beyond", lambda self, _: self):
                plain, _ = calibrate("here", bench, None, SAMPLES)  # from the same measurements
        errors, apart = error_rows(bench, profile, plain)
        header = ["predicted by", "error, %", "within the 0.9 bound, %"]
        text = (
            f"{SAMPLES} subnets measured in {seconds:.0f} s, and {OTHERS} others predicted. Error: "
            "mean of |predicted / actual - 1| of medians, measured as in a calibration: in turns "
            "with a reference network. Within the bound: 90th percentiles, as they were. The "
            "alternatives are fitted to measurements of the same kind. How idle the machine was: "
            f"the slowest tenth of the reference's runs took at least {apart:.2f} times as long as "
            "the fastest tenth took at most."
        )
        first, last, refused, each = budgets_kept(bench, profile)
        more = (
            f"Of {BUDGETS} budgets the most accurate subnet keeps {first} by the profile alone, at "
            f"the pace of the moment, and {last} after the closed loop, {each:.0f} s each: 90th "
            f"percentile, one thread, measured once more. Refused, as none was found: {refused}."
        )
        record(
            f"budgets-{name}",
            f"## Budgets that hold: {profile.runtime.software}\n\n{text}\n\n"
            f"{table(header, errors)}\n\n{more}",
        )


def calibrated(bench: Bench) -> Profile:
    """A profile from SAMPLES subnets; begun again, as its error says, where others disturb."""
    for _ in range(5):
        try:
            return calibrate("here", bench, None, SAMPLES, tell=print)[0]
        except UserError as error:
            sys.stderr.write(f"{error}\n")
            time.sleep(20)
    raise SystemExit("the machine is not idle")


def error_rows(bench: Bench, profile: Profile, plain: Profile) -> tuple[list[list[object]], float]:
    """The profile and the plain alternatives on subnets that they were not fitted to.

    plain: without a price for the weights beyond those of the lightest network. How much slower the
    machine is than when it was calibrated is an error of the profile, but none of its prices, so
    one row is without it. The last row is of a second measurement: both are noisy, so a perfect
    prediction would err by 1 / sqrt(2) of it. With the rows how far the reference's runs were
    apart: 90th percentile / 10th.
    """
    space, rng = bench.checkpoint.space, np.random.default_rng(1)
    archs = spread(space, SAMPLES + OTHERS, rng)
    archs = [archs[i] for i in rng.permutation(len(archs))]
    reference = space.largest(space.resolutions[len(space.resolutions) // 2])
    pairs = [bench.measure([reference, arch]) for arch in archs]
    fitted, others = slice(0, SAMPLES), slice(SAMPLES, None)
    repeated = [bench.measure([reference, arch]) for arch in archs[others]]
    level = float(np.mean([beside.median_ms for beside, _ in pairs]))
    ms = level * np.array([relative(one, beside) for beside, one in pairs])
    again = ms.copy()
    again[others] = level * np.array([relative(one, beside) for beside, one in repeated])
    slow = np.array([one.p90_ms for _, one in pairs])
    fast, late = np.quantile([ms for beside, _ in pairs for ms in beside.raw_ms], (0.1, 0.9))
    networks = [lower(space, arch) for arch in archs]
    size = np.array([macs(layers) for layers in networks], float)
    pixel4 = np.array([predict(get_profile("pixel4"), layers).point for layers in networks])

    def line(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Least squares of relative errors on the columns of x."""
        weights = np.linalg.lstsq(x[fitted] / ms[fitted, None], np.ones(SAMPLES))[0]
        return np.asarray(x @ weights)

    ours, alike = (
        np.array([predict(one, layers).point for layers in networks]) for one in (profile, plain)
    )
    then = profile.provenance["reference_ms"]
    # As a specialization has it: by how long the reference took just before.
    paced = [at_pace_of(profile, beside) for beside, _ in pairs[:-1]]
    now = [predict(one, layers) for one, layers in zip(paced, networks[1:], strict=True)]
    median = np.array([one.median_ms for _, one in pairs[1:]])
    nearby = np.array([one.point for one in now])[SAMPLES - 1 :] / median[SAMPLES - 1 :]
    kept = (slow[1:] <= [one.bound for one in now])[SAMPLES - 1 :]

    def row(what: str, predicted: NDArray[np.float64]) -> list[object]:
        return [what, f"{100 * abs(predicted[others] / ms[others] - 1).mean():.1f}", ""]

    held = slow[others] <= profile.bound[0.9] * ours[others]
    plainly = ours[others] / median[SAMPLES - 1 :]
    return [
        [*row(f"the calibrated profile ({SAMPLES} chosen subnets)", ours)[:2],
         f"{100 * held.mean():.0f}"],
        ["the same, of medians as they were, at whatever pace",
         f"{100 * abs(plainly - 1).mean():.1f}", ""],
        ["of these, at the pace of the moment: by the reference's run before each",
         f"{100 * abs(nearby - 1).mean():.1f}", f"{100 * kept.mean():.0f}"],
        row(f"the same, times {level / then:.3f}: the reference beside all / when calibrated",
            ours * level / then),
        row("the calibrated one, without a price for weights beyond a cache", alike),
        row(f"MACs, a line through {SAMPLES} random ones",
            line(np.column_stack([size, 0 * size + 1]))),
        row("`pixel4` times one factor", line(pixel4[:, None])),
        row("`pixel4` as it is", pixel4),
        row("a second measurement of the same networks", again),
    ], float(late / fast)  # fmt: skip


def budgets_kept(bench: Bench, profile: Profile) -> tuple[int, int, int, float]:
    """Budgets kept at the first try, kept in the end, refused with a statement; seconds of one."""
    checkpoint: Checkpoint = bench.checkpoint
    space, accuracy = checkpoint.space, fit(checkpoint.space, checkpoint.evaluated).table
    ends = [predict(profile, lower(space, f())).bound for f in (space.smallest, space.largest)]
    first = last = refused = 0
    began = time.perf_counter()

    def look(problem: Problem, seed: int) -> SearchResult:
        return exact.search(problem, seed=seed)

    for ms in np.geomspace(1.3 * ends[0], 0.8 * ends[1], BUDGETS):
        budget = Budget("latency", float(ms))
        paced = at_present_pace(profile, bench)
        costs = cost_tables(space, paced, checkpoint.labels, "float32")
        problem = pose(space, accuracy, costs, paced, [budget], Objective(), 0.9)
        problem = problem.within_reach("latency", NEAR_LEAST)
        try:
            found = look(problem, 0)
            (best,) = bench.measure([space.decode(found.genotypes[0])])
            sys.stdout.write(f"{budget}: measured {best.p90_ms:.3g} ms at the first try\n")
            first += best.p90_ms <= budget.limit
            held = keep_measured(bench, paced, problem, found, look, 0, print)
        except UserError as error:
            sys.stdout.write(f"{error}\n")
            refused += 1
            continue
        (best,) = bench.measure([space.decode(held.genotypes[0])])
        sys.stdout.write(f"{budget}: measured {best.p90_ms:.3g} ms in the end\n")
        last += best.p90_ms <= budget.limit
    return first, last, refused, (time.perf_counter() - began) / BUDGETS


if __name__ == "__main__":
    main()
