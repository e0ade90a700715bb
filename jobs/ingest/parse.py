"""One NDJSON line to one row. Pure: no database, no files, no clock.

A line is an object with `tenant_id`, `entity_id`, `attribute`, `observed_at` and `value`; other keys are
ignored, and of a key given twice the last one counts. Whatever a line holds, `parse_line` answers with one of

* `None`: the line is blank;
* a `Good` tuple: the line can be staged, its attribute is still a name;
* a `Bad` row: the line goes to the rejected values, with its bytes and a reason.

Numbers keep every digit that was written. orjson reads fractions as doubles, so a fraction's text is taken
from the line itself; where that is not certain, or orjson refuses the number, the line is read again by the
standard library, which hands over the digits as they stand.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal

import orjson

KEPT_BYTES: Final = 64 * 1024
"""So much of a rejected line is kept."""

MAX_NAME: Final = 200
"""Characters an attribute's name may have."""

DIGITS: Final = 1000
"""Digits a number may have on either side of the point; numeric holds more, no measurement needs them."""

Reason = Literal["malformed", "missing_field", "wrong_type"]


Kind = Literal["number", "text", "boolean"]
"""What the value of a row is."""

Good = tuple[int, int, int, str, str, Kind, str]
"""offset, tenant_id, entity_id, attribute, observed_at (as written, or in UTC), kind, the value as text."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that cannot be staged. `note` says what `raw` lacks; the ids are there if they could be read."""

    offset: int
    reason: Reason
    raw: bytes
    note: str | None = None
    tenant_id: int | None = None
    entity_id: int | None = None


class Digits(str):
    """A JSON number as it was written."""

    __slots__ = ()


_FIELDS: Final = ("tenant_id", "entity_id", "attribute", "observed_at", "value")
_BIGINT_MIN: Final = -(2**63)
_BIGINT_MAX: Final = 2**63 - 1
_VALUE_KEY: Final = b'"value"'
_BACKSLASH: Final = 92
_LAST_NUMBER: Final = re.compile(rb"\s*:\s*(-?[0-9.]{1,25})\s*\}\s*").fullmatch
_INNER_NUMBER: Final = re.compile(rb"\s*:\s*(-?[0-9.]{1,25})\s*,").match
_PLAIN_INTEGER: Final = 18  # digits of an integer that needs no look at its size
_RFC3339: Final = re.compile(
    r"[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch
_MINUTE: Final = re.compile(r"([0-9]{4}-[01][0-9]-[0-3][0-9])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:").fullmatch
_SECONDS: Final = re.compile(r"[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|\+00:00)").fullmatch


class _WrongTypeError(Exception):
    """A field holds what its column cannot."""


def parse_lines(lines: Sequence[bytes], first: int) -> list[Good | Bad]:
    """The rows of lines of which the first is number `first`; blank ones have none."""
    rows = map(parse_line, lines, itertools.count(first))
    return [row for row in rows if row is not None]


def parse_line(line: bytes, offset: int) -> Good | Bad | None:
    """The row of one line (without its newline), which is number `offset` of its source. Never raises."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not line or line.isspace():
            return None
        return _exact(line, offset)
    try:
        tenant_id = record["tenant_id"]
        entity_id = record["entity_id"]
        attribute = record["attribute"]
        observed_at = record["observed_at"]
        value = record["value"]
    except (KeyError, TypeError, IndexError):
        return _unusable(record, line, offset)
    kind: Kind
    if type(value) is float:
        # The last member of the object, as nearly everyone writes it: these digits are the value's. Not if
        # the quote before "value" is part of a longer key, or if another member comes after it.
        key = line.rfind(_VALUE_KEY)
        found = _LAST_NUMBER(line, key + 7)
        if found is None or key < 0 or line[key - 1] == _BACKSLASH:
            found = _only_number(line, key)
            if found is None:
                return _exact(line, offset)
        kind, text = "number", found[1].decode()
    elif type(value) is int:
        kind, text = "number", str(value)
    elif type(value) is str and "\0" not in value:
        kind, text = "text", value
    else:
        return _checked(record, value, line, offset)
    # The common case in few steps; whatever is not common is looked at closely.
    if (
        type(tenant_id) is int
        and type(entity_id) is int
        and _BIGINT_MIN <= tenant_id <= _BIGINT_MAX
        and _BIGINT_MIN <= entity_id <= _BIGINT_MAX
        and type(attribute) is str
        and 0 < len(attribute) <= MAX_NAME
        and "\0" not in attribute
        and type(observed_at) is str
        and _SECONDS(observed_at, 17) is not None
        and is_minute(observed_at[:17])
    ):
        return (offset, tenant_id, entity_id, attribute, observed_at, kind, text)
    return _checked(record, Digits(text) if kind == "number" else value, line, offset)


@lru_cache(maxsize=4096)  # nearly all lines are of the same few hours
def is_minute(text: str) -> bool:
    """Whether `text` is the beginning of an RFC 3339 time, up to its seconds, on a day of the calendar.

    >>> is_minute("2024-02-29T20:55:"), is_minute("2026-02-29T20:55:"), is_minute("2026-11-21T24:00:")
    (True, False, False)
    """
    found = _MINUTE(text)
    if found is None:
        return False
    try:
        date.fromisoformat(found[1])
    except ValueError:
        return False
    return True


def timestamp(text: str) -> str | None:
    """An RFC 3339 time as PostgreSQL takes it, or None if it is none (or outside the years 1 to 9999 in UTC).

    Accepted are `Z` and offsets, lower-case `t` and `z`, a space for the `T`, up to nine digits of a second,
    and a leap second, which becomes the second after it.
    """
    if _SECONDS(text, 17) is not None and is_minute(text[:17]):
        return text
    if _RFC3339(text) is None:
        return None
    leap = text[17:19] == "60"
    plain = f"{text[:17]}59{text[19:]}" if leap else text
    try:
        moment = datetime.fromisoformat(plain.upper())
        return (moment + timedelta(seconds=int(leap))).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return None


def _only_number(line: bytes, key: int) -> re.Match[bytes] | None:
    """The number behind `"value"` at `key`, if it is the only one in the line and no key is hidden by escapes."""
    if key < 0 or line.find(_VALUE_KEY) != key or b"\\" in line:
        return None
    return _INNER_NUMBER(line, key + 7)


def too_long(offset: int, head: bytes, size: int, sha256: str) -> Bad:
    """The row of a line of `size` bytes of which only the beginning, `head`, was kept."""
    return Bad(offset, "malformed", head[:KEPT_BYTES], f"{size} bytes, sha256 {sha256}")


def rejected(reason: Reason, line: bytes, offset: int, record: object = None, note: str | None = None) -> Bad:
    """The row of a bad line, cut to what is kept, with the tenant and the entity if they can be read."""
    if len(line) > KEPT_BYTES:
        note = f"{len(line)} bytes, the first {KEPT_BYTES} kept"
    ids: list[int | None] = [None, None]
    if isinstance(record, dict):
        for place, field in enumerate(("tenant_id", "entity_id")):
            found = record.get(field)
            if isinstance(found, int) and not isinstance(found, bool) and _BIGINT_MIN <= found <= _BIGINT_MAX:
                ids[place] = found
    return Bad(offset, reason, line[:KEPT_BYTES], note, *ids)


def _exact(line: bytes, offset: int) -> Good | Bad:
    """Read a line with every number as written: slow, for lines that orjson refused or cannot settle."""
    try:
        text = line.decode()
        record = json.loads(text, parse_float=Digits, parse_int=_integer, parse_constant=_constant)
        if "\\" in text:
            # A lone surrogate, which only an escape can be, is no text: no encoding of it exists.
            json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return rejected("malformed", line, offset)
    if not isinstance(record, dict) or any(record.get(field) is None for field in _FIELDS):
        return _unusable(record, line, offset)
    return _checked(record, record["value"], line, offset)


def _integer(text: str) -> int | Digits:
    return int(text) if len(text) <= _PLAIN_INTEGER else Digits(text)


def _constant(name: str) -> list[str]:
    """NaN and the infinities: no JSON, but what some writers emit. A list is of the wrong type everywhere."""
    return [name]


def _unusable(record: object, line: bytes, offset: int) -> Bad:
    return rejected("missing_field" if isinstance(record, dict) else "malformed", line, offset, record)


def _checked(record: dict[str, Any], value: object, line: bytes, offset: int) -> Good | Bad:
    """The row of an object with every field, each looked at; `value` may be more exact than its own."""
    if any(record[field] is None for field in _FIELDS):
        return rejected("missing_field", line, offset, record)
    try:
        kind, text = _value(value)
        return (
            offset,
            _bigint(record["tenant_id"]),
            _bigint(record["entity_id"]),
            _name(record["attribute"]),
            _observed_at(record["observed_at"]),
            kind,
            text,
        )
    except _WrongTypeError:
        return rejected("wrong_type", line, offset, record)


def _bigint(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and _BIGINT_MIN <= value <= _BIGINT_MAX:
        return value
    raise _WrongTypeError


def _name(value: object) -> str:
    if (
        isinstance(value, str)
        and not isinstance(value, Digits)
        and 0 < len(value) <= MAX_NAME
        and "\0" not in value
    ):
        return value
    raise _WrongTypeError


def _observed_at(value: object) -> str:
    found = timestamp(value) if isinstance(value, str) else None
    if found is None:
        raise _WrongTypeError
    return found


def _value(value: object) -> tuple[Kind, str]:
    if isinstance(value, bool):
        return "boolean", "t" if value else "f"
    if isinstance(value, int | float | Digits):
        return "number", _number(str(value))
    if isinstance(value, str) and "\0" not in value:
        return "text", value
    raise _WrongTypeError


def _number(text: str) -> str:
    """The number unless it is beyond `DIGITS` digits on one side of the point. `text` is a JSON number."""
    if len(text) <= 2 * DIGITS + 2:
        exponent = re.search(r"[eE](.*)", text)
        if exponent is None or len(exponent.group(1)) <= 6:
            number = Decimal(text)
            last = number.as_tuple().exponent
            if isinstance(last, int) and last >= -DIGITS and number.adjusted() < DIGITS:
                return text
    raise _WrongTypeError
