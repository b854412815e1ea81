"""Protocol buffers, as far as `cri.proto` needs them: dicts to bytes and back. Pure.

Read from the .proto itself, so there is no generated code and no compiler to install. A field
that is not given, or has its type's zero, is not sent, and reads as that zero, as proto3 has it;
a message field that is not there reads as an empty dict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types: what follows a field's number."""

NUMBERS = {"int32", "int64", "uint32", "bool"}
WORDS = {"string", "bytes"}
ENTRY = "map entry"
"""How a map travels: as repeated messages of a key and a value."""

_MESSAGE = re.compile(r"message (\w+) \{([^}]*)\}")
_FIELD = re.compile(r"(repeated )?(map<string, string>|\w+) (\w+) = (\d+);")
_RPC = re.compile(r"rpc (\w+)\((\w+)\) returns \((\w+)\);")
_SERVICE = re.compile(r"service (\w+) \{([^}]*)\}")
_PACKAGE = re.compile(r"^package ([\w.]+);", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    number: int
    name: str
    type: str
    repeated: bool

    @property
    def is_map(self) -> bool:
        """Whether it is a map of strings."""
        return self.type.startswith("map<")

    @property
    def absent(self) -> Any:
        """What it reads as if it was not sent."""
        if self.repeated:
            return []
        if self.type in NUMBERS:
            return self.type == "bool" and False
        return {"string": "", "bytes": b""}.get(self.type, {})


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a service: its path, and the names of its two messages."""

    path: str
    request: str
    response: str


@dataclass(frozen=True, slots=True)
class Schema:
    """What a .proto says."""

    messages: Mapping[str, tuple[Field, ...]]
    calls: Mapping[str, Call] = field(default_factory=dict)

    def encode(self, name: str, values: Mapping[str, Any]) -> bytes:
        """Return *values* as message *name*. Raises KeyError for a field that it has not."""
        fields = {field.name: field for field in self.messages[name]}
        return b"".join(
            piece for key, value in values.items() for piece in self._pieces(fields[key], value)
        )

    def _pieces(self, field: Field, value: Any) -> Iterator[bytes]:
        if field.is_map:
            for key, word in value.items():
                yield _tagged(field.number, self.encode(ENTRY, {"key": key, "value": word}))
        elif field.repeated:
            for one in value:
                yield self._one(field, one)
        elif value:
            yield self._one(field, value)

    def _one(self, field: Field, value: Any) -> bytes:
        if field.type in NUMBERS:
            return _varint(field.number << 3 | VARINT) + _varint(int(value) % (1 << 64))
        if field.type == "string":
            return _tagged(field.number, value.encode())
        if field.type == "bytes":
            return _tagged(field.number, value)
        return _tagged(field.number, self.encode(field.type, value))

    def decode(self, name: str, data: bytes) -> Message:
        """Return message *name*, every field of it. Raises ValueError for what is none."""
        fields = {field.number: field for field in self.messages[name]}
        found: Message = {field.name: field.absent for field in fields.values()}
        for number, value in _split(data):
            if number in fields:
                self._put(found, fields[number], value)
        return found

    def _put(self, found: Message, field: Field, value: int | bytes) -> None:
        read = self._read(field, value)
        if field.is_map:
            found[field.name][read["key"]] = read["value"]
        elif field.repeated:
            found[field.name].append(read)
        else:
            found[field.name] = read

    def _read(self, field: Field, value: int | bytes) -> Any:
        if isinstance(value, int):
            signed = value - (1 << 64) if value >> 63 else value
            return bool(value) if field.type == "bool" else signed
        if field.type == "string":
            return value.decode()
        return value if field.type == "bytes" else self.decode(_type(field), value)


def _type(field: Field) -> str:
    return ENTRY if field.is_map else field.type


def _varint(value: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _tagged(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | LENGTH) + _varint(len(data)) + data


def _split(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the numbers of a message's fields, and what they hold."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        if kind == LENGTH:
            size, at = _read_varint(data, at)
        elif kind in {FIXED32, FIXED64}:
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"field {key >> 3} has wire type {kind}")
        if at + size > len(data):
            raise ValueError(f"field {key >> 3} is cut off")
        yield key >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def read_schema(text: str) -> Schema:
    """Return what a .proto without nested messages, enums or imports says."""
    entry = (Field(1, "key", "string", repeated=False), Field(2, "value", "string", repeated=False))
    messages = {
        name: tuple(
            Field(int(number), field, kind, repeated=bool(repeated))
            for repeated, kind, field, number in _FIELD.findall(body)
        )
        for name, body in _MESSAGE.findall(text)
    }
    found = _PACKAGE.search(text)
    package = f"{found[1]}." if found else ""
    calls = {
        name: Call(f"/{package}{service}/{name}", request, response)
        for service, body in _SERVICE.findall(text)
        for name, request, response in _RPC.findall(body)
    }
    return Schema({**messages, ENTRY: entry}, calls)
