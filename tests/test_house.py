"""The house: lint, types, imports that run one way, torch only where training is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"ofa": (), "devices": ("ofa",), "specialize": ("devices", "ofa", "checkpoints")}
TRAINING = {
    "data", "elastic", "evaluate", "finetune", "pipeline", "pretrained", "ranks", "reference",
    "supernet", "teacher", "train",
}  # fmt: skip
#: Files that import those, where what they are asked for needs torch.
ON_DEMAND = {"ofa/__init__.py", "ofa/cli.py", "specialize/convert.py", "specialize/finetune.py"}


def imports(file: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    allowed = {room, *ROOMS[room]}
    for file in (ROOT / room).rglob("*.py"):
        for module in imports(file):
            top = module.split(".")[0]
            assert top not in ROOMS or top in allowed, f"{file} imports {module}"


def test_torch_stays_in_training() -> None:
    heavy = {"torch", "torchvision"}
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            if room == "ofa" and file.stem in TRAINING:
                continue
            tops = {module.split(".")[0] for module in imports(file)}
            assert not tops & heavy, file
            local = {f"ofa.{name}" for name in TRAINING} & imports(file)
            on_demand = file.relative_to(ROOT).as_posix() in ON_DEMAND
            assert not local or on_demand, f"{file} imports {local}"


def test_everything_but_training_imports_with_torch_blocked() -> None:
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for room in ("devices", "specialize")
        for file in (ROOT / room).rglob("*.py")
    ]
    code = "import sys, importlib; sys.modules['torch'] = None\n"
    code += "\n".join(f"importlib.import_module({name!r})" for name in modules)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["lint", "format", "types"],
)
@pytest.mark.slow
def test_clean(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
