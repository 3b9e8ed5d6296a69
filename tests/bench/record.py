"""Keeps what the benchmarks measured in ``docs/benchmarks.md``, with the machine and the date."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["BENCHMARKS", "machine", "record", "table"]

BENCHMARKS = Path(__file__).parents[2] / "docs" / "benchmarks.md"

_PACKAGES = ("numpy", "onnx", "onnxruntime", "ai-edge-litert", "torch")


def record(
    section: str, markdown: str, packages: Sequence[str] = (), path: Path = BENCHMARKS
) -> None:
    """Write a section of ``docs/benchmarks.md``, in place of the one that it had by that name.

    markdown: heading, words and tables. packages: those whose versions matter beyond the usual.
    The section is printed too.
    """
    text = path.read_text() if path.exists() else "# Benchmarks\n"
    start, end = f"<!-- bench:{section} -->", f"<!-- /bench:{section} -->"
    body = f"{markdown.strip()}\n\n*{date.today().isoformat()}; {machine(packages)}.*"
    block = f"{start}\n{body}\n{end}"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(text):
        text = pattern.sub(lambda _: block, text)
    else:
        text = f"{text.rstrip()}\n\n{block}\n"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    sys.stdout.write(f"{body}\n")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats with three significant digits."""
    cells = [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    lines = [list(header), ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(packages: Sequence[str] = ()) -> str:
    """Processor, cores, how busy they are, system, Python and package versions, in one line."""
    versions = []
    for package in (*_PACKAGES, *packages):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(
        [
            f"{_processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}",
            platform.system(),
            f"Python {platform.python_version()}",
            *versions,
        ]
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
