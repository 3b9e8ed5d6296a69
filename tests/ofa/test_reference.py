"""The research code's spaces and files: its arithmetic, its two spellings, what does not fit.

``reference_outputs.json`` holds what mit-han-lab/once-for-all (commit f03b267) computed in float64
from weights and images that are drawn by rule from their names, as ``filled`` and ``image`` do.
"""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ofa.errors import UserError
from ofa.layers import Layer, lower, macs
from ofa.reference import _names, arch_of, config_of, read_reference
from ofa.space import Space
from ofa.spaces import get_space
from ofa.supernet import Subnet, Supernet
from ofa.weights import Statistics, shapes
from specialize import convert, specialize
from tests.commands import command

OUTPUTS = json.loads((Path(__file__).parent / "reference_outputs.json").read_text())
CASES = [(name, case) for name, cases in OUTPUTS.items() for case in cases]


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    seed = np.random.PCG64(zlib.crc32(name.encode()))
    return np.random.Generator(seed).random(int(np.prod(shape))).reshape(shape)


def filled(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor by its name; matrices are not symmetric, so that a transposed one shows."""
    u = uniform(key, shape)
    s = 2 * u - 1
    if key.endswith("running_mean"):
        value = 0.1 * s
    elif key.endswith("running_var") or (len(shape) == 1 and key.endswith(".weight")):
        value = 0.5 + u
    elif key.endswith("_matrix"):
        value = np.eye(shape[0]) + 0.2 * s
    elif len(shape) == 4 and shape[1] == 1:
        away = abs(np.arange(shape[2]) - shape[2] // 2)
        ring = np.maximum(away[:, None], away[None])
        value = s * 0.4 * 0.5 ** np.maximum(ring - 1, 0)
    elif len(shape) == 4:
        value = s * 1.4 * np.sqrt(3 / np.prod(shape[1:]))
    elif len(shape) == 2:
        value = s * np.sqrt(3 / shape[1])
    else:
        value = 0.1 * s
    return torch.from_numpy(value.astype(np.float32))


def image(side: int) -> torch.Tensor:
    """Two images, (2, 3, side, side)."""
    cells = -(-side // 8)
    coarse = uniform(f"input.coarse.{side}", (2, 3, cells, cells))
    coarse = coarse.repeat(8, 2).repeat(8, 3)[:, :, :side, :side]
    fine = uniform(f"input.fine.{side}", (2, 3, side, side))
    return torch.from_numpy((4 * (coarse - 0.5) + (fine - 0.5)).astype(np.float32))


def published(space: Space, old: bool = True) -> dict[str, torch.Tensor]:
    """A state dictionary in the spelling of 2020; elastic layers wrap the plain ones once more."""
    found = {}

    def add(key: str, shape: tuple[int, ...]) -> None:
        spelled = (
            key.replace(".conv.", ".mobile_inverted_conv.", 1) if key[:7] == "blocks." else key
        )
        found[spelled if old else key] = filled(spelled, shape)

    names = _names(space)
    for name, shape in shapes(space).items():
        layer, _, part = name.rpartition(".bn." if ".bn." in name else ".")
        module, block = names[layer], layer.startswith("s") and not layer.startswith(("stem", "s0"))
        if part.startswith("to"):
            side = int(part[2:])
            add(f"{module}.conv.{side + 2}to{side}_matrix", shape)
        elif layer == "classifier":
            add(f"classifier.linear.{part}", shape)
        elif ".bn." in name:
            bn = f"{module}.bn.bn" if block else f"{module}.bn"
            add(f"{bn}.{part}", shape)
            if part == "weight":
                add(f"{bn}.running_mean", shape)
                add(f"{bn}.running_var", shape)
                found[
                    f"{bn}.num_batches_tracked".replace(".conv.", ".mobile_inverted_conv.", 1)
                    if old and block
                    else f"{bn}.num_batches_tracked"
                ] = torch.tensor(0)
        elif layer.endswith((".reduce", ".excite")):
            add(f"{module}.{part}", shape)
        elif layer == "mix":
            add(f"{module}.conv.{part}", (*shape, 1, 1))
        else:
            add(f"{module}.conv.conv.{part}" if block else f"{module}.conv.{part}", shape)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reference")
    found = {}
    for name in OUTPUTS:
        found[name] = folder / f"{name}.pth"
        torch.save({"state_dict": published(get_space(name)), "epoch": 120}, found[name])
    return found


def first_channels(layers: Sequence[Layer], statistics: Statistics) -> Statistics:
    """Of running statistics, which the reference uses without recalibration."""
    return {
        layer.name: (
            statistics[layer.name][0][: layer.out_shape[2]],
            statistics[layer.name][1][: layer.out_shape[2]],
        )
        for layer in layers
        if layer.has_batch_norm
    }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), CASES)
def test_its_outputs_are_the_reference_s(name: str, case: dict, files: dict[str, Path]) -> None:
    """With running statistics, and in training mode, within float error."""
    config = case["config"]
    space = replace(get_space(name), resolutions=(config["r"],))
    tensors, statistics = read_reference(files[name], space)
    arch = arch_of(space, config)
    layers = lower(space, arch)
    assert macs(layers) == case["macs"]
    x = image(config["r"])
    with torch.no_grad():
        cut = Subnet.of(space, arch, tensors, first_channels(layers, statistics))(x).numpy()
        trained = Supernet(space, tensors)(x, arch).numpy()
    wanted = case["supernet_eval"]
    assert np.abs(cut[:, :16] - wanted["first16"]).max() <= 1e-4 * np.abs(cut).max()
    assert np.linalg.norm(cut, axis=1) == pytest.approx(wanted["l2"], rel=1e-4)
    if case["subnet_train"]:
        apart = np.abs(trained[:, :16] - case["subnet_train"]["first16"]).max()
        assert apart <= 2e-4 * np.abs(trained).max()


@pytest.mark.parametrize("name", OUTPUTS)
@given(seed=st.integers(0, 2**32 - 1))
def test_architectures_go_both_ways(name: str, seed: int) -> None:
    space = get_space(name)
    arch = space.decode(space.sample(np.random.default_rng(seed), 1)[0])
    assert arch_of(space, config_of(space, arch)) == arch


@pytest.mark.slow
def test_both_spellings_are_one_file(files: dict[str, Path], tmp_path: Path) -> None:
    space = get_space("mbv3-w1.0")
    newer = {
        key.replace(".mobile_inverted_conv.", ".conv."): value
        for key, value in published(space).items()
    }
    torch.save(newer, tmp_path / "newer.pth")
    first, _ = read_reference(files["mbv3-w1.0"], space)
    second, _ = read_reference(tmp_path / "newer.pth", space)
    assert all((first[name] == second[name]).all() for name in shapes(space))


@pytest.mark.slow
def test_what_does_not_fit_is_named(files: dict[str, Path]) -> None:
    with pytest.raises(
        UserError, match=r"keys do not fit space 'mbv3-w1.2': first_conv.conv.weight"
    ):
        read_reference(files["mbv3-w1.0"], get_space("mbv3-w1.2"))
    with pytest.raises(UserError, match=r"do not fit space 'proxyless-w1\.3'"):
        read_reference(files["mbv3-w1.0"], get_space("proxyless-w1.3"))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.write_text, (tmp_path / "sprung", "!"))

    file = tmp_path / "trap.pth"
    torch.save({"state_dict": {"first_conv.conv.weight": Trap()}}, file)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Trap()))
    for path, reason in ((file, r"it holds code, \S+,"), (tmp_path / "raw.pth", "")):
        with pytest.raises(UserError, match=rf"not a readable checkpoint \({reason}"):
            read_reference(path, get_space("mbv3-w1.0"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.slow
def test_a_file_becomes_a_model(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier for five classes in a file of the reference, trained on, and cut."""
    space = replace(get_space("mbv3-w1.0"), classes=5)
    torch.save({"state_dict": published(space)}, tmp_path / "five.pth")
    words = ("--space", "mbv3-w1.0", "--data", shapes_folder)
    made = command("ofa-train", "convert", "five.pth", *words, "-o", "converted",
                   "--subnets", "3", "-q", cwd=tmp_path)  # fmt: skip
    assert made.returncode == 0, made.stderr
    cut = command(
        "ofa-specialize", "--device", "note10", "--budget", "40ms", "--checkpoint", "converted",
        "--candidates", "2", "--json", "-q", cwd=tmp_path,
    )  # fmt: skip
    assert cut.returncode == 0, cut.stderr
    assert json.loads(cut.stdout)["preprocessing"]["mean"] == [123.675, 116.28, 103.53]
    trained = command("ofa-train", "--init", "five.pth", *words, "-o", "on", "--epochs", "0.1",
                      "--subnets", "2", "-q", cwd=tmp_path)  # fmt: skip
    assert trained.returncode == 0, trained.stderr

    # The same in one command; the second time what was converted is there, and may be trained.
    plain = ["ofa-specialize", "--device", "note10", "--budget", "40ms", "--checkpoint", "five.pth"]
    for missing, options in (("--space", ()), ("--images", words[:2])):
        refused = command(*plain, *options, "--output", "no", cwd=tmp_path)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert f"add {missing}" in refused.stderr
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(convert, "_SUBNETS", 3)
    told: list[str] = []
    for output, finetune in (("first", ""), ("second", "3s")):
        result = specialize(
            "note10", "40ms", checkpoint=tmp_path / "five.pth", space="mbv3-w1.0",
            images=shapes_folder, candidates=2, finetune=finetune, output=tmp_path / output,
            tell=told.append,
        )  # fmt: skip
        assert (result.report.finetuned is not None) == bool(finetune)
        assert result.report.preprocessing["mean"] == [123.675, 116.28, 103.53]
    assert sum("3 subnets of five.pth are evaluated, once" in text for text in told) == 1
    int8 = command("ofa-specialize", "--device", "pixel4-int8", "--budget", "40ms", "--checkpoint",
                   "converted", "-q", cwd=tmp_path)  # fmt: skip
    assert (int8.returncode, int8.stderr.count("\n")) == (2, 1)
    assert "int8 files are of relu6 networks" in int8.stderr
