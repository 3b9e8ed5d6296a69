"""Arm's compiler for Ethos-U: it says what an int8 network takes on one, by its own cycle model.

Nothing runs: the compiler schedules the network and sums its cycles, which Arm states as an
estimate. The same file always takes the same.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from ofa.errors import UserError

__all__ = ["ACCELERATORS", "Compiled", "Vela"]

_PACKAGE = "ethos-u-vela"
#: Bytes of an arena beside what Vela plans for it: of the interpreter.
_FOR_INTERPRETER = 16 << 10


@dataclass(frozen=True, slots=True)
class Accelerator:
    """The system around one: clock, buses, and which memory holds what.

    own: bytes of SRAM that are the NPU's alone; without any, the arena is in the system's.
    """

    system: str
    memory: str
    own: int | None = None

    def sram(self, planned: float) -> float:
        """Bytes of SRAM that a network needs whose maps take ``planned``.

        What does not fit into an NPU's own goes elsewhere.
        """
        return planned + _FOR_INTERPRETER if self.own is None else min(planned, self.own)

    def __str__(self) -> str:
        return f"{self.system}, {self.memory}"


#: Systems and memories of Arm's own configuration file, which comes with Vela.
ACCELERATORS = {
    "ethos-u55-128": Accelerator("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65-256": Accelerator("Ethos_U65_High_End", "Dedicated_Sram_512KB", 512 << 10),
    "ethos-u85-256": Accelerator("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB", 384 << 10),
}


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the compiler says of a network.

    sram: bytes of on-chip memory; where that is the system's, all of the arena. off_chip: bytes of
    flash and DRAM. arena: bytes of the interpreter's, wherever it is. flash: of the compiled file.
    on_cpu: operators that the NPU cannot do.
    """

    ms: float
    cycles: int
    sram: int
    off_chip: int
    arena: int
    flash: int
    on_cpu: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.ms:.3g} ms, {self.cycles:,} cycles, {self.sram:,} bytes of SRAM, "
            f"{self.off_chip:,} bytes off the chip: Vela's own estimate"
        )


class Vela:
    """The compiler for one accelerator. Raises UserError where it is not installed."""

    def __init__(self, name: str) -> None:
        try:
            self.version = version(_PACKAGE)
        except PackageNotFoundError as error:
            raise UserError(f"{_PACKAGE} is not installed", fix="pip install '.[mcu]'") from error
        self.name = name
        self.accelerator = ACCELERATORS[name]
        modes = "-".join((name, self.accelerator.system, self.accelerator.memory))
        self._cache = user_cache_path("ofa-specializer") / f"vela-{self.version}" / modes

    @staticmethod
    def installed() -> bool:
        """Whether it is."""
        try:
            version(_PACKAGE)
        except PackageNotFoundError:
            return False
        return True

    def compile(self, model: bytes) -> Compiled:
        """Cycles, time and memory of an int8 file; what was compiled before is looked up."""
        kept = self._cache / f"{hashlib.sha256(model).hexdigest()}.json"
        try:
            return Compiled(**json.loads(kept.read_text()))
        except (OSError, ValueError, TypeError):
            found, _ = self._compile(model)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(found.as_dict()))
            partial.replace(kept)
        except OSError:
            pass  # it is compiled again next time
        return found

    def compiled(self, model: bytes) -> bytes:
        """The file that the accelerator's driver takes."""
        return self._compile(model)[1]

    @staticmethod
    def _planned(compiled: bytes) -> int:
        """Bytes that a compiled file's tensors take of the interpreter's arena.

        Where the accelerator has a memory of its own, those maps that do not fit there, or as much
        as is used there, which is laid over them.
        """
        from ethosu.vela.tflite.Model import Model

        graph = Model.GetRootAsModel(compiled, 0).Subgraphs(0)
        tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
        scratch = (tensor for tensor in tensors if tensor.Name().startswith(b"scratch"))
        return max((int(tensor.Shape(0)) for tensor in scratch), default=0)

    def _compile(self, model: bytes) -> tuple[Compiled, bytes]:
        from ethosu.vela import vela

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "model.tflite").write_bytes(model)
            said = io.StringIO()
            arguments = [
                str(folder / "model.tflite"), "--accelerator-config", self.name,
                "--config", "Arm/vela.ini", "--system-config", self.accelerator.system,
                "--memory-mode", self.accelerator.memory, "--optimise", "Performance",
                "--output-dir", str(folder),
            ]  # fmt: skip
            try:
                with redirect_stdout(said), redirect_stderr(said):
                    code = vela.main(arguments)
            except (SystemExit, Exception) as error:  # whatever its passes raise
                code = error
            tables = list(folder.glob("*_summary_*.csv"))
            if code or len(tables) != 1:
                lines = [line for line in said.getvalue().splitlines() if line.strip()]
                why = lines[-1] if lines else str(code)
                raise UserError(f"vela cannot compile the model ({why})", self.name)
            with tables[0].open(newline="") as file:
                row = next(csv.DictReader(file))
            written = (folder / "model_vela.tflite").read_bytes()
        on_cpu = re.search(r"CPU operators = (\d+)", said.getvalue())
        if on_cpu is None:
            raise UserError(f"vela {self.version} does not tell what is left to the CPU", self.name)
        kib = {key: float(value or 0) for key, value in row.items() if "memory_used" in key}
        arena = self._planned(written) + _FOR_INTERPRETER
        sram = round(1024 * kib["sram_memory_used"])
        found = Compiled(
            ms=1e3 * float(row["inference_time"]),
            cycles=round(float(row["cycles_total"])),
            sram=arena if self.accelerator.own is None else sram,
            off_chip=round(1024 * sum(kib.values())) - sram,
            arena=arena,
            flash=len(written),
            on_cpu=int(on_cpu[1]),
        )
        return found, written
