"""What machine this is, for cards and profiles."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["processor_name"]


def processor_name() -> str:
    """Like ``AMD EPYC, 2 cores``; of a board its model, since ARM names no processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        board = Path("/proc/device-tree/model")
        told = board.read_text().strip("\0\n ") if board.is_file() else platform.processor()
        name = told or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
