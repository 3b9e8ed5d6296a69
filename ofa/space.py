"""The choices of a supernet (``Space``) and one way to choose (``Arch``).

An architecture has three forms, each exact:

- ``Arch``, a frozen value;
- text, ``r160 3x3e1 3x3e4,5x5e6 ...``: the resolution, then per stage the blocks it keeps;
- a genotype, a row of small integers, so that a population is one matrix.

Axes: N population, P block position, C choice of a block, R resolution.
A genotype row has 1 + P columns: column 0 the index of the resolution, then for each block
position 0 where the block is left out, else 1 + the index of its (kernel, expand) among
``Stage.choices``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa.errors import UserError

__all__ = ["Activation", "Arch", "Block", "Genotypes", "Padding", "Space", "Stage"]

Genotypes = NDArray[np.int16]
#: h-swish is x * relu6(x + 3) / 6, the hard sigmoid relu6(x + 3) / 6 (Howard et al. 2019).
Activation = Literal["none", "relu", "relu6", "hswish", "hsigmoid"]
Padding = Literal["same", "symmetric"]


class Block(NamedTuple):
    """One inverted residual block: depthwise kernel side and expand ratio."""

    kernel: int
    expand: int

    def __str__(self) -> str:
        return f"{self.kernel}x{self.kernel}e{self.expand}"


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one output width; the first block has the stride.

    width: output channels. depths, kernels, expands: the allowed values, ascending.
    squeeze: squeeze-and-excitation behind the depthwise convolutions.
    """

    width: int
    stride: int
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[int, ...]
    activation: Activation = "relu6"
    squeeze: bool = False

    def __post_init__(self) -> None:
        for name in ("depths", "kernels", "expands"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)) or values[0] < 1:
                raise ValueError(f"stage {name} must be ascending and positive, not {values}")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels must be odd, not {self.kernels}")

    @property
    def choices(self) -> tuple[Block, ...]:
        """What one block can be, in the order that genotypes count."""
        return tuple(Block(k, e) for k, e in product(self.kernels, self.expands))


@dataclass(frozen=True, slots=True)
class Arch:
    """One architecture: a resolution in pixels, and the blocks of each stage."""

    resolution: int
    stages: tuple[tuple[Block, ...], ...]

    def __str__(self) -> str:
        return " ".join(
            [f"r{self.resolution}", *(",".join(map(str, blocks)) for blocks in self.stages)]
        )

    @classmethod
    def parse(cls, text: str) -> Arch:
        """The architecture that ``str`` wrote. Raises UserError."""
        words = text.split()
        if not words or not re.fullmatch(r"r\d+", words[0]):
            raise UserError(f"architecture {text!r} has no resolution", fix="begin it like 'r160 '")
        stages = []
        for word in words[1:]:
            blocks = []
            for part in word.split(","):
                match = re.fullmatch(r"(\d+)x(\d+)e(\d+)", part)
                if match is None or match[1] != match[2]:
                    raise UserError(f"block {part!r} in an architecture", fix="write it as 3x3e6")
                blocks.append(Block(int(match[1]), int(match[3])))
            stages.append(tuple(blocks))
        return cls(int(words[0][1:]), tuple(stages))


@dataclass(frozen=True, slots=True)
class Space:
    """All architectures of a supernet.

    stem, head: output channels of the first convolution (stride 2) and of the last one (1x1; 0:
    none).
    mix: features behind the pooled ones, of a matrix without norm or bias; 0: none. activation: of
    stem, head and mix. padding: TensorFlow's SAME, or as many pixels on either side as torch has
    them; the two differ where a stride of 2 meets an even side.
    """

    name: str
    stem: int
    stages: tuple[Stage, ...]
    head: int
    resolutions: tuple[int, ...]
    classes: int = 1000
    bn_eps: float = 1e-3
    mix: int = 0
    activation: Activation = "relu6"
    padding: Padding = "same"

    def __post_init__(self) -> None:
        if not self.resolutions or list(self.resolutions) != sorted(set(self.resolutions)):
            raise ValueError(f"resolutions must be ascending, not {self.resolutions}")

    @property
    def positions(self) -> tuple[tuple[int, int], ...]:
        """(stage, index in the stage) of each block position, in order."""
        return tuple((s, b) for s, stage in enumerate(self.stages) for b in range(stage.depths[-1]))

    @property
    def size(self) -> int:
        """Number of architectures."""
        total = len(self.resolutions)
        for stage in self.stages:
            total *= sum(len(stage.choices) ** depth for depth in stage.depths)
        return total

    def restrict(
        self,
        *,
        kernels: Iterable[int] | None = None,
        depths: Iterable[int] | None = None,
        expands: Iterable[int] | None = None,
        resolutions: Iterable[int] | None = None,
    ) -> Space:
        """The space with only these values; a stage that offers none of them keeps its largest.

        That is all that a phase of progressive shrinking is.
        """

        def keep(have: tuple[int, ...], want: Iterable[int] | None) -> tuple[int, ...]:
            if want is None:
                return have
            wanted = set(want)
            return tuple(value for value in have if value in wanted) or have[-1:]

        return replace(
            self,
            resolutions=keep(self.resolutions, resolutions),
            stages=tuple(
                replace(
                    stage,
                    kernels=keep(stage.kernels, kernels),
                    depths=keep(stage.depths, depths),
                    expands=keep(stage.expands, expands),
                )
                for stage in self.stages
            ),
        )

    def largest(self, resolution: int | None = None) -> Arch:
        """Every block, the largest kernels and expand ratios."""
        return Arch(
            resolution or self.resolutions[-1],
            tuple(
                (Block(stage.kernels[-1], stage.expands[-1]),) * stage.depths[-1]
                for stage in self.stages
            ),
        )

    def smallest(self, resolution: int | None = None) -> Arch:
        """The fewest blocks, the smallest kernels and expand ratios."""
        return Arch(
            resolution or self.resolutions[0],
            tuple(
                (Block(stage.kernels[0], stage.expands[0]),) * stage.depths[0]
                for stage in self.stages
            ),
        )

    def check(self, arch: Arch) -> None:
        """Raise UserError, naming the first choice that this space does not have."""
        where = f"architecture {arch}"
        if arch.resolution not in self.resolutions:
            raise UserError(
                f"resolution {arch.resolution} is not in space {self.name!r}",
                where,
                f"it has {', '.join(map(str, self.resolutions))}",
            )
        if len(arch.stages) != len(self.stages):
            raise UserError(
                f"{len(arch.stages)} stages, but space {self.name!r} has {len(self.stages)}", where
            )
        for s, (blocks, stage) in enumerate(zip(arch.stages, self.stages, strict=True)):
            if len(blocks) not in stage.depths:
                raise UserError(
                    f"{len(blocks)} blocks in stage {s}",
                    where,
                    f"it can have {', '.join(map(str, stage.depths))}",
                )
            for block in blocks:
                if block not in stage.choices:
                    raise UserError(
                        f"block {block} in stage {s}",
                        where,
                        f"it can be {', '.join(map(str, stage.choices))}",
                    )

    def encode(self, archs: Sequence[Arch]) -> Genotypes:
        """(N, 1 + P) genotypes of N architectures. Raises UserError as ``check`` does."""
        rows = np.zeros((len(archs), 1 + len(self.positions)), np.int16)
        for row, arch in zip(rows, archs, strict=True):
            self.check(arch)
            row[0] = self.resolutions.index(arch.resolution)
            for p, (s, b) in enumerate(self.positions, start=1):
                blocks = arch.stages[s]
                if b < len(blocks):
                    row[p] = 1 + self.stages[s].choices.index(blocks[b])
        return rows

    def decode(self, genotype: NDArray[np.integer[Any]]) -> Arch:
        """The architecture of one genotype row (1 + P,)."""
        stages: list[list[Block]] = [[] for _ in self.stages]
        for (s, _), choice in zip(self.positions, genotype[1:], strict=True):
            if choice:
                stages[s].append(self.stages[s].choices[int(choice) - 1])
        return Arch(self.resolutions[int(genotype[0])], tuple(map(tuple, stages)))

    def sample(self, rng: np.random.Generator, n: int) -> Genotypes:
        """(n, 1 + P) genotypes: resolution, each stage's depth and each block drawn uniformly."""
        rows = np.zeros((n, 1 + len(self.positions)), np.int16)
        rows[:, 0] = rng.integers(len(self.resolutions), size=n)
        column = 1
        for stage in self.stages:
            depth = rng.choice(stage.depths, size=n)
            for b in range(stage.depths[-1]):
                choice = rng.integers(1, 1 + len(stage.choices), size=n)
                rows[:, column] = np.where(b < depth, choice, 0)
                column += 1
        return rows
