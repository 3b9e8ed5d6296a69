"""The named spaces."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

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

# For microcontrollers: arenas of tens of kilobytes, files of 0.1 to 0.5 MB. The thin stem and first
# stage keep the large early activations small. The last features are made of the pooled map, which
# is one pixel (Howard et al. 2019, sec. 5.1): made before it they were a fifth of the work of a
# network of a million MACs. Expand 2 and 32 pixels reach 0.37 MMACs.
_MCU = Space(
    name="mcu",
    stem=8,
    stages=(
        Stage(8, 1, depths=(1,), kernels=(3,), expands=(1,)),
        Stage(16, 2, depths=(1, 2, 3), kernels=(3, 5), expands=(2, 4, 6)),
        Stage(32, 2, depths=(1, 2, 3, 4), kernels=(3, 5), expands=(2, 4, 6)),
        Stage(64, 2, depths=(1, 2, 3), kernels=(3, 5), expands=(2, 4, 6)),
        Stage(96, 1, depths=(1, 2), kernels=(3, 5), expands=(2, 4, 6)),
    ),
    head=0,
    mix=256,
    resolutions=(32, 40, 48, 56, 64),
)


def _reference(name: str, stem: int, widths: Sequence[int], head: int, **more: Any) -> Space:
    """A space of the reference (mit-han-lab/once-for-all): kernels 3 to 7, torch's padding.

    widths: of the fixed first stage, and of the elastic ones, the strides of which are given.
    """
    first, *elastic = widths
    strides, acts, squeezes, depths = (
        more.pop(key) for key in ("strides", "activations", "squeezes", "depths")
    )
    return Space(
        name=name,
        stem=stem,
        stages=(
            Stage(first, 1, depths=(1,), kernels=(3,), expands=(1,), activation=acts[0]),
            *(
                Stage(
                    width, stride, depths=depth, kernels=(3, 5, 7), expands=(3, 4, 6),
                    activation=act, squeeze=squeeze,
                )
                for width, stride, depth, act, squeeze in zip(
                    elastic, strides, depths, acts[1:], squeezes, strict=True
                )
            ),
        ),
        head=head,
        resolutions=tuple(range(128, 225, 4)),
        padding="symmetric",
        **more,
    )  # fmt: skip


# Howard et al. 2019's skeleton as in ofa_mbv3_d234_e346_k357.
_MBV3: dict[str, Any] = {
    "strides": (2, 2, 2, 1, 2),
    "activations": ("relu", "relu", "relu", "hswish", "hswish", "hswish"),
    "squeezes": (False, True, False, True, True),
    "depths": ((2, 3, 4),) * 5,
    "activation": "hswish",
    "bn_eps": 1e-5,
}
_MBV3_10 = _reference("mbv3-w1.0", 16, (16, 24, 40, 80, 112, 160), 960, mix=1280, **_MBV3)
_MBV3_12 = _reference("mbv3-w1.2", 24, (24, 32, 48, 96, 136, 192), 1152, mix=1536, **_MBV3)
_PROXYLESS = _reference(
    "proxyless-w1.3", 40, (24, 32, 56, 104, 128, 248, 416), 1664,
    strides=(2, 2, 2, 1, 2, 1),
    activations=("relu6",) * 7,
    squeezes=(False,) * 6,
    depths=((2, 3, 4),) * 5 + ((1,),),
)  # fmt: skip

#: The depthwise kernel of each stage in the published EfficientNet-Lite0.
LITE0_KERNELS = (3, 3, 5, 3, 5, 5, 3)

SPACES = {space.name: space for space in (_LITE, _MCU, _MBV3_10, _MBV3_12, _PROXYLESS)}


def get_space(name: str) -> Space:
    """The space of that name. Raises UserError."""
    if name in SPACES:
        return SPACES[name]
    near = difflib.get_close_matches(name.lower(), SPACES, n=1)
    raise UserError(
        f"unknown space {name!r}",
        fix=f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SPACES)}",
    )
