"""Shared by all tests: Hypothesis profiles, and a folder of images with something to learn."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# A user's own devices are none of the tests' business. (A browser writes into this folder.)
_configuration = tempfile.TemporaryDirectory(prefix="no-configuration-")
os.environ["XDG_CONFIG_HOME"] = _configuration.name

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many processes of tests as cores: a thread that waits must not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("deep", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest first, so that processes which share the files end together."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


def write_shapes(folder: Path, per_class: int, size: int = 40, seed: int = 0) -> Path:
    """Photos of five kinds of pattern under noise: class/name.png."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    for name in ("checks", "circles", "columns", "ramp", "rows"):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            phase, period = rng.uniform(0, 6), rng.uniform(6, 9)
            waves = {
                "checks": np.sin(2 * np.pi * x / period + phase) * np.sin(2 * np.pi * y / period),
                "circles": np.sin(np.hypot(x - size / 2, y - size / 2) * 6 / period + phase),
                "columns": np.sin(2 * np.pi * x / period + phase),
                "ramp": (x + y) / size - 1,
                "rows": np.sin(2 * np.pi * y / period + phase),
            }
            colour = rng.uniform(40, 100, 3)
            pixels = 128 + waves[name][..., None] * colour + rng.normal(0, 15, (size, size, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / name / f"{index:03d}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """20 real photos of each of three classes."""
    root = Path(__file__).parent.parent / "checkpoints" / "lite-imagenette"
    with zipfile.ZipFile(root / "calibration.zip") as archive:
        for wnid, label in (("n03028079", "church"), ("n01440764", "fish"), ("n03445777", "ball")):
            (tmp_path / "photos" / label).mkdir(parents=True)
            names = [n for n in archive.namelist() if n.startswith(f"val/{wnid}/")][:20]
            for name in names:
                (tmp_path / "photos" / label / Path(name).name).write_bytes(archive.read(name))
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of each of five classes."""
    return write_shapes(tmp_path_factory.mktemp("shapes"), 60)
