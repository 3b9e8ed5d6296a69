"""The folder of a result: refused before any work, or written whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from ofa.errors import UserError
from ofa.machine import check_writable

__all__ = ["check_folder", "check_text", "is_partial", "write"]

_PARTIAL = ".ofa-partial-"
#: Written beside a result, and not among the files of its report.
_BESIDE = {"front.csv", "front.png"}


def check_text(*names: str) -> None:
    """Refuse, before any work, names that a report, a page or the terminal cannot hold."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError("a name that is not UTF-8", repr(name), "rename it") from error


def check_folder(target: Path, command: str, force: bool) -> None:
    """Refuse, before any work, a folder that cannot be written or holds something else."""
    if target.exists() and not target.is_dir():
        raise UserError("it is a file", f"--output {target}", "name a folder")
    report = target / "report.json"
    others = target.exists() and any(not is_partial(path) for path in target.iterdir())
    if others and not force:
        line = f'"command": {json.dumps(command, ensure_ascii=False)}'
        same = report.is_file() and line in report.read_text("utf-8", errors="replace")
        if not same:
            raise UserError(
                "the folder holds other files",
                f"--output {target}",
                "name another, or add --force",
            )
    check_writable(target, f"--output {target}")


def is_partial(path: Path) -> bool:
    """Whether a kill left it while files were written."""
    return path.name.startswith(_PARTIAL)


def write(target: Path, files: dict[str, bytes]) -> None:
    """All files, or none: they get their names when all are on the disk, report.json last.

    What only the result there before had is removed with it: sources of another network, say.
    """
    existed = target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        for left in filter(is_partial, list(target.iterdir())):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=_PARTIAL) as scratch:
            for name, data in files.items():
                with (Path(scratch) / name).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            if "report.json" in files:  # the one there is of the files that are replaced first
                before = _files_of(target / "report.json")
                (target / "report.json").unlink(missing_ok=True)
                for name in before - set(files):
                    (target / name).unlink(missing_ok=True)
            for name in files:
                (Path(scratch) / name).replace(target / name)
    except OSError as error:
        if not existed:
            shutil.rmtree(target, ignore_errors=True)
        raise UserError(f"cannot write ({error.strerror})", f"--output {target}") from error


def _files_of(report: Path) -> set[str]:
    """The files of the result that a report is of."""
    try:
        names = {str(file["path"]) for file in json.loads(report.read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in names if Path(name).name == name} | _BESIDE
