"""Archives of partitions in company: tables made anew, compactions, damaged files, full disks, versions."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from jobs.archive import detach, parquet, publish, restore, run
from jobs.archive.settings import Settings
from jobs.archive.store import File, Store, StoreError
from jobs.compact import Compaction, candidates
from jobs.errors import JobsError
from tests.conftest import Database, run_alembic
from tests.jobs.archiving import (
    VALUES,
    Jobs,
    KilledError,
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
from tests.sql import archives
from tests.sql.archives import late_rows, old_partition, worker


def gone(database: Database, name: str) -> None:
    """Somebody drops a table."""
    with database.session() as connection:
        connection.execute(f"DROP TABLE {name}".encode())


def compacted(database: Database, name: str) -> None:
    """Compact a partition, which makes another table of its name."""
    with worker(database) as connection:
        (candidate,) = (one for one in candidates(connection) if one.partition == name)
        assert Compaction(connection, candidate).run() > 0


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


# -- files that are damaged ---------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["gone", "cut short", "other bytes"])
def test_of_files_one_of_which_is_damaged_none_stays_in_the_folder(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    small(monkeypatch, 100, part_bytes=1)
    old_partition(database, rows=250)
    kept(database)
    archive(database)
    first, *_ = bucket.keys("partitions/table=")
    whole = bucket.get(first)
    if harm == "gone":
        bucket.client.delete_object(Bucket=BUCKET, Key=first)
    else:
        bucket.put(first, whole[:-7] if harm == "cut short" else whole[:9] + b"x" + whole[10:])
    leaving(database)
    with pytest.raises(JobsError, match="is gone or damaged: it stays attached, and is archived again"):
        archive(database)
    assert archive(database) == 250
    assert bucket.rows() == 250
    at_peace(database, bucket)
    assert expire(database) == 1


def killed_while_published(database: Database, bucket: Bucket, patch: pytest.MonkeyPatch, after: int) -> None:
    """A run that is killed when so many files are published; the others expire, as what is unverified may."""
    move, moves = Store.move, []

    def dying(self: Store, file: File, key: str) -> File:
        moves.append(key)
        if len(moves) > after:
            raise KilledError
        return move(self, file, key)

    with patch.context() as here:
        here.setattr(Store, "move", dying)
        with pytest.raises(KilledError):
            archive(database)
    for key in bucket.keys("partitions/_unverified/"):
        bucket.client.delete_object(Bucket=BUCKET, Key=key)


def test_what_was_published_in_part_does_not_stay_when_the_rest_is_gone(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, 100, part_bytes=1)
    old_partition(database, rows=250)
    kept(database)
    killed_while_published(database, bucket, monkeypatch, after=1)
    assert len(bucket.keys("partitions/table=")) == 1
    assert archive(database) == 250
    assert bucket.rows() == 250
    at_peace(database, bucket)


def test_an_archive_that_was_never_published_keeps_no_older_one_in_the_folder(
    database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = old_partition(database)
    kept(database)
    archive(database)
    late_rows(database, 0, 31, 33)
    until(partial(due, database, name))
    killed_while_published(database, bucket, monkeypatch, after=0)
    assert archive(database) == 33
    assert status(database) == ["superseded", "superseded", "verified"]
    assert bucket.rows() == 33
    caplog.clear()
    assert archive(database) == 0
    assert [one for one in caplog.messages if "superseded" in one] == []
    at_peace(database, bucket)


def test_what_is_lost_in_both_places_is_said_once(
    database: Database, bucket: Bucket, jobs: Jobs, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    name = old_partition(database)
    kept(database)
    killed_while_published(database, bucket, monkeypatch, after=0)
    gone(database, name)
    assert jobs("archive-partitions") == 1
    assert f"{name}: " in (said := capsys.readouterr().out)
    assert "its rows are lost" in said
    assert jobs("archive-partitions") == 0
    assert status(database) == ["failed"]


def test_a_partition_is_dropped_only_if_somebody_has_looked_for_its_files_lately(
    database: Database, bucket: Bucket
) -> None:
    old_partition(database)
    archive(database)
    with database.session() as connection:
        connection.execute("UPDATE ops.partition_archives SET looked_at = now() - interval '2 days'")
    assert expire(database) == 0
    archive(database)
    assert expire(database) == 1


# -- steps that were cut short, and other hands -------------------------------------------------------------


@pytest.mark.parametrize("then", ["files gone", "retention longer"])
def test_a_run_killed_right_after_the_concurrent_detach_is_gone_on_with(
    database: Database, bucket: Bucket, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    name = old_partition(database)
    kept(database)
    archive(database)
    leaving(database)
    with monkeypatch.context() as patch:
        patch.setattr(detach, "retrying", killed)
        with pytest.raises(KilledError):
            archive(database)
    assert rows_of(database, VALUES) == []
    assert status(database) == ["verified"]
    if then == "files gone":
        (key,) = bucket.keys("partitions/table=")
        bucket.client.delete_object(Bucket=BUCKET, Key=key)
        assert archive(database) == 30
    else:
        kept(database)
        assert archive(database) == 0
    assert status(database)[-1] == "detached"
    assert jobs("restore-partition", name) == 0
    assert len(rows_of(database, VALUES)) == 30
    assert bucket.rows() == 30


def test_a_partition_detached_by_hand_is_no_table_to_be_dropped(
    database: Database, bucket: Bucket, jobs: Jobs
) -> None:
    name = old_partition(database)
    kept(database)
    archive(database)
    with database.session() as connection:
        connection.execute(f"ALTER TABLE {VALUES} DETACH PARTITION {name}".encode())
    late_rows(database, 0, 31, 33, name)
    assert jobs("restore-partition", name) == 0
    assert len(rows_of(database, VALUES)) == 33


def test_a_table_made_anew_while_it_is_exported_is_not_taken_for_the_first(
    database: Database, bucket: Bucket
) -> None:
    name = old_partition(database)
    number = archives.begun(database, name)
    gone(database, name)
    old_partition(database)
    with worker(database) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        for function in ("archive_cursor", "archive_measure"):
            with (
                pytest.raises(psycopg.errors.UndefinedTable, match="another table has its name"),
                connection.transaction(),
            ):
                connection.execute(f"SELECT ops.{function}(%s)".encode(), [number])


def test_an_older_archive_that_is_restored_takes_the_place_of_the_newer(
    database: Database, bucket: Bucket, jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    name = old_partition(database)
    kept(database)
    archive(database)
    archived_again(database)
    leaving(database)
    archive(database)
    expire(database)
    assert status(database) == ["superseded", "dropped"]
    assert jobs("restore-partition", "--list") == 0
    assert "superseded" in capsys.readouterr().out
    assert jobs("restore-partition", name, "--archive", "1") == 0
    assert len(rows_of(database, VALUES)) == 30
    archived_again(database, first=34, last=34)
    assert status(database) == ["superseded", "superseded", "verified"]
    assert bucket.rows() == 31
    at_peace(database, bucket)
