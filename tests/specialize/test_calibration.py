"""From measurements to a profile of one's own: taken, resumed, checked, used."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from devices.measure import Measurement
from devices.profile import get_profile
from devices.reach import here
from devices.runtime import profile_for
from ofa.checkpoint import find_checkpoint, read_checkpoint
from ofa.errors import UserError
from ofa.table import tabulate
from specialize.accuracy import fit
from specialize.bench import Bench
from specialize.calibration import (
    at_present_pace,
    calibrate,
    check,
    p90_at_most,
    subnets_to_measure,
)
from specialize.problem import Budget, Limit, Problem
from specialize.search import exact
from tests.commands import command
from tests.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(shapes_folder, tmp_path_factory.mktemp("calibration"))


@pytest.mark.slow
def test_this_machine_is_calibrated_used_and_checked(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, *words: object):
        return command(name, *words, "--checkpoint", tiny, cwd=tmp_path, XDG_CONFIG_HOME=tmp_path)

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("specialize.calibration._DRIFT_HERE", 100.0)  # it has other work
    bench = Bench("host", here("host"), read_checkpoint(tiny))
    told: list[str] = []
    _, path = calibrate("my-laptop", bench, None, 10, tell=told.append)
    folder = tmp_path / "ofa-specializer" / "devices"
    assert path == folder / "my-laptop.json"
    assert told[-1].startswith("10 of 10 subnets measured")
    record = folder / "my-laptop.measured.jsonl"
    rows = record.read_text().splitlines()
    assert len(rows) == 1 + 10
    calibrate("my-laptop", bench, None, 11)
    assert record.read_text().splitlines()[:11] == rows
    rows = record.read_text().splitlines()
    assert len(rows) == 1 + 11

    calibrate("my-laptop", bench, None, 11)  # all are there
    assert record.read_text().splitlines() == rows

    # The command has no such tolerance: let the reference have been as fast beside each.
    header, *measured = map(json.loads, rows)
    for row in measured:
        row["reference"] = measured[0]["reference"]
    rows = [json.dumps(row) for row in (header, *measured)]
    record.write_text("".join(row + "\n" for row in rows))
    again = run("ofa-device", "calibrate", "my-laptop", "--samples", "11")
    assert again.returncode == 0, again.stderr
    assert str(path) in again.stdout
    assert record.read_text().splitlines() == rows
    profile = get_profile(str(folder / "my-laptop.json"))
    assert profile.errors["leave_one_out"]["n"] == 11
    assert profile.bound[0.9] >= 1.1  # minutes later the machine may be slower

    used = run("ofa-specialize", "--device", "my-laptop", "--budget", "100ms", "--quiet")
    assert used.returncode == 0, used.stderr
    assert "profile my-laptop" in used.stdout
    assert re.search(r"^measured +[\d.]+ ms median", used.stdout, re.MULTILINE)  # it is at hand

    held = run("ofa-device", "check", "my-laptop")
    assert held.returncode in (0, 2), held.stderr
    assert (held.returncode == 2) == ("no longer holds" in held.stdout)
    assert held.stdout.count("ms then") == 3
    other = command("ofa-device", "check", "my-laptop", cwd=tmp_path, XDG_CONFIG_HOME=tmp_path)
    assert other.returncode == 2
    assert "add --checkpoint: the supernet that it was calibrated with" in other.stderr
    header, *measured = map(json.loads, record.read_text().splitlines())
    for row in measured:
        row["measured"]["p90_ms"] /= 3
    record.write_text("".join(json.dumps(row) + "\n" for row in [header, *measured]))
    held = run("ofa-device", "check", "my-laptop")
    assert held.returncode == 2
    assert "no longer holds" in held.stdout


class Stopwatch:
    """A device whose latency is the size of the file, times ``speed`` at each call."""

    suffix, runtime, threads = ".tflite", "tflite", 1
    device = "stopwatch"
    system, software = "clockwork 1", "spring 1"

    def __init__(self, *speed: float) -> None:
        self.speed = list(speed)

    def measure(self, models: Sequence[Path]) -> list[Measurement]:
        if not self.speed:
            raise UserError("the phone is gone")
        speed = self.speed.pop(0)
        times = [speed * model.stat().st_size / 1e3 for model in models]
        return [Measurement("r", "cpu", 1, ms, 0, (ms,)) for ms in times]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "ofa-specializer" / "devices"


def test_an_interrupted_calibration_goes_on(tiny: Path, config: Path) -> None:
    checkpoint, like = read_checkpoint(tiny), get_profile("pixel4")
    with pytest.raises(UserError, match="the phone is gone"):
        calibrate("mine", Bench("mine", Stopwatch(1.0), checkpoint), like, 10)
    record = config / "mine.measured.jsonl"
    assert len(record.read_text().splitlines()) == 1 + 5
    assert not (config / "mine.json").exists()
    with record.open("a") as file:
        file.write('{"arch": "r32 3x3e1 3x')  # as a kill leaves it
    profile, path = calibrate("mine", Bench("mine", Stopwatch(1.05), checkpoint), like, 10)
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(rows) == 1 + 10
    # The second half was 5 % slower, the reference too: relative to it nothing changed.
    assert rows[7]["measured"]["median_ms"] == pytest.approx(
        1.05 * rows[7]["relative"] * rows[1]["reference"]["median_ms"]
    )
    assert get_profile(str(path)).as_dict() == profile.as_dict()
    assert profile.hardware == like.hardware
    assert profile.provenance["like"] == "pixel4"
    assert str(profile.runtime) == "tflite spring 1, cpu, 1 thread, float32"
    assert profile.kind == "phone"


def test_a_device_that_is_not_at_rest_is_refused(tiny: Path, config: Path) -> None:
    bench = Bench("mine", Stopwatch(1.0, 1.3, 1.3, 1.3), read_checkpoint(tiny))
    with pytest.raises(UserError, match="the reference network took"):
        calibrate("mine", bench, get_profile("pixel4"), 10)
    assert len((config / "mine.measured.jsonl").read_text().splitlines()) == 1 + 5


def test_a_turn_that_was_disturbed_is_measured_again(tiny: Path, config: Path) -> None:
    """Also the first one, which only the later ones tell."""
    bench = Bench("mine", Stopwatch(1.5, 1.0, 1.0, 1.0), read_checkpoint(tiny))
    calibrate("mine", bench, get_profile("pixel4"), 15)
    _, *rows = map(json.loads, (config / "mine.measured.jsonl").read_text().splitlines())
    assert [row["arch"] for row in rows[15:]] == [row["arch"] for row in rows[:5]]
    for row, again in zip(rows[:5], rows[15:], strict=True):
        assert row["measured"]["p90_ms"] == pytest.approx(1.5 * again["measured"]["p90_ms"])


def test_what_is_of_something_else_is_refused(tiny: Path, config: Path) -> None:
    checkpoint, like = read_checkpoint(tiny), get_profile("pixel4")
    bench = Bench("mine", Stopwatch(1.0, 1.3, 1.0), checkpoint)  # a disturbed turn is taken again
    profile, path = calibrate("mine", bench, like, 10)
    assert check(profile, Bench("mine", Stopwatch(1.0), checkpoint)).holds
    assert not check(profile, Bench("mine", Stopwatch(1.2, 1.2, 1.2), checkpoint)).holds
    assert check(profile, Bench("mine", Stopwatch(1.2, 1.0), checkpoint)).holds
    paced, _ = calibrate("paced", Bench("paced", Stopwatch(1.0, 1.15), checkpoint), like, 10)
    assert check(paced, Bench("paced", Stopwatch(1.0, 1.0, 1.0), checkpoint)).holds
    for speed, pace in ((1.1, 1.0), (1.5, 1.5 / 1.075)):  # in the calibration: 1.0 and 1.15
        now = at_present_pace(paced, Bench("paced", Stopwatch(speed), checkpoint))
        assert now.coefficients["pw.macs"] == pytest.approx(pace * paced.coefficients["pw.macs"])
        assert now.bound[0.9] >= paced.bound[0.9]
        # A fast moment is taken for the slower of the two, a slow one for what was measured.
        arch = checkpoint.space.largest()
        fast, usual, slow = (
            p90_at_most(Bench("paced", Stopwatch(part * pace), checkpoint), [arch], now)[0] / pace
            for part in (0.5, 1.075, 2.0)
        )
        assert fast == pytest.approx(usual)
        assert slow == pytest.approx(2 / 1.15 * usual)
    oiled = Stopwatch(1.0)
    oiled.software = "spring 2"
    found = check(profile, Bench("mine", oiled, checkpoint))
    assert found.holds
    assert found.changed == ("software 'spring 1' then, 'spring 2' now",)
    with pytest.raises(UserError, match="of another software: 'spring 1', not 'spring 2'"):
        calibrate("mine", Bench("mine", oiled, checkpoint), like, 11)
    before = path.read_bytes()
    other = Stopwatch(1.0)
    other.device = "another watch"
    with pytest.raises(UserError, match="of another device: 'stopwatch', not 'another watch'"):
        calibrate("mine", Bench("mine", other, checkpoint), like, 11)
    with pytest.raises(UserError, match="calibrated on stopwatch; this is another watch"):
        profile_for(str(path), "", assume=False, meter=other)
    assert profile_for(str(path), "", assume=False, meter=Stopwatch(1.0))[1] is None
    with pytest.raises(UserError, match="of another like: 'pixel4', not 'note10'"):
        calibrate("mine", Bench("mine", Stopwatch(1.0), checkpoint), get_profile("note10"), 11)
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="was not calibrated here"):
        check(like, bench)
    (config / "drawn.json").write_text(json.dumps(like.as_dict() | {"name": "drawn"}))
    with pytest.raises(UserError, match=r"drawn.json: it was not made by calibrating"):
        calibrate("drawn", bench, like, 10)
    with pytest.raises(UserError, match="at least 9"):
        calibrate("few", bench, like, 8)
    (config / "unwritten.measured.jsonl").touch()  # as a full disk leaves it
    calibrate("unwritten", Bench("unwritten", Stopwatch(1.0, 1.0), checkpoint), like, 10)
    for content in (b"{}\nnonsense\n", b"\xff\xfe\n"):
        (config / "mine.measured.jsonl").write_bytes(content)
        with pytest.raises(UserError, match="not a file of measurements"):
            calibrate("mine", bench, like, 10)
        assert (config / "mine.measured.jsonl").read_bytes() == content
    (config / "mine.measured.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match="no measurement is in it"):
        check(profile, bench)


@pytest.mark.slow
def test_half_of_the_measured_subnets_are_the_best_of_their_size() -> None:
    """And more samples begin with those of fewer, so that a calibration can be added to."""
    checkpoint = read_checkpoint(find_checkpoint("mcu-cifar10"))
    archs = subnets_to_measure(checkpoint, 12)
    assert len(set(archs)) == 12
    assert subnets_to_measure(checkpoint, 9) == archs[:9]
    model = fit(checkpoint.space, checkpoint.evaluated)
    sizes = tabulate(checkpoint.space, lambda layer: layer.macs)
    best = 0
    for arch in archs:
        genotype = checkpoint.space.encode([arch])
        budget = Budget("macs", float(sizes.price(genotype)[0]))
        problem = Problem(
            checkpoint.space, model.table, (Limit(budget, sizes, budget.limit),), "any"
        )
        best += float(model.table.price(genotype)[0]) >= exact.search(problem, count=1).bound - 1e-9
    assert 6 <= best < 12
