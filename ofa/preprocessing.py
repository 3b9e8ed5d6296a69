"""How an image becomes the input of a network; the same in training, scoring and on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.errors import UserError

__all__ = ["LITE0", "Preprocessing"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Normalization of uint8 RGB images, ``(x - mean) / std`` on ``range``, and the resize."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layout: str = "NHWC"
    range: tuple[int, int] = (0, 255)
    resize: str = "the whole image straight to resolution x resolution, antialiased, on uint8 RGB"
    filter: str = "bicubic"

    def normalize(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) float32 of (N, H, W, 3) uint8."""
        mean, std = np.float32(self.mean), np.float32(self.std)
        result: NDArray[np.float32] = (images.astype(np.float32) - mean) / std
        return result

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the report and the card."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """What ``as_dict`` wrote. Raises UserError."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise UserError(f"preprocessing must have the keys {', '.join(sorted(known))}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


#: EfficientNet-Lite's.
LITE0 = Preprocessing(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
