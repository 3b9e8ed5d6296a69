"""Android phones over the ordinary ``adb``."""

from __future__ import annotations

from pathlib import Path

from devices.backends.process import call
from ofa.errors import UserError

__all__ = ["Adb", "find_phones"]

_INSTALL = "install Android's platform tools (Debian: apt install adb)"
#: A phone's state, as ``adb devices`` lists it -> what it means, and what helps.
_STATES = {
    "unauthorized": ("the phone does not trust this computer", "unlock it and allow USB debugging"),
    "offline": ("the phone is offline", "plug it in again, or `adb reconnect`"),
    "not found": ("the phone is gone", "plug it in again; `adb devices` lists what is there"),
}
#: The same of what adb, or the phone, says.
_TROUBLES = {
    "device unauthorized": _STATES["unauthorized"],
    "device offline": _STATES["offline"],
    "device not found": _STATES["not found"],
    "' not found": _STATES["not found"],
    "no devices": _STATES["not found"],
    ": closed": ("the connection broke", "plug it in again"),
    "no space left": ("the phone's storage is full", "free some space in /data/local/tmp"),
    "exec format error": ("the program is built for another processor", "take that of its ABI"),
    "not executable": ("the program is built for another processor", "take that of its ABI"),
}


class Adb:
    """A phone. serial: as ``adb devices`` lists it."""

    folder = "/data/local/tmp"

    def __init__(self, serial: str) -> None:
        self.serial, self.name = serial, f"phone {serial}"

    def run(self, command: str, timeout_s: float = 30.0) -> str:
        """See ``Shell``."""
        return self._adb("shell", command, timeout_s=timeout_s)

    def push(self, source: Path, target: str) -> None:
        """See ``Shell``."""
        self._adb("push", str(source), target, timeout_s=120.0)

    def _adb(self, *arguments: str, timeout_s: float) -> str:
        command = ["adb", "-s", self.serial, *arguments]
        return call(command, timeout_s, self.name, _INSTALL, _TROUBLES)


def find_phones(serials: list[str]) -> list[Adb]:
    """The phones of these serials; without any, the only one there is. Raises UserError."""
    listing = call(["adb", "devices"], 30.0, "adb", _INSTALL, _TROUBLES)
    states = dict(line.split("\t", 1) for line in listing.splitlines() if "\t" in line)
    if not serials:
        if not states:
            raise UserError("no phone is connected", "adb", "plug one in and allow USB debugging")
        if len(states) > 1:
            raise UserError(
                f"{len(states)} phones are connected: {', '.join(states)}", "adb", "add --serial"
            )
        serials = list(states)
    for serial in serials:
        if serials.count(serial) > 1:
            raise UserError("a phone is named twice", f"--serial {serial}", "name each once")
        state = states.get(serial, "not found").strip()
        if state != "device":
            trouble, fix = _STATES.get(state, (f"the phone is in state {state!r}", "see adb"))
            raise UserError(trouble, f"--serial {serial}", fix)
    return [Adb(serial) for serial in serials]
