"""Any bytes become exactly one row, a rejected row or nothing, and numbers keep their digits."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.ingest.parse import DIGITS, KEPT_BYTES, Bad, parse_line, timestamp

TIME = "2026-11-21T20:55:42.123Z"
LINE = {"tenant_id": 1, "entity_id": 42, "attribute": "cpu.percent", "observed_at": TIME, "value": 12.5}


def line(**fields: object) -> bytes:
    return json.dumps({**LINE, **fields}).encode()


def with_value(literal: str) -> bytes:
    return line(value="@").replace(b'"@"', literal.encode())


def reason(raw: bytes) -> str | None:
    row = parse_line(raw, 7)
    return row.reason if isinstance(row, Bad) else None


def test_a_good_line_becomes_a_row() -> None:
    assert parse_line(line(), 7) == (7, 1, 42, "cpu.percent", TIME, "number", "12.5")
    assert parse_line(line(value="on"), 8) == (8, 1, 42, "cpu.percent", TIME, "text", "on")
    assert parse_line(line(value=True), 9) == (9, 1, 42, "cpu.percent", TIME, "boolean", "t")
    assert parse_line(line(value=False), 9) == (9, 1, 42, "cpu.percent", TIME, "boolean", "f")


@pytest.mark.parametrize("blank", [b"", b" ", b"\t\r", b"\r"])
def test_a_blank_line_is_no_row(blank: bytes) -> None:
    assert parse_line(blank, 1) is None


@pytest.mark.parametrize(
    "raw",
    [b"{", b"nonsense", b"[]", b"1", b'"text"', b"null", b"\xff\xfe\x00", b"\x00", line()[:-1], line() + b"}",
     b"[" * 100_000, b'{"a":' * 5_000, line(value="@").replace(b"@", b"\xff"),
     line(value="@").replace(b"@", rb"\ud800"), with_value("1e400")[:-1], with_value("01"), with_value("1.")],
)  # fmt: skip
def test_what_is_no_json_object_is_malformed(raw: bytes) -> None:
    row = parse_line(raw, 7)
    assert isinstance(row, Bad)
    assert (row.offset, row.reason, row.raw) == (7, "malformed", raw[:KEPT_BYTES])


@pytest.mark.parametrize("field", LINE)
def test_an_absent_field_or_null_is_a_missing_field(field: str) -> None:
    absent = {name: value for name, value in LINE.items() if name != field}
    assert reason(json.dumps(absent).encode()) == "missing_field"
    assert reason(line(**{field: None})) == "missing_field"


WRONG: list[tuple[str, list[object]]] = [
    ("tenant_id", ["1", "x", 1.0, 1.5, True, [1], {}, 2**63, -(2**63) - 1, 2**64, 10**400]),
    ("entity_id", ["1", "x", 1.0, 1.5, True, [1], {}, 2**63, -(2**63) - 1, 2**64, 10**400]),
    ("attribute", [1, True, "", "a\0b", [], {}, "n" * 201, 10**400]),
    ("observed_at", [0, 1.5, 1764795342, True, "", "now", [], {}]),
    ("value", [[1], [], {}, "a\0b"]),
]


@pytest.mark.parametrize("fields", [{name: value} for name, values in WRONG for value in values])
def test_a_field_of_another_type_is_a_wrong_type(fields: dict[str, object]) -> None:
    assert reason(line(**fields)) == "wrong_type"


def test_a_rejected_row_keeps_the_ids_that_could_be_read() -> None:
    row = parse_line(line(value=[1]), 7)
    assert isinstance(row, Bad)
    assert (row.tenant_id, row.entity_id) == (1, 42)
    row = parse_line(line(tenant_id="x"), 7)
    assert isinstance(row, Bad)
    assert (row.tenant_id, row.entity_id) == (None, 42)


def test_a_rejected_row_keeps_the_beginning_of_a_long_line_and_says_so() -> None:
    row = parse_line(b"x" * (KEPT_BYTES + 1), 7)
    assert isinstance(row, Bad)
    assert row.raw == b"x" * KEPT_BYTES
    assert row.note == f"{KEPT_BYTES + 1} bytes, the first {KEPT_BYTES} kept"


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_what_is_not_a_number_is_a_wrong_type(literal: str) -> None:
    assert reason(with_value(literal)) == "wrong_type"


@pytest.mark.parametrize("exponent", [DIGITS, 400_000, 10**30, -DIGITS - 1, -(10**30)])
def test_a_number_too_large_for_anything_is_a_wrong_type(exponent: int) -> None:
    assert reason(with_value(f"1e{exponent}")) == "wrong_type"


@pytest.mark.parametrize(
    "literal",
    ["1e400", "-1e400", "1E-400", "0.1234567890123456789", "0.10000000000000000001", "12.500", "-0.0", "1e-7",
     str(2**63), str(2**64), str(-(2**70)), "9" * 999, "0." + "1" * 999, "123456789012345678.9"],
)  # fmt: skip
def test_a_number_keeps_its_digits(literal: str) -> None:
    assert parse_line(with_value(literal), 7) == (7, 1, 42, "cpu.percent", TIME, "number", literal)


@pytest.mark.parametrize(
    "raw",
    [
        line().replace(b"{", b'{"value": 0.1, ', 1).replace(b"12.5", b"0.10000000000000000001"),
        line().replace(b"{", b'{"x": {"value": 0.1}, ', 1).replace(b"12.5", b"0.10000000000000000001"),
        line().replace(b"{", b'{"x": "\\"value\\": 0.1", ', 1).replace(b"12.5", b"0.10000000000000000001"),
        line().replace(b'"value"', b'"val\\u0075e"').replace(b"12.5", b"0.10000000000000000001"),
        line(observed_at="2026-11-21T20:55:42.123z").replace(b"12.5", b"0.10000000000000000001"),
        b'{"x": {"value": 0.1},'
        + line()[1:].replace(b'"value": 12.5', b'"val\\u0075e": 0.10000000000000000001'),
        # The value is not the last member.
        b'{"value": 0.10000000000000000001, "x": {"value": 0.1, "y": 1}, ' + line()[1:-16] + b"}",
        b'{"x": {"value": 0.1, "y": 1}, "val\\u0075e": 0.10000000000000000001, ' + line()[1:-16] + b"}",
        # The last member is called a"value.
        b'{"value": 0.10000000000000000001, ' + line()[1:-16] + b', "a\\"value": 0.1}',
    ],
)
def test_digits_come_from_the_value_that_counts(raw: bytes) -> None:
    row = parse_line(raw, 7)
    assert isinstance(row, tuple)
    assert row[-1] == "0.10000000000000000001"


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None, min_value=-(10**30), max_value=10**30))
def test_any_number_is_exact(number: Decimal) -> None:
    row = parse_line(with_value(str(number)), 7)
    if isinstance(row, Bad):
        assert row.reason == "wrong_type"
        exponent = number.as_tuple().exponent
        assert isinstance(exponent, int)
        assert exponent < -DIGITS
    else:
        assert row is not None
        assert Decimal(row[-1]) == number


@given(st.binary())
def test_any_bytes_are_one_row(raw: bytes) -> None:
    row = parse_line(raw, 7)
    assert (row is None) == (raw.strip() == b"")
    assert row is None or (row.offset if isinstance(row, Bad) else row[0]) == 7


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(TIME),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(LINE)), inner, max_size=5)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw of a text loads Unicode tables
@given(st.dictionaries(st.sampled_from(list(LINE)), JSON, max_size=5))
def test_any_object_is_one_row_of_what_the_columns_take(fields: dict[str, object]) -> None:
    row = parse_line(json.dumps({**LINE, **fields}).encode(), 7)
    if isinstance(row, Bad):
        assert row.reason in {"missing_field", "wrong_type", "malformed"}
        return
    assert row is not None
    offset, tenant_id, entity_id, attribute, observed_at, kind, text = row
    assert offset == 7
    assert all(-(2**63) <= number < 2**63 for number in (tenant_id, entity_id))
    assert attribute
    assert "\0" not in attribute + text
    assert datetime.fromisoformat(observed_at).utcoffset() == timedelta(0)
    if kind == "number":
        assert Decimal(text).is_finite()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (TIME, TIME),
        ("2026-11-21T20:55:42Z", "2026-11-21T20:55:42Z"),
        ("2026-11-21T20:55:42.123456789+00:00", "2026-11-21T20:55:42.123456789+00:00"),
        ("2026-11-21t20:55:42z", "2026-11-21T20:55:42+00:00"),
        ("2026-11-21 20:55:42+05:30", "2026-11-21T15:25:42+00:00"),
        ("2026-11-21T20:55:42-23:59", "2026-11-22T20:54:42+00:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00+00:00"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_times(written: str, read: str) -> None:
    assert timestamp(written) == read


@pytest.mark.parametrize(
    "written",
    ["2026-11-21", "2026-11-21T20:55:42", "2026-11-21T20:55Z", "20261121T205542Z", "2026-W47-6T20:55:42Z",
     "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21T20:60:42Z",
     "2026-11-21T20:55:42.Z", "2026-11-21T20:55:42.1234567890Z", "2026-11-21T20:55:42+24:00",
     "2026-11-21T20:55:42+05:75", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z",
     "0001-01-01T00:00:00+01:00",
     "9999-12-31T23:59:59-01:00", " 2026-11-21T20:55:42Z", "2026-11-21T20:55:42Z\n", "２026-11-21T20:55:42Z"],
)  # fmt: skip
def test_no_times(written: str) -> None:
    assert timestamp(written) is None
