"""A device at the other end of a shell: a phone over adb, a board over ssh.

The steps are the same for both: push the benchmark program and the models into a folder of our own,
pin to the cores that a profile names, run the models in turns, read what is printed, see that the
device was quiet and not throttled, and clean up.
"""

from __future__ import annotations

import hashlib
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol

from devices.backends.programs import Program, Summary
from devices.measure import Measurement
from ofa.errors import UserError

__all__ = ["Board", "Shell", "Unfinished", "cores_to_use"]

_REPEATS = 3
_RUNS = 50  # of each repeat
_TRIES = 3  # of a call whose figures are rejected
_TIMEOUT_S = 120.0  # of a call; one that takes longer hangs
_PAUSE_S = 1.0

# A call is rejected where its runs deviate by more than this share of their mean, on one core and
# on several, or where the frequency sinks below this share of the highest; a measurement where its
# repeats differ by more than that.
_DEVIATION, _DEVIATION_OF_MANY, _DRIFT = 0.05, 0.20, 0.05
_FREQUENCY = 0.95

_CPU = "/sys/devices/system/cpu"
_CORES = re.compile(r"(\d+) ?(large|med|small)")
_MARK = "ofa-specializer"


class Shell(Protocol):
    """Commands on another machine. name: for messages. folder: where files may be put and run."""

    name: str
    folder: str

    def run(self, command: str, timeout_s: float = 30.0) -> str:
        """What a shell command prints, on both streams. Raises UserError where it fails."""

    def push(self, source: Path, target: str) -> None:
        """Copy a file there. Raises UserError."""


class Unfinished(UserError):
    """An error, with what was measured beside it. found: index of a model -> its own."""

    def __init__(self, error: UserError, found: Mapping[int, Sequence[Measurement]]) -> None:
        super().__init__(error.what, error.where, error.fix)
        self.found = found


class Board:
    """Measures models with a benchmark program through a shell.

    tool: the program, built for that device. cores: as a profile names them ("1large", "3med");
    with anything else, such as "4 threads, not pinned", the device chooses.
    """

    def __init__(
        self,
        shell: Shell,
        program: Program,
        tool: Path,
        *,
        threads: int = 1,
        cores: str = "",
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not tool.is_file():
            raise UserError(
                f"{program.name} is needed, built for that device", f"--benchmark {tool}"
            )
        self.shell, self.program, self.tool = shell, program, tool
        self.suffix, self.runtime = program.suffix, program.runtime
        self.threads, self.cores, self.tell = threads, cores, tell

    @cached_property
    def device(self) -> str:
        """Make and model as a phone, or else any Linux, tells them."""
        return self._told(
            "getprop ro.product.manufacturer 2>/dev/null; getprop ro.product.model 2>/dev/null; "
            "tr -d '\\0' 2>/dev/null < /proc/device-tree/model; echo; uname -m"
        )

    @cached_property
    def system(self) -> str:
        """Release of Android, if it is that, and kernel."""
        return self._told("getprop ro.build.version.release 2>/dev/null; uname -sr")

    @cached_property
    def software(self) -> str:
        """The program, and which build of it."""
        digest = hashlib.sha256(self.tool.read_bytes()).hexdigest()
        return f"{self.program.name} {digest[:8]}"

    def _told(self, command: str) -> str:
        # What comes before the mark is a banner, or a warning of the login shell.
        text = self.shell.run(f"echo {_MARK}; {command}").partition(_MARK)[2]
        return ", ".join(filter(None, map(str.strip, text.splitlines())))

    @property
    def answers(self) -> bool:
        """Whether it is still there: an error that it told is of a model then."""
        try:
            self.shell.run("true")
        except UserError:
            return False
        return True

    def measure(self, models: Sequence[Path]) -> list[Measurement]:
        """Latency of each model, run in turns. Raises UserError; Unfinished where some drifted."""
        with self._folder() as folder:
            tool = f"{folder}/{self.program.name}"
            self.shell.push(self.tool, tool)
            self.shell.run(f"chmod +x {tool}")
            files = [f"{folder}/{index}{self.program.suffix}" for index in range(len(models))]
            for model, file in zip(models, files, strict=True):
                self.shell.push(model, file)
            speeds = self._speeds()
            pinned = cores_to_use(speeds, self.cores)
            watched = pinned or tuple(speeds)
            if _CORES.search(self.cores) and not pinned:
                self.tell(f"{self.shell.name}: not pinned, {self.cores!r} cannot be told there")
            turns = random.Random(0)
            found: list[list[Summary]] = [[] for _ in models]
            failed: dict[int, UserError] = {}
            for repeat in range(_REPEATS):
                for index in turns.sample(range(len(models)), len(models)):
                    if index in failed:
                        continue
                    try:
                        found[index].append(self._call(tool, files[index], pinned, watched))
                    except UserError as error:
                        if not self.answers:
                            raise
                        failed[index] = error
                if len(failed) == len(models):
                    break
                self.tell(f"{self.shell.name}: repeat {repeat + 1} of {_REPEATS} done")
        joined: dict[int, Sequence[Measurement]] = {}
        for index, (summaries, model) in enumerate(zip(found, models, strict=True)):
            if index not in failed:
                try:
                    joined[index] = (self._joined(summaries, str(model)),)
                except UserError as error:
                    failed[index] = error
        if failed:
            raise Unfinished(failed[min(failed)], joined)
        return [one for (one,) in joined.values()]

    @contextmanager
    def _folder(self) -> Iterator[str]:
        folder = f"{self.shell.folder}/ofa-{time.time_ns():x}"
        self.shell.run(f"mkdir -p {folder}")
        try:
            yield folder
        finally:
            try:
                self.shell.run(f"rm -rf {folder}")
            except UserError as error:  # the device is gone; the first error says more
                self.tell(f"{self.shell.name}: {folder} may be left there ({error})")

    def _speeds(self) -> dict[int, int]:
        """CPU -> its highest frequency in kHz; empty where the device does not tell."""
        text = self.shell.run(
            f"for f in {_CPU}/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do "
            '[ -r "$f" ] && echo "$f $(cat "$f")"; done; true'
        )
        found = re.findall(r"cpu(\d+)/cpufreq/cpuinfo_max_freq (\d+)", text)
        return {int(cpu): int(khz) for cpu, khz in found}

    def _call(
        self, tool: str, file: str, pinned: tuple[int, ...], watched: tuple[int, ...]
    ) -> Summary:
        """One call of the program, made again where something disturbed it.

        watched: the CPUs that it may run on.
        """
        command = f"$limit {self.program.command(tool, file, self.threads, _RUNS)}"
        if pinned:
            command = f"taskset {sum(1 << cpu for cpu in pinned):x} {command}"
        # Where we give up the program shall end too, and not disturb what comes next.
        ends = f"timeout {_TIMEOUT_S - 2:.0f}"
        command = f'limit=$(command -v timeout >/dev/null && echo "{ends}"); {command}'
        reason = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_S)
            summary = self.program.parse(self.shell.run(command, _TIMEOUT_S))
            reason = self._disturbed(summary, watched)
            if not reason:
                return summary
            self.tell(f"{self.shell.name}: rejected, {reason}")
        raise UserError(
            f"no quiet measurement in {_TRIES} tries: {reason}",
            self.shell.name,
            "let it cool down, close other apps, and try again",
        )

    def _disturbed(self, summary: Summary, cpus: tuple[int, ...]) -> str:
        """Why a call does not count; empty where it does."""
        most = _DEVIATION if self.threads == 1 else _DEVIATION_OF_MANY
        if summary.std_ms > most * summary.mean_ms:
            return f"its runs deviate by {100 * summary.std_ms / summary.mean_ms:.0f} %"
        if not cpus:
            return ""
        told = self.shell.run(
            f"for c in {' '.join(map(str, cpus))}; do cd {_CPU}/cpu$c/cpufreq && "
            'echo "cpu $c $(cat scaling_max_freq) $(cat cpuinfo_max_freq)"; done; true'
        )
        for cpu, now, most in re.findall(r"^cpu (\d+) (\d+) (\d+)$", told, re.MULTILINE):
            if int(now) < _FREQUENCY * int(most):
                return f"core {cpu} is throttled to {int(now) // 1000} MHz"
        return ""

    def _joined(self, summaries: list[Summary], model: str) -> Measurement:
        means = [summary.mean_ms for summary in summaries]
        if max(means) > (1 + _DRIFT) * min(means) and max(means) - min(means) > 0.02:
            raise UserError(
                f"repeats of one model took {min(means):.2f} to {max(means):.2f} ms "
                f"on {self.shell.name}",
                model,
                "let the device cool down, close other apps, and try again",
            )
        return Measurement(
            runtime=self.program.runtime,
            delegate=self.program.delegate,
            threads=self.threads,
            first_ms=summaries[0].first_ms,
            warmup=self.program.warmup,
            raw_ms=tuple(means),
            told_p90_ms=statistics.median(summary.p90_ms for summary in summaries),
        )


def cores_to_use(speeds: dict[int, int], cores: str) -> tuple[int, ...]:
    """The CPUs that a profile's ``cores`` mean on a device; () where that cannot be said.

    speeds: CPU -> highest frequency in kHz. CPUs of one frequency are of one kind: the fastest are
    large, the slowest small, those between medium; of two kinds there are no medium ones. A prime
    core is a kind of its own: with it, ``1large`` is that core.
    """
    kinds = sorted(set(speeds.values()), reverse=True)
    named = {"large": kinds[:1], "small": kinds[1:][-1:], "med": kinds[1:-1]}
    chosen: list[int] = []
    for count, kind in _CORES.findall(cores):
        of_kind = sorted(cpu for cpu, khz in speeds.items() if khz in named[kind])
        if len(of_kind) < int(count):
            return ()
        chosen += of_kind[: int(count)]
    return tuple(sorted(chosen))
