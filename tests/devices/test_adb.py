"""Phones: the real ``adb``, a phone of our own, files that really run, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.backends.adb import find_phones
from devices.backends.board import Board
from devices.backends.programs import PROGRAMS
from devices.reach import Farm, reach
from ofa.errors import UserError
from ofa.preprocessing import LITE0
from specialize.export.onnx import onnx_model
from specialize.export.tflite import tflite_model
from tests.commands import command
from tests.devices.phone import BENCHMARK, PERF_TEST, Phone
from tests.networks import labels_of, network
from tests.strategies import TINY
from tests.tiny_checkpoint import write_tiny_checkpoint

pytestmark = pytest.mark.skipif(shutil.which("adb") is None, reason="adb is not installed")

BIG_LITTLE = {0: 1_800_000, 1: 1_800_000, 2: 2_400_000, 3: 2_800_000}

Connect = Callable[..., Phone]


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    """An adb server of our own, so that phones on the desk are left alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ANDROID_ADB_SERVER_PORT", port)
        yield
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True)


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    phones = []

    def plug_in(**options) -> Phone:
        phone = Phone(tmp_path / f"phone{len(phones)}", BIG_LITTLE, **options)
        phones.append(phone)
        trusted = options.get("trusts", True)
        subprocess.run(["adb", "connect", phone.serial], check=trusted, capture_output=True)
        return phone

    yield plug_in
    for phone in phones:
        subprocess.run(["adb", "disconnect", phone.serial], check=False, capture_output=True)
        phone.unplug()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A benchmark_model, a small and a large network."""
    folder = tmp_path_factory.mktemp("files")
    tool = folder / "benchmark_model"
    tool.write_text(BENCHMARK)
    models = []
    for name, arch in (("small", TINY.smallest(24)), ("large", TINY.largest(40))):
        layers, folded = network(TINY, arch)
        models.append(folder / f"{name}.tflite")
        models[-1].write_bytes(tflite_model(layers, folded, labels_of(layers), LITE0, name))
    return tool, *models


def test_a_phone_runs_the_files(connect: Connect, files: tuple[Path, Path, Path]) -> None:
    phone = connect()
    tool, small, large = files
    fast, slow = reach("pixel4", benchmark=tool).measure([small, large])
    assert 0 < fast.median_ms < slow.median_ms
    assert len(fast.raw_ms) == 3
    assert fast.median_ms <= fast.p90_ms
    assert (fast.runtime, fast.delegate, fast.threads) == ("tflite", "xnnpack", 1)
    runs = [c for c in phone.commands if "--graph" in c]
    assert len(runs) == 6
    assert all("; taskset 8 $limit " in c for c in runs)  # 1large: the fastest core
    assert list(phone.tmp.iterdir()) == []  # cleaned up


def test_on_the_command_line(connect: Connect, files: tuple[Path, Path, Path]) -> None:
    phone = connect()
    tool, small, _ = files
    result = command("ofa-device", "measure", "pixel", small, "--benchmark", tool, "--quiet")
    assert result.returncode == 0, result.stderr
    assert "3 repeats, tflite, xnnpack, 1 thread" in result.stdout
    assert list(phone.tmp.iterdir()) == []


def test_onnx_files_run_in_their_own_program(connect: Connect, tmp_path: Path) -> None:
    phone = connect()
    tool = tmp_path / "onnxruntime_perf_test"
    tool.write_text(PERF_TEST)
    layers, folded = network(TINY, TINY.smallest(24))
    model, broken = tmp_path / "model.onnx", tmp_path / "broken.onnx"
    model.write_bytes(onnx_model(layers, folded, labels_of(layers), LITE0, "test"))
    broken.write_bytes(b"not a model")
    done = command("ofa-device", "measure", "pixel", model, "--benchmark", tool, "--quiet")
    assert done.returncode == 0, done.stderr
    assert f"{model.stat().st_size / 1e5:.3g} ms median" in done.stdout
    assert "3 repeats, onnxruntime, cpu, 1 thread" in done.stdout
    assert list(phone.tmp.iterdir()) == []
    done = command("ofa-device", "measure", "pixel", broken, "--benchmark", tool, "--quiet")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_budget_is_kept_by_measuring_on_the_phone(
    connect: Connect, files: tuple[Path, Path, Path], shapes_folder: Path, tmp_path: Path
) -> None:
    """The winner of ``ofa-specialize`` was measured there; one that cannot be kept is refused."""
    phone = connect()
    tiny = write_tiny_checkpoint(shapes_folder, tmp_path)
    words = ("--device", "pixel4", "--benchmark", files[0], "--checkpoint", tiny, "--candidates", 2)
    result = command("ofa-specialize", *words, "--budget", "100ms", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "pixel4-100ms/report.json").read_text())
    measured = report["latency_ms"]["measured"]
    assert measured["runtime"] == "tflite"
    assert 0 < measured["p90"] == report["budgets"][0]["value"] < 100
    assert f"--benchmark {files[0]}" in report["command"]
    assert list(phone.tmp.iterdir()) == []


@pytest.mark.slow
def test_a_farm_shares_the_models_and_outlives_a_phone(
    connect: Connect, files: tuple[Path, Path, Path]
) -> None:
    tool, small, large = files
    good = connect()
    bad = connect(before=lambda c: unplugged() if "--graph" in c else None)

    def unplugged() -> None:
        """Its connection breaks while a model runs."""
        threading.Thread(target=bad.unplug).start()
        time.sleep(0.5)

    told: list[str] = []
    meter = reach("pixel4", serials=[good.serial, bad.serial], benchmark=tool, tell=told.append)
    assert isinstance(meter, Farm)
    found = meter.measure([small, large, small, large])
    assert [m.median_ms > 0 for m in found] == [True] * 4
    beside = meter.measure_beside(small, [large, small])
    assert [(first.median_ms, one.median_ms) for first, one in beside] == [
        (found[0].median_ms, found[1].median_ms), (found[0].median_ms, found[0].median_ms),
    ]  # fmt: skip
    assert any(bad.serial in text and "the others go on" in text for text in told)


@pytest.mark.slow
def test_what_a_farm_measured_stays_where_a_model_is_broken(
    connect: Connect, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """It is no fault of a phone: both go on, and what they measured is printed."""
    tool, small, large = files
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"not a model")
    phones = [word for _ in range(2) for word in ("--serial", connect().serial)]
    words = ("measure", "pixel4", broken, small, large, "--benchmark", tool, *phones)
    done = command("ofa-device", *words)
    assert done.returncode == 2
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [str(small), str(large)]
    assert "Failed to load model" in done.stderr.splitlines()[-1]
    assert "the others go on" not in done.stderr


@pytest.mark.slow
def test_a_farm_does_without_a_phone_that_is_full(
    connect: Connect, files: tuple[Path, Path, Path]
) -> None:
    """It answers at once, and would fail all models before another has measured one."""
    tool, small, large = files
    full = connect(before=lambda c: (b"No space left on device", 1) if "--graph" in c else None)
    good = connect()
    meter = reach("pixel4", serials=[full.serial, good.serial], benchmark=tool)
    assert len(meter.measure([small, large, small])) == 3


def test_a_phone_that_does_not_trust_is_named(connect: Connect) -> None:
    phone = connect(trusts=False)
    with pytest.raises(UserError, match="does not trust this computer") as caught:
        find_phones([phone.serial])
    assert "allow USB debugging" in caught.value.fix


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((b"No space left on device", 1), "storage is full"),
        ((b"sh: benchmark_model: not executable: 64-bit ELF file", 126), "another processor"),
        ((b"Killed", 137), "failed with code 137: Killed"),
        ((b'CANNOT LINK EXECUTABLE: library "libtflite.so" not found', 1), "code 1: CANNOT LINK"),
        ((b"warming up... done", 0), "printed no latency; its last line: 'warming up... done'"),
    ],
)
def test_what_goes_wrong_is_said_and_cleaned_up(
    connect: Connect, files: tuple[Path, Path, Path], answer: tuple[bytes, int], complaint: str
) -> None:
    phone = connect(before=lambda c: answer if "--graph" in c else None)
    with pytest.raises(UserError, match=complaint):
        reach("pixel4", benchmark=files[0]).measure([files[1]])
    assert list(phone.tmp.iterdir()) == []


def test_a_broken_model_is_said(connect: Connect, files: tuple[Path, Path, Path], tmp_path) -> None:
    connect()
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"not a model")
    with pytest.raises(UserError, match="Failed to load model"):
        reach("pixel4", benchmark=files[0]).measure([broken])


def test_a_hang_ends(
    connect: Connect, files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.backends.board._TIMEOUT_S", 0.5)
    connect(before=lambda c: (time.sleep(2), (b"", 0))[1] if "--graph" in c else None)
    with pytest.raises(UserError, match=r"no answer in 0.5 s"):
        reach("pixel4", benchmark=files[0]).measure([files[1]])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("count=50 first=90 curr=90 min=80 max=300 avg=100 std=9", "deviate by 9 %"),
        (None, "throttled to 1400 MHz"),
    ],
    ids=["noisy", "throttled"],
)
def test_a_disturbed_run_is_repeated_and_then_refused(
    connect: Connect,
    files: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    line: str | None,
    complaint: str,
) -> None:
    monkeypatch.setattr("devices.backends.board._PAUSE_S", 0.0)
    phone = connect(
        before=lambda c: (line.encode(), 0) if line is not None and "--graph" in c else None
    )
    if line is None:
        (phone.sys / "cpu3/cpufreq/scaling_max_freq").write_text("1400000\n")
    told: list[str] = []
    with pytest.raises(UserError, match=f"no quiet measurement in 3 tries: .*{complaint}"):
        reach("pixel4", benchmark=files[0], tell=told.append).measure([files[1]])
    assert len(told) == 3


def test_which_phone(connect: Connect) -> None:
    with pytest.raises(UserError, match="no phone is connected"):
        find_phones([])
    one, two = connect(), connect()
    with pytest.raises(UserError, match="2 phones are connected") as caught:
        find_phones([])
    assert caught.value.fix == "add --serial"
    assert [p.serial for p in find_phones([two.serial, one.serial])] == [two.serial, one.serial]
    with pytest.raises(UserError, match="the phone is gone") as caught:
        find_phones(["absent"])
    assert caught.value.where == "--serial absent"


def test_the_program_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another device") as caught:
        reach("pixel4")
    assert "benchmark_model" in str(caught.value.fix)
    with pytest.raises(UserError, match="built for that device"):
        Board(None, PROGRAMS["tflite"], tmp_path / "absent")  # type: ignore[arg-type]
