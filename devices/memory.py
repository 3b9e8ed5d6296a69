"""What a float32 network needs: bytes of activations while it runs, and bytes of its file.

Both are tables, so the search limits them, or makes them least, like any other quantity.
"""

from __future__ import annotations

from collections.abc import Sequence

from ofa.layers import Layer
from ofa.space import Space
from ofa.table import Table, tabulate, tabulate_together

__all__ = ["flash_table", "live_bytes", "sram_table"]

_ELEMENT = 4  # bytes of a float32
#: Tables, names and padding of an operator in a TFLite file, at most; measured: 300 to 400.
_OPERATOR = 512
#: What a file holds beside its operators and labels, at most.
_FILE = 4096


def live_bytes(layers: Sequence[Layer]) -> list[int]:
    """For each layer, the bytes of all activations that exist while it runs.

    These are its inputs, its output, and what a later layer still reads. The largest is the least
    arena in which the network can run; an interpreter adds its own bookkeeping.
    """
    bytes_of = {name: size for layer in layers for name, size in _tensors(layer).items()}
    last_use = {name: index for index, layer in enumerate(layers) for name in layer.inputs}
    live = [layers[0].inputs[0]]
    found = []
    for index, layer in enumerate(layers):
        live.append(layer.name)
        found.append(sum(bytes_of[name] for name in live))
        live = [name for name in live if last_use.get(name, -1) > index]
    return found


def _tensors(layer: Layer) -> dict[str, int]:
    """Bytes of the tensors that a layer reads and writes, by the name of what makes them."""
    height, width, channels = layer.in_shape
    into = _ELEMENT * height * width * channels
    height, width, channels = layer.out_shape
    return dict.fromkeys(layer.inputs, into) | {layer.name: _ELEMENT * height * width * channels}


def sram_table(space: Space) -> Table:
    """The table of the activations' peak, in bytes: a maximum over layers."""
    return tabulate_together(space, live_bytes, reduce="max")


def flash_table(space: Space, labels: Sequence[str]) -> Table:
    """The table of the TFLite file's size, in bytes: never below the real one, hardly above."""
    constant = _FILE + len("\n".join(labels).encode())
    return tabulate(space, lambda layer: _OPERATOR + _ELEMENT * layer.parameters, constant)
