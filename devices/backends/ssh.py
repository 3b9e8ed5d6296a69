"""Boards over the ordinary ``ssh``."""

from __future__ import annotations

import shlex
from pathlib import Path

from devices.backends.process import call

__all__ = ["Ssh"]

_INSTALL = "install an ssh client (Debian: apt install openssh-client)"
_CHECK = "`ssh -o BatchMode=yes HOST true` must work: a key, and a known host"
_TROUBLES = {
    "permission denied (": ("it does not let us in", _CHECK),
    "host key verification failed": ("its host key is not known", _CHECK),
    "could not resolve": ("no such host", _CHECK),
    "connection refused": ("nothing listens for ssh there", _CHECK),
    "connection timed out": ("it does not answer", _CHECK),
    "connection closed": ("the connection broke", "is it still on?"),
    "connection reset": ("the connection broke", "is it still on?"),
    "no space left": ("its storage is full", "free some space in /tmp"),
    "exec format error": ("the program is built for another processor", "build it for the board"),
}


class Ssh:
    """A board. host: as ssh takes it: a name of ``~/.ssh/config``, or ``user@address``.

    options: of ssh, such as ``-F FILE``.
    """

    folder = "/tmp"

    def __init__(self, host: str, options: tuple[str, ...] = ()) -> None:
        self.host, self.name = host, f"board {host}"
        # Never a question: nobody may be there to answer it.
        self._options = (*options, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")

    def run(self, command: str, timeout_s: float = 30.0) -> str:
        """See ``Shell``."""
        # Whatever the user's own shell is there: zsh takes words and patterns otherwise.
        return self._call(f"exec sh -c {shlex.quote(command)}", timeout_s)

    def push(self, source: Path, target: str) -> None:
        """See ``Shell``."""
        # Not scp: it takes another form of host, and does not say what ssh says.
        self._call(f"cat > {target}", 120.0, source.read_bytes())

    def _call(self, command: str, timeout_s: float, given: bytes = b"") -> str:
        words = ["ssh", *self._options, self.host, command]
        return call(words, timeout_s, self.name, _INSTALL, _TROUBLES, given)
