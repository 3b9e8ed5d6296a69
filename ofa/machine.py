"""What machine this is, for cards and profiles, what it has, and where it lets us write."""

from __future__ import annotations

import os
import platform
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ofa.errors import UserError

__all__ = ["check_torch", "check_writable", "processor_name"]


def check_torch(what: str, where: str) -> None:
    """Raise UserError where torch, which ``what`` needs, is not installed."""
    if find_spec("torch") is None:
        raise UserError(f"{what} needs torch", where, "pip install '.[train]'")


def check_writable(folder: Path, where: str) -> None:
    """Raise UserError where no file can be made in a folder, or where it is to be made."""
    try:
        there = next(path for path in [folder, *folder.absolute().parents] if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"cannot write there ({error.strerror})", where) from error


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
