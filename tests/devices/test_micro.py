"""Runtimes and compilers for microcontrollers, the real ones, on real files."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from devices.backends.qemu import Qemu
from devices.backends.vela import ACCELERATORS, Vela
from ofa.errors import UserError
from ofa.preprocessing import LITE0
from ofa.spaces import get_space
from specialize.export.tflite import tflite_model
from tests.commands import command, need
from tests.networks import int8_file, labels_of, network
from tests.strategies import TINY

ARCH = TINY.largest(32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(int8_file(TINY, ARCH))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflm", "cortex-m55"])
def test_answers_are_those_of_the_reference_kernels(name: str, model: Path) -> None:
    """Law 11: within one step."""
    need(name)
    done = command("ofa-device", "measure", name, model, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["outputs"] == found["images"] * TINY.classes
    assert found["steps"] <= 1
    assert found["arena"] > 10_000
    if name == "cortex-m55":  # an operation takes half an instruction to two
        assert 0.5e5 < found["instructions"] < 1e7
    said = command("ofa-device", "measure", name, model)
    assert f"{found['arena']:,} bytes of arena" in said.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ACCELERATORS)
def test_an_arena_holds_all_that_the_compiler_puts_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its plan puts them; of maps larger than an accelerator's own memory too."""
    need(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    space = get_space("lite")
    vela, file = Vela(name), int8_file(space, space.smallest(224))
    found, compiled = vela.compile(file), vela.compiled(file)
    read = schema.Model.GetRootAs(compiled, 0)
    graph = read.Subgraphs(0)
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    sizes = [int(np.prod(tensor.ShapeAsNumpy())) for tensor in tensors]
    about = [read.Metadata(index) for index in range(read.MetadataLength())]
    (plan,) = [one.Buffer() for one in about if one.Name() == b"OfflineMemoryAllocation"]
    _, _, count, *places = read.Buffers(plan).DataAsNumpy().view(np.int32)
    assert count == len(tensors)  # -1: a constant
    planned = max(p + size for p, size in zip(places, sizes, strict=True) if p >= 0)
    assert planned < found.arena <= planned + 2**14
    assert found.arena >= found.sram
    assert found.flash == len(compiled)
    own = vela.accelerator.own
    assert found.sram == found.arena if own is None else found.sram <= own


@pytest.mark.slow
@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_compiler_s_figures_are_kept(name: str, model: Path, tmp_path: Path) -> None:
    need(name)
    cache = tmp_path / "cache"
    first, again = (
        command("ofa-device", "measure", name, model, "--json", XDG_CACHE_HOME=cache)
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    (found,) = json.loads(first.stdout)
    assert found["on_cpu"] == 0
    assert found["ms"] * found["cycles"] > 0
    assert len(list(cache.rglob("*.json"))) == 1


@pytest.mark.parametrize("name", ["tflm", "cortex-m55", "ethos-u55-128"])
def test_a_float_file_is_refused(name: str, tmp_path: Path) -> None:
    need(name)
    layers, folded = network(TINY, ARCH)
    path = tmp_path / "float.tflite"
    path.write_bytes(tflite_model(layers, folded, labels_of(layers), LITE0, "test"))
    done = command("ofa-device", "measure", name, path, XDG_CACHE_HOME=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "int8" in done.stderr


@pytest.mark.parametrize("name", ["tflm", "cortex-m55"])
def test_an_operator_that_an_engine_lacks_is_named(name: str, model: Path) -> None:
    need(name)
    graph = schema.ModelT.InitFromPackedBuf(model.read_bytes(), 0)
    network = graph.subgraphs[0]
    before, after = int(network.outputs[0]), len(network.tensors)
    network.tensors.append(copy.copy(network.tensors[before]))
    graph.operatorCodes.append(schema.OperatorCodeT(127, None, 2, schema.BuiltinOperator.GELU))
    operator = schema.OperatorT(len(graph.operatorCodes) - 1, [before], [after])
    operator.builtinOptionsType = schema.BuiltinOptions.GeluOptions
    operator.builtinOptions = schema.GeluOptionsT()
    network.operators.append(operator)
    network.outputs = [after]
    builder = flatbuffers.Builder()
    builder.Finish(graph.Pack(builder), b"TFL3")
    model.write_bytes(bytes(builder.Output()))
    done = command("ofa-device", "measure", name, model)
    assert done.returncode == 2
    assert "it has no operator GELU" in done.stderr


@pytest.mark.parametrize("name", ["tflm", "cortex-m55", "ethos-u55-128"])
def test_a_damaged_file_is_refused(name: str, model: Path, tmp_path: Path) -> None:
    need(name)
    model.write_bytes(model.read_bytes()[:5000])
    done = command("ofa-device", "measure", name, model, XDG_CACHE_HOME=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {model}: LiteRT cannot load the model")
    assert done.stderr.count("\n") == 1


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="apt install qemu-system-arm"):
        Qemu()
