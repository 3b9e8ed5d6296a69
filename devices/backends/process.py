"""Other programs: called, waited for, and their failures in one line."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from ofa.errors import UserError

__all__ = ["call"]


_TIMED_OUT = 124  # what ``timeout`` there returns


def call(
    command: list[str],
    timeout_s: float,
    where: str,
    install: str,
    troubles: Mapping[str, tuple[str, str]],
    given: bytes = b"",
) -> str:
    """What a program prints, on both streams.

    where, install: for messages: what it talks to, and how to get the program. troubles: what it
    may say when it fails, in small letters -> (what that means, what helps). given: what it
    reads on its standard input.
    Raises UserError where it is missing, hangs, or fails.
    """
    hangs = UserError(
        f"no answer in {timeout_s:g} s", where,
        "is it awake, still connected, and not too slow for the model?",
    )  # fmt: skip
    try:
        done = subprocess.run(
            command,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise UserError(f"{command[0]} is not installed", where, install) from error
    except subprocess.TimeoutExpired as error:
        raise hangs from error
    if done.returncode == _TIMED_OUT:
        raise hangs
    text = done.stdout.decode(errors="replace")
    if done.returncode == 0:
        return text
    said = text.casefold()
    for sign, (meaning, fix) in troubles.items():
        if sign in said:
            raise UserError(meaning, where, fix)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    raise UserError(f"it failed with code {done.returncode}: {lines[-1][:200]}", where)
