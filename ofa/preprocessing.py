"""How a picture becomes the input of a network; the same in training, scoring and on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.errors import UserError

__all__ = ["IMAGENET", "LITE0", "Preprocessing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Resize, then ``(x - mean) / std``, one mean and std a channel of RGB, on ``range``.

    There is one way to resize everywhere, because the filter alone moves accuracy by points:
    the other fields say so to whoever reads a card, a report or a model file, and no other value
    of them is accepted. ``resize`` is for people.
    """

    layout: str = "NHWC"
    range: tuple[int, int] = (0, 255)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str = (
        "the whole image straight to resolution x resolution, aspect ratio not kept, on uint8 RGB, "
        "as Pillow's Image.resize((r, r), Image.Resampling.BICUBIC) does (antialiased)"
    )
    filter: str = "bicubic"

    def __post_init__(self) -> None:
        for name, only in (("layout", "NHWC"), ("range", (0, 255)), ("filter", "bicubic")):
            if getattr(self, name) != only:
                raise ValueError(f"{name} must be {only!r}, not {getattr(self, name)!r}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(map(isfinite, values)):
                raise ValueError(f"{name} must be three numbers, not {values!r}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, not {self.std!r}")

    def normalize(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) float32 of (N, H, W, 3) uint8 images that have their final size."""
        *outer, width, channels = images.shape
        rows = images.reshape(*outer, width * channels).astype(np.float32)
        # a row at a time: broadcasting over three channels is several times slower
        rows -= np.tile(np.array(self.mean, np.float32), width)
        rows /= np.tile(np.array(self.std, np.float32), width)
        return rows.reshape(images.shape)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the report, the card and the model files."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """What ``as_dict`` wrote. Raises UserError."""
        known = [field.name for field in fields(cls)]
        if set(values) != set(known):
            raise UserError(f"preprocessing must have the keys {', '.join(known)}")
        try:
            given: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in values.items()
            }
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise UserError(f"preprocessing is not one of ours ({error})") from error


#: ImageNet's mean and deviation, which the research code takes.
IMAGENET = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
#: EfficientNet-Lite's.
LITE0 = Preprocessing(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
