"""What a user does first: build, install elsewhere without torch, run what the README shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import command

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    """Code blocks of a page, but for the README's test command (it is what runs this test)."""
    text = re.sub(r"<!-- test command -->.*?\n```\n", "", page, flags=re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the built wheel, far from the source."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([folder / ".venv/bin/pip", "install", "-q", wheel], check=True)
    return folder


@pytest.mark.slow
def test_the_wheel_needs_no_torch_and_is_small(installed: Path) -> None:
    python = installed / ".venv/bin/python"
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode != 0
    size = sum(f.lstat().st_size for f in (installed / ".venv").rglob("*") if f.is_file())
    assert size < 500e6


@pytest.mark.slow
def test_the_first_command_makes_a_model(installed: Path) -> None:
    """The README's first block, but for the set-up that the fixture did."""
    first = blocks("sh")[0].strip().split(" && ")
    assert first[:2] == ["python3 -m venv .venv", ".venv/bin/pip install ."]
    done = subprocess.run(
        first[2], shell=True, check=True, cwd=installed, capture_output=True, text=True
    )
    shown = re.search(r"It prints\n\n```\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert shown is not None
    varies = ("accuracy", "verified", "this machine", "took")  # with the processor
    for ours, theirs in zip(shown[1].splitlines(), done.stdout.splitlines(), strict=True):
        assert ours == theirs.rstrip() or (ours.startswith(varies) and theirs.startswith(varies))
    report = json.loads((installed / "pixel-20ms" / "report.json").read_text())
    assert report["budgets"][0]["kept"]
    assert report["accuracy"]["test"]["value"] > 90


@pytest.mark.slow
def test_the_other_commands_and_examples_run(installed: Path) -> None:
    path = f"{installed / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    for block in blocks("sh")[1:]:
        subprocess.run(
            ["bash", "-ec", block], check=True, cwd=installed, env={**os.environ, "PATH": path}
        )
    for block in blocks("python"):
        subprocess.run([installed / ".venv/bin/python", "-c", block], check=True, cwd=installed)


@pytest.mark.slow
def test_own_photos_become_a_model(photos: Path) -> None:
    """Every command of the page, on real photos of three classes; a moment in place of minutes."""
    page = (ROOT / "docs" / "own-images.md").read_text()
    commands = [line for block in blocks("sh", page) for line in block.splitlines()]
    assert len(commands) == 7
    short = {"ofa-train --data": "--hours 0.001 --subnets 4", "ofa-train evaluate": "--more 2"}
    for line in commands:
        more = next((words for start, words in short.items() if line.startswith(start)), "")
        program, *words = shlex.split(f"{line} {more}")
        if program == "ofa-specialize":
            words += ["--candidates", "2"]
        if "--finetune" in words:
            words += ["--finetune", "2s"]
        done = command(program, *words, cwd=photos.parent)
        assert done.returncode == 0, done.stderr
    labels = (photos.parent / "my-photos-20ms" / "labels.txt").read_text().split()
    assert labels == ["ball", "church", "fish"]
    in_the_app = blocks("python", page)[0]
    (photos / "church" / "001.jpg").write_bytes(min((photos / "church").iterdir()).read_bytes())
    answer = subprocess.run(
        [sys.executable, "-c", in_the_app], cwd=photos.parent, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert answer.stdout.split() == ["church"]
    report = json.loads((photos.parent / "tuned" / "report.json").read_text())
    assert report["finetuned"]["steps"] >= 1


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target, section in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {target}"
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if section else []
            slugs = [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings]
            assert not section or section in slugs, f"{page.name}: {target}#{section}"
