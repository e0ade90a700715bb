"""DynamoDB items as plain JSON, and exactly back.

An item is what boto3's client gives: `{"name": {"S": "x"}, "size": {"N": "12"}}`. Its plain form is
`{"name": "x", "size": 12}`, with a note of the type for each value that JSON cannot hold: binary (base64), sets, and
numbers whose text a double would not give back. The notes are JSON pointers (RFC 6901) into the item:
`{"/picture": "B", "/tags/0": "NS"}`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import orjson

Item = dict[str, Any]
"""Attribute name to attribute value, the latter an object with one member: its type."""
Types = dict[str, str]
"""JSON pointer to the type of what is there."""

KINDS: Final = frozenset({"S", "N", "B", "SS", "NS", "BS", "L", "M", "BOOL", "NULL"})
"""DynamoDB's names of its types."""
MOST_LEVELS: Final = 32
"""Of maps and lists in each other that DynamoDB holds."""
SAFE_INTEGER: Final = 2**53
"""Beyond it a reader that knows doubles only (JavaScript) would change a number."""


class Number(str):
    """A number as it stands in a JSON text."""

    __slots__ = ()


def encode(item: Mapping[str, Any]) -> tuple[dict[str, Any], Types]:
    """The plain form of an item, and the notes without which it is not complete."""
    types: Types = {}
    return {name: _plain(value, _pointer("", name), types) for name, value in item.items()}, types


def _pointer(base: str, name: str) -> str:
    return f"{base}/{name.replace('~', '~0').replace('/', '~1')}"


def _plain(value: Mapping[str, Any], where: str, types: Types) -> Any:
    ((kind, content),) = value.items()
    match kind:
        case "S" | "BOOL":
            return content
        case "NULL":
            return None
        case "L":
            return [_plain(one, f"{where}/{index}", types) for index, one in enumerate(content)]
        case "M":
            return {name: _plain(one, _pointer(where, name), types) for name, one in content.items()}
        case "N":
            number = _double(content)
            if number is not None:
                return number
            types[where] = kind
            return content
    types[where] = kind
    match kind:
        case "SS" | "NS":
            return list(content)
        case "B":
            return base64.b64encode(content).decode()
        case "BS":
            return [base64.b64encode(one).decode() for one in content]
    raise ValueError(f"{where}: DynamoDB has no type {kind!r}")


def _double(text: str) -> int | float | None:
    """The number, if JSON gives this very text back for it."""
    try:
        number = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if isinstance(number, int) and abs(number) > SAFE_INTEGER:
        return None
    return number if orjson.dumps(number).decode() == text else None


def loads(text: bytes | str) -> Any:
    """JSON in which numbers keep the text they are written in: see `Number`. Raises ValueError."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_float=Number, parse_int=Number, parse_constant=refuse)


def decode(plain: Mapping[str, Any], types: Mapping[str, str] | None = None) -> Item:
    """The inverse of `encode`, for a plain form read by `loads`. Raises ValueError.

    Without notes it is the item that JSON says: this is how archives of other makers are read.
    """
    types = types or {}
    if not isinstance(plain, dict):
        raise ValueError("an item is no JSON object")
    return {name: _value(value, _pointer("", name), types) for name, value in plain.items()}


def _value(value: Any, where: str, types: Mapping[str, str]) -> dict[str, Any]:
    kind = types.get(where)
    if kind is not None:
        try:
            return {kind: _TYPED[kind](value)}
        except (KeyError, TypeError, binascii.Error, ValueError):
            raise ValueError(f"{where} is no value of DynamoDB's type {kind}") from None
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, Number):
        return {"N": str(value)}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, list):
        return {"L": [_value(one, f"{where}/{index}", types) for index, one in enumerate(value)]}
    if isinstance(value, dict):
        return {"M": {name: _value(one, _pointer(where, name), types) for name, one in value.items()}}
    raise ValueError(f"{where}: {type(value).__name__} is no JSON")


def _binary(value: Any) -> bytes:
    return base64.b64decode(value, validate=True)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return str(value)


_TYPED: Final[Mapping[str, Callable[[Any], Any]]] = {
    "N": _text,
    "B": _binary,
    "SS": lambda value: [_text(one) for one in value],
    "NS": lambda value: [_text(one) for one in value],
    "BS": lambda value: [_binary(one) for one in value],
}


def comparable(item: Mapping[str, Any]) -> dict[str, Any]:
    """The plain form for filters: numbers are numbers, also those that a double only comes near to."""
    return {name: _comparable(value) for name, value in item.items()}


def _comparable(value: Mapping[str, Any]) -> Any:
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return json.loads(content) if re.fullmatch(r"-?\d+", content) else float(content)
        case "NS":
            return [_comparable({"N": one}) for one in content]
        case "M":
            return comparable(content)
        case "L":
            return [_comparable(one) for one in content]
    return _plain(value, "", {})


def refusal(item: Mapping[str, Any]) -> str:
    """Why this can be no item of DynamoDB's, empty if it can: what other makers wrote may hold anything that is JSON.

    >>> refusal({"id": {"S": "x"}, "much": {"N": "1e400"}})
    'the number 1e400 is beyond what DynamoDB holds'
    """
    try:
        for name, value in item.items():
            name.encode()
            _refuse(value, 1)
    except UnicodeEncodeError:
        return "a text is no Unicode"
    except ValueError as error:
        return str(error)
    return ""


def _refuse(value: Mapping[str, Any], level: int) -> None:
    """Raises ValueError."""
    if level > MOST_LEVELS:
        raise ValueError(f"it is nested deeper than {MOST_LEVELS} levels")
    ((kind, content),) = value.items()
    match kind:
        case "S":
            content.encode()
        case "N":
            number_text(content)
        case "L":
            for one in content:
                _refuse(one, level + 1)
        case "M":
            for name, one in content.items():
                name.encode()
                _refuse(one, level + 1)


def size(item: Mapping[str, Any]) -> int:
    """About how many bytes DynamoDB counts for an item; never much less. Names and contents, a bit for each value."""
    return sum(len(name.encode()) + _size(value) for name, value in item.items())


def _size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return 1 + len(content.encode())
        case "N":
            return 2 + len(content) // 2 + 1
        case "B":
            return 1 + len(content)
        case "L":
            return 3 + sum(1 + _size(one) for one in content)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _size(one) for name, one in content.items())
        case "SS":
            return 3 + sum(1 + len(one.encode()) for one in content)
        case "NS" | "BS":
            return 3 + sum(3 + len(one) for one in content)
    return 1


def key_text(value: Mapping[str, Any]) -> str:
    """The value of a key attribute as one string, for manifests and command lines.

    >>> key_text({"S": "a:b"}), key_text({"N": "7.0"}), key_text({"B": b"x"})
    ('S:a:b', 'N:7', 'B:eA==')
    """
    ((kind, content),) = value.items()
    return f"{kind}:{_key_texts[kind](content) if kind in _key_texts else content}"


def number_text(text: str) -> str:
    """The same text for equal numbers. Raises ValueError for what is none that DynamoDB holds.

    >>> number_text("7.0"), number_text("1E3"), number_text("0.10")
    ('7', '1000', '0.1')
    """
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is no number") from None
    if not number.is_finite() or abs(number.adjusted()) > 130:
        raise ValueError(f"the number {text[:40]} is beyond what DynamoDB holds")
    return f"{number.normalize():f}"


_key_texts: Final[Mapping[str, Callable[[Any], str]]] = {
    "B": lambda content: base64.b64encode(content).decode(),
    "N": number_text,
}
