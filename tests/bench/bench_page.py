"""How long the report's page takes to open and to follow its slider, in a real browser.

python -m tests.bench.bench_page
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import sync_playwright

from specialize import specialize
from tests.bench.record import record, table
from tests.specialize.conftest import CHROMIUM

REPEATS = 5

#: Moves the slider over its range, and gives the ms until the network is redrawn, a move.
MOVE = """() => {
  const slider = document.querySelector('#budget'), count = 20;
  const began = performance.now();
  for (let i = 0; i < count; i++) {
    slider.value = +slider.min + (i / count) * (slider.max - slider.min);
    slider.dispatchEvent(new Event('input'));
    document.body.getBoundingClientRect();  // lay it out
  }
  return (performance.now() - began) / count;
}"""


def main() -> None:
    """Measure and record."""
    with tempfile.TemporaryDirectory() as folder:
        result = specialize("pixel", "20ms", output=Path(folder) / "out")
        page_file = result.output / "report.html"
        size = page_file.stat().st_size / 1e6
        opened, moved = [], []
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for _ in range(REPEATS):
                page = browser.new_page()
                began = time.perf_counter()
                page.goto(page_file.as_uri())
                page.locator(".block").first.wait_for()
                opened.append(time.perf_counter() - began)
                moved.append(page.evaluate(MOVE))
                page.close()
            browser.close()
    rows = [
        ["from the disk until the network is drawn, s", median(opened), "1"],
        ["a move of the budget's slider, redrawn, ms", median(moved), "-"],
        ["size, MB", size, "1.5"],
    ]
    header = ["what", f"median of {REPEATS}", "target"]
    text = "`report.html` of the main job in headless Chromium."
    record("page", f"## The page\n\n{text}\n\n{table(header, rows)}", ("playwright",))


if __name__ == "__main__":
    main()
