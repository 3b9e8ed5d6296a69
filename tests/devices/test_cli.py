"""``ofa-device`` as people and scripts see it."""

from __future__ import annotations

import json

from tests.commands import command


def test_list_is_grouped_and_searchable() -> None:
    every = command("ofa-device", "list")
    assert every.returncode == 0
    for heading in ("phones", "boards", "microcontrollers", "host-onnxruntime"):
        assert heading in every.stdout
    found = command("ofa-device", "list", "raspberry", "--json")
    names = [entry["name"] for entry in json.loads(found.stdout)]
    assert "rpi4" in names
    assert not any(name.startswith("pixel") for name in names)


def test_show_tells_how_far_a_profile_can_be_trusted() -> None:
    shown = command("ofa-device", "show", "pixel")
    assert shown.returncode == 0
    for text in ("Cortex-A76", "tflite 2.10", "A: 30 networks", "90 %: x1.084", "MIT", "EdgeSys"):
        assert text in shown.stdout
    data = json.loads(command("ofa-device", "show", "pixel4", "--json").stdout)
    assert data["model"]["coefficients"]["pw.macs"] == 0.04761


def test_bad_input_is_one_line() -> None:
    result = command("ofa-device", "show", "pixle")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: unknown device 'pixle' (--device); did you mean 'pixel'? "
        "`ofa-device list` shows all 113\n"
    )
    failed = command("ofa-device", "show", "pixle", "--json")
    assert json.loads(failed.stdout)["error"]["what"] == "unknown device 'pixle' (--device)"
    assert command("ofa-device", "list", "zzz").returncode == 2
    assert command("ofa-device", "shw").returncode == 2
