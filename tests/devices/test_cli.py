"""``ofa-device`` as people and scripts see it: real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devices.profile import get_profile, load_profiles
from tests.commands import command


def test_list_is_grouped_and_searchable() -> None:
    every = command("ofa-device", "list")
    assert every.returncode == 0
    lines = every.stdout.splitlines()
    for heading in ("phones", "boards", "microcontrollers", "this machine"):
        assert heading in lines
    first_words = {line.split(" ")[0] for line in lines}
    assert {*(p.name for p in load_profiles()), "host", "host-onnxruntime"} <= first_words
    found = command("ofa-device", "list", "Raspberry")
    assert "rpi4-32bit-int8" in found.stdout
    assert "pixel" not in found.stdout


def test_list_as_json_is_one_document() -> None:
    entries = json.loads(command("ofa-device", "list", "--json").stdout)
    assert len(entries) == 118
    assert entries[0].keys() == entries[-1].keys()
    pixel = next(entry for entry in entries if entry["name"] == "pixel4")
    assert (pixel["kind"], pixel["grade"], pixel["error_percent"]) == ("phone", "A", 3.85)
    hosts = json.loads(command("ofa-device", "list", "host-o", "--json").stdout)
    assert [entry["name"] for entry in hosts] == ["host-onnxruntime"]


def test_show_tells_how_far_a_profile_can_be_trusted() -> None:
    shown = command("ofa-device", "show", "pixel")
    assert (shown.returncode, shown.stderr) == (0, "")
    for text in (
        "Cortex-A76", "tflite 2.10, cpu, 1 thread", "A: 30 networks or more",
        "3.9 % on 38 networks left out", "90 % of networks within 1.084 x the prediction",
        "224 px, 1.99 to 908.4 ms", "MIT", "EdgeSys",
    ):  # fmt: skip
        assert text in shown.stdout
    assert "SRAM 512 KiB, flash 2048 KiB" in command("ofa-device", "show", "stm32h7").stdout
    assert "measured when you specialize" in command("ofa-device", "show", "host").stdout


def test_show_as_json_is_the_profile() -> None:
    data = json.loads(command("ofa-device", "show", "Pixel", "--json").stdout)
    assert data == get_profile("pixel4").as_dict()
    assert json.loads(command("ofa-device", "show", "host", "--json").stdout)["name"] == "host"


def test_every_profile_can_be_shown() -> None:
    """In one process: each has its own gaps."""
    from devices.cli import _describe

    for profile in load_profiles():
        rows = _describe(profile)
        assert all(value for _, value in rows), profile.name
        assert not any("None" in value or "nan" in value.split() for _, value in rows)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["show", "pixle"],
            "unknown device 'pixle' (--device); did you mean 'pixel'? "
            "`ofa-device list` shows all 116",
        ),
        (["list", "zzz"], "no device matches 'zzz'; `ofa-device list` shows all"),
        (["shw"], "no such command 'shw'; did you mean 'show'?"),
        (["show", "broken.json"], "broken.json: field 'format' is missing"),
        (
            ["measure", "host", "broken.tflite", "broken.json"],
            "broken.json: neither a .tflite nor an .onnx file",
        ),
        (
            ["measure", "host", "broken.tflite", "--ssh", "pi@board", "--benchmark", "tool"],
            "--ssh --benchmark: 'host' is asked on this machine; "
            "name the profile that is nearest to the other device instead",
        ),
        (
            ["measure", "cortex-m55", "broken.tflite", "--ssh", "pi@board"],
            "--ssh: 'cortex-m55' is asked on this machine; "
            "name the profile that is nearest to the other device instead",
        ),
        (
            ["calibrate", "mine", "--like", "ethos-u55-128"],
            "--like: the compiler tells all of 'ethos-u55-128': there is nothing to fit",
        ),
    ],
)
def test_bad_input_is_one_line(words: list[str], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "broken.tflite").touch()
    result = command("ofa-device", *words, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: {complaint}\n"


@pytest.mark.parametrize("words", [["show", "pixle"], ["list", "--josn"], ["show"]])
def test_with_json_a_failure_is_json_too(words: list[str]) -> None:
    failed = command("ofa-device", *words, "--json")
    assert failed.returncode == 2
    error = json.loads(failed.stdout)["error"]
    assert set(error) == {"what", "where", "fix"}
    assert failed.stderr.startswith(f"error: {error['what']}; {error['fix']}")


def test_without_a_command_the_help_is_shown() -> None:
    result = command("ofa-device")
    assert (result.returncode, result.stdout) == (2, "")
    assert "ofa-device list pixel" in result.stderr
    assert command("ofa-device", "-h").stdout == result.stderr
