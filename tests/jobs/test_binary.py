"""Both formats of COPY put the same rows into the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.ingest import binary
from local.server import Server
from tests.conftest import Connection, Database
from tests.jobs.conftest import line

Jobs = Callable[..., int]

NUMBERS = [
    "0", "-0", "0.0", "-0.00", "1", "-1", "12.5", "9999", "10000", "99999999", "100000000", "0.0001", "0.00010",
    "-0.1234567890123456789", "123456789012345678901234567890", "1e400", "1E-7", "-1.50e3", "1.5e-3", "100.000",
    "9223372036854775808", "0.5", "1" * 900, "0." + "0" * 400 + "7", "12345678.12345678",
]  # fmt: skip
TIMES = [
    "2026-11-21T20:55:42Z", "2026-11-21T20:55:42.1Z", "2026-11-21T20:55:42.123456789+00:00",
    "1999-12-31T23:59:59.9999999Z",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2024-02-29T12:00:60Z", "2026-11-21t20:55:42.5+02:00",
    "2026-11-21 20:55:42.0000005Z", "1969-07-20T20:17:40.000001-05:00",
]  # fmt: skip


@pytest.fixture(scope="module")
def connection(server: Server) -> Iterator[Connection]:
    with closing(Database(server.url).connect()) as found:
        found.execute("CREATE TEMPORARY TABLE numbers (value numeric)")
        yield found


def copied(connection: Connection, fields: list[bytes]) -> list[tuple[Any, ...]]:
    connection.execute("TRUNCATE numbers")
    with connection.cursor().copy("COPY numbers FROM STDIN (FORMAT binary)") as copy:
        copy.write(binary.HEADER + b"".join(b"\0\1" + field for field in fields) + binary.TRAILER)
    return connection.execute("SELECT value::text FROM numbers").fetchall()


def as_text(connection: Connection, numbers: list[str]) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT n::numeric::text FROM unnest(%s::text[]) AS n", [numbers]).fetchall()


def test_numbers_keep_every_digit(connection: Connection) -> None:
    assert copied(connection, [binary.number(one) for one in NUMBERS]) == as_text(connection, NUMBERS)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False) | st.integers(), min_size=1, max_size=50))
def test_any_number_is_what_the_server_reads_from_its_text(
    connection: Connection, numbers: list[Decimal | int]
) -> None:
    texts = [str(one) for one in numbers if abs(Decimal(one).adjusted()) < 900]
    assert copied(connection, [binary.number(one) for one in texts]) == as_text(connection, texts)


def test_both_formats_store_the_same(jobs: Jobs, database: Database, tmp_path: Path) -> None:
    database.all("""
        INSERT INTO eav.attributes (tenant_id, name, data_type)
        VALUES (1, 'when', 'timestamp'), (1, 'level', 'number'), (1, 'note', 'text')
        RETURNING 1
    """)
    text = "tab\tnewline\nback\\slash \\N é 𝄞"
    rows = [line(n, attribute="level", value="@").replace('"@"', one) for n, one in enumerate(NUMBERS)]
    rows += [line(n, attribute="when", value=one) for n, one in enumerate(TIMES)]
    rows += [line(n, attribute="level", value=n, observed_at=one) for n, one in enumerate(TIMES)]
    rows += [
        line(1, attribute="note", value=text),
        line(2, attribute="new", value=True),
        line(3, attribute="x\ty", value=text),
    ]
    rows += [
        line(1, attribute="when", value="soon"),
        line(1, attribute="level", value=text),
        line(4, value=False),
    ]
    rows += [
        "garbage\n",
        "\x00\n",
        line(1, tenant_id="x"),
        line(1, value=[1]),
        "x" * 3000 + "\n",
        line(1, tenant_id=7),
    ]
    path = tmp_path / "x.ndjson"
    path.write_text("".join(rows), encoding="utf-8")
    for again in ("1", "2"):  # the second time all names are known, and nothing waits for a second COPY
        staged = []
        for name, options in (("text", []), ("binary", ["--binary"])):
            source = ["--source", name + again]
            assert jobs("ingest", path, "--no-wait", "--max-line", 2000, *source, *options) == 0
            staged.append(
                database.all(
                    "SELECT source_offset, tenant_id, entity_id, attribute_id, observed_at, value_number::text,"
                    " value_time, value_bool, value_text, attribute, reason, raw FROM eav.entity_values_ingest AS i"
                    " JOIN eav.ingest_sources AS s USING (source_id) WHERE s.source = %s ORDER BY source_offset",
                    name + again,
                )
            )
        assert len(staged[0]) == len(rows)
        assert staged[0] == staged[1]
        assert jobs("run", "flush") == 0
