"""Preprocessing is a value that travels in cards, reports and model files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ofa.errors import UserError
from ofa.preprocessing import LITE0, Preprocessing

IMAGENET = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


@pytest.mark.parametrize("value", [LITE0, IMAGENET])
def test_it_survives_json(value: Preprocessing) -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(value.as_dict()))) == value


def test_normalize() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    before = images.copy()
    result = IMAGENET.normalize(images)
    assert (result.shape, result.dtype) == (images.shape, np.float32)
    expected = (images - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    assert (images == before).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filter": "bilinear"}, "filter must be 'bicubic', not 'bilinear'"),
        ({"layout": "NCHW"}, "layout must be 'NHWC'"),
        ({"range": [0, 1]}, "range must be"),
        ({"mean": [1, 2]}, "mean must be three numbers"),
        ({"mean": [1, 2, float("nan")]}, "mean must be three numbers"),
        ({"mean": "abc"}, "not one of ours"),
        ({"std": None}, "not one of ours"),
        ({"std": [1, 0, 1]}, "std must be positive"),
        ({"crop": 0.875}, "must have the keys"),
    ],
)
def test_what_is_not_ours_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocessing.from_dict(LITE0.as_dict() | change)
