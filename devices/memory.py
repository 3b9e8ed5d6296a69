"""What a network needs: bytes of memory while it runs, and bytes of its file.

All of it comes from the layer list and becomes tables, so the search limits it, or makes it least,
like any other quantity.

On a microcontroller the memory is TensorFlow Lite Micro's tensor arena. Its *head* holds
activations and scratch, packed by the interpreter's memory planner (tensorflow/tflite-micro,
greedy_memory_planner.cc). Its *tail* holds what the interpreter keeps of each layer; the constants
below were fitted to recorded arenas, and are never below them (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ofa.layers import INPUT, Layer
from ofa.space import Space
from ofa.table import Stacked, Table, tabulate, tabulate_together

__all__ = [
    "ENGINES",
    "Engine",
    "arena_bytes",
    "compiled_flash_table",
    "flash_table",
    "live_bytes",
    "sram_bytes",
    "sram_table",
]

#: Bytes of a weight or an activation.
_ELEMENT = {"float32": 4, "int8": 1}
#: Bytes of an output channel of an int8 layer beside its weights: the bias, and a scale and a zero
#: point of the weights and of the bias.
_CHANNEL = 4 + 2 * (4 + 8)
#: Tables, names and padding of an operator in a TFLite file; measured: 258 and 346.
_OPERATOR = {"float32": 264, "int8": 352}
#: What a file holds beside its operators and labels, with a name of any usual length; measured:
#: 2,300 to 3,000.
_FILE = 3584
#: What Vela writes for an output channel, its bias, scale and shift, and at least beside weights.
_VELA_CHANNEL, _VELA_FILE = 10, 4096


@dataclass(frozen=True, slots=True)
class Engine:
    """A build of TensorFlow Lite Micro.

    scratch: bytes that a layer's kernel asks for while it runs. kept: bytes of the interpreter and
    its kernels for a layer of each operation, beside two words a channel of what has weights.
    constant: of a network.
    """

    scratch: Callable[[Layer], int]
    kept: dict[str, int]
    constant: int


def _no_scratch(layer: Layer) -> int:  # noqa: ARG001
    return 0


def _scratch_mve(layer: Layer) -> int:
    """CMSIS-NN on a Cortex-M55: its vector unit works on whole blocks of channels."""
    taps, channels = layer.kernel**2, layer.in_shape[2]
    match layer.op:
        case "conv" if layer.kernel > 1 or layer.stride > 1:
            return 4 * _up(channels * taps, 16)
        case "depthwise":
            return 4 * 124 * taps
        case "mean":
            return 4 * channels
    return 0


def _scratch_dsp(layer: Layer) -> int:
    """CMSIS-NN on a Cortex-M4, M7 or M33."""
    taps, channels = layer.kernel**2, layer.in_shape[2]
    match layer.op:
        case "conv" if layer.kernel > 1 or layer.stride > 1:
            return 4 * _up(channels * taps, 4)
        case "depthwise" if layer.kernel > 3:
            return 2 * channels * taps
        case "mean":
            return 4 * channels
    return 0


#: Fitted to 40 recorded arenas, each of 13 to 46 layers: within 8 bytes; rounded up here.
_KEPT_32 = {"conv": 161, "depthwise": 163, "add": 115, "mean": 0, "linear": 160, "pad": 106}

#: ``cortex-m55`` and ``cortex-m`` are builds with CMSIS-NN for 32-bit processors, ``host`` that of
#: the Python package on a 64-bit machine, with reference kernels.
ENGINES = {
    "cortex-m55": Engine(_scratch_mve, _KEPT_32, 440),
    "cortex-m": Engine(_scratch_dsp, _KEPT_32, 440),
    "host": Engine(
        _no_scratch,
        {"conv": 246, "depthwise": 240, "add": 163, "mean": 0, "linear": 272, "pad": 160},
        936,
    ),
}


def _up(size: int, to: int) -> int:
    """Rounded up to a multiple."""
    return -(-size // to) * to


def _kept(engine: Engine, layer: Layer) -> int:
    """What the interpreter keeps of a layer: a multiplier and a shift a channel, and records."""
    channels = layer.out_shape[2]
    size = engine.kept[layer.op] + (0 if layer.is_same else engine.kept["pad"])
    if layer.op in ("conv", "depthwise", "linear"):
        size += 2 * _up(4 * channels, 16)
    if layer.op == "linear" and engine.scratch is _scratch_mve:
        size += _up(4 * channels, 16)  # CMSIS-NN's sums of the weights
    return size


@dataclass(frozen=True, slots=True)
class _Step:
    """An operator of the file, most layers are one: the tensors it reads, and the one it makes.

    size: of that in elements.
    """

    layer: Layer
    inputs: tuple[str, ...]
    output: str
    size: int


def _steps(layers: Sequence[Layer]) -> list[_Step]:
    """The operators in the order of the file.

    Padding that is not SAME is one before its layer, h-swish one after it, a hard sigmoid two.
    """
    found: list[_Step] = []
    for layer in layers:
        name, inputs = layer.name, layer.inputs
        side, _, channels = layer.in_shape
        if not layer.is_same:
            padded = f"{name}.padded"
            found.append(_Step(layer, inputs[:1], padded, (side + sum(layer.pads)) ** 2 * channels))
            inputs = (padded, *inputs[1:])
        height, width, channels = layer.out_shape
        parts = {"hswish": ("linear",), "hsigmoid": ("linear", "moved")}.get(layer.activation, ())
        for output in (*(f"{name}.{part}" for part in parts), name):
            found.append(_Step(layer, inputs, output, height * width * channels))
            inputs = (output,)
    return found


@dataclass(frozen=True, slots=True)
class _Buffer:
    """Bytes that exist from the start of one step to the end of another."""

    size: int
    first: int
    last: int

    def overlaps(self, other: _Buffer) -> bool:
        return self.first <= other.last and other.first <= self.last


def _buffers(layers: Sequence[Layer], engine: Engine) -> list[_Buffer]:
    """Activations in the order of the file, then scratch; step 0 hands the image in."""
    steps = _steps(layers)
    last_use = {name: at for at, step in enumerate(steps, 1) for name in step.inputs}
    height, width, channels = layers[0].in_shape
    found = [_Buffer(_up(height * width * channels, 16), 0, last_use[INPUT])]
    for at, step in enumerate(steps, 1):
        found.append(_Buffer(_up(step.size, 16), at, last_use.get(step.output, len(steps))))
    for at, step in enumerate(steps, 1):
        if step.output == step.layer.name and (size := _up(engine.scratch(step.layer), 16)):
            found.append(_Buffer(size, at, at))
    return found


def arena_bytes(layers: Sequence[Layer], engine: Engine) -> int:
    """The tensor arena of an int8 network, in bytes.

    The planner places the largest buffer first, of equal ones that which was added last, each at
    the lowest gap between those placed already that exist at the same time.
    """
    buffers = _buffers(layers, engine)
    placed: list[tuple[int, _Buffer]] = []
    head = 0
    for _, own in sorted(enumerate(buffers), key=lambda pair: (-pair[1].size, -pair[0])):
        at = 0
        for start, other in sorted(
            ((start, other) for start, other in placed if other.overlaps(own)),
            key=lambda pair: pair[0],
        ):
            if start - at >= own.size:
                break
            at = max(at, start + other.size)
        placed.append((at, own))
        head = max(head, at + own.size)
    return head + engine.constant + sum(_kept(engine, layer) for layer in layers)


def live_bytes(layers: Sequence[Layer], precision: str = "float32") -> list[int]:
    """For each layer, the bytes of all activations that exist while it runs.

    These are its inputs, its output, what a later layer still reads, and what is between where it
    is several operators. The largest is the least arena in which the network can run; an
    interpreter adds its own bookkeeping.
    """
    steps = _steps(layers)
    last_use = {name: at for at, step in enumerate(steps) for name in step.inputs}
    height, width, channels = layers[0].in_shape
    live = {INPUT: height * width * channels}
    found = dict.fromkeys((layer.name for layer in layers), 0)
    for at, step in enumerate(steps):
        live[step.output] = step.size
        name = step.layer.name
        found[name] = max(found[name], _ELEMENT[precision] * sum(live.values()))
        live = {name: size for name, size in live.items() if last_use.get(name, -1) > at}
    return list(found.values())


def sram_bytes(layers: Sequence[Layer], precision: str, engine: str | None) -> int:
    """What must be free while a network runs: its arena, or where no engine is known its peak.

    engine: a name of ``ENGINES``; it matters to int8 networks only.
    """
    if engine is None or precision != "int8":
        return max(live_bytes(layers, precision))
    return arena_bytes(layers, ENGINES[engine])


def sram_table(
    space: Space, precision: str = "float32", engine: Engine | None = None
) -> Table | Stacked:
    """The table of the activations' peak, in bytes; of an engine that of its arena, at least.

    An arena is this large where its planner packs without gaps, which is the case for most
    networks; for the others it is up to 11 % larger, see ``arena_bytes``.
    """
    if engine is None:
        return tabulate_together(space, lambda layers: live_bytes(layers, precision), reduce="max")
    built = engine

    def peaks(layers: Sequence[Layer]) -> list[int]:
        buffers = _buffers(layers, built)
        found = dict.fromkeys((layer.name for layer in layers), 0)
        for at, step in enumerate(_steps(layers), 1):
            alive = sum(buffer.size for buffer in buffers if buffer.first <= at <= buffer.last)
            found[step.layer.name] = max(found[step.layer.name], alive)
        return list(found.values())

    return Stacked(
        tabulate_together(space, peaks, reduce="max"),
        tabulate(space, lambda layer: _kept(built, layer), built.constant),
    )


def flash_table(space: Space, labels: Sequence[str], precision: str = "float32") -> Table:
    """The table of the TFLite file's size, in bytes: never below the real one, hardly above."""
    constant = _FILE + len("\n".join(labels).encode())

    def size(layer: Layer) -> int:
        content = _ELEMENT[precision] * _written(layer)
        if precision == "int8" and layer.parameters:
            content += (_CHANNEL - 1) * layer.out_shape[2]  # its bias is among what is written
        return len(_steps([layer])) * _OPERATOR[precision] + content

    return tabulate(space, size, constant)


def _written(layer: Layer) -> int:
    """Weights and biases in the file: one of zeros too, where the layer has none."""
    return layer.parameters + (0 if layer.bias or layer.op != "linear" else layer.out_shape[2])


def compiled_flash_table(space: Space) -> Table:
    """The same of the file that Vela makes of an int8 one, before the compiler is asked: a guess.

    It packs weights by their values. Of seven subnets of the first ``mcu``, with a stem of 16
    channels, the file was 0 to 7 % larger, for an Ethos-U85 6 to 14 %.
    """

    def size(layer: Layer) -> int:
        channels = layer.out_shape[2] if layer.parameters else 0
        return _written(layer) + (_VELA_CHANNEL - 1) * channels  # one of these is its bias

    return tabulate(space, size, _VELA_FILE)
