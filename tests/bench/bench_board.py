"""The product itself on the processor of a board, emulated, and the memory that it takes there.

    apt-get install debootstrap qemu-user-static
    python -m tests.bench.bench_board [FOLDER]      (as root; about 20 minutes)

An aarch64 Debian, none of whose programs is ever started but Python: debootstrap fetches the
packages, ``dpkg -x`` unpacks them, and qemu runs Python as one process of this machine. Nothing of
binfmt is needed. FOLDER keeps the root and the wheels between runs; without it they are fetched
each time, from the registries of apt and pip.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from devices.backends.litert import Litert
from ofa.checkpoint import find_checkpoint, read_checkpoint
from ofa.images import write_zip
from tests.bench.record import record, table

ROOT = Path(__file__).parents[2]
QEMU = "qemu-aarch64-static"
RELEASE, PYTHON, GLIBC = "bookworm", "3.11", 36  # Debian 12, its Python, its glibc 2.36
CPU = "cortex-a72"  # of a Raspberry Pi 4
#: What Linux on that processor says of each core in /proc/cpuinfo.
CORE = """processor\t: {core}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
IMAGES = 200  # of the checkpoint's held-out ones: every image is a quarter of a second
OPTIONS = ["--candidates", "2", "--images", "images.zip"]
JOB = ["--device", "rpi4", "--budget", "10ms"]


@dataclass(frozen=True)
class Made:
    """What one run of ``ofa-specialize`` wrote, and what it took."""

    tflite: Path
    report: dict[str, Any]
    seconds: float
    peak_mb: float


def main() -> None:
    """Measure and record."""
    missing = [name for name in ("debootstrap", QEMU) if shutil.which(name) is None]
    if missing:
        sys.stderr.write(f"no {', '.join(missing)}; apt-get install debootstrap qemu-user-static\n")
        sys.exit(2)
    if len(sys.argv) > 1:
        record("board", bench(Path(sys.argv[1]).resolve()))
    else:
        with tempfile.TemporaryDirectory() as name:
            record("board", bench(Path(name)))


def bench(folder: Path) -> str:
    """Make what is not there, run on the emulated board and here; the section."""
    debian = made_once(folder / "debian", make_debian)
    wheels = made_once(folder / "wheels", fetch_wheels)
    site = made_once(folder / "site", lambda site: unzip(wheels, site))
    own, product = emptied(folder / "own"), emptied(folder / "product")
    build_wheel(own)
    unzip(own, product)
    held_out = read_checkpoint(find_checkpoint("lite-imagenette")).samples()[1]
    write_zip(folder / "images.zip", {"": held_out.interleaved().take(range(IMAGES))})

    # -s: without what this machine's user has installed.
    emulated = [QEMU, "-cpu", CPU, "-L", str(debian), f"{debian}/usr/bin/python{PYTHON}", "-s"]
    board = specialize(emulated, [product, site], JOB, folder / "on-board")
    here = specialize([sys.executable], [product], JOB, folder / "here")
    # A budget that the emulation keeps: a little more than the first network takes in it.
    budget = f"{1.25 * board.report['host_latency_ms'][0]['p90']:.0f}ms"
    job = ["--device", "host", "--budget", budget]
    host = specialize(emulated, [product, site], job, folder / "on-board-host")

    runs = {
        f"`{shlex.join(JOB)}`, emulated": board,
        f"`{shlex.join(JOB)}`, here": here,
        f"`{shlex.join(job)}`, emulated": host,
    }
    rows = [
        ["architecture", *(f"`{made.report['architecture']}`" for made in runs.values())],
        ["budget", *(kept(made.report) for made in runs.values())],
        ["test images, %", *(accuracy(made.report) for made in runs.values())],
        ["files verified, images", *(made.report["verified"]["images"] for made in runs.values())],
        ["shell to files, s", *(f"{made.seconds:.0f}" for made in runs.values())],
        ["peak memory, MB", *(f"{made.peak_mb:.0f}" for made in runs.values())],
    ]
    software = ", ".join(f"{name} {text}" for name, text in board.report["versions"].items())
    count = len(list(wheels.iterdir()))
    about = (
        f"`ofa-specialize` itself on the processor of a board, emulated: Debian 12 for aarch64 "
        f"under {qemu_version()}, `-cpu {CPU}`, that of a Raspberry Pi 4, with the wheels that pip "
        f"takes there ({software}). Options: `{shlex.join(OPTIONS)}`, {IMAGES} of the "
        "checkpoint's held-out images, which recalibrate the batch norms too. The emulation's "
        "milliseconds are those of no device, and the budget of `host` is one that it keeps: that "
        "run shows that measuring in LiteRT, calibrating, search, scoring, export and verification "
        "work there."
    )
    more = (
        f"{same_files(board, here)} Peak memory is that of the process, and when emulated it holds "
        "the emulator and the code that it translated too.\n\n"
        f"The {count} wheels of the dependencies are {file_mb(wheels):.0f} MB, "
        f"{unpacked_mb(wheels):.0f} MB unpacked; the product's own is {file_mb(own):.0f} MB. "
        "The root's `/proc/cpuinfo` is one of that processor: without it qemu 7.2 shows this "
        "machine's, at which LiteRT 2.3.0 and ONNX Runtime 1.32.0 crash."
    )
    return f"## On a board\n\n{about}\n\n{table(['what', *runs], rows)}\n\n{more}"


def make_debian(folder: Path) -> None:
    """Unpack a small Debian with Python."""
    include = "--include=python3,python3-pip"
    options = ["--foreign", "--arch=arm64", "--variant=minbase", include, RELEASE, str(folder)]
    subprocess.run(["debootstrap", *options], check=True, stdout=sys.stderr)
    for package in sorted((folder / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, folder], check=True)
    # qemu looks for every file here first, for this one too.
    cores = range(os.cpu_count() or 1)
    (folder / "proc/cpuinfo").write_text("".join(CORE.format(core=core) for core in cores))


def fetch_wheels(folder: Path) -> None:
    """Download the dependencies as pip on that Debian would choose them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(GLIBC, 16, -1)]
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    options += [f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")]
    options += [f"--platform={name}" for name in (*platforms, "manylinux2014_aarch64")]
    pip(["download", *options, "--dest", str(folder), *project["dependencies"]])


def build_wheel(folder: Path) -> None:
    """Build the product's own, of this checkout."""
    pip(["wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)])


def pip(words: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *words], check=True)


def unzip(wheels: Path, folder: Path) -> None:
    for wheel in wheels.iterdir():
        with ZipFile(wheel) as archive:
            archive.extractall(folder)


def specialize(python: list[str], path: list[Path], job: list[str], output: Path) -> Made:
    """Run the command line as one process; time and memory are that process's alone."""
    shutil.rmtree(output, ignore_errors=True)
    command = [*python, "-m", "specialize.cli", *job, *OPTIONS, "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=sys.stderr, cwd=output.parent, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    report = json.loads((output / "report.json").read_text())
    return Made(output / "model.tflite", report, seconds, usage.ru_maxrss / 1024)


def same_files(board: Made, here: Made) -> str:
    """In words: how far the TFLite file of the board is the one that is written here."""
    if board.tflite.read_bytes() == here.tflite.read_bytes():
        return "`model.tflite` of the board is byte for byte the one that is written here."
    if board.report["architecture"] != here.report["architecture"]:
        return "The board chose another architecture than this machine."
    source = read_checkpoint(find_checkpoint("lite-imagenette"))
    pixels = source.test().pixels(here.report["resolution"])
    images = source.preprocessing.normalize(pixels)
    theirs, ours = (Litert().run(made.tflite, images) for made in (board, here))
    agreeing = int((theirs.argmax(1) == ours.argmax(1)).sum())
    return (
        "`model.tflite` of the board has the same architecture as the one that is written here, "
        "and not the same bytes: batch norms are recalibrated in floats, whose sums differ. Both "
        f"files run here: logits differ by {np.abs(theirs - ours).max():.1e} at most, of up to "
        f"{np.abs(ours).max():.0f}, and {agreeing} of {len(images)} test images have the same "
        "answer."
    )


def kept(report: dict[str, Any]) -> str:
    return ", ".join("kept" if budget["kept"] else "missed" for budget in report["budgets"])


def accuracy(report: dict[str, Any]) -> str:
    return f"{report['accuracy']['test']['value']:.1f}"


def qemu_version() -> str:
    """Like ``qemu 7.2.0``."""
    told = subprocess.run([QEMU, "--version"], check=True, capture_output=True, text=True).stdout
    return f"qemu {told.split()[2]}"


def file_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def unpacked_mb(wheels: Path) -> float:
    size = 0
    for wheel in wheels.iterdir():
        with ZipFile(wheel) as archive:
            size += sum(info.file_size for info in archive.infolist())
    return size / 1e6


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made where it is not there yet: whole or not at all."""
    if not folder.exists():
        partial = emptied(folder.with_suffix(".partial"))
        make(partial)
        partial.rename(folder)
    return folder


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
