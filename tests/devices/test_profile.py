"""Profiles: all are read, found by any name, and refused where a field is wrong."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import devices.profile
from devices.calibrate import write_profile
from devices.profile import FEATURES, get_profile, load_profiles, parse_profile
from ofa.errors import UserError


def test_every_shipped_profile_is_whole() -> None:
    profiles = load_profiles()
    assert len(profiles) == 116
    names = [name for p in profiles for name in (p.name, *p.aliases)]
    assert len(names) == len(set(names))
    for p in profiles:
        assert set(p.coefficients) == set(FEATURES)
        assert p.provenance["source"]
        assert list(p.bound.values()) == sorted(p.bound.values())
        assert 0 < p.typical_error < 25
        # A larger depthwise kernel is never cheaper: its taps cost at least nothing (those of 7x7
        # beyond 5x5 where none was measured, as of an NPU).
        assert min(p.coefficients[k] for k in ("dw.k3", "dw.k5")) > 0
        assert p.coefficients["dw.k7"] >= 0
        again = parse_profile(json.dumps(p.as_dict()), "again")
        assert again.as_dict() == p.as_dict()


def test_pixel_is_the_big_core_of_the_pixel_4() -> None:
    pixel = get_profile("Pixel")
    assert pixel is get_profile("pixel4")
    assert (pixel.runtime.precision, pixel.runtime.version) == ("float32", "2.10")
    assert pixel.hardware.cores == "1large"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("pixle", r"unknown device 'pixle' \(--device\); did you mean 'pixel'\?.*shows all 116"),
        ("raspberry", "did you mean"),
        ("", "unknown device ''"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        get_profile(name)


def test_a_users_own_profile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By path, and by name or alias in the configuration folder, before a shipped one."""
    own = replace(get_profile("rpi4"), name="my-board", aliases=("iphone",), title="mine")
    hiding = replace(get_profile("rpi4"), name="Pixel4", title="mine")
    file = tmp_path / "devices" / "my-board.json"
    file.parent.mkdir()
    write_profile(own, file)
    write_profile(hiding, file.with_name("Pixel4.json"))
    assert get_profile(str(file)).as_dict() == own.as_dict()
    monkeypatch.setattr(devices.profile, "user_config_path", lambda _: tmp_path)
    load_profiles.cache_clear()
    try:
        assert get_profile("My-Board").title == get_profile("iphone").title == "mine"
        assert get_profile("iphonexs").title != "mine"
        assert get_profile("pixel4").title == "mine"
        assert len(load_profiles()) == 118
        assert own.kind == "board"
    finally:
        load_profiles.cache_clear()


def test_a_runtime_is_not_named_twice() -> None:
    assert get_profile("nucleo-g0b1re").runtime.software == "Bosch HALE 1.0.175"
    assert get_profile("pixel4").runtime.software == "tflite 2.10"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d["model"]["coefficients"].pop("dw.k3"), "'model.coefficients' has no 'dw.k3'"),
        (lambda d: d["model"]["coefficients"].update(n=-1.0), "has 'n' = -1.0, not a number of 0"),
        (lambda d: d["model"]["coefficients"].update({"pw.macs": "x"}), "has 'pw.macs' = 'x'"),
        (lambda d: d["model"]["coefficients"].update(n=float("nan")), "has 'n' = nan"),
        (lambda d: d["model"]["coefficients"].update({"dw.k9": 1}), "has an unknown 'dw.k9'"),
        (lambda d: d["model"].update(unit="us"), "field 'model.unit' is 'us', not 'ms'"),
        (lambda d: d.update(format="device-profile/9"), "not 'device-profile/1'"),
        (lambda d: d.pop("bound"), "field 'bound' is missing"),
        (lambda d: d.update(bound={}), "field 'bound' must name confidences"),
        (lambda d: d.update(bound={"90": 1.1}), "field 'bound' must name confidences"),
        (lambda d: d.pop("hardware"), "field 'hardware' is missing"),
        (lambda d: d["hardware"].pop("soc"), "field 'hardware.soc' is missing"),
        (lambda d: d["runtime"].update(threads="1"), "'runtime.threads' is '1', not int | None"),
        (lambda d: d.update(grade="E"), "field 'grade' is 'E', not 'A' or 'B'"),
        (lambda d: d["valid"].update(ms=[9, 1]), "'valid.ms' is [9, 1], not [lowest, highest]"),
        (lambda d: d.update(errors={}), "field 'errors' has none of"),
        (lambda d: d.update(notes="none"), "field 'notes' is 'none', not list"),
        (
            lambda d: d["provenance"].update(reference_slow_ms=2.0, reference_range_ms=[1]),
            "reference_range_ms' is [1]",
        ),
        (
            lambda d: d["provenance"].update(reference_slow_ms=2.0, reference_range_ms=[1, 2]),
            "reference_ms' is missing",
        ),
    ],
)
def test_a_wrong_profile_is_refused(change, complaint: str) -> None:
    data = get_profile("pixel4").as_dict()
    change(data)
    with pytest.raises(UserError, match=re.escape(complaint)) as refused:
        parse_profile(json.dumps(data), "my.json")
    assert refused.value.where == "my.json"


def test_a_file_that_is_no_profile_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    for name, complaint in (
        ("half", "not JSON"),
        ("list", "field 'format' is missing"),
        ("binary", "cannot be read"),
        ("absent", "cannot be read .*No such file"),
    ):
        with pytest.raises(UserError, match=f"{name}.json: {complaint}"):
            get_profile(str(tmp_path / f"{name}.json"))
