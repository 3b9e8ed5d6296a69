"""Reading a JSON file that people may edit: each field is checked and named when it is wrong."""

from __future__ import annotations

import json
import math
from types import UnionType
from typing import Any

from ofa.errors import UserError

__all__ = ["Document"]


class Document:
    """JSON whose fields are taken by dotted path. What is wrong with one raises UserError.

    where: the file, for messages.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        try:
            self.data: Any = json.loads(text)
        except ValueError as error:
            raise UserError(f"not JSON ({error})", where) from error

    def error(self, path: str, problem: str) -> UserError:
        """What to raise for a field."""
        return UserError(f"field '{path}' {problem}", self.where)

    def take(self, path: str, kind: type | UnionType, optional: bool = False) -> Any:
        """The value of that type at ``path``; None where it is optional and not there."""
        value, keys = self.data, path.split(".")
        for depth, key in enumerate(keys, start=1):
            if not isinstance(value, dict) or key not in value:
                if optional:
                    return None
                raise self.error(".".join(keys[:depth]), "is missing")
            value = value[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            name = kind.__name__ if isinstance(kind, type) else str(kind)
            raise self.error(path, f"is {value!r}, not {name}")
        return value

    def expect(self, path: str, text: str) -> None:
        """Refuse any other text."""
        self.one_of(path, (text,))

    def one_of(self, path: str, texts: tuple[str, ...]) -> Any:
        """One of these texts."""
        value = self.take(path, str)
        if value not in texts:
            raise self.error(path, f"is {value!r}, not {' or '.join(map(repr, texts))}")
        return value

    def texts(self, path: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self.take(path, list)
        if not all(isinstance(value, str) for value in values):
            raise self.error(path, f"is {values!r}, not a list of strings")
        return tuple(values)

    def numbers(
        self,
        path: str,
        *required: str,
        low: float = 0.0,
        signed: tuple[str, ...] = (),
        optional: bool = False,
        holes: bool = False,
    ) -> dict[str, float]:
        """An object of finite numbers of at least ``low``; with names, exactly those.

        signed: names that may be below. holes: leave out what is null.
        """
        values = self.take(path, dict, optional) or {}
        if holes:
            values = {name: value for name, value in values.items() if value is not None}
        for name in dict.fromkeys((*required, *values)):
            if name not in values:
                raise self.error(path, f"has no {name!r}")
            if required and name not in required:
                raise self.error(path, f"has an unknown {name!r}")
            value = values[name]
            if not _is_number(value) or (value < low and name not in signed):
                least = f" of {low:g} or more" if low > -math.inf else ""
                raise self.error(path, f"has {name!r} = {value!r}, not a number{least}")
        return {name: float(value) for name, value in values.items()}

    def span(self, path: str) -> tuple[float, float]:
        """A list of two numbers, the lower one first."""
        values = self.take(path, list)
        if len(values) != 2 or not all(map(_is_number, values)) or values[0] > values[1]:
            raise self.error(path, f"is {values!r}, not [lowest, highest]")
        return values[0], values[1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
