"""Archives of partitions in company: copies of the database, tables made anew, compactions, full disks, versions."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from jobs.archive import detach, parquet, publish, restore, run
from jobs.archive.settings import Settings
from jobs.archive.store import File, Store, StoreError
from jobs.compact import Compaction, candidates
from tests.conftest import Database, in_database, run_alembic
from tests.jobs.archiving import (
    VALUES,
    Jobs,
    archive,
    at_peace,
    away,
    expire,
    rows_of,
    small,
    status,
)
from tests.jobs.buckets import BUCKET, Bucket
from tests.jobs.waiting import until
from tests.sql import archives
from tests.sql.archives import late_rows, old_partition, worker

FAR: LiteralString = "UPDATE ops.partition_policies SET retention = '100 years', archive_after = '2 years'"
"""What is of 2020 is archived, and does not leave."""


def kept(database: Database) -> None:
    with database.session() as connection:
        connection.execute(FAR)


def gone(database: Database, name: str) -> None:
    """Somebody drops a table."""
    with database.session() as connection:
        connection.execute(f"DROP TABLE {name}".encode())


def due(database: Database, name: str) -> bool:
    """Whether it is to be archived, which depends on statistics that come a moment later."""
    return bool(database.one("SELECT count(*) > 0 FROM ops.archivable(%s)", name))


def compacted(database: Database, name: str) -> None:
    """Compact a partition, which makes another table of its name."""
    with worker(database) as connection:
        (candidate,) = (one for one in candidates(connection) if one.partition == name)
        assert Compaction(connection, candidate).run() > 0


# -- databases and their copies -----------------------------------------------------------------------------


@pytest.fixture
def copied(database: Database) -> Iterator[Callable[[], Database]]:
    """Makes a copy of the database as it is now."""
    made: list[str] = []
    name = psycopg.conninfo.conninfo_to_dict(database.url)["dbname"]

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
        return Database(in_database(database.url, copy))

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
    from jobs.cli import main

    assert main(["archive-partitions"]) == 1
    (said,) = capsys.readouterr().out.splitlines()
    assert "has written since this one did to s3://archive-of-a-test/partitions" in said
    assert "PARTITION_PREFIX of its own; or" in said
    assert len(rows_of(earlier, VALUES)) == 90
    assert main(["archive-partitions", "--adopt"]) == 0
    # Each row once: of the first what came later, of the others what is here.
    assert bucket.rows() == 33 + 30 + 30 + 30
    assert [one in bucket.keys("partitions/_superseded/") for one in aside] == [True, False]
    assert expire(earlier) == 3
    for name in (first, second, third, fourth):
        assert main(["restore-partition", name]) == 0
    assert len(rows_of(earlier, VALUES)) == 33 + 90
    at_peace(earlier, bucket)
    # Now the other one is a copy that would do harm.
    monkeypatch.setenv("DATABASE_URL", database.url)
    assert main(["archive-partitions"]) == 1
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

    class KilledError(BaseException):
        pass

    def killed(self: Store, mark: str, *, first: bool = False) -> None:
        raise KilledError

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


# -- tables of the same name --------------------------------------------------------------------------------


def test_a_table_made_anew_leaves_the_archive_of_the_first_where_it_is(
    database: Database, bucket: Bucket, jobs: Jobs
) -> None:
    name = old_partition(database)
    kept(database)
    archive(database)
    (file,) = bucket.keys("partitions/table=")
    gone(database, name)
    old_partition(database, rows=0)
    late_rows(database, 0, 101, 105)
    with worker(database) as connection:
        assert [one.why for one in run.candidates(connection)] == ["it is closed"]
    assert archive(database) == 5
    assert status(database) == ["dropped", "verified"]
    assert file in bucket.keys("partitions/table=")
    assert bucket.rows() == 35
    gone(database, name)
    assert jobs("restore-partition", name, "--archive", "1") == 0
    assert len(rows_of(database, VALUES)) == 30


def test_a_detached_table_that_somebody_dropped_is_in_the_archive_only(
    database: Database, bucket: Bucket
) -> None:
    name = old_partition(database)
    archive(database)
    gone(database, name)
    old_partition(database)
    assert expire(database) == 1
    assert status(database) == ["dropped"]
    assert len(rows_of(database, VALUES)) == 30


def test_a_compaction_changes_the_table_and_not_its_archive(database: Database, bucket: Bucket) -> None:
    name = old_partition(database)
    kept(database)
    archive(database)
    compacted(database, name)
    with worker(database) as connection:
        assert [one.why for one in run.candidates(connection)] == ["rows may have come since"]
    assert archive(database) == 0
    assert status(database) == ["verified"]


def test_no_compaction_gets_between_the_announcement_and_the_detach(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = old_partition(database)
    concurrently = detach.concurrently
    seen: list[Any] = []

    def meanwhile(connection: Any, parent: str, partition: str) -> bool:
        with worker(database) as other:
            # Neither due, nor to be had by somebody who has found it due before.
            seen.append([one.partition for one in candidates(other)])
            locked = other.execute(
                "SELECT pg_try_advisory_lock(6644087, %s::regclass::oid::integer)", [name]
            ).fetchall()
            seen.append(locked)
        return concurrently(connection, parent, partition)

    monkeypatch.setattr(detach, "concurrently", meanwhile)
    archive(database)
    assert seen == [[], [(False,)]]
    assert status(database) == ["detached"]
    # And nothing stays locked.
    with worker(database) as connection, worker(database) as other:
        archive_id = archives.verified(database, old_partition(database, 1))
        with database.session() as owner:
            owner.execute(
                "INSERT INTO ops.compactions (started_at, status, partition, bytes_before, index_bytes_before)"
                " VALUES (now(), 'copying', 'eav.entity_values_ts_p2020_03_02', 0, 0)"
            )
        leave = "SELECT ops.archive_leave(%s)"
        assert connection.execute(leave, [archive_id]).fetchall() == [(False,)]
        assert other.execute(leave, [archive_id]).fetchall() == [(False,)]
        until(lambda: database.one("SELECT count(*) FROM pg_locks WHERE classid = 6644087") == 0)


# -- the bucket ---------------------------------------------------------------------------------------------


def versioned(bucket: Bucket) -> None:
    bucket.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})


def suspended(bucket: Bucket) -> None:
    bucket.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})


@pytest.mark.parametrize("harm", ["written over", "deleted"])
def test_the_version_that_was_verified_is_restored(
    database: Database, bucket: Bucket, jobs: Jobs, harm: str
) -> None:
    versioned(bucket)
    try:
        name = old_partition(database)
        before = rows_of(database, VALUES)
        away(database)
        (key,) = bucket.keys("partitions/table=")
        if harm == "deleted":
            bucket.client.delete_object(Bucket=BUCKET, Key=key)
        else:
            bucket.put(key, b"something else")
        assert jobs("restore-partition", name) == 0
        assert rows_of(database, VALUES) == before
    finally:
        suspended(bucket)


def test_a_bucket_that_was_copied_has_other_versions(database: Database, bucket: Bucket, jobs: Jobs) -> None:
    versioned(bucket)
    try:
        name = old_partition(database)
        archive(database)
        (key,) = bucket.keys("partitions/table=")
        (was,) = database.one("SELECT files FROM ops.partition_archives")
        bucket.put(key, bucket.get(key))
        bucket.client.delete_object(Bucket=BUCKET, Key=key, VersionId=was["version_id"])
        assert archive(database) == 0
        assert status(database) == ["detached"]
        assert expire(database) == 1
        assert jobs("restore-partition", name) == 0
        assert len(rows_of(database, VALUES)) == 30
    finally:
        suspended(bucket)


def test_the_bucket_says_how_objects_are_encrypted_unless_there_is_a_key(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    made = Store.__init__

    def watched(self: Store, *args: Any) -> None:
        made(self, *args)
        self._client.meta.events.register(
            "before-parameter-build.s3", lambda params, model, **_: sent.append({"name": model.name} | params)
        )

    monkeypatch.setattr(Store, "__init__", watched)
    writes = ("PutObject", "CopyObject", "CreateMultipartUpload")
    old_partition(database)
    archive(database)
    assert [one["name"] for one in sent if "ServerSideEncryption" in one] == []
    assert {one["name"] for one in sent} & set(writes) == {"PutObject", "CopyObject"}
    sent.clear()
    old_partition(database, 1)
    monkeypatch.setenv("KMS_KEY_ID", "alias/archive")
    archive(database)
    kept_with = [
        (one.get("ServerSideEncryption"), one.get("SSEKMSKeyId")) for one in sent if one["name"] in writes
    ]
    assert set(kept_with) == {("aws:kms", "alias/archive")}


@pytest.mark.parametrize("head", [
    {"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "DEEP_ARCHIVE_ACCESS"},
    {"StorageClass": "DEEP_ARCHIVE"},
])  # fmt: skip
def test_what_is_in_an_archive_tier_is_asked_for_once_and_no_table_made(
    database: Database, bucket: Bucket, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, head: dict[str, str]
) -> None:
    name = old_partition(database)
    away(database)
    asked = []
    monkeypatch.setattr(Store, "_head", lambda self, key, version_id=None: head | {"ContentLength": 1})
    made = Store.__init__

    def watched(self: Store, *args: Any) -> None:
        made(self, *args)

        def restored(**params: Any) -> None:
            asked.append(params["RestoreRequest"])
            head["Restore"] = 'ongoing-request="true"'

        monkeypatch.setattr(self._client, "restore_object", restored)

    monkeypatch.setattr(Store, "__init__", watched)
    with database.session() as connection:
        # A call would end it otherwise.
        connection.execute("REVOKE EXECUTE ON FUNCTION ops.restore_make(bigint) FROM eav_jobs")
    for _ in range(2):
        assert jobs("restore-partition", name) == 3
    # Intelligent-Tiering takes no number of days.
    days = {} if "ArchiveStatus" in head else {"Days": 7}
    assert asked == [days | {"GlacierJobParameters": {"Tier": "Standard"}}]
    head.clear()
    monkeypatch.undo()


def test_superseded_files_that_cannot_be_moved_are_moved_later(
    database: Database, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    old_partition(database)
    kept(database)
    archive(database)
    (key,) = bucket.keys("partitions/table=")
    whole = bucket.get(key)
    bucket.put(key, whole, StorageClass="GLACIER")
    late_rows(database, 0, 31, 33)
    until(lambda: database.one("SELECT count(*) FROM ops.archivable()") == 1)
    assert archive(database) == 33
    assert any("superseded archive 1 stay where they are" in text for text in caplog.messages)
    assert status(database) == ["superseded", "verified"]
    bucket.put(key, whole)
    assert archive(database) == 0
    assert bucket.rows() == 33
    at_peace(database, bucket)
    assert len(bucket.keys("partitions/_superseded/")) == 1


def test_a_half_detached_partition_whose_files_are_gone_is_archived_again(
    database: Database, bucket: Bucket
) -> None:
    """There is no way back from there, and nobody sees its rows."""
    name = old_partition(database)
    kept(database)
    archive(database)
    (key,) = bucket.keys("partitions/table=")
    with database.session() as connection:
        connection.execute("UPDATE ops.partition_policies SET retention = '1 year'")
        # As a DETACH … CONCURRENTLY that was killed leaves it.
        connection.execute("UPDATE ops.partition_archives SET leaving_at = now()")
        connection.execute(
            "UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = %s::regclass", [name]
        )
    bucket.client.delete_object(Bucket=BUCKET, Key=key)
    assert archive(database) == 0
    assert status(database) == ["detached"]
    # Looked for once more before it is dropped.
    assert archive(database) == 30
    assert status(database) == ["superseded", "detached"]
    assert expire(database) == 1
    at_peace(database, bucket)


def test_what_is_detached_is_not_dropped_while_its_files_are_gone_or_not_published(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_partition(database)
    archive(database)
    (key,) = bucket.keys("partitions/table=")
    bucket.client.delete_object(Bucket=BUCKET, Key=key)
    with worker(database) as connection:
        publish.look_after(connection, Store(Settings(BUCKET)))
    assert expire(database) == 0

    def refused(self: Store, file: File, key: str) -> File:
        raise StoreError("S3 refuses")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "move", refused)
        with pytest.raises(StoreError):
            archive(database)
    assert status(database) == ["superseded", "detached"]
    assert expire(database) == 0
    archive(database)
    at_peace(database, bucket)
    assert expire(database) == 1


# -- this machine -------------------------------------------------------------------------------------------


def test_the_snapshot_is_let_go_before_the_upload_is_done(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, 100, part_bytes=1)
    old_partition(database, rows=250)
    upload = Store.upload
    held = "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()"
    last = []

    def patient(self: Store, path: Path, key: str) -> None:
        if key.endswith("/3.parquet"):
            until(lambda: database.one(f"{held} AND datname = current_database()") == 0)
            last.append(key)
        upload(self, path, key)

    monkeypatch.setattr(Store, "upload", patient)
    assert archive(database) == 250
    assert len(last) == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "1.parquet"), "1.parquet: No space left on device"),
        (pa.ArrowInvalid("a column\nis odd"), "eav.entity_values_ts_p2020_03_01: a column"),
    ],
)
def test_what_goes_wrong_on_this_machine_is_one_line(
    database: Database, bucket: Bucket, jobs: Jobs, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], error: Exception, said: str,
) -> None:  # fmt: skip
    first, second = old_partition(database, 0), old_partition(database, 1)

    whole = parquet.Writer.write
    broken = [first]

    def failing(self: parquet.Writer, table: pa.Table) -> parquet.Part | None:
        if broken:
            broken.pop()
            raise error
        return whole(self, table)

    monkeypatch.setattr(parquet.Writer, "write", failing)
    assert jobs("archive-partitions") == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert said in line
    # A full disk is in the way of all, an odd value of one only.
    assert status(database) == (["exporting"] if isinstance(error, OSError) else ["exporting", "detached"])
    assert archive(database) == (60 if isinstance(error, OSError) else 30)
    assert {first, second} == {
        name for (name,) in database.all("SELECT partition FROM ops.partition_archives")
    }
    at_peace(database, bucket)


# -- drops and restores -------------------------------------------------------------------------------------


def test_two_runs_drop_and_one_partition_that_cannot_go_keeps_no_other(
    database: Database, bucket: Bucket
) -> None:
    names = [old_partition(database, day) for day in range(3)]
    archive(database)
    with database.session() as connection, database.session() as other:
        connection.execute(f"CREATE VIEW public.looks AS SELECT FROM {names[0]}".encode())
        other.execute("BEGIN")
        other.execute("SELECT FROM ops.partition_archives WHERE partition = %s FOR UPDATE", [names[1]])
        assert expire(database) == 1
        assert status(database) == ["detached", "detached", "dropped"]
        other.execute("COMMIT")
        connection.execute("DROP VIEW public.looks")
        assert expire(database) == 2


def test_the_record_is_not_undone_while_the_archive_has_what_nobody_else_has(
    database: Database, bucket: Bucket, jobs: Jobs
) -> None:
    name = old_partition(database)
    for step in (archive, expire):
        step(database)
        done = run_alembic(database.url, "downgrade", "0010")
        assert done.returncode != 0
        assert "partitions are in the archive only, and this would forget which" in done.stderr
        assert database.one("SELECT count(*) FROM ops.partition_archives") == 1
    assert jobs("restore-partition", name) == 0
    assert run_alembic(database.url, "downgrade", "0010").returncode == 0
    assert len(rows_of(database, VALUES)) == 30


def test_rows_that_are_put_into_a_restore_after_its_comparison_are_not_attached(
    database: Database, bucket: Bucket
) -> None:
    name = old_partition(database)
    away(database)
    with worker(database) as connection:
        (number,) = connection.execute("SELECT archive_id FROM ops.partition_archives").fetchone() or (0,)
        chosen = restore.choose(connection, name)
        assert connection.execute("SELECT ops.restore_open(%s)", [number]).fetchall() == [("load",)]
        connection.execute("SELECT ops.restore_make(%s)", [number])
        store = Store(Settings(BUCKET))
        restore._load(connection, store, chosen, [File(**one) for one in chosen.files])
        connection.execute("SELECT ops.archive_scratch(%s)", [number])
        connection.execute(
            "INSERT INTO archive_scratch (tenant_id, entity_id, attribute_id, observed_at)"
            " VALUES (1, 1, 1, '2020-03-01 12:00Z')"
        )
        connection.execute("SELECT ops.restore_piece(%s)", [number])
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not restored and compared"):
            connection.execute("SELECT ops.restore_attach(%s, '1 day')", [number])
    assert rows_of(database, VALUES) == []


def test_a_partition_that_was_only_detached_is_compared_before_it_leaves_again(
    database: Database, bucket: Bucket, jobs: Jobs
) -> None:
    name = old_partition(database)
    archive(database)
    late_rows(database, 0, 31, 31, name)
    assert jobs("restore-partition", name) == 0
    with database.session() as connection:
        connection.execute("UPDATE ops.partition_archives SET keep_until = now()")
    with worker(database) as connection:
        assert run.leaving(connection) == []
    assert archive(database) == 31
    assert bucket.rows() == 31
    assert expire(database) == 1
