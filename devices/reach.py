"""From a device's name, and how it is connected, to something that measures model files on it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from devices.backends.adb import find_phones
from devices.backends.board import Board, Unfinished
from devices.backends.litert import Litert
from devices.backends.ort import OnnxRuntime
from devices.backends.programs import PROGRAMS
from devices.backends.ssh import Ssh
from devices.backends.vela import ACCELERATORS, Compiled, Vela
from devices.measure import Backend, Measurement, measure_interleaved
from devices.profile import MEASURED_HERE, Profile, get_profile
from ofa.errors import UserError
from ofa.machine import processor_name

__all__ = [
    "HOSTS",
    "Compiler",
    "Farm",
    "Meter",
    "Unfinished",
    "check_here",
    "here",
    "host_of",
    "reach",
    "reachable",
    "uncompiled",
]

HOSTS: dict[str, type[Litert] | type[OnnxRuntime]] = {
    "host": Litert,
    "host-onnxruntime": OnnxRuntime,
}

#: Turns of each model on this machine, more where few take turns: other work on the machine comes
#: and goes within seconds, and a latency is to be of all of them.
_TURNS, _TURNS_OF_ALL = 12, 60


class Meter(Protocol):
    """Measures model files on a device.

    suffix: of the files that it takes. runtime: what runs them, by its name alone. threads: of it.
    """

    suffix: str
    runtime: str
    threads: int

    @property
    def device(self) -> str:
        """What the device says that it is: those of another kind say something else."""

    @property
    def system(self) -> str:
        """Its system; an update changes that."""

    @property
    def software(self) -> str:
        """What runs the files, with its version."""

    def measure(self, models: Sequence[Path]) -> list[Measurement]:
        """Latency of each model, run in turns. Raises UserError."""


class Local:
    """This machine."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.suffix = backend, backend.suffix
        self.runtime, self.threads = backend.name, backend.threads

    @property
    def device(self) -> str:
        """See ``Meter``."""
        return processor_name()

    @property
    def system(self) -> str:
        """See ``Meter``."""
        return platform.platform(terse=True)

    @property
    def software(self) -> str:
        """See ``Meter``."""
        return f"{self.backend.name} {self.backend.version}"

    def measure(self, models: Sequence[Path]) -> list[Measurement]:
        """See ``Meter``."""
        turns = max(_TURNS, _TURNS_OF_ALL // len(models))
        return measure_interleaved(self.backend, models, turns=turns)


class Compiler:
    """An NPU that only its compiler knows: the latency is what the compiler schedules."""

    suffix, runtime, threads = ".tflite", "vela", 1

    def __init__(self, vela: Vela) -> None:
        self.vela = vela

    @property
    def device(self) -> str:
        """See ``Meter``."""
        return self.vela.name

    @property
    def system(self) -> str:
        """See ``Meter``."""
        return str(self.vela.accelerator)

    @property
    def software(self) -> str:
        """See ``Meter``."""
        return f"vela {self.vela.version}"

    def measure(self, models: Sequence[Path]) -> list[Measurement]:
        """See ``Meter``. The same file always takes the same, so there is one run of each."""
        return [
            Measurement(self.software, "npu", 1, one.ms, 0, (one.ms,), estimated=True)
            for one in self.compile(models)
        ]

    def compile(self, models: Sequence[Path]) -> list[Compiled]:
        """All that the compiler says of each model. Raises UserError."""
        found = []
        for model in models:
            Litert(delegate="reference").image_shape(model)  # of a damaged file Vela crashes
            one = self.vela.compile(model.read_bytes())
            if one.on_cpu:
                raise UserError(
                    f"{one.on_cpu} of its operators cannot run on {self.vela.name}", str(model),
                    "those of the files that ofa-specialize writes can",
                )  # fmt: skip
            found.append(one)
        return found


class Farm:
    """Several devices of one kind, which share the models among them.

    Where one is lost its models go to the others, and what was measured stays.
    """

    def __init__(self, meters: Sequence[Board], tell: Callable[[str], None]) -> None:
        self.meters, self.suffix, self.tell = meters, meters[0].suffix, tell
        self.runtime, self.threads = meters[0].runtime, meters[0].threads

    @property
    def device(self) -> str:
        """See ``Meter``. Raises UserError where they are not of one kind."""
        return self._common("device")

    @property
    def system(self) -> str:
        """See ``Meter``. Raises UserError where they differ."""
        return self._common("system")

    @property
    def software(self) -> str:
        """See ``Meter``."""
        return self._common("software")

    def _common(self, what: str) -> str:
        found = {getattr(meter, what) for meter in self.meters}
        if len(found) > 1:
            raise UserError(
                f"the phones are of several kinds: {'; '.join(sorted(found))}", "--serial"
            )
        return str(found.pop())

    def measure(self, models: Sequence[Path]) -> list[Measurement]:
        """See ``Meter``."""
        return [one for (one,) in self._shared([[model] for model in models])]

    def measure_beside(
        self, reference: Path, models: Sequence[Path]
    ) -> list[tuple[Measurement, Measurement]]:
        """(reference, model) of each, both on one device: two of a kind are not equally fast."""
        return [(first, one) for first, one in self._shared([[reference, m] for m in models])]

    def _shared(self, groups: Sequence[Sequence[Path]]) -> list[list[Measurement]]:
        """Each group on one of the devices; one that fails there on another.

        Raises Unfinished where no device is left, or a group failed on all.
        """
        found: dict[int, list[Measurement]] = {}
        failed: list[dict[Board, UserError]] = [{} for _ in groups]
        alive = list(self.meters)
        while wanted := [index for index in range(len(groups)) if index not in found]:
            for index in wanted:
                if all(meter in failed[index] for meter in alive):
                    raise Unfinished(failed[index][alive[-1]], found)
            share = partial(_share, groups=groups, wanted=wanted, found=found, failed=failed)
            with ThreadPoolExecutor(len(alive)) as pool:
                try:
                    ends = list(pool.map(share, alive))
                except KeyboardInterrupt:
                    wanted.clear()  # what runs ends, and nothing else begins
                    raise
            alive = [meter for meter, end in zip(alive, ends, strict=True) if end is None]
            for error in filter(None, ends):
                if not alive:
                    raise Unfinished(error, found)
                self.tell(f"{error}; the others go on")
        return [found[index] for index in range(len(groups))]


def _share(
    meter: Board,
    groups: Sequence[Sequence[Path]],
    wanted: list[int],
    found: dict[int, list[Measurement]],
    failed: list[dict[Board, UserError]],
) -> UserError | None:
    """Measure what is wanted, one after the other, into ``found``; the error that lost the device.

    Another error is of a group, which is left to other devices then.
    """
    for index in list(wanted):
        if meter in failed[index]:
            continue
        try:
            wanted.remove(index)
        except ValueError:
            continue  # another one has taken it
        try:
            found[index] = meter.measure(groups[index])
        except UserError as error:
            if not meter.answers:
                return error
            failed[index][meter] = error
    return None


def here(name: str) -> Local:
    """This machine, in the runtime that ``host`` or ``host-onnxruntime`` names, on one thread."""
    return Local(HOSTS[name](threads=1))


def host_of(profile: Profile) -> str | None:
    """``host`` or ``host-onnxruntime``, where a profile was calibrated on this machine."""
    like = str(profile.provenance.get("like"))
    own = profile.provenance.get("source") == MEASURED_HERE
    return like if own and like in HOSTS and profile.hardware.soc == processor_name() else None


def reachable(name: str) -> bool:
    """Whether a device is measured without being connected: this machine, or a compiler's."""
    if name in HOSTS:
        return True
    profile = get_profile(name)
    if profile.hardware.device in ACCELERATORS:
        return Vela.installed()
    return host_of(profile) is not None


def uncompiled(profile: Profile) -> list[str]:
    """What to say of a profile of an NPU whose compiler was not asked."""
    if profile.hardware.device not in ACCELERATORS:
        if profile.limits is not None and profile.runtime.delegate == "npu":
            return [
                f"memory is of the activations alone: {profile.runtime.name}, its NPU's own "
                "compiler, plans it, and there are no sources for a firmware"
            ]
        return []
    missing = "" if Vela.installed() else ", since ethos-u-vela is not installed"
    return [
        f"the compiler was not asked{missing}: latency is the profile's "
        "estimate of what it says, memory is of the activations as they are in the layers, and "
        "there are no sources for a firmware"
    ]


def check_here(
    name: str, *, serials: Sequence[str], ssh: str | None, benchmark: Path | None
) -> None:
    """Raise UserError where options of another device come with what is asked on this machine."""
    elsewhere = {"--serial": serials, "--ssh": ssh, "--benchmark": benchmark}
    if given := [option for option, value in elsewhere.items() if value]:
        raise UserError(
            f"{name!r} is asked on this machine",
            " ".join(given),
            "name the profile that is nearest to the other device instead",
        )


def reach(
    name: str,
    *,
    serials: Sequence[str] = (),
    ssh: str | None = None,
    benchmark: Path | None = None,
    program: Literal["tflite", "onnxruntime"] = "tflite",
    tell: Callable[[str], None] = lambda _: None,
) -> Meter:
    """What measures on a device: this machine, phones over adb, or a board over ssh.

    name: ``host``, ``host-onnxruntime``, or a profile, which says how many threads run on which
    cores, or that it is of this machine; an Ethos-U is asked of its compiler. benchmark: the
    program, built for that device. Raises UserError.
    """
    host = name if name in HOSTS else host_of(get_profile(name))
    if host or get_profile(name).hardware.device in ACCELERATORS:
        check_here(name, serials=serials, ssh=ssh, benchmark=benchmark)
    if host is not None:
        return here(host)
    profile = get_profile(name)
    if profile.hardware.device in ACCELERATORS:
        return Compiler(Vela(profile.hardware.device))
    if profile.kind == "microcontroller":
        raise UserError(
            f"nothing here measures a microcontroller such as {name!r}",
            fix="ofa-device measure cortex-m55 MODEL runs it in an emulator and tells its memory",
        )
    if ssh is not None and serials:
        raise UserError("a board and a phone at once", "--ssh, --serial", "take one of them")
    tool = PROGRAMS[program]
    if profile.runtime.delegate not in (None, "cpu", "xnnpack"):
        raise UserError(
            f"{name!r} is of the device's {profile.runtime.delegate}, {tool.name} runs on its CPU",
            fix="take the profile of its CPU",
        )
    if benchmark is None:
        raise UserError(
            f"{name!r} is another device: its runtime's own program measures there",
            fix=f"add --benchmark PATH: {tool.name}, built for that device",
        )
    shells = [Ssh(ssh)] if ssh is not None else find_phones(list(serials))
    boards = [
        Board(
            shell, tool, benchmark, threads=profile.runtime.threads or 1,
            cores=profile.hardware.cores, tell=tell,
        )
        for shell in shells
    ]  # fmt: skip
    return boards[0] if len(boards) == 1 else Farm(boards, tell)
