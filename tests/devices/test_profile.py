"""Profiles: all are read, found by any name, and refused where a field is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import devices.profile
from devices.profile import FEATURES, get_profile, load_profiles, parse_profile
from ofa.errors import UserError


def test_every_shipped_profile_is_whole() -> None:
    profiles = load_profiles()
    assert len(profiles) == 113
    names = [name for p in profiles for name in (p.name, *p.aliases)]
    assert len(names) == len(set(names))
    for p in profiles:
        assert set(p.coefficients) == set(FEATURES)
        assert p.grade in "ABCD"
        assert p.provenance["source"]
        assert list(p.bound) == sorted(p.bound)
        # A larger depthwise kernel is never cheaper: its taps cost at least nothing.
        assert min(p.coefficients[k] for k in ("dw.k3", "dw.k5", "dw.k7")) > 0
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
        ("pixle", r"unknown device 'pixle' \(--device\); did you mean 'pixel'\?.*shows all 113"),
        ("raspberry", "did you mean"),
        ("", "unknown device ''"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        get_profile(name)


def test_a_users_own_profile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By path, and by name in the configuration folder."""
    own = {**get_profile("rpi4").as_dict(), "name": "my-board", "aliases": []}
    file = tmp_path / "devices" / "my-board.json"
    file.parent.mkdir()
    file.write_text(json.dumps(own))
    assert get_profile(str(file)).name == "my-board"
    monkeypatch.setattr(devices.profile, "user_config_path", lambda _: tmp_path)
    load_profiles.cache_clear()
    try:
        assert get_profile("my-board").title == own["title"]
    finally:
        load_profiles.cache_clear()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d["model"]["coefficients"].pop("dw.k3"), "coefficient 'dw.k3' is None"),
        (lambda d: d["model"]["coefficients"].update(n=-1.0), "coefficient 'n' is -1.0"),
        (lambda d: d["model"]["coefficients"].update({"pw.macs": "x"}), "'pw.macs' is 'x'"),
        (lambda d: d.update(format="device-profile/9"), "expected 'device-profile/1'"),
        (lambda d: d.pop("bound"), "no field 'bound'"),
        (lambda d: d.pop("hardware"), "no field 'hardware'"),
    ],
)
def test_a_wrong_profile_is_refused(change, complaint: str) -> None:
    data = get_profile("pixel4").as_dict()
    change(data)
    with pytest.raises(UserError, match=f"my.json.*{complaint}"):
        parse_profile(json.dumps(data), "my.json")
    with pytest.raises(UserError, match="not a device profile"):
        parse_profile("{", "my.json")
