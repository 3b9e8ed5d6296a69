"""Hypothesis strategies for the values that the laws speak of."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ofa.space import Arch, Space, Stage

#: A space that a test can train, export and run in moments.
TINY = Space(
    name="tiny",
    stem=8,
    stages=(
        Stage(8, 1, depths=(1,), kernels=(3,), expands=(1,)),
        Stage(16, 2, depths=(1, 2), kernels=(3, 5), expands=(2, 4)),
        Stage(24, 2, depths=(1, 2, 3), kernels=(3, 5, 7), expands=(2, 3)),
    ),
    head=32,
    resolutions=(24, 32, 40),
    classes=5,
)

#: Like the reference's, small; sides even and odd.
OTHER = Space(
    name="other",
    stem=8,
    stages=(
        Stage(8, 1, depths=(1,), kernels=(3,), expands=(1,), activation="relu"),
        Stage(16, 2, (1, 2), (3, 5), (2, 4), activation="relu", squeeze=True),
        Stage(24, 2, (1, 2, 3), (3, 5, 7), (2, 3), activation="hswish", squeeze=True),
    ),
    head=32,
    resolutions=(24, 30, 37),
    classes=5,
    bn_eps=1e-5,
    mix=48,
    activation="hswish",
    padding="symmetric",
)


@st.composite
def archs(draw: st.DrawFn, space: Space = TINY) -> Arch:
    """Any architecture of ``space``."""
    seed = draw(st.integers(0, 2**32 - 1))
    return space.decode(space.sample(np.random.default_rng(seed), 1)[0])


def stages(elastic: bool = True) -> st.SearchStrategy[Stage]:
    def values(options: list[int]) -> st.SearchStrategy[tuple[int, ...]]:
        most = len(options) if elastic else 1
        return st.sets(st.sampled_from(options), min_size=1, max_size=most).map(
            lambda chosen: tuple(sorted(chosen))
        )

    return st.builds(
        Stage,
        width=st.sampled_from([8, 12, 24]),
        stride=st.sampled_from([1, 2]),
        depths=values([1, 2, 3]),
        kernels=values([3, 5, 7]),
        expands=values([1, 2, 3, 4, 6]),
    )


def spaces(other: bool = True) -> st.SearchStrategy[Space]:
    """Small random spaces of relu6 and SAME padding, and ``other``: ``OTHER``."""
    random = st.builds(
        Space,
        name=st.just("random"),
        stem=st.sampled_from([8, 12]),
        stages=st.lists(stages(), min_size=1, max_size=3).map(tuple),
        head=st.sampled_from([0, 16, 32]),
        mix=st.sampled_from([0, 24]),
        resolutions=st.sets(st.sampled_from([16, 24, 32, 40]), min_size=1, max_size=3).map(
            lambda chosen: tuple(sorted(chosen))
        ),
        classes=st.integers(2, 10),
    )
    return random | st.just(OTHER) if other else random
