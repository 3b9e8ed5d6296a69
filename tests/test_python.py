"""Python as docs/python.md shows it: every block of the page, in order, on real photos."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$",
    (ROOT / "docs" / "python.md").read_text(),
    re.DOTALL | re.MULTILINE,
)


@pytest.mark.slow
def test_every_example_runs(photos: Path) -> None:
    """A moment of training in place of minutes; the checkpoint holds a space that has no name."""
    assert len(BLOCKS) == 4
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 15
    short = BLOCKS[0].replace("epochs=50, subnets=60", "epochs=1, subnets=4, quiet=True")
    assert short != BLOCKS[0]
    code = "\n".join([short, *BLOCKS[1:]])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=photos.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "at most" in done.stdout
    folder = photos.parent
    space = load_checkpoint(folder / "small").space
    assert (space.name, space.classes) == ("small", 3)
    for name in ("mine.tflite", "mine.onnx", "small-2ms/model.tflite", "small-2ms/model.onnx"):
        assert (folder / name).stat().st_size > 10_000


def test_no_name_needs_torch_but_those_that_train() -> None:
    code = "import sys; sys.modules['torch'] = None\n"
    code += "import ofa, devices, specialize\n"
    code += "training = {'Options', 'Supernet', 'train_supernet', 'write_folder'}\n"
    code += "for room in (ofa, devices, specialize):\n"
    code += "    for name in set(room.__all__) - training:\n"
    code += "        getattr(room, name)\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
