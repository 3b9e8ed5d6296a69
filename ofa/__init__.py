"""What a network is, and how the shared weights of a supernet are trained.

The few names that users type are here. They are imported when they are asked for: those that
train need torch, and all others do without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofa.checkpoint import Checkpoint, load_checkpoint
    from ofa.data import write_folder
    from ofa.layers import Layer, lower, macs, parameters
    from ofa.pipeline import Options, train_supernet
    from ofa.recipe import RECIPES, Phase, Recipe
    from ofa.space import Arch, Block, Space, Stage
    from ofa.spaces import SPACES
    from ofa.supernet import Supernet

__all__ = [
    "RECIPES", "SPACES", "Arch", "Block", "Checkpoint", "Layer", "Options", "Phase", "Recipe",
    "Space", "Stage", "Supernet", "load_checkpoint", "lower", "macs", "parameters",
    "train_supernet", "write_folder",
]  # fmt: skip

_HOMES = {
    "checkpoint": ("Checkpoint", "load_checkpoint"),
    "data": ("write_folder",),
    "layers": ("Layer", "lower", "macs", "parameters"),
    "pipeline": ("Options", "train_supernet"),
    "recipe": ("RECIPES", "Phase", "Recipe"),
    "space": ("Arch", "Block", "Space", "Stage"),
    "spaces": ("SPACES",),
    "supernet": ("Supernet",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"ofa.{module}"), name)
    raise AttributeError(name)
