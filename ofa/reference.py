"""Checkpoints of the research code (mit-han-lab/once-for-all) as ours.

Two generations of key names are read, those with ``mobile_inverted_conv`` (2020) and those after
it, of supernets and of networks cut from them at full size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ofa.errors import UserError
from ofa.space import Arch, Block, Space
from ofa.weights import Array, Statistics, shapes

__all__ = ["arch_of", "config_of", "read_reference"]

#: In this order, as the reference's own loader has them.
_SPELLINGS = (
    (".mobile_inverted_conv.", ".conv."),
    (".bn.bn.", ".bn."),
    (".conv.conv.weight", ".conv.weight"),
    (".linear.linear.", ".linear."),
)
_FEW = 3  # keys that a complaint names


def read_reference(file: Path, space: Space) -> tuple[dict[str, Array], Statistics]:
    """Shared tensors, and the batch norms' running statistics by layer name, of a ``.pth`` file.

    Nothing in the file is executed. The classifier is the file's, whatever its classes are.
    Matrices that a file does not have, as those of a network that was cut out, are identities.
    Raises UserError, naming the first keys that differ.
    """
    import torch

    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
        found = found.get("state_dict", found)
        source = {_key(key): np.asarray(value.float().numpy()) for key, value in found.items()}
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", str(file)) from error
    except Exception as error:  # a file of anything: the loader's errors share no class
        code = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds code, {code[1]}, which is not run" if code else "not of tensors only"
        raise UserError(f"not a readable checkpoint ({reason})", str(file)) from error
    theirs = _names(space)
    tensors: dict[str, Array] = {}
    statistics: dict[str, tuple[Array, Array]] = {}
    wrong: list[str] = []
    used: set[str] = set()

    def take(key: str, shape: Sequence[int] | None) -> Array | None:
        used.add(key)
        value = source.get(key)
        if value is None or (shape is not None and value.size != np.prod(shape)):
            has = "missing" if value is None else f"of shape {value.shape}"
            wrong.append(f"{key} is {has}, the space needs {tuple(shape or ())}")
            return None
        return value if shape is None else value.reshape(shape)

    for name, shape in shapes(space).items():
        layer, _, part = name.rpartition(".bn." if ".bn." in name else ".")
        if part.startswith("to"):
            side = int(part[2:])
            key = f"{theirs[layer]}.conv.{side + 2}to{side}_matrix"
            used.add(key)
            tensors[name] = source.get(key, np.eye(side**2, dtype=np.float32))
            continue
        if layer == "classifier":
            value = take(f"{theirs[layer]}.{part}", None)
        elif ".bn." in name:
            value = take(f"{theirs[layer]}.bn.{part}", shape)
        elif layer.endswith((".reduce", ".excite")):
            value = take(f"{theirs[layer]}.{part}", shape)
        else:
            value = take(f"{theirs[layer]}.conv.{part}", shape)
        if value is not None:
            tensors[name] = value
        if part == "weight" and ".bn." in name:
            pair = [take(f"{theirs[layer]}.bn.running_{what}", shape) for what in ("mean", "var")]
            if pair[0] is not None and pair[1] is not None:
                statistics[layer] = (pair[0], pair[1])
    strange = [
        f"{key} is not of the space"
        for key in source
        if key not in used and not key.endswith("num_batches_tracked")
    ]
    if wrong or strange:
        told = "; ".join([*wrong, *strange][:_FEW])
        raise UserError(
            f"{len(wrong) + len(strange)} keys do not fit space {space.name!r}: {told}", str(file)
        )
    return tensors, statistics


def _key(key: str) -> str:
    for old, new in _SPELLINGS:
        key = key.replace(old, new)
    return key


def _names(space: Space) -> dict[str, str]:
    """Our layers -> the modules of the reference, in its newer spelling."""
    last = "final_expand_layer" if space.mix else "feature_mix_layer"
    found = {
        "stem": "first_conv", "head": last, "mix": "feature_mix_layer",
        "classifier": "classifier.linear",
    }  # fmt: skip
    for index, (s, b) in enumerate(space.positions):
        module, ours = f"blocks.{index}.conv", f"s{s}.b{b}"
        found |= {
            f"{ours}.expand": f"{module}.inverted_bottleneck",
            f"{ours}.depthwise": f"{module}.depth_conv",
            f"{ours}.reduce": f"{module}.depth_conv.se.fc.reduce",
            f"{ours}.excite": f"{module}.depth_conv.se.fc.expand",
            f"{ours}.project": f"{module}.point_linear",
        }
    return found


def arch_of(space: Space, config: Mapping[str, Any]) -> Arch:
    """The architecture of one of the reference's dictionaries: ``ks``, ``e``, ``d``, ``r``.

    ``ks`` and ``e`` have a value for every block that there may be, ``d`` one for each stage, ``r``
    is the resolution, or a list of it. Raises UserError.
    """
    try:
        kernels, expands, depths = (list(config[key]) for key in ("ks", "e", "d"))
        given = config.get("r", config.get("image_size"))
        resolution = int(given[0] if isinstance(given, list | tuple) else given)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"not an architecture of the reference ({error!r})", fix="it has ks, e, d and r"
        ) from error
    elastic = space.stages[1:]
    slots = sum(stage.depths[-1] for stage in elastic)
    if (len(kernels), len(expands), len(depths)) != (slots, slots, len(elastic)):
        raise UserError(
            f"{len(kernels)} kernels, {len(expands)} expand ratios and {len(depths)} depths",
            fix=f"space {space.name!r} has {slots}, {slots} and {len(elastic)}",
        )
    first = space.stages[0]
    stages: list[tuple[Block, ...]] = [(Block(first.kernels[0], first.expands[0]),)]
    start = 0
    for stage, depth in zip(elastic, depths, strict=True):
        slice_ = slice(start, start + int(depth))
        stages.append(
            tuple(
                Block(int(k), int(e)) for k, e in zip(kernels[slice_], expands[slice_], strict=True)
            )
        )
        start += stage.depths[-1]
    arch = Arch(resolution, tuple(stages))
    space.check(arch)
    return arch


def config_of(space: Space, arch: Arch) -> dict[str, Any]:
    """The reference's dictionary of an architecture; blocks that are left out have the largest."""
    kernels: list[int] = []
    expands: list[int] = []
    for stage, blocks in zip(space.stages[1:], arch.stages[1:], strict=True):
        missing = stage.depths[-1] - len(blocks)
        kernels += [*(block.kernel for block in blocks), *[stage.kernels[-1]] * missing]
        expands += [*(block.expand for block in blocks), *[stage.expands[-1]] * missing]
    depths = [len(blocks) for blocks in arch.stages[1:]]
    return {"ks": kernels, "e": expands, "d": depths, "r": arch.resolution}
