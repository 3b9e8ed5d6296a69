"""The command lines, as real processes, and what some of them need beside Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

MODULES = {
    "ofa-train": "ofa.cli",
    "ofa-device": "specialize.device",
    "ofa-specialize": "specialize.cli",
}


def command(name: str, *words: object, cwd: Path | None = None, **environment: object):
    """Run a command line of the project; its result has exit code, stdout and stderr."""
    line = [sys.executable, "-m", MODULES[name], *map(str, words)]
    env = {**os.environ, **{key: str(value) for key, value in environment.items()}}
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=env, check=False)


def need(name: str) -> None:
    """Skip where what runs files for ``name`` is not installed. What is, and fails, is an error."""
    package = {"tflm": "tflite-micro", "cortex-m55": "mlia-ethos-u"}.get(name, "ethos-u-vela")
    if not list(Distribution.discover(name=package)):
        pytest.skip(f"{package} is not installed")
    if name == "cortex-m55" and shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
