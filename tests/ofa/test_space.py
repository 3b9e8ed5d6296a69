"""Law 2: the forms of an architecture round-trip, and nothing leaves its space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.errors import UserError
from ofa.space import Arch, Space
from ofa.spaces import get_space
from tests.strategies import TINY, archs, spaces

subsets = st.none() | st.sets(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 16, 24, 32, 40]), max_size=4)


@given(spaces(), st.integers(0, 2**32 - 1))
def test_text_and_genotype_give_the_architecture_back(space: Space, seed: int) -> None:
    genotypes = space.sample(np.random.default_rng(seed), 20)
    decoded = [space.decode(row) for row in genotypes]
    assert [Arch.parse(str(arch)) for arch in decoded] == decoded
    assert (space.encode(decoded) == genotypes).all()


@given(spaces(), subsets, subsets, subsets, subsets, st.integers(0, 2**32 - 1))
def test_a_restricted_space_lies_inside(
    space: Space,
    kernels: set[int] | None,
    depths: set[int] | None,
    expands: set[int] | None,
    resolutions: set[int] | None,
    seed: int,
) -> None:
    part = space.restrict(kernels=kernels, depths=depths, expands=expands, resolutions=resolutions)
    assert part.restrict(kernels=kernels, depths=depths, expands=expands) == part
    assert part.size <= space.size
    for row in part.sample(np.random.default_rng(seed), 5):
        space.check(part.decode(row))
    space.check(part.largest())
    space.check(part.smallest())


def test_size_counts_every_architecture() -> None:
    small = TINY.restrict(kernels=(3,), resolutions=(24,))
    seen = {small.sample(np.random.default_rng(i), 1).tobytes() for i in range(2000)}
    assert len(seen) == small.size == 1 * (2 + 4) * (2 + 4 + 8)


@given(archs(get_space("lite")))
def test_lite_is_written_as_people_read_it(arch: Arch) -> None:
    words = str(arch).split()
    assert words[0] == f"r{arch.resolution}"
    assert words[1] == "3x3e1"
    assert len(words) == 8


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("3x3e1", "has no resolution"),
        ("r32 3x3", "write it as 3x3e6"),
        ("r32 3x5e2", "write it as 3x3e6"),
        ("r33 3x3e1 3x3e2 3x3e2", "resolution 33"),
        ("r32 3x3e1 3x3e2", "2 stages"),
        ("r32 3x3e1 3x3e2,3x3e2,3x3e2 3x3e2", "3 blocks in stage 1"),
        ("r32 3x3e1 7x7e2 3x3e2", "block 7x7e2 in stage 1"),
    ],
)
def test_a_wrong_architecture_is_named(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        TINY.check(Arch.parse(text))


def test_an_unknown_space_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'lite'"):
        get_space("light")
