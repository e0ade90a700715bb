"""`archive-partitions`, `expire-partitions` and `restore-partition`: what leaves is safe, and comes back as it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import db
from jobs.archive import arrow, detach, export, folder, parquet, run
from jobs.archive.arrow import Arrow
from jobs.archive.export import Export
from jobs.archive.settings import Settings
from jobs.archive.settings import settings as settings_of
from jobs.archive.store import Store
from jobs.errors import JobsError
from tests.conftest import ROOT, Database, run_alembic
from tests.jobs.archiving import (
    REJECTED,
    VALUES,
    Jobs,
    KilledError,
    archive,
    at_peace,
    away,
    expire,
    rows_of,
    small,
    status,
)  # fmt: skip
from tests.jobs.buckets import Bucket
from tests.jobs.waiting import until
from tests.sql import wall_checks
from tests.sql.archives import LONG_AGO, late_rows, old_partition, worker

# -- the whole way ------------------------------------------------------------------------------------------


def test_a_partition_leaves_and_comes_back(
    database: Database, bucket: Bucket, jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    name = old_partition(database, rows=500)
    before = rows_of(database, VALUES)
    assert jobs("archive-partitions", "--dry-run") == 0
    assert capsys.readouterr().out.startswith(f"{name}: it is closed; about ")
    assert jobs("run", "archive-partitions", "--dry-run", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert (status(database), bucket.keys()) == ([], [])

    assert jobs("archive-partitions") == 0
    assert "archive-partitions: ok, 500 rows" in capsys.readouterr().out
    assert status(database) == ["detached"]
    # It is no partition any more, and neither forgotten nor taken for a table that nobody knows.
    assert rows_of(database, VALUES) == []
    assert rows_of(database, name) == before
    assert jobs("restore-partition", "--list") == 0
    assert f"{name}  2020-03-01 00:00 to 2020-03-02 00:00  500 rows" in capsys.readouterr().out
    assert run_alembic(database.url, "check").returncode == 0

    assert jobs("run", "expire-partitions") == 0
    assert database.one("SELECT to_regclass(%s)", name) is None
    assert status(database) == ["dropped"]
    assert jobs("archive-partitions", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 0

    assert jobs("restore-partition", name, "--keep", "3") == 0
    assert "attached, 500 rows; it stays for 3 days" in capsys.readouterr().out
    assert rows_of(database, VALUES) == before
    assert status(database) == ["restored"]
    # Its retention is over, and it stays until its time is up, whatever runs.
    for command in (("archive-partitions",), ("run", "expire-partitions"), ("run", "maintain-partitions")):
        assert jobs(*command) == 0
    assert rows_of(database, VALUES) == before
    assert database.all("SELECT DISTINCT last_error FROM ops.partition_policies") == [(None,)]
    capsys.readouterr()
    assert jobs("restore-partition", name) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"{name} is attached: nothing to restore")
    at_peace(database, bucket)

    with database.session() as connection:
        connection.execute("UPDATE ops.partition_archives SET keep_until = now() - interval '1 second'")
    away(database)
    assert status(database) == ["dropped"]
    assert jobs("restore-partition", name.removeprefix("eav.")) == 0
    assert rows_of(database, VALUES) == before
    at_peace(database, bucket)


def test_a_restored_partition_is_like_its_siblings(database: Database, bucket: Bucket, jobs: Jobs) -> None:
    facts = (
        "SELECT relowner::regrole::text, relispartition, relrowsecurity, relacl IS NULL,"
        " pg_get_expr(relpartbound, oid), (SELECT array_agg(conname) FROM pg_constraint WHERE conrelid = c.oid)"
        " FROM pg_class AS c WHERE oid = %s::regclass"
    )
    indexes = (
        "SELECT c.relname, m.amname, i.indisvalid, p.inhparent::regclass::text FROM pg_index AS i"
        " JOIN pg_class AS c ON i.indexrelid = c.oid JOIN pg_am AS m ON c.relam = m.oid"
        " LEFT JOIN pg_inherits AS p ON p.inhrelid = c.oid WHERE i.indrelid = %s::regclass ORDER BY 1"
    )
    for parent in (VALUES, REJECTED):
        name = old_partition(database, parent=parent, days=31)
        if parent == VALUES:
            assert jobs("run", "compact") == 0
        was = database.all(facts, name), database.all(indexes, name)
        away(database)
        assert jobs("restore-partition", name) == 0
        assert (database.all(facts, name), database.all(indexes, name)) == was
        assert "autovacuum_enabled" not in str(
            database.one("SELECT reloptions FROM pg_class WHERE oid = %s::regclass", name)
        )
    with database.session() as connection:
        assert wall_checks.check_relations(connection) == []
        assert wall_checks.check_owners(connection) == []
    with database.session("eav_app") as tenant:
        tenant.execute("BEGIN")
        tenant.execute("SET LOCAL app.tenant_id = '2'")
        seen = tenant.execute("SELECT DISTINCT tenant_id FROM eav.entity_values_ts").fetchall()
        assert seen == [(2,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            tenant.execute(f"SELECT FROM {VALUES}_p2020_03_01".encode())
    # It is compacted as it was, and no value comes to it: the window begins behind the gap.
    assert database.one("SELECT count(*) FROM ops.compactable()") == 0
    assert database.one("SELECT starts_at > now() - interval '1 year' FROM eav.value_window")
    assert run_alembic(database.url, "check").returncode == 0


def test_without_a_bucket_nothing_is_archived_and_nothing_leaves(
    database: Database,
    bucket: Bucket,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    old_partition(database)
    caplog.set_level("INFO", "jobs")
    monkeypatch.delenv("ARCHIVE_BUCKET")
    assert jobs("run", "archive-partitions") == 0
    said = capsys.readouterr()
    assert said.out.startswith("archive-partitions: ok, 0 rows")
    assert any(text.startswith("ARCHIVE_BUCKET is not set: nothing is archived") for text in caplog.messages)
    assert expire(database) == 0
    assert len(rows_of(database, VALUES)) == 30
    for command in (
        ("archive-partitions",),
        ("restore-partition", "x"),
        ("archive-partitions", "--ddl", "glue"),
    ):
        assert jobs(*command) == 1
        assert "ARCHIVE_BUCKET is not set" in capsys.readouterr().err


def test_nothing_leaves_unless_it_is_said(
    database: Database,
    bucket: Bucket,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old_partition(database)
    caplog.set_level("INFO", "jobs")
    monkeypatch.delenv("PARTITIONS_LEAVE")
    assert jobs("run", "archive-partitions") == 0
    assert any("they stay: PARTITIONS_LEAVE is not true" in text for text in caplog.messages)
    assert expire(database) == 0
    assert database.one("SELECT status FROM ops.partition_archives") == "verified"
    assert len(rows_of(database, VALUES)) == 30
    monkeypatch.setenv("PARTITIONS_LEAVE", "perhaps")
    assert jobs("run", "archive-partitions") == 1


def test_a_partition_whose_files_are_gone_does_not_leave(
    database: Database,
    bucket: Bucket,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old_partition(database)
    with monkeypatch.context() as patch:
        patch.setenv("PARTITIONS_LEAVE", "false")
        assert jobs("run", "archive-partitions") == 0
    (key,) = bucket.keys("partitions/table=")
    bucket.client.delete_object(Bucket=bucket.environment["ARCHIVE_BUCKET"], Key=key)
    capsys.readouterr()
    assert jobs("run", "archive-partitions") == 1
    assert f"{key} is gone or damaged: it stays attached, and is archived again" in capsys.readouterr().out
    assert expire(database) == 0
    assert len(rows_of(database, VALUES)) == 30
    # The partition is there: its archive is made anew.
    assert jobs("run", "archive-partitions") == 0
    assert status(database) == ["superseded", "detached"]
    at_peace(database, bucket)
    assert expire(database) == 1


def test_a_run_that_lost_its_session_clears_nothing_away(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it reads back its lock goes with its session, and another run does all of it."""
    old_partition(database)
    read_back = Export.read_back

    def overtaken(self: Export, folder: Path) -> Any:
        monkeypatch.setattr(Export, "read_back", read_back)
        read = read_back(self, folder)
        database.one("SELECT pg_terminate_backend(%s)", self._connection.info.backend_pid)
        until(lambda: database.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0)
        with worker(database) as other:
            assert run.archive(other) == 30
        return read

    monkeypatch.setattr(Export, "read_back", overtaken)
    monkeypatch.setenv("PARTITIONS_LEAVE", "false")
    with worker(database) as first, pytest.raises((psycopg.OperationalError, JobsError)):
        run.archive(first)
    files = database.one("SELECT files FROM ops.partition_archives WHERE status = 'verified'")
    assert [one["key"] for one in files] == bucket.keys("partitions/table=")
    assert archive(database) == 0
    at_peace(database, bucket)


def test_wide_rows_come_in_small_groups(tmp_path: Path) -> None:
    """What is in memory at a time is bounded by its size, not by its rows."""
    table = pa.table({"text": ["x" * 1_000_000] * 20})
    writer = parquet.Writer(tmp_path, dict, row_group=1000)
    parts = [writer.write(table) for _ in range(14)]
    parts.append(writer.end())
    assert [one.rows for one in parts if one] == [280]
    groups = [one.num_rows for one in parquet.groups(tmp_path / "1.parquet")]
    assert sum(groups) == 280
    assert max(groups) == 140


@pytest.mark.parametrize(("width", "rows", "most"), [(1, 150_000, 65_536), (100_000, 1100, 200)])
def test_rows_are_fetched_by_their_width(database: Database, width: int, rows: int, most: int) -> None:
    with database.session() as connection, arrow.beside(connection) as beside:
        beside.do("BEGIN")
        beside.do(
            f"DECLARE wide CURSOR FOR SELECT repeat('x', {width}) AS text FROM generate_series(1, {rows})"
        )
        sizes = [table.num_rows for table in beside.rows("wide")]
        beside.do("ROLLBACK")
    assert sum(sizes) == rows
    assert sizes[0] == 1024
    assert max(sizes[1:]) <= most
    assert width > 1 or most in sizes


def test_what_is_due(database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    recent = datetime.now(UTC) - timedelta(days=3)
    (name,) = next(
        iter(database.all(
            f"SELECT partition::text FROM ops.partition_bounds('{VALUES}') WHERE starts_at <= %s AND ends_at > %s",
            recent, recent,
        ))
    )  # fmt: skip
    old_partition(database, rows=0)
    with worker(database) as connection:
        assert [one.partition for one in run.candidates(connection)] == [f"{VALUES}_p2020_03_01"]
        assert [one.partition for one in run.candidates(connection, REJECTED)] == []
        # One that is named, as soon as it is closed.
        assert [one.partition for one in run.candidates(connection, partition=name)] == [name]
        (today,) = connection.execute(
            f"SELECT partition::text FROM ops.partition_bounds('{VALUES}') WHERE ends_at > now() LIMIT 1"
        ).fetchone() or ("",)
        assert run.candidates(connection, partition=today) == []
    # An archive of nothing: its partition can leave.
    assert archive(database) == 0
    assert (status(database), bucket.keys("partitions/table=")) == (["detached"], [])
    assert expire(database) == 1
    assert archive(database, partition=name) == 0
    assert status(database) == ["dropped", "verified"]
    with database.session() as connection:
        connection.execute("UPDATE ops.partition_policies SET archive_after = '1 day'")
    assert len(status(database)) == 2
    with worker(database) as connection:
        assert name not in [one.partition for one in run.candidates(connection)]


# -- types --------------------------------------------------------------------------------------------------

NUMBERS = (
    "0", "0.0", "-0.00", "1", "12.50", "-1e-20", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity",
    "0.1", "0.30000000000000004", "123456789012345", "1234567890123456", "12345678901234567", "9007199254740993",
    "1.7976931348623157e308", "2e308", "2.2e-308", "5e-324", "1e15", "1e16", "100000000", "999999999.999999",
    "9" * 1000, "0." + "0" * 400 + "7" * 600, "1" + "0" * 30, "1.000000",
)  # fmt: skip
TEXTS = (
    "", " ", "NULL", "\\N", "'\"\\", "a\tb\nc\r\x01\x7f", "e\u0301", "\u00e9", "\ufeff", "\ufffd\uffff",
    *(chr(0x10000 * plane + 0x100 + plane) for plane in range(17)), "\U0001f468\u200d\U0001f469", "x" * 100_000,
)  # fmt: skip
TIMES = (
    "infinity", "-infinity", "4713-11-24 00:00:00+00 BC", "0044-03-15 12:34:56.789012+00 BC", "0001-01-01 00:00+00",
    "9999-12-30 23:59:59.999999+00", "9999-12-31 00:00+00", "10000-01-01 00:00+00", "294276-12-31 23:59:59.999999+00",
    "1969-12-31 23:59:59.999999+00", "2026-11-22 01:02:03.456789+00",
)  # fmt: skip
BYTES = (b"", b"\x00", bytes(range(256)), b"\\x")


def test_every_value_survives_in_the_values_and_the_rejected_ones(
    database: Database, bucket: Bucket, jobs: Jobs
) -> None:
    for parent, at in ((VALUES, "observed_at"), (REJECTED, "rejected_at")):
        name = old_partition(database, rows=0, parent=parent, days=31)
        with database.session() as connection, connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {parent} (tenant_id, entity_id, attribute_id, {at}, value_number, value_text, value_time,"
                f" value_bool{', reason, raw' if parent == REJECTED else ''}) VALUES (%s, -9223372036854775808,"
                f" 9223372036854775807, %s, %s, %s, %s, %s{', %s, %s' if parent == REJECTED else ''})".encode(),
                [
                    [
                        n,
                        LONG_AGO + timedelta(microseconds=n),
                        *value,
                        *(["r", BYTES[n % 4]] if parent == REJECTED else []),
                    ]
                    for n, value in enumerate(
                        [
                            *((number, None, None, True) for number in NUMBERS),
                            *((None, text, None, False) for text in TEXTS),
                            *((None, None, instant, None) for instant in TIMES),
                            (None, None, None, None),
                        ]
                    )
                ],
            )
        before = rows_of(database, parent)
        away(database)
        assert jobs("restore-partition", name) == 0
        assert rows_of(database, parent) == before


A_TABLE = """
    CREATE TABLE eav.made_up (
        "at" timestamptz NOT NULL, small smallint, whole integer, single real, "double" double precision,
        fixed numeric(20, 4), name varchar(40), padded char(5), day date, wall timestamp, span interval,
        doc jsonb, raw_doc json, list integer[], texts text[], id uuid, address inet,
        "odd ""name" text, bits bit varying, clock timetz, range tstzrange, folded text COLLATE "C",
        doubled double precision GENERATED ALWAYS AS ("double" * 2) STORED
    ) PARTITION BY RANGE ("at");
    CREATE INDEX made_up_at_idx ON eav.made_up ("at");
    ALTER TABLE eav.made_up OWNER TO eav_owner;
    INSERT INTO ops.partition_policies (parent_table, partition_interval, retention, archive_first)
    VALUES ('eav.made_up', '1 day', '1 month', true)
"""


def test_every_type_survives_in_a_table_nobody_has_thought_of(
    database: Database, bucket: Bucket, jobs: Jobs
) -> None:
    with database.session() as connection:
        connection.execute(A_TABLE)
    name = old_partition(database, rows=0, parent="eav.made_up")
    with database.session() as connection:
        connection.execute(
            "INSERT INTO eav.made_up VALUES"
            " ('2020-03-01 00:00Z', -32768, 2147483647, '-0', 'NaN', 1.5, 'ab', 'a', 'infinity', '-infinity',"
            "  '1 mon -3 days 04:05:06.789', '{\"a\": 1.00}', '{\"a\":  1, \"a\": 2}', '{{1,NULL},{3,4}}',"
            "  '{NULL,\"NULL\",\"\"}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '10.0.0.1/8', 'x', '10101',"
            "  '04:05:06.789+02', '[2020-01-01,infinity)', 'Z'),"
            " ('2020-03-01 00:01Z', NULL, NULL, 'Infinity', '-Infinity', NULL, '', '', '0044-03-15 BC', '10000-01-01',"
            "  '-178000000 years', 'null', NULL, '{}', NULL, NULL, '::1', NULL, '', NULL, 'empty', 'a'),"
            " ('2020-03-01 00:02Z', 0, 0, '1.17549435e-38', '5e-324', -9999999999999999.9999, NULL, NULL, '2024-02-29',"
            "  '2020-01-01 00:00:00.000001', '0', '[]', '[1e400]', NULL, '{}', NULL, NULL, '', NULL, NULL, NULL, NULL),"
            " ('2020-03-01 00:03Z', 1, 1, 0.1, 0.1, 0.1, 'é', 'é', '0001-01-01', '0001-01-01', '1 day', '{}',"
            "  '\"\\u0000\"', '[-1:0]={1,2}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
        )
    before = rows_of(database, "eav.made_up")
    # As whoever looks at dates and bytes in another way.
    with database.session() as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET datestyle = 'ISO, DMY'".encode())
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET intervalstyle = 'iso_8601'".encode())
        connection.execute(
            f"ALTER DATABASE {connection.info.dbname} SET timezone = 'Asia/Kathmandu'".encode()
        )
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET extra_float_digits = -10".encode())
    away(database)
    with database.session() as connection:
        connection.execute("ALTER TABLE eav.made_up ADD COLUMN later integer DEFAULT 7")
        connection.execute("ALTER TABLE eav.made_up ALTER COLUMN whole TYPE bigint")
        connection.execute("ALTER TABLE eav.made_up DROP COLUMN bits")
    assert jobs("restore-partition", name) == 0
    with database.session() as connection:
        assert connection.execute("SELECT DISTINCT later FROM eav.made_up").fetchall() == [(7,)]
        connection.execute("ALTER TABLE eav.made_up DROP COLUMN later")
    assert len(rows_of(database, "eav.made_up")) == len(before)
    assert database.one("SELECT max(whole) FROM eav.made_up") == 2147483647
    assert database.all("SELECT span::text, day::text FROM eav.made_up WHERE small = -32768") == database.all(
        "SELECT interval '1 mon -3 days 04:05:06.789'::text, date 'infinity'::text"
    )


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.lists(
        st.tuples(
            st.one_of(st.none(), st.decimals(), st.integers().map(str), st.floats().map(repr)),
            st.one_of(st.none(), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))),
            st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))),
            st.one_of(st.none(), st.booleans()),
            st.integers(0, 86_399_999_999),
        ),
        min_size=20,
        max_size=200,
    )
)
def test_any_value_survives(database: Database, bucket: Bucket, drawn: list[tuple[Any, ...]]) -> None:
    with database.session() as connection, connection.cursor() as cursor:
        connection.execute(
            "DELETE FROM ops.partition_archives; DROP TABLE IF EXISTS eav.entity_values_ts_p2020_03_01"
        )
        name = old_partition(database, rows=0)
        cursor.executemany(
            "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, value_number, value_text,"
            " value_time, value_bool, observed_at) VALUES (1, 2, 3, %s::text::numeric, %s, %s, %s, %s)",
            [
                (None if number is None else str(number).replace("sNaN", "NaN").replace("-NaN", "NaN"), *rest,
                 LONG_AGO + timedelta(microseconds=at))
                for number, *rest, at in drawn
            ],
        )  # fmt: skip
        before = rows_of(database, VALUES)
        away(database)
        with worker(database) as restorer:
            chosen = restore_module().choose(restorer, name)
            restore_module().restore(
                restorer, Settings(bucket.environment["ARCHIVE_BUCKET"]), chosen, timedelta(1)
            )
        assert rows_of(database, VALUES) == before


def restore_module() -> Any:
    from jobs.archive import restore

    return restore


# -- the files ----------------------------------------------------------------------------------------------


def test_the_files_are_open_and_in_order(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small(monkeypatch, 1000, part_bytes=20_000)
    old_partition(database, rows=4500)
    sums = database.all(
        "SELECT tenant_id, count(*), sum(value_number)::double precision,"
        " (extract(EPOCH FROM min(observed_at)) * 1000000)::bigint FROM eav.entity_values_ts GROUP BY 1 ORDER BY 1"
    )
    exact = database.one(
        "SELECT sum(value_number) FROM eav.entity_values_ts WHERE value_number::text LIKE '%%.0'"
    )
    archive(database)
    paths = bucket.fetch(tmp_path / "lake")
    assert len(paths) > 1
    assert all("table=eav.entity_values_ts/year=2020/month=03/" in path.as_posix() for path in paths)

    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        read = f"read_parquet('{tmp_path}/lake/**/*.parquet', hive_partitioning = true)"
        assert (
            duck.execute(
                "SELECT tenant_id, count(*), sum(value_number), epoch_us(min(observed_at))"
                f" FROM {read} GROUP BY 1 ORDER BY 1"
            ).fetchall()
            == sums
        )
        assert duck.execute(f"SELECT DISTINCT year, month FROM {read}").fetchall() == [(2020, "03")]
        assert duck.execute(f"SELECT sum(value_number__exact::decimal(18, 1)) FROM {read}").fetchone() == (
            exact,
        )

    keys = []
    for path in paths:
        file = pq.ParquetFile(path)
        about = json.loads(file.metadata.metadata[parquet.KEY])
        assert (about["table"], about["partition"]) == (VALUES, f"{VALUES}_p2020_03_01")
        assert about["checksums"]["rows"] == 4500
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            assert group.num_rows <= 1000
            assert [one.column_index for one in group.sorting_columns] == [0, 2, 3]
            tenant = group.column(0)
            assert (tenant.compression, tenant.has_column_index, tenant.has_offset_index) == (
                "ZSTD",
                True,
                True,
            )
            rows = file.read_row_group(number).to_pylist()
            assert (tenant.statistics.min, tenant.statistics.max) == (
                rows[0]["tenant_id"],
                rows[-1]["tenant_id"],
            )
            keys += [(one["tenant_id"], one["attribute_id"], one["observed_at"]) for one in rows]
    assert keys == sorted(keys)
    assert len(keys) == 4500
    recorded = database.all(
        "SELECT (f ->> 'rows')::integer, (f ->> 'bytes')::integer"
        " FROM ops.partition_archives, jsonb_array_elements(files) AS f"
    )
    assert recorded == [(pq.read_metadata(path).num_rows, path.stat().st_size) for path in paths]


def test_the_database_of_the_catalogue_is_archive_unless_it_is_named() -> None:
    assert settings_of({"ARCHIVE_BUCKET": "b"}).glue_database == "archive"  # type: ignore[union-attr]
    with pytest.raises(
        JobsError, match=r"^GLUE_DATABASE must be lower-case letters, .* got 'eav-dev-archive'$"
    ):
        settings_of({"ARCHIVE_BUCKET": "b", "GLUE_DATABASE": "eav-dev-archive"})


def test_the_definitions_fit_the_files(
    database: Database,
    bucket: Bucket,
    jobs: Jobs,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("GLUE_DATABASE", "eav_dev_archive")
    with database.session() as connection:
        connection.execute(A_TABLE)
        connection.execute(
            "INSERT INTO ops.partition_policies SELECT 'eav.other', '1 day', '1 day', NULL, NULL, false"
        )
    old_partition(database, rows=0, parent="eav.made_up")
    with database.session() as connection:
        connection.execute("INSERT INTO eav.made_up (\"at\") VALUES ('2020-03-01 00:00Z')")
    old_partition(database)
    archive(database)
    arrow_types = {
        "bigint": "int64", "int": "int32", "smallint": "int16", "boolean": "bool", "float": "float",
        "double": "double", "binary": "binary", "string": "string", "date": "date32[day]", "timestamp": "timestamp[us",
    }  # fmt: skip
    for table in (VALUES, "eav.made_up"):
        assert jobs("archive-partitions", "--ddl", "glue", "--table", table) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["DatabaseName"] == "eav_dev_archive"
        (path,) = bucket.fetch(tmp_path, f"partitions/table={table}/")
        listed = said["TableInput"]["StorageDescriptor"]["Columns"]
        schema = pq.read_schema(path)
        assert [one["Name"] for one in listed] == schema.names
        for one, field in zip(listed, schema, strict=True):
            assert str(field.type).startswith(arrow_types[one["Type"]]), one
        assert said["TableInput"]["StorageDescriptor"]["Location"].endswith(f"/partitions/table={table}/")
        # boto3 takes it as it is.
        import boto3

        glue = boto3.client("glue")
        if table == VALUES:
            glue.create_database(DatabaseInput={"Name": "eav_dev_archive"})
        glue.create_table(**said)
    assert jobs("archive-partitions", "--ddl", "spectrum", "--table", VALUES) == 0
    said = capsys.readouterr().out
    first, _, said = said.partition("\n\n")
    assert first.startswith(
        "-- once: CREATE EXTERNAL SCHEMA archive FROM DATA CATALOG DATABASE 'eav_dev_archive'"
    )
    assert said.startswith('CREATE EXTERNAL TABLE archive.eav_entity_values_ts (\n    "tenant_id" bigint,\n')
    assert '"value_number" double precision,\n    "value_number__exact" varchar(65535)' in said
    assert "ADD IF NOT EXISTS PARTITION (year = 2020, month = 3)" in said
    assert jobs("archive-partitions", "--ddl", "glue", "--table", "eav.other") == 1
    assert "no table whose partitions are archived" in capsys.readouterr().err


# -- damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["truncated", "other bytes", "gone", "other values", "rows missing"])
def test_what_is_not_read_back_as_written_is_not_verified(
    database: Database, bucket: Bucket, jobs: Jobs, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], harm: str,
) -> None:  # fmt: skip
    old_partition(database, rows=300)
    upload, groups = Store.upload, parquet.groups

    def harmed(self: Store, path: Path, key: str) -> None:
        upload(self, path, key)
        data = bucket.get(key)
        if harm == "truncated":
            bucket.put(key, data[:-10])
        elif harm == "other bytes":
            bucket.put(key, data[:200] + bytes([data[200] ^ 1]) + data[201:])
        elif harm == "gone":
            bucket.client.delete_object(Bucket=bucket.environment["ARCHIVE_BUCKET"], Key=key)

    def other(path: Path) -> Iterator[Any]:
        for group in groups(path):
            if harm == "other values":
                # The same values in every column, in other rows.
                yield group.set_column(0, "tenant_id", group["tenant_id"].take(list(range(299, -1, -1))))
            elif harm == "rows missing":
                yield group.slice(1)
            else:
                yield group

    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload", harmed)
        patch.setattr(parquet, "groups", other)
        assert jobs("archive-partitions") == 1
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("archive-partitions: failed")
    assert {
        "truncated": "is not what was written", "other bytes": "is not what was written",
        "gone": "is gone", "other values": "values have changed rows", "rows missing": "has 299 rows",
    }[harm] in said  # fmt: skip
    assert bucket.keys("partitions/table=") == []
    assert expire(database) == 0
    assert len(rows_of(database, VALUES)) == 300
    assert status(database) == ["failed"]
    assert jobs("archive-partitions") == 0
    assert status(database)[-1] == "detached"
    at_peace(database, bucket)


def test_a_damaged_archive_is_not_restored(
    database: Database,
    bucket: Bucket,
    jobs: Jobs,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = old_partition(database, rows=300)
    away(database)
    (key,) = bucket.keys("partitions/table=")
    whole = bucket.get(key)
    bucket.put(key, whole[:-4] + b"PAR2")
    assert jobs("restore-partition", name) == 1
    assert "is not what was written" in capsys.readouterr().err.splitlines()[-1]
    bucket.put(key, whole)
    groups = parquet.groups
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "groups", lambda path: (
            group.set_column(1, "entity_id", group["attribute_id"]) for group in groups(path)
        ))  # fmt: skip
        assert jobs("restore-partition", name) == 1
    assert "these columns differ: entity_id: not attached" in capsys.readouterr().err.splitlines()[-1]
    assert database.one("SELECT to_regclass('eav.restoring_1')") is None
    assert jobs("restore-partition", name) == 0
    at_peace(database, bucket)


def test_an_archive_in_glacier_is_asked_for(
    database: Database, bucket: Bucket, jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    name = old_partition(database)
    away(database)
    (key,) = bucket.keys("partitions/table=")
    bucket.put(key, bucket.get(key), StorageClass="GLACIER")
    assert jobs("restore-partition", name) == 3
    assert "are being fetched from Glacier" in capsys.readouterr().err.splitlines()[-1]
    assert database.one("SELECT to_regclass(%s)", name) is None
    # The emulator has it at once.
    assert jobs("restore-partition", name) == 0


# -- rows that come late ------------------------------------------------------------------------------------


def test_a_row_that_comes_after_the_archive_is_archived_too(
    database: Database, bucket: Bucket, jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    name = old_partition(database, rows=300)
    with database.session() as connection:
        connection.execute(
            "UPDATE ops.partition_policies SET retention = '100 years', archive_after = '2 years'"
        )
    assert archive(database) == 300
    assert status(database) == ["verified"]
    # A maintenance that changes no row is looked into, and no reason for another archive.
    with database.session() as connection:
        connection.execute(f"VACUUM FULL {name}".encode())
    with worker(database) as connection:
        assert [one.why for one in run.candidates(connection)] == ["rows may have come since"]
    assert archive(database) == 0
    assert status(database) == ["verified"]
    late_rows(database, 0, 301, 305)
    until(lambda: database.one("SELECT count(*) FROM ops.archivable()") == 1)
    assert archive(database) == 305
    assert status(database) == ["superseded", "verified"]
    # Who reads the folder of the table sees each row once; what was superseded is kept elsewhere.
    assert bucket.rows() == 305
    assert [one.split("/")[1] for one in bucket.keys("")] == [
        "_mark",
        "_superseded",
        "table=eav.entity_values_ts",
    ]
    at_peace(database, bucket)


def test_a_row_that_comes_before_the_drop_is_not_lost(database: Database, bucket: Bucket, jobs: Jobs) -> None:
    name = old_partition(database, rows=300)
    archive(database)
    late_rows(database, 0, 301, 301, name)
    assert expire(database) == 0
    before = rows_of(database, name)
    with worker(database) as connection:
        assert [one.why for one in run.candidates(connection)] == [
            "it is detached and not as it was archived"
        ]
    assert archive(database) == 301
    assert status(database) == ["superseded", "detached"]
    assert expire(database) == 1
    assert jobs("restore-partition", name) == 0
    assert rows_of(database, VALUES) == before
    assert bucket.rows() == 301
    at_peace(database, bucket)


def test_a_column_that_was_added_since_is_archived_before_the_drop(
    database: Database, bucket: Bucket, jobs: Jobs
) -> None:
    with database.session() as connection:
        connection.execute(A_TABLE)
    name = old_partition(database, rows=0, parent="eav.made_up")
    with database.session() as connection:
        connection.execute("INSERT INTO eav.made_up (\"at\") VALUES ('2020-03-01 00:00Z')")
        archive(database)
        connection.execute(f"ALTER TABLE {name} ADD COLUMN later integer DEFAULT 9".encode())
    assert expire(database) == 0
    assert archive(database) == 1
    assert expire(database) == 1
    with database.session() as connection:
        connection.execute("ALTER TABLE eav.made_up ADD COLUMN later integer DEFAULT 8")
    assert jobs("restore-partition", name) == 0
    assert database.one("SELECT later FROM eav.made_up") == 9


def test_a_partition_made_again_does_not_take_the_place_of_the_archive(
    database: Database, bucket: Bucket, jobs: Jobs
) -> None:
    name = old_partition(database, rows=300)
    away(database)
    old_partition(database, rows=0)
    late_rows(database, 0, 901, 903)
    away(database)
    assert status(database) == ["dropped", "dropped"]
    assert bucket.rows() == 303
    assert jobs("restore-partition", name) == 1
    assert jobs("restore-partition", name, "--archive", "1") == 0
    assert len(rows_of(database, VALUES)) == 300
    at_peace(database, bucket)


def test_a_detached_partition_is_attached_again_as_it_is(
    database: Database, bucket: Bucket, jobs: Jobs
) -> None:
    name = old_partition(database, rows=300)
    archive(database)
    bucket.empty()
    assert jobs("restore-partition", name) == 0
    assert len(rows_of(database, VALUES)) == 300
    assert expire(database) == 0


# -- others at work -----------------------------------------------------------------------------------------


def test_of_two_runs_one_does_it_and_a_compaction_waits(
    database: Database, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    name = old_partition(database)
    with worker(database) as other:
        assert other.execute("SELECT ops.archive_open(%s)", [name]).fetchall() != [(None,)]
        with caplog.at_level("INFO", "jobs"):
            assert archive(database) == 0
        assert f"{name}: another run is at it, or has done it" in caplog.messages
        with worker(database) as third:
            assert third.execute("SELECT ops.compaction_open(%s::regclass)", [name]).fetchall() == [(None,)]
    until(lambda: database.one("SELECT count(*) FROM pg_locks WHERE classid = 6644087") == 0)
    assert archive(database) == 30
    assert archive(database) == 0


def test_values_that_come_while_it_is_exported_are_not_in_it_and_not_lost(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    old_partition(database, rows=300)
    with database.session() as connection:
        connection.execute(
            "UPDATE ops.partition_policies SET retention = '100 years', archive_after = '2 years'"
        )
    upload = Store.upload

    def meanwhile(self: Store, path: Path, key: str) -> None:
        if key.endswith("/1.parquet"):
            late_rows(database, 0, 301, 310)
        upload(self, path, key)

    monkeypatch.setattr(Store, "upload", meanwhile)
    assert archive(database) == 300
    until(lambda: database.one("SELECT count(*) FROM ops.archivable()") == 1)
    assert archive(database) == 310


def test_a_partition_that_is_in_use_is_left_attached_and_goes_later(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_partition(database)
    monkeypatch.setattr(detach, "CONCURRENT_WAIT", timedelta(seconds=1))
    leave = detach.leave
    patience = timedelta(milliseconds=100)
    monkeypatch.setattr(
        detach,
        "leave",
        lambda connection, store, table, partition: leave(connection, store, table, partition, patience),
    )
    with database.session() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM eav.entity_values_ts")
        assert archive(database) == 30
        # Announced, and cut short where it waits for the reader.
        assert status(database) == ["verified"]
        assert database.one(
            "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'eav.entity_values_ts_p2020_03_01'::regclass"
        )
        reader.execute("COMMIT")
    assert archive(database) == 0
    assert status(database) == ["detached"]
    assert expire(database) == 1


def test_it_takes_no_more_rights_than_those_of_the_jobs(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, worker_login: str
) -> None:
    name = old_partition(database, rows=300)
    with db.connect(worker_login, "eav_jobs", "a worker") as connection:
        assert run.archive(connection) == 300
        assert status(database) == ["detached"]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT FROM {name}".encode())
        connection.execute("SELECT ops.expire_partitions()")
        chosen = restore_module().choose(connection, name)
        restore_module().restore(
            connection, Settings(bucket.environment["ARCHIVE_BUCKET"]), chosen, timedelta(1)
        )
    assert len(rows_of(database, VALUES)) == 300
    at_peace(database, bucket)


def test_a_planted_table_is_not_read_with_the_owners_rights(database: Database, bucket: Bucket) -> None:
    old_partition(database)
    with worker(database) as connection:
        ((number,),) = connection.execute("SELECT ops.archive_open(%s)", [f"{VALUES}_p2020_03_01"]).fetchall()
        connection.execute("CREATE TEMP VIEW archive_scratch AS SELECT 1")
        for function in ("archive_piece", "archive_scratch"):
            with pytest.raises(
                psycopg.Error, match=r"call ops\.archive_scratch first|must be owner|is not a table"
            ):
                connection.execute(f"SELECT ops.{function}({number})".encode())


# -- kills --------------------------------------------------------------------------------------------------


EVERY = bool(os.environ.get("EAV_EXAMPLES"))
"""Whether to die at every step, not at each third one."""


def deadly(patch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Die before the step `at`, and in whatever comes after it; the list grows with each step."""
    steps: list[str] = []

    def wrap(owner: type, name: str) -> None:
        whole = getattr(owner, name)

        def step(self: Any, *args: Any, **options: Any) -> Any:
            steps.append(f"{owner.__name__}.{name} {str(args[0])[:60] if args else ''}")
            if len(steps) > at:
                raise KilledError
            return whole(self, *args, **options)

        patch.setattr(owner, name, step)

    for name in ("upload", "download", "move", "clear", "leave_mark"):
        wrap(Store, name)
    for name in ("do", "one", "load"):
        wrap(Arrow, name)
    wrap(psycopg.Connection, "execute")
    patch.setattr(shutil, "rmtree", lambda *args, **options: None)
    return steps


def test_killed_at_steps_all_along_and_run_again_nothing_is_doubled_or_missing(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, 100, part_bytes=1)
    name = old_partition(database, rows=250)
    before = rows_of(database, VALUES)
    at = 0
    while True:
        connection = db.connect(database.near, "eav_jobs", "to be killed")
        with monkeypatch.context() as patch:
            steps = deadly(patch, at)
            try:
                run.archive(connection)
                break
            except KilledError:
                pass
        connection.close()
        # Readers of the lake never see a row twice, and the partition is where it was until it is verified.
        assert bucket.rows() in (0, 100, 200, 250)
        assert rows_of(database, name) == before
        at += 1 if EVERY else 3
    connection.close()
    assert at > 20
    assert steps
    assert archive(database) == 0
    assert status(database)[-1] == "detached"
    assert set(status(database)[:-1]) <= {"superseded", "failed"}
    assert bucket.rows() == 250
    at_peace(database, bucket)


def test_a_restore_killed_at_steps_all_along_and_run_again_is_whole(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, 100, part_bytes=1)
    name = old_partition(database, rows=250)
    before = rows_of(database, VALUES)
    away(database)
    where = Settings(bucket.environment["ARCHIVE_BUCKET"])
    at = 0
    while True:
        connection = db.connect(database.near, "eav_jobs", "to be killed")
        with monkeypatch.context() as patch:
            steps = deadly(patch, at)
            try:
                chosen = restore_module().choose(connection, name)
                restore_module().restore(connection, where, chosen, timedelta(1))
                break
            except KilledError:
                pass
        connection.close()
        assert rows_of(database, VALUES) in ([], before)
        if rows_of(database, VALUES):
            break
        at += 1 if EVERY else 3
    assert len(steps) > 10
    assert rows_of(database, VALUES) == before
    with folder.temporary():
        pass
    at_peace(database, bucket)


KILL = """
import os, signal, sys
from jobs import db
from jobs.archive import export, run
from jobs.archive.store import Store
step = sys.argv[1]
steps = {"upload": (Store, "upload"), "read": (export.Export, "read_back"), "record": (export.Export, "record")}
owner, name = steps[step]
setattr(owner, name, lambda *args: os.kill(os.getpid(), signal.SIGKILL))
run.archive(db.connect(os.environ["DATABASE_URL"], "eav_jobs", "killed"))
"""


@pytest.mark.parametrize("step", ["upload", "read", "record"])
def test_sigkill(database: Database, bucket: Bucket, step: str, tmp_path: Path) -> None:
    old_partition(database, rows=300)
    done = subprocess.run(
        [sys.executable, "-c", KILL, step],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database.url, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list(tmp_path.glob("eav-archive-*"))) == (step != "record")
    assert len(rows_of(database, VALUES)) == 300
    until(
        lambda: database.one("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'killed'") == 0
    )
    assert archive(database) == 300
    assert bucket.rows() == 300
    at_peace(database, bucket)


def test_one_partition_that_cannot_be_archived_does_not_stop_the_others(
    database: Database, bucket: Bucket, jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [old_partition(database, day) for day in (0, 1)]
    with database.session() as connection:
        connection.execute(f"ALTER TABLE {names[0]} OWNER TO postgres".encode())
    assert jobs("archive-partitions") == 1
    (said,) = capsys.readouterr().out.splitlines()
    assert f": {names[0]}: permission denied" in said
    assert status(database) == ["exporting", "detached"]
    with database.session() as connection:
        connection.execute(f"ALTER TABLE {names[0]} OWNER TO eav_owner".encode())
    assert jobs("archive-partitions", "--table", REJECTED) == 0
    assert status(database) == ["exporting", "detached"]
    assert jobs("archive-partitions", "--partition", names[0]) == 0
    assert status(database) == ["failed", "detached", "detached"]
    at_peace(database, bucket)


def test_a_store_that_refuses_ends_the_run_in_one_line(
    database: Database,
    bucket: Bucket,
    jobs: Jobs,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old_partition(database)
    monkeypatch.setenv("ARCHIVE_BUCKET", "no-such-bucket")
    assert jobs("archive-partitions") == 1
    (said,) = capsys.readouterr().out.splitlines()
    assert "s3://no-such-bucket: NoSuchBucket" in said
    assert len(rows_of(database, VALUES)) == 30
    monkeypatch.setenv("PARTITION_PREFIX", "a b")
    assert jobs("archive-partitions") == 1
    with pytest.raises(JobsError, match="PARTITION_PREFIX must be"):
        settings_of({"ARCHIVE_BUCKET": "x", "PARTITION_PREFIX": "a//b"})


def test_progress_says_rows_share_and_speed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "SAY_EVERY", 0.0)
    candidate = export.Candidate(VALUES, "eav.p", LONG_AGO, LONG_AGO, 1_000_000, 200, None, "it is closed")
    with caplog.at_level("INFO", "jobs"):
        export.Says(candidate, "exported").at(100)
    assert "eav.p: 100 rows exported, about 50%" in caplog.messages[0]
    assert caplog.messages[0].endswith("MB/s")
