"""The command lines, as real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
