"""Whose a folder of the archive is: copies of a database, databases that went back in time, moved, or are lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg import conninfo, sql
from psycopg.types.json import Jsonb

from jobs.archive import owner, parquet, publish, restore
from jobs.archive.settings import Settings
from jobs.archive.store import Store
from jobs.cli import main as jobs_main
from jobs.errors import JobsError
from tests.conftest import Database, in_database
from tests.jobs.archiving import (
    VALUES,
    Jobs,
    KilledError,
    adopt,
    archive,
    archived_again,
    at_peace,
    away,
    due,
    expire,
    kept,
    killed,
    leaving,
    rows_of,
    small,
    status,
)  # fmt: skip
from tests.jobs.buckets import BUCKET, Bucket
from tests.jobs.waiting import until
from tests.sql.archives import late_rows, old_partition, worker


@pytest.fixture
def copied(database: Database) -> Iterator[Callable[[], Database]]:
    """Makes a copy of the database as it is now."""
    made: list[str] = []
    name = conninfo.conninfo_to_dict(database.url)["dbname"]

    def make() -> Database:
        copy = f"{name}_copy{len(made)}"
        with psycopg.connect(in_database(database.url, "postgres"), autocommit=True) as connection:
            # Whoever has just closed its connection may still be there.
            until(
                lambda: connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [name]
                ).fetchall() == [(0,)]
            )  # fmt: skip
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(copy), sql.Identifier(str(name))
                )
            )
        made.append(copy)
        near = database.shortcut and in_database(database.shortcut, copy)
        return Database(in_database(database.url, copy), near)

    yield make
    with psycopg.connect(in_database(database.url, "postgres"), autocommit=True) as connection:
        for copy in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(copy)))


def as_the_same(database: Database) -> None:
    """Let a copy be one of the files of its server: a snapshot of the disk, or a return to an earlier moment."""
    database.all(
        "UPDATE ops.archive_stores SET identity[2] ="
        " (SELECT oid FROM pg_database WHERE datname = current_database()) RETURNING 1"
    )


def test_a_database_that_went_back_in_time_takes_its_folder_over(
    database: Database,
    copied: Callable[[], Database],
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second, third, fourth = (old_partition(database, day) for day in range(4))
    archive(database, partition=first)
    expire(database)
    monkeypatch.setenv("PARTITIONS_LEAVE", "false")
    archive(database, partition=fourth)
    earlier = copied()
    as_the_same(earlier)
    # What it will not know: the second partition archived and dropped, the first back, which is archived again with
    # more, as the fourth is.
    monkeypatch.setenv("PARTITIONS_LEAVE", "true")
    archive(database, partition=second)
    expire(database)
    with worker(database) as connection:
        chosen = restore.choose(connection, first)
        restore.restore(connection, Settings(BUCKET), chosen, timedelta(days=1))
    monkeypatch.setenv("PARTITIONS_LEAVE", "false")
    for day, name in ((0, first), (3, fourth)):
        late_rows(database, day, 31, 33)
        until(partial(due, database, name))
        archive(database, partition=name)
    monkeypatch.setenv("PARTITIONS_LEAVE", "true")
    assert bucket.rows() == 33 + 30 + 33
    aside = bucket.keys("partitions/_superseded/")

    monkeypatch.setenv("DATABASE_URL", earlier.url)
    assert jobs_main(["archive-partitions"]) == 1
    (said,) = capsys.readouterr().out.splitlines()
    assert "has written since this one did to s3://archive-of-a-test/partitions" in said
    assert "PARTITION_PREFIX of its own; or" in said
    assert len(rows_of(earlier, VALUES)) == 90
    assert jobs_main(["archive-partitions", "--adopt"]) == 0
    # Each row once: of the first what came later, of the others what is here.
    assert bucket.rows() == 33 + 30 + 30 + 30
    assert [one in bucket.keys("partitions/_superseded/") for one in aside] == [True, False]
    assert expire(earlier) == 3
    for name in (first, second, third, fourth):
        assert jobs_main(["restore-partition", name]) == 0
    assert len(rows_of(earlier, VALUES)) == 33 + 90
    at_peace(earlier, bucket)
    # Now the other one is a copy that would do harm.
    monkeypatch.setenv("DATABASE_URL", database.url)
    assert jobs_main(["archive-partitions"]) == 1
    assert "has written since this one did" in capsys.readouterr().out


def test_a_copy_of_a_database_leaves_its_archive_alone(
    database: Database, copied: Callable[[], Database], bucket: Bucket, jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    name = old_partition(database)
    kept(database)
    archive(database)
    copy = copied()
    late_rows(copy, 0, 31, 40)
    before = bucket.keys("")
    monkeypatch.setenv("DATABASE_URL", copy.url)
    assert jobs("archive-partitions") == 1
    assert "this database was restored or moved since it wrote to" in capsys.readouterr().out
    monkeypatch.setenv("PARTITION_PREFIX", "a/copy")
    assert jobs("archive-partitions", "--partition", name) == 0
    assert len(bucket.keys("a/copy/table=")) == 1
    assert set(before) <= set(bucket.keys(""))
    # A database that has never archived there, as one that was migrated down and up.
    monkeypatch.delenv("PARTITION_PREFIX")
    copy.all("DELETE FROM ops.archive_stores RETURNING 1")
    assert jobs("archive-partitions") == 1
    assert "another database has its archive in s3://archive-of-a-test/partitions" in capsys.readouterr().out
    # It is moved for good, by pg_restore: its tables have other numbers, and are known as those that they were.
    copy.all("UPDATE ops.partition_archives SET table_oid = 1 RETURNING 1")
    assert jobs("archive-partitions", "--adopt") == 0
    assert copy.one("SELECT bool_and(table_oid = partition::regclass) FROM ops.partition_archives")
    # What it archives is in a/copy; what the other one has archived is no longer in the way of readers.
    assert [one.split("/")[:2] for one in bucket.keys("")] == [
        ["a", "copy"], ["a", "copy"], ["partitions", "_mark"], ["partitions", "_superseded"],
    ]  # fmt: skip


def test_an_archive_whose_database_is_lost_comes_back_by_its_files(
    database: Database,
    copied: Callable[[], Database],
    bucket: Bucket,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small(monkeypatch, 100, part_bytes=1)
    empty = copied()
    names = [old_partition(database, day, rows=250) for day in range(2)]
    old_partition(database, 2, rows=0)
    before = rows_of(database, VALUES)
    archive(database)
    assert expire(database) == 3
    columns = (
        "SELECT partition, starts_at, ends_at, rows, table_bytes, index_bytes, columns, checksums, files, attempt"
        " FROM ops.partition_archives WHERE rows > 0 ORDER BY 1"
    )
    recorded = database.all(columns)
    bucket.put("partitions/table=eav.entity_values_ts/notes.txt", b"of somebody")
    unreadable = recorded[0][8][0]["key"].replace(str(recorded[0][9]), "00000000-0000-0000-0000-000000000000")
    bucket.put(unreadable, b"no Parquet")

    monkeypatch.setenv("DATABASE_URL", empty.url)
    assert jobs("archive-partitions") == 1
    assert jobs("archive-partitions", "--adopt") == 0
    assert empty.all(columns) == recorded
    assert status(empty) == ["dropped", "dropped"]
    for name in names:
        assert jobs("restore-partition", name) == 0
    assert rows_of(empty, VALUES) == before
    # Neither is what it does not know gone.
    assert len(bucket.keys("partitions/table=")) == 6 + 2
    assert jobs("archive-partitions", "--adopt") == 0
    assert status(empty) == ["restored", "restored"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"columns": [{"name": "a", "type": "text FROM pg_authid AS s", "kind": "plain"}]},
            "column a of type|syntax error",
        ),
        (
            {"columns": [{"name": "a", "type": "no_such_type", "kind": "plain"}]},
            "column a of type no_such_type",
        ),
        ({"columns": [{"name": "a", "type": "text", "kind": "text; DROP TABLE x"}]}, "column a of type text"),
        ({"table": "eav.entities"}, "table eav.entities, which is not archived here"),
        ({"partition": "eav.a; DROP TABLE x"}, "not a valid identifier|partition"),
        ({"checksums": {"rows": 7}}, "7 rows, which are not those of its files"),
    ],
)
def test_what_a_file_says_of_itself_is_not_believed_blindly(
    database: Database, change: dict[str, Any], said: str
) -> None:
    about = {
        "table": VALUES, "partition": f"{VALUES}_lost", "starts_at": "2019-01-01", "ends_at": "2019-01-02",
        "exported_at": "2019-03-01", "checksums": {"rows": 0},
        "columns": [{"name": "tenant_id", "type": "bigint", "kind": "plain"}],
    } | change  # fmt: skip
    with database.session("eav_owner") as connection, pytest.raises(psycopg.Error, match=said):
        connection.execute("SELECT ops.archive_adopt(%s, gen_random_uuid(), 'b', '[]')", [Jsonb(about)])


def test_a_run_that_was_killed_before_it_left_its_mark_goes_on(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_partition(database)
    assert archive(database) == 30

    with monkeypatch.context() as patch:
        patch.setattr(Store, "leave_mark", killed)
        for _ in range(2):
            with pytest.raises(KilledError):
                archive(database)
    assert archive(database) == 0
    # A mark that is lost with all else is no other database's. What was detached is archived again.
    bucket.empty()
    assert archive(database) == 30
    at_peace(database, bucket)


def test_a_take_over_waits_for_no_run_and_no_run_for_it(database: Database, bucket: Bucket) -> None:
    old_partition(database)
    with worker(database) as other:
        other.execute("SELECT pg_advisory_lock_shared(6644089, 0)")
        with pytest.raises(
            JobsError, match="runs of this database archive to the folder now: run this again"
        ):
            adopt(database)
        assert archive(database) == 30
        other.execute("SELECT pg_advisory_unlock_shared(6644089, 0), pg_advisory_lock(6644089, 0)")
        with pytest.raises(JobsError, match="the folder is being taken over, by --adopt: run this again"):
            archive(database)


@pytest.mark.parametrize("step", ["bring_back", "know_again", "leave_mark"])
def test_a_take_over_that_was_killed_is_to_be_run_again(
    database: Database,
    copied: Callable[[], Database],
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    old_partition(database)
    kept(database)
    earlier = copied()
    archive(database)
    with monkeypatch.context() as patch:
        patch.setattr(Store if step == "leave_mark" else owner, step, killed)
        with pytest.raises(KilledError):
            adopt(earlier)
    if step == "leave_mark":
        # All was done but the mark, and the one that is there is known.
        archive(earlier)
    else:
        with pytest.raises(JobsError, match="an --adopt was interrupted, and is to be run again"):
            archive(earlier)
        adopt(earlier)
    assert bucket.rows() == 30
    at_peace(earlier, bucket)


def test_a_database_that_was_restored_over_itself_is_another_one(database: Database, bucket: Bucket) -> None:
    """As by pg_dump and pg_restore: its tables have other oids, it has its own."""
    old_partition(database)
    old_partition(database, 1)
    kept(database)
    archive(database, partition=f"{VALUES}_p2020_03_01")
    leaving(database)
    archive(database, partition=f"{VALUES}_p2020_03_02")
    kept(database)
    with database.session() as connection:
        connection.execute("UPDATE ops.archive_stores SET identity[3] = 1")
        connection.execute("UPDATE ops.partition_archives SET table_oid = 1")
    with pytest.raises(JobsError, match="this database was restored or moved since it wrote to"):
        archive(database)
    assert adopt(database) == 0
    assert status(database) == ["verified", "detached"]
    leaving(database)
    archive(database)
    assert expire(database) == 2
    assert bucket.rows() == 60


@pytest.mark.parametrize("first", ["older", "newer"])
def test_of_two_archives_of_a_partition_the_newer_is_known_again_whichever_comes_first(
    database: Database,
    copied: Callable[[], Database],
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
) -> None:
    empty = copied()
    old_partition(database)
    kept(database)
    archive(database)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "set_aside", lambda *_: None)
        archived_again(database)
    assert bucket.rows() == 63
    attempts = [
        str(one) for (one,) in database.all("SELECT attempt FROM ops.partition_archives ORDER BY archive_id")
    ]
    keys, wanted = Store.keys, attempts[first == "newer"]
    monkeypatch.setattr(
        Store, "keys", lambda self, prefix: sorted(keys(self, prefix), key=lambda key: wanted not in key)
    )
    adopt(empty)
    assert sorted(status(empty)) == ["dropped", "superseded"]
    assert bucket.rows() == 33
    at_peace(empty, bucket)
    # Nor does one come back that is superseded, and was not set aside yet.
    bucket.put(
        *(lambda key: (key.replace("_superseded/", ""), bucket.get(key)))(
            bucket.keys("partitions/_superseded/")[0]
        )
    )
    adopt(empty)
    assert bucket.rows() == 33


ODD: dict[str, dict[str, Any] | None] = {
    "no JSON": None,
    "no columns": {"columns": None},
    "no bounds": {"starts_at": None},
    "no type": {"columns": [{"name": "a", "type": "text FROM x", "kind": "plain"}]},
}


def test_odd_files_keep_no_archive_from_being_known_again(
    database: Database,
    copied: Callable[[], Database],
    bucket: Bucket,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    empty = copied()
    old_partition(database)
    away(database)
    (key,) = bucket.keys("partitions/table=")
    path = tmp_path / "odd"
    for number, odd in enumerate(ODD.values()):
        path.write_bytes(bucket.get(key))
        table, about = pq.read_table(path), parquet.about(pq.read_metadata(path)) or {}
        text = b"{" if odd is None else json.dumps(about | odd).encode()
        pq.write_table(table.replace_schema_metadata({parquet.KEY: text}), path)
        bucket.put(
            f"partitions/table={VALUES}/a-00000000-0000-0000-0000-00000000000{number}-1.parquet",
            path.read_bytes(),
        )
    adopt(empty)
    assert status(empty) == ["dropped"]
    assert sum("it stays, unknown" in text for text in caplog.messages) == len(ODD)
    assert len(bucket.keys("partitions/table=")) == 1 + len(ODD)


def test_a_damaged_copy_is_not_brought_back(database: Database, bucket: Bucket) -> None:
    old_partition(database)
    old_partition(database, 1)
    archive(database)
    expire(database)
    damaged, whole = bucket.keys("partitions/table=")
    bucket.put(publish.aside_of(damaged), b"damaged")
    bucket.put(publish.aside_of(whole), bucket.get(whole))
    for key in (damaged, whole):
        bucket.client.delete_object(Bucket=BUCKET, Key=key)
    adopt(database)
    assert bucket.keys("partitions/table=") == [whole]


@pytest.mark.parametrize("mark", [b"garbage", b"", b"\xff\xfe"])
def test_whatever_the_mark_is_it_is_anothers(database: Database, bucket: Bucket, mark: bytes) -> None:
    bucket.put("partitions/_mark", mark)
    with pytest.raises(JobsError, match="another database has its archive in"):
        archive(database)
    assert adopt(database) == 0


def test_a_folder_that_is_full_is_anothers_without_a_mark_too(
    database: Database, copied: Callable[[], Database], bucket: Bucket
) -> None:
    empty = copied()
    old_partition(database)
    away(database)
    bucket.client.delete_object(Bucket=BUCKET, Key="partitions/_mark")
    with pytest.raises(JobsError, match="another database has its archive in"):
        archive(empty)
    assert archive(database) == 0


def test_a_folder_in_a_folder_is_another_one(
    database: Database, copied: Callable[[], Database], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTITION_PREFIX", "a/b")
    name = old_partition(database)
    kept(database)
    archive(database)
    copy = copied()
    monkeypatch.setenv("PARTITION_PREFIX", "a")
    late_rows(copy, 0, 31, 33)
    until(partial(due, copy, name))
    assert archive(copy) == 33
    assert len(bucket.keys("a/b/table=")) == 1


def test_objects_that_were_copied_to_another_folder_are_known_there(
    database: Database, bucket: Bucket, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = old_partition(database)
    away(database)
    (key,) = bucket.keys("partitions/table=")
    bucket.put(key.replace("partitions/", "new/"), bucket.get(key))
    bucket.client.delete_object(Bucket=BUCKET, Key=key)
    monkeypatch.setenv("PARTITION_PREFIX", "new")
    adopt(database)
    assert status(database) == ["dropped"]
    assert jobs("restore-partition", name) == 0


def test_only_the_owner_takes_a_folder_over(
    bucket: Bucket, worker_login: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What files say is rows of any tenant, and SQL."""
    monkeypatch.setenv("DATABASE_URL", worker_login)
    assert jobs_main(["archive-partitions", "--adopt"]) == 1
    assert "may not act as eav_owner" in capsys.readouterr().err
