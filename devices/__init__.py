"""What a network costs on a device: predicted, or measured."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devices.cost import Latency, latency_table, predict
    from devices.profile import Profile, get_profile

__all__ = ["Latency", "Profile", "get_profile", "latency_table", "predict"]

_HOMES = {
    "cost": ("Latency", "latency_table", "predict"),
    "profile": ("Profile", "get_profile"),
}


def __getattr__(name: str) -> Any:  # lazily, so that `ofa-device --help` stays fast
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"devices.{module}"), name)
    raise AttributeError(name)
