"""The one exception for what a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: ``what`` is wrong, ``where``, and the nearest ``fix``.

    The command lines print it as one line on stderr and exit with code 2.
    """

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.fix}" if self.fix else text
