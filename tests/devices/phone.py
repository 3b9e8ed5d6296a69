"""A phone for tests: what the real ``adb`` talks to over TCP.

The device side of adb's protocol (packages/modules/adb, protocol.txt, SERVICES.TXT and SYNC.TXT):
it runs shell commands with ``sh``, with a folder of this machine as /data/local/tmp and a made-up
/sys, and takes pushed files. ``BENCHMARK`` is a benchmark_model for it, which really runs the file
in LiteRT on this machine, and prints as TFLite's does, but a time made of the file's size;
``PERF_TEST`` is the same of ONNX Runtime's.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_HEADER = struct.Struct("<4s5I")
_VERSION, _MOST = 0x01000001, 256 * 1024
_BANNER = b"device::ro.product.model=Test;features=shell_v2,cmd"
_TOKEN, _PUBLIC_KEY = 1, 3  # kinds of AUTH

BENCHMARK = f"""#!{sys.executable}
import os, sys
from ai_edge_litert.interpreter import Interpreter
options = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:])
try:
    run = Interpreter(options["graph"], num_threads=int(options["num_threads"]))
    run.allocate_tensors()
except ValueError as error:
    sys.exit(f"ERROR: Failed to load model: {{error}}")
def block(count):
    for _ in range(count):
        run.invoke()
    # This machine has other work, so no time of it is steady: a microsecond for 100 bytes.
    taken = os.path.getsize(options["graph"]) // 100
    print(f"INFO: count={{count}} first={{taken}} curr={{taken}} min={{taken}} max={{taken}} "
          f"avg={{taken}} std=0")
    return taken
first = block(int(options["warmup_runs"]))
block(int(options["num_runs"]))
print(f"INFO: Inference timings in us: Init: 530, First inference: {{first}}, "
      "Warmup (avg): 1, Inference (avg): 1")
"""

PERF_TEST = f"""#!{sys.executable}
import os, sys
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[sys.argv.index("-x") + 1])
try:
    session = onnxruntime.InferenceSession(sys.argv[-1], options, ["CPUExecutionProvider"])
except Exception as error:
    sys.exit(str(error))
(given,) = session.get_inputs()
count = int(sys.argv[sys.argv.index("-r") + 1])
for _ in range(count):
    session.run(None, {{given.name: np.zeros([1, *given.shape[1:]], np.float32)}})
taken = os.path.getsize(sys.argv[-1]) / 1e5  # see above
print(f"Average inference time cost total: {{taken}} ms\\nTotal inference requests: {{count}}")
print(f"Min Latency: {{taken / 1e3}} s\\nP90 Latency: {{taken / 1e3}} s")
"""


class Phone:
    """A phone that listens on a port of this machine, in a thread of its own.

    folder: its files. cores: CPU -> highest frequency in kHz. before: called with each command
    before it runs; what it returns, if anything, is the command's (output, exit code) instead.
    trusts: whether it accepts this computer's key, or waits for somebody to allow it.
    """

    def __init__(
        self,
        folder: Path,
        cores: dict[int, int],
        before: Callable[[str], tuple[bytes, int] | None] = lambda _: None,
        trusts: bool = True,
    ) -> None:
        self.trusts = trusts
        self.tmp, self.sys = folder / "tmp", folder / "sys"
        self.tmp.mkdir(parents=True)
        for cpu, khz in cores.items():
            frequencies = self.sys / f"cpu{cpu}" / "cpufreq"
            frequencies.mkdir(parents=True)
            (frequencies / "cpuinfo_max_freq").write_text(f"{khz}\n")
            (frequencies / "scaling_max_freq").write_text(f"{khz}\n")
        self.before, self.commands = before, list[str]()
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live(ready)))
        self._thread.start()
        ready.wait()

    async def _live(self, ready: threading.Event) -> None:
        self._loop, self._unplugged = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.serial = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await self._unplugged.wait()
        server.close()

    def unplug(self) -> None:
        """Break all connections, and take no more."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._unplugged.set)
            self._thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams: dict[int, asyncio.Queue[tuple[bytes, bytes]]] = {}
        tasks: set[asyncio.Task[None]] = set()

        def send(command: bytes, first: int, second: int, data: bytes = b"") -> None:
            magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
            writer.write(_HEADER.pack(command, first, second, len(data), sum(data), magic) + data)

        try:
            while True:
                header = await reader.readexactly(_HEADER.size)
                command, theirs, _, length, _, _ = _HEADER.unpack(header)
                data = await reader.readexactly(length)
                if command == b"CNXN" and self.trusts:
                    send(b"CNXN", _VERSION, _MOST, _BANNER)
                elif command == b"CNXN" or (command == b"AUTH" and theirs != _PUBLIC_KEY):
                    send(b"AUTH", _TOKEN, 0, 20 * b"?")
                elif command == b"OPEN":
                    streams[theirs] = asyncio.Queue()
                    stream = _Stream(theirs, streams[theirs], send)
                    task = asyncio.create_task(self._service(data.rstrip(b"\0").decode(), stream))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                elif theirs in streams:  # we take the number of theirs for ours
                    streams[theirs].put_nowait((command, data))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for task in tasks:
                task.cancel()
            writer.close()

    async def _service(self, name: str, stream: _Stream) -> None:
        stream.send(b"OKAY")
        with contextlib.suppress(ConnectionError):  # adb gave up
            if name.startswith("shell"):
                await self._shell(name.partition(":")[2], stream)
            elif name.startswith("sync"):
                await self._sync(stream)
            stream.send(b"CLSE")

    async def _shell(self, command: str, stream: _Stream) -> None:
        self.commands.append(command)
        output, code = await asyncio.to_thread(lambda: self.before(command) or self._run(command))
        await stream.write(b"\1" + struct.pack("<I", len(output)) + output)
        await stream.write(b"\3" + struct.pack("<I", 1) + bytes([code]))

    def _run(self, command: str) -> tuple[bytes, int]:
        local = command.replace("/data/local/tmp", str(self.tmp))
        local = local.replace("/sys/devices/system/cpu", str(self.sys))
        # Its cores are not ours: pinning is asked for, and then left out.
        local = f'taskset() {{ shift; "$@"; }}; {local}'
        done = subprocess.run(
            ["sh", "-c", local], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return done.stdout, done.returncode

    async def _sync(self, stream: _Stream) -> None:
        """``adb push``: STAT, SEND with DATA and DONE, QUIT."""
        while True:
            kind, count = struct.unpack("<4sI", await stream.read(8))
            if kind == b"QUIT":
                return
            path = await stream.read(count) if kind in (b"STAT", b"SEND", b"LIST") else b""
            if kind == b"STAT":
                local = self._local(path.decode())
                mode = local.stat().st_mode if local.exists() else 0
                await stream.write(b"STAT" + struct.pack("<3I", mode, 0, 0))
            elif kind == b"SEND":
                target = self._local(path.decode().rpartition(",")[0])
                content = b""
                while True:
                    kind, count = struct.unpack("<4sI", await stream.read(8))
                    if kind == b"DONE":
                        break
                    content += await stream.read(count)
                target.write_bytes(content)
                await stream.write(b"OKAY" + struct.pack("<I", 0))

    def _local(self, path: str) -> Path:
        return Path(path.replace("/data/local/tmp", str(self.tmp)))


class _Stream:
    """One service of a connection: every write waits until the other side has taken it."""

    def __init__(
        self,
        number: int,
        received: asyncio.Queue[tuple[bytes, bytes]],
        send: Callable[..., None],
    ) -> None:
        self._number, self._received, self._send = number, received, send
        self._data = b""

    def send(self, command: bytes, data: bytes = b"") -> None:
        self._send(command, self._number, self._number, data)

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _MOST):
            self.send(b"WRTE", data[start : start + _MOST])
            while (await self._next())[0] != b"OKAY":
                pass

    async def read(self, count: int) -> bytes:
        while len(self._data) < count:
            await self._next()
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    async def _next(self) -> tuple[bytes, bytes]:
        command, data = await self._received.get()
        if command == b"CLSE":
            raise ConnectionError("closed by adb")
        if command == b"WRTE":
            self._data += data
            self.send(b"OKAY")
        return command, data
