"""What a network needs: bytes of activations while it runs, and bytes of its file.

Both are tables, so the search limits them, or makes them least, like any other quantity.
"""

from __future__ import annotations

from collections.abc import Sequence

from ofa.layers import Layer
from ofa.space import Space
from ofa.table import Table, tabulate, tabulate_together

__all__ = ["flash_table", "live_bytes", "sram_table"]

#: Bytes of a weight or an activation.
_ELEMENT = {"float32": 4, "int8": 1}
#: Bytes of an output channel of an int8 layer beside its weights: the bias, and a scale and a zero
#: point of the weights and of the bias.
_CHANNEL = 4 + 2 * (4 + 8)
#: Tables, names and padding of an operator in a TFLite file, at most; measured: 300 to 400.
_OPERATOR = 512
#: What a file holds beside its operators and labels, at most.
_FILE = 4096


def live_bytes(layers: Sequence[Layer], precision: str = "float32") -> list[int]:
    """For each layer, the bytes of all activations that exist while it runs.

    These are its inputs, its output, and what a later layer still reads. The largest is the least
    arena in which the network can run; an interpreter adds its own bookkeeping.
    """
    element = _ELEMENT[precision]
    bytes_of = {name: element * size for layer in layers for name, size in _tensors(layer).items()}
    last_use = {name: index for index, layer in enumerate(layers) for name in layer.inputs}
    live = [layers[0].inputs[0]]
    found = []
    for index, layer in enumerate(layers):
        live.append(layer.name)
        found.append(sum(bytes_of[name] for name in live))
        live = [name for name in live if last_use.get(name, -1) > index]
    return found


def _tensors(layer: Layer) -> dict[str, int]:
    """Sizes of the tensors that a layer reads and writes, by the name of what makes them."""
    height, width, channels = layer.in_shape
    into = height * width * channels
    height, width, channels = layer.out_shape
    return dict.fromkeys(layer.inputs, into) | {layer.name: height * width * channels}


def sram_table(space: Space, precision: str = "float32") -> Table:
    """The table of the activations' peak, in bytes: a maximum over layers."""
    return tabulate_together(space, lambda layers: live_bytes(layers, precision), reduce="max")


def flash_table(space: Space, labels: Sequence[str], precision: str = "float32") -> Table:
    """The table of the TFLite file's size, in bytes: never below the real one, hardly above."""
    constant = _FILE + len("\n".join(labels).encode())

    def size(layer: Layer) -> int:
        content = _ELEMENT[precision] * layer.parameters
        if precision == "int8" and layer.parameters:
            content += (_CHANNEL - 1) * layer.out_shape[2]  # its bias is among the parameters
        return _OPERATOR + content

    return tabulate(space, size, constant)
