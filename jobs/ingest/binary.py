"""Rows in the binary format of COPY, which the server takes in with less work than text.

Built here, by the row: psycopg's adapters take longer. A numeric is a sequence of base-10000 digits and keeps every
digit that was written, and how many there were behind the point.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final

from jobs.ingest.parse import Bad, Good, timestamp

Attribute = tuple[int, str]
"""attribute_id, data_type."""

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MINUS: Final = 0x4000
_NULL: Final = b"\xff\xff\xff\xff"
_LENGTH: Final = struct.Struct(">i").pack
_BIGINT: Final = struct.Struct(">iq").pack
_COUNT: Final = struct.pack(">h", 13)
# Five ids and a time, each behind its length.
_IDS: Final = struct.Struct(">hiqiqiqiqiqiq").pack
_FILL: Final = (1, 1000, 100, 10)  # by the digits behind the point, to a multiple of four
_DIGITS: Final = [struct.Struct(f">ihhhh{count}h").pack for count in range(16)]
_BOOLEAN: Final = {"t": b"\0\0\0\1\1", "f": b"\0\0\0\1\0"}


def encode(
    rows: Iterable[Good | Bad], source_id: int, attributes: Mapping[tuple[int, str], Attribute | None]
) -> bytes:
    """The same rows as `load.encode`, between `HEADER` and `TRAILER`. Raises KeyError as it does."""
    found: list[bytes] = []
    append = found.append
    for row in rows:
        if type(row) is not tuple:
            assert isinstance(row, Bad)
            append(_bad(row, source_id))
            continue
        offset, tenant_id, entity_id, name, observed_at, kind, text = row
        attribute = attributes[tenant_id, name]
        at = _minute(observed_at[:17]) + _seconds(observed_at[17:])
        if attribute is not None and kind == "number":
            ids = _IDS(
                13, 8, source_id, 8, offset, 8, tenant_id, 8, entity_id, 8, attribute[0], 8, at
            )  # fmt: skip
            append(ids + number(text) + _NULL * 6)
            continue
        fields = [_BIGINT(8, one) for one in (source_id, offset, tenant_id, entity_id)]
        fields += [_NULL if attribute is None else _BIGINT(8, attribute[0]), _BIGINT(8, at)]
        values = [_NULL] * 4  # number, time, boolean, text
        if kind == "number":
            values[0] = number(text)
        elif kind == "boolean":
            values[2] = _BOOLEAN[text]
        elif attribute is not None and attribute[1] == "timestamp" and (time_ := timestamp(text)) is not None:
            values[1] = _BIGINT(8, _minute(time_[:17]) + _seconds(time_[17:]))
        else:
            values[3] = _bytes(text.encode())
        append(b"".join((_COUNT, *fields, *values, _NULL if attribute else _bytes(name.encode()), _NULL * 2)))
    return b"".join(found)


def _bad(row: Bad, source_id: int) -> bytes:
    ids = [_NULL if one is None else _BIGINT(8, one) for one in (row.tenant_id, row.entity_id)]
    note = _NULL if row.note is None else _bytes(row.note.encode())
    head = _COUNT + _BIGINT(8, source_id) + _BIGINT(8, row.offset)
    return b"".join((head, *ids, _NULL * 5, note, _NULL, _bytes(row.reason.encode()), _bytes(row.raw)))


def _bytes(value: bytes) -> bytes:
    return _LENGTH(len(value)) + value


@lru_cache(maxsize=4096)  # nearly all rows are of the same few hours
def _minute(text: str) -> int:
    """Microseconds since 2000 of `2026-11-21T20:55:`."""
    moment = datetime(
        int(text[:4]), int(text[5:7]), int(text[8:10]), int(text[11:13]), int(text[14:16]), tzinfo=UTC
    )
    return (moment - _EPOCH) // _MICROSECOND


@lru_cache(maxsize=65536)  # those of a minute by the millisecond
def _seconds(text: str) -> int:
    """Microseconds of `42.123Z` or `42.123+00:00`, rounded as the server rounds."""
    plain = text[:-1] if text[-1] in "Zz" else text[:-6]
    fraction = plain[2:]
    if len(fraction) <= 7:
        return int(plain[:2]) * 1_000_000 + int(f"{fraction[1:]:0<6}")
    return int(plain[:2]) * 1_000_000 + round(float(f"0{fraction}") * 1e6)


@lru_cache(maxsize=16384)  # measurements are of few digits
def number(text: str) -> bytes:
    """A number as JSON writes it, as a numeric behind its length."""
    whole, _, behind = text.partition(".")
    try:
        value, scale = int(whole + behind), len(behind)
    except ValueError:  # an exponent
        sign, digits, exponent = Decimal(text).as_tuple()
        assert isinstance(exponent, int)
        value = int("".join(map(str, digits))) * 10 ** max(exponent, 0) * (-1 if sign else 1)
        scale = max(-exponent, 0)
    minus = _MINUS if value < 0 else 0
    rest = abs(value) * _FILL[scale & 3]
    if 10000 <= rest < 100_000_000:
        return _DIGITS[2](12, 2, 1 - ((scale + 3) >> 2), minus, scale, rest // 10000, rest % 10000)
    found: list[int] = []
    while rest:
        rest, digit = divmod(rest, 10000)
        found.append(digit)
    found.reverse()
    count = len(found)
    weight = count - 1 - ((scale + 3) >> 2)
    pack = _DIGITS[count] if count < len(_DIGITS) else struct.Struct(f">ihhhh{count}h").pack
    return pack(8 + 2 * count, count, weight, minus, scale, *found)
