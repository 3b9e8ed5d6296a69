"""The named spaces."""

from __future__ import annotations

import difflib

from ofa.errors import UserError
from ofa.space import Space, Stage

__all__ = ["LITE0_KERNELS", "SPACES", "get_space"]

# EfficientNet-Lite0's skeleton (tensorflow/tpu, models/official/efficientnet/lite). No 7x7:
# XNNPACK has no such depthwise kernel and falls back to one that is 18 times slower.
_LITE = Space(
    name="lite",
    stem=32,
    stages=(
        Stage(16, 1, depths=(1,), kernels=(3,), expands=(1,)),
        Stage(24, 2, depths=(1, 2), kernels=(3, 5), expands=(3, 4, 6)),
        Stage(40, 2, depths=(1, 2), kernels=(3, 5), expands=(3, 4, 6)),
        Stage(80, 2, depths=(1, 2, 3), kernels=(3, 5), expands=(3, 4, 6)),
        Stage(112, 1, depths=(1, 2, 3), kernels=(3, 5), expands=(3, 4, 6)),
        Stage(192, 2, depths=(1, 2, 3, 4), kernels=(3, 5), expands=(3, 4, 6)),
        Stage(320, 1, depths=(1,), kernels=(3, 5), expands=(3, 4, 6)),
    ),
    head=1280,
    resolutions=(96, 112, 128, 144, 160, 176, 192, 208, 224),
)

# For microcontrollers: arenas of tens of kilobytes, files of 0.1 to 0.5 MB. The thin first stage
# keeps the large early activations small; expand 2 and 32 pixels reach 0.5 MMACs.
_MCU = Space(
    name="mcu",
    stem=16,
    stages=(
        Stage(8, 1, depths=(1,), kernels=(3,), expands=(1,)),
        Stage(16, 2, depths=(1, 2, 3), kernels=(3, 5), expands=(2, 4, 6)),
        Stage(32, 2, depths=(1, 2, 3, 4), kernels=(3, 5), expands=(2, 4, 6)),
        Stage(64, 2, depths=(1, 2, 3), kernels=(3, 5), expands=(2, 4, 6)),
        Stage(96, 1, depths=(1, 2), kernels=(3, 5), expands=(2, 4, 6)),
    ),
    head=256,
    resolutions=(32, 40, 48, 56, 64),
)

#: The depthwise kernel of each stage in the published EfficientNet-Lite0.
LITE0_KERNELS = (3, 3, 5, 3, 5, 5, 3)

SPACES = {space.name: space for space in (_LITE, _MCU)}


def get_space(name: str) -> Space:
    """The space of that name. Raises UserError."""
    if name in SPACES:
        return SPACES[name]
    near = difflib.get_close_matches(name.lower(), SPACES, n=1)
    raise UserError(
        f"unknown space {name!r}",
        fix=f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SPACES)}",
    )
