"""What the shipped checkpoint reaches: five budgets on four devices. Writes the README's table.

python -m tests.bench.bench_reach
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from ofa.errors import UserError
from specialize import specialize
from tests.bench.record import record, table

DEVICES = ("pixel", "iphone", "a03s", "rpi4")
BUDGETS = ("5ms", "10ms", "20ms", "30ms", "50ms")
README = Path(__file__).parents[2] / "README.md"


def main() -> None:
    """Specialize, and record accuracy on the test images."""
    rows, detail = [], []
    for device in DEVICES:
        cells: list[object] = [f"`{device}`"]
        for budget in BUDGETS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    report = specialize(device, budget, output=Path(folder) / "out").report
                except UserError:
                    cells.append("none fits")
                    continue
            test, latency = report.accuracy.test, report.latency_ms
            cells.append(f"**{test.value:.1f}**, {report.macs / 1e6:.0f} MMACs")
            detail.append(
                [device, budget, f"{test.value:.1f} ({test.low:.1f} to {test.high:.1f})",
                 f"{report.accuracy.held_out.value:.1f}", f"{report.accuracy.estimated:.1f}",
                 f"{latency.point:.2f}", f"{latency.bound:.2f}", f"{report.macs / 1e6:.0f}",
                 f"`{report.architecture}`"]
            )  # fmt: skip
        rows.append(cells)
    about = "Top-1 in percent on the 500 test images; the bound (90 %) keeps the budget."
    record("reach", f"{table(['device', *BUDGETS], rows)}\n\n{about}", path=README)
    header = ["device", "budget", "test, % (95 % interval)", "held out, %", "estimated, %",
              "point, ms", "bound, ms", "MMACs", "architecture"]  # fmt: skip
    record("reach", f"## What the shipped checkpoint reaches\n\n{table(header, detail)}")


if __name__ == "__main__":
    main()
