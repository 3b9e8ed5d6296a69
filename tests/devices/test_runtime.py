"""A profile is of one runtime: another one is refused, or assumed with a wider bound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.backends.litert import Litert
from devices.calibrate import write_profile
from devices.profile import MEASURED_HERE, get_profile, load_profiles
from devices.reach import here, reach
from devices.runtime import Use, for_use, parse_use, profile_for, runs_as_said
from ofa.errors import UserError
from ofa.machine import processor_name
from tests.commands import need


def test_words_become_a_use() -> None:
    assert parse_use("") == Use()
    assert parse_use("TFLite 2.16, 4 threads, GPU") == Use("tflite 2.16", "gpu", 4)
    assert parse_use("1 thread,xnnpack", "int8") == Use(None, "xnnpack", 1, "int8")
    for text in ("tflite, onnxruntime", "4", "4 cores", "0 threads"):
        with pytest.raises(UserError, match="neither a number of threads"):
            parse_use(text)


@pytest.mark.parametrize(
    ("device", "text", "complaint"),
    [
        ("pixel", "4 threads", "is of 1 thread, not 4; --device pixel4-4t is of that; "),
        ("pixel", "tflite 2.1", "is of tflite 2.10, not tflite 2.1; --assume"),
        ("pixel", "onnxruntime", "is of tflite 2.10, not onnxruntime; --assume"),
        ("pixel", "gpu", "is of delegate cpu, not gpu; --device pixel4-gpu is of that; "),
        ("pixel4-gpu", "xnnpack", "is of delegate gpu, not xnnpack; --device pixel4 is of that"),
        ("pixel4-int8", "", "is of int8 networks, not float32; --device pixel4 is of that; "),
        ("pixel", "tflite 2.10, 4 threads", "is of 1 thread, not 4; --device pixel4-4small is of"),
        ("pixel", "2 threads, gpu", "is of delegate cpu, not gpu and 1 thread, not 2; "),
    ],
)
def test_another_runtime_is_refused(device: str, text: str, complaint: str) -> None:
    with pytest.raises(UserError) as error:
        for_use(get_profile(device), parse_use(text), assume=False)
    assert complaint in str(error.value)
    assert "--assume-runtime" in str(error.value)


@given(
    st.sampled_from(load_profiles()),
    st.sampled_from([None, "tflite", "litert 2.3"]),
    st.sampled_from([None, "cpu", "gpu", "builtin"]),
    st.sampled_from([None, 1, 4]),
    st.sampled_from(["float32", "int8"]),
)
def test_what_is_assumed_is_never_narrower(
    profile, software: str | None, delegate: str | None, threads: int | None, precision: str
) -> None:
    use = Use(software, delegate, threads, precision)
    assumed, note = for_use(profile, use, assume=True)
    assert assumed.coefficients == profile.coefficients
    assert all(assumed.bound[c] >= factor for c, factor in profile.bound.items())
    if note is None:
        assert for_use(profile, use, assume=False) == (profile, None)
    else:
        with pytest.raises(UserError):
            for_use(profile, use, assume=False)


def test_its_own_runtime_is_no_difference() -> None:
    for profile in load_profiles():
        runtime = profile.runtime
        precision = "int8" if runtime.precision.endswith("int8") else "float32"
        use = Use(runtime.software, None, runtime.threads, precision)
        assert for_use(profile, use, assume=False) == (profile, None)


def test_a_profile_of_this_machine_is_of_what_was_installed(tmp_path: Path) -> None:
    """After an update of LiteRT it is refused without a word on the runtime."""
    pixel = get_profile("pixel")
    mine = replace(
        pixel,
        name="mine",
        hardware=replace(pixel.hardware, soc=processor_name()),
        runtime=replace(pixel.runtime, name=Litert().name, version=Litert().version),
        provenance={**pixel.provenance, "source": MEASURED_HERE, "like": "host"},
    )
    path = tmp_path / "mine.json"
    write_profile(mine, path)
    assert profile_for(str(path), "", assume=False)[1] is None
    write_profile(replace(mine, runtime=replace(mine.runtime, version="0.1")), path)
    with pytest.raises(UserError, match=r"is of .* 0\.1, not "):
        profile_for(str(path), "", assume=False)
    assert "--assume-runtime" in (profile_for(str(path), "", assume=True)[1] or "")


@pytest.mark.parametrize(
    ("runtime", "runs"),
    [
        ("", True),
        ("xnnpack, 1 thread", True),
        (f"{Litert().name} {Litert().version}", True),
        ("litert 0.1", False),
        ("onnxruntime", False),
        ("4 threads", False),
        ("gpu", False),
    ],
)
def test_what_is_measured_is_what_will_run(runtime: str, runs: bool) -> None:
    assert runs_as_said(runtime, here("host")) == runs


@pytest.mark.parametrize(("runtime", "runs"), [("", True), ("npu", True), ("cpu", False)])
def test_what_is_compiled_is_what_will_run(runtime: str, runs: bool) -> None:
    need("ethos-u55-128")
    assert runs_as_said(runtime, reach("ethos-u55-128")) == runs
