"""FlatBuffers written from values, without generated code.

A ``Schema`` names the fields of a table in the order of its ``.fbs`` file; calling it gives a
``Table``, a value; ``finish`` writes the tree of tables below a root:

    POINT = Schema("x:int32", "y:int32", "name:string")
    data = finish(POINT(x=1, name="here"), identifier=b"POIN")

Only fields that are given are written, whatever the schema's defaults are, so nothing depends on
our knowing them. Same values, same bytes.

Format: https://flatbuffers.dev/internals
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flatbuffers.builder import Builder

__all__ = ["Schema", "Table", "finish"]

#: Scalar types -> the builder's word for them.
_SCALARS = {
    "bool": "Bool",
    "int8": "Int8",
    "uint8": "Uint8",
    "int32": "Int32",
    "uint32": "Uint32",
    "int64": "Int64",
    "float32": "Float32",
}

#: What the TFLite schema asks of constant data (``force_align: 16``). The code that flatc
#: generates for Python does not honour it.
_DATA_ALIGNMENT = 16


class Schema:
    """A kind of table. Its fields are ``name:type``, in the order of the slots of the vtable.

    Types: a scalar (``int32``); ``string``; ``table``; ``data``, bytes or an array written as an
    aligned vector of ubyte; a vector of scalars, strings or tables (``[int32]``); and ``union``,
    one of several kinds of table, which takes two slots. A field that must keep its slot but is
    never given is ``_``.

    member: the number of this kind of table in the union that it belongs to.
    """

    def __init__(self, *fields: str, member: int = 0) -> None:
        self.member = member
        self.slots: dict[str, tuple[int, str]] = {}  # name -> (slot, type)
        self.size = 0
        for field in fields:
            name, _, kind = field.partition(":")
            if name != "_":
                self.slots[name] = (self.size, kind)
            self.size += 2 if kind == "union" else 1

    def __call__(self, **values: Any) -> Table:
        """A table with these fields; one that is None is left out."""
        unknown = values.keys() - self.slots.keys()
        if unknown:
            raise TypeError(f"no field {unknown.pop()!r} among {', '.join(self.slots)}")
        return Table(self, {key: value for key, value in values.items() if value is not None})


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table to be written: its schema, and the values of the fields that it has."""

    schema: Schema
    values: Mapping[str, Any]


def finish(root: Table, identifier: bytes) -> bytes:
    """The bytes of a file: ``root`` and all below it, with a four-byte file identifier."""
    builder: Any = Builder(1 << 16)
    builder.Finish(_write_table(builder, root), identifier)
    return bytes(builder.Output())


def _write_table(builder: Any, table: Table) -> int:
    """The offset of ``table``. What it refers to is written first: tables cannot nest."""
    schema = table.schema
    fields: list[tuple[int, str, Any]] = []  # slot, scalar type or "offset", value
    for name, value in table.values.items():
        slot, kind = schema.slots[name]
        if kind in _SCALARS:
            fields.append((slot, kind, value))
        elif kind == "union":
            fields.append((slot, "uint8", value.schema.member))
            fields.append((slot + 1, "offset", _write_table(builder, value)))
        else:
            fields.append((slot, "offset", _write_reference(builder, kind, value)))
    builder.StartObject(schema.size)
    for slot, kind, value in fields:
        if kind == "offset":
            builder.PrependUOffsetTRelative(value)
        else:
            getattr(builder, f"Prepend{_SCALARS[kind]}")(value)
        builder.Slot(slot)
    offset: int = builder.EndObject()
    return offset


def _write_reference(builder: Any, kind: str, value: Any) -> int:
    """The offset of something that lies outside its table."""
    offset: int
    if kind == "table":
        return _write_table(builder, value)
    if kind == "data":
        return _write_data(builder, value)
    if kind == "string":
        offset = builder.CreateString(value)
        return offset
    element = kind[1:-1]
    if element in _SCALARS:
        offset = builder.CreateNumpyVector(np.asarray(value, element))
        return offset
    offsets = [_write_reference(builder, element, item) for item in value]
    builder.StartVector(4, len(offsets), 4)
    for item in reversed(offsets):
        builder.PrependUOffsetTRelative(item)
    offset = builder.EndVector()
    return offset


def _write_data(builder: Any, value: Any) -> int:
    """An aligned vector of ubyte, copied at once: the builder's own way is byte by byte."""
    data = memoryview(np.ascontiguousarray(value).data if isinstance(value, np.ndarray) else value)
    builder.StartVector(1, data.nbytes, _DATA_ALIGNMENT)
    start = builder.head - data.nbytes
    builder.Bytes[start : builder.head] = data.cast("B")
    builder.head = start
    offset: int = builder.EndVector()
    return offset
