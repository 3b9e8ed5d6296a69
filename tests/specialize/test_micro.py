"""Microcontrollers: several budgets at once, sources for a firmware, a compiler's exact word."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from devices.backends.litert import Litert
from devices.backends.vela import Compiled, Vela
from specialize import specialize
from tests.commands import command, need
from tests.tiny_checkpoint import write_tiny_checkpoint

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "microcontrollers.md"
FEW = ("--candidates", "3", "--quiet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's own command, on the shipped supernet that it takes by itself."""
    folder = tmp_path_factory.mktemp("micro") / "out"
    done = command(
        "ofa-specialize", "--device", "stm32h7", "--budget", "100ms", "--sram", "64kB",
        "--flash", "300kB", "--output", folder, *FEW,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
def test_three_budgets_are_kept_at_once(made: Path) -> None:
    report = report_of(made)
    assert report["checkpoint"]["name"] == "mcu-cifar10"
    kept = {budget["quantity"]: budget for budget in report["budgets"]}
    assert set(kept) == {"latency", "sram", "flash"}
    assert all(budget["kept"] for budget in kept.values())
    assert report["memory"]["sram_bytes"] == round(1e3 * kept["sram"]["value"]) <= 64_000
    assert report["memory"]["flash_bytes"] == (made / "model.tflite").stat().st_size <= 300_000
    assert {file["path"] for file in report["files"]} == {
        "model.tflite", "model.onnx", "labels.txt", "model.h", "model.cc",
    }  # fmt: skip
    assert f"kModelArenaBytes = {report['memory']['sram_bytes']};" in (made / "model.h").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_example_of_the_docs_compiles_against_it(made: Path, tmp_path: Path) -> None:
    """And what it links is the file, and hands the network the integers that the file means."""
    example = re.search(r"<!-- example: classify.cc -->\n```cpp\n(.*?)```", DOCS.read_text(), re.S)
    assert example is not None
    (tmp_path / "classify.cc").write_text(example[1])
    sources = [tmp_path / "classify.cc", made / "model.cc", HERE / "tflm" / "main.cc"]
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-Wno-float-conversion"]
    subprocess.run(
        ["g++", *strict, f"-I{made}", f"-I{HERE / 'tflm'}", *sources, "-o", tmp_path / "run"],
        check=True,
    )
    run = subprocess.run([tmp_path / "run"], capture_output=True, check=True)
    model = (made / "model.tflite").read_bytes()
    assert run.stdout == model
    side = report_of(made)["resolution"]
    pixels = (np.arange(side * side * 3) % 256).astype(np.float32)
    interpreter = Litert()._load(model)
    scale, zero = interpreter.get_input_details()[0]["quantization"]
    steps = np.rint((pixels - 127) / 128 / np.float32(scale)) + zero
    given = np.frombuffer(run.stderr, np.int8)
    assert np.abs(given - steps.clip(-128, 127)).max() <= 1  # ties round to even, or away


@pytest.mark.slow
def test_a_compiler_is_asked_of_each_candidate(tmp_path: Path) -> None:
    need("ethos-u55-128")
    folder = tmp_path / "out"
    done = command(
        "ofa-specialize", "--device", "ethos-u55-128", "--budget", "0.8ms", "--sram", "48kB",
        "--flash", "90kB", "--output", folder, *FEW, XDG_CACHE_HOME=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report, compiled = (
        report_of(folder),
        Vela("ethos-u55-128").compile((folder / "model.tflite").read_bytes()),
    )
    assert report["latency_ms"]["measured"]["p90"] == pytest.approx(compiled.ms)
    assert report["latency_ms"]["measured"]["counted"] == "estimates"
    assert "estimate of vela" in done.stdout
    chosen = next(
        one for one in report["search"]["candidates"]
        if one["architecture"] == report["architecture"]
    )  # fmt: skip
    assert chosen["latency_ms"] == pytest.approx(compiled.ms)
    assert all(budget["kept"] for budget in report["budgets"])
    # What is budgeted is what the firmware takes: the whole arena, and the file that is flashed.
    header = (folder / "model.h").read_text()
    assert "AddEthosU" in header
    arena = re.search(r"kModelArenaBytes = (\d+)", header)
    assert arena
    assert report["memory"]["sram_bytes"] == compiled.sram == int(arena[1])
    flashed = (folder / "model_vela.tflite").stat().st_size
    assert report["memory"]["flash_bytes"] == compiled.flash == flashed > 10_000


@pytest.mark.slow
def test_a_search_is_tightened_where_no_compiled_file_keeps_its_budget(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here real weights take 4 % longer than those that candidates are compiled with."""
    need("ethos-u55-128")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checkpoint, compiled = write_tiny_checkpoint(shapes_folder, tmp_path), Vela.compile

    def slower(self: Vela, model: bytes) -> Compiled:
        found = compiled(self, model)
        real = b"tiny for ethos" in model
        return replace(found, ms=found.ms * (1.04 if real else 1))

    monkeypatch.setattr(Vela, "compile", slower)
    told: list[str] = []
    asked = {"checkpoint": checkpoint, "candidates": 1, "tell": told.append}
    report = specialize("ethos-u55-128", "0.15ms", output=tmp_path / "out", **asked).report
    assert any("none of 1 candidates keeps the budgets when it is compiled" in t for t in told)
    assert all(budget.kept for budget in report.budgets)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "100ms", "--precision", "float32"), "runs int8 networks, not float32"),
        (("--budget", "1ms", "--precision", "float32", "--assume-runtime"), "not float32"),
        (("--budget", "100ms", "--flash", "60kB"), "--flash: no architecture of 'mcu' fits"),
        (("--budget", "100ms", "--sram", "9kB"), "--sram: no architecture of 'mcu' fits 9kB"),
        (("--budget", "1ms"), "--budget: no architecture of 'mcu' fits 1ms"),
    ],
)
def test_the_budget_that_binds_is_named(
    options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = command("ofa-specialize", "--device", "stm32h7", *options, "--quiet", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not list(tmp_path.iterdir())
