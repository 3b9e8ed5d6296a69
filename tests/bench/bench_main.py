"""The main job as a user meets it: seconds, memory, and what an installation weighs.

    python -m tests.bench.bench_main [--install]

With --install it also clones this repository, installs it with an empty pip cache, and cuts a
model: that needs the package registry.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.bench.record import record, table

ROOT = Path(__file__).parents[2]
REPEATS = 3
JOB = ["-m", "specialize.cli", "--device", "pixel", "--budget", "20ms", "-q", "--json"]


def main() -> None:
    """Measure and record."""
    runs, helps, steps = [], [], {}
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            command = [sys.executable, *JOB, "-o", f"{folder}/out"]
            made = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(time.perf_counter() - began)
            steps = json.loads(made.stdout)["timings"]
        began = time.perf_counter()
        subprocess.run([sys.executable, *JOB[:2], "-h"], check=True, capture_output=True)
        helps.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rows = [
        ["main job, shell to files, s", median(runs), "25"],
        ["peak memory, MB", peak, "700"],
        ["`--help`, s", median(helps), "0.3"],
    ]
    detail = ", ".join(f"{name} {seconds:.1f}" for name, seconds in steps.items())
    header = ["what", f"median of {REPEATS}", "target"]
    text = f"## Main job\n\n{table(header, rows)}\n\nSeconds of each step, last run: {detail}."
    record("main", text)
    if "--install" in sys.argv:
        record("install", f"## Installation\n\n{table(['what', 'once', 'target'], _install())}")


def _install() -> list[list[object]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clone"
        began = time.perf_counter()
        subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
        subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
        pip = [folder / ".venv/bin/pip", "install", "-q", "--no-cache-dir", "."]
        subprocess.run(pip, check=True, cwd=folder)
        job = [folder / ".venv/bin/ofa-specialize", "--device", "pixel", "--budget", "20ms", "-q"]
        subprocess.run(job, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        took = time.perf_counter() - began
        size = sum(f.lstat().st_size for f in (folder / ".venv").rglob("*") if f.is_file())
        shutil.rmtree(folder)
    return [
        ["git clone to .tflite, empty pip cache, s", took, "-"],
        ["installed, MB", size / 1e6, "500"],
    ]


if __name__ == "__main__":
    main()
