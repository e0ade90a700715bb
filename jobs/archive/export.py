"""One partition into the archive: exported from one snapshot, read back from the bucket, compared, recorded, published.

A run that is ended at any moment leaves the partition as it was. What it uploaded lies where no table is read, under a
name that no other archive has, until it was read back and is recorded; what was not, the next run deletes, and begins
again; what was, it copies to the folder of the table, if that is not done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg
import pyarrow as pa
from psycopg.types.json import Jsonb

from jobs import db
from jobs.archive import arrow, parquet, publish
from jobs.archive.folder import temporary
from jobs.archive.store import DamagedError, File, Store, digest
from jobs.compact import size, unlock

log = logging.getLogger(__name__)

SAY_EVERY: Final = 5.0
"""Seconds."""
AHEAD: Final = 1
"""Files that are uploaded, or wait for that, at most, while the next one is written."""


@dataclass(frozen=True)
class Candidate:
    """A partition that is due: a row of ops.archivable()."""

    parent_table: str
    partition: str
    starts_at: datetime
    ends_at: datetime
    bytes: int
    estimated_rows: int
    archive_id: int | None
    why: str

    def text(self) -> str:
        """For people."""
        return f"{self.partition}: {self.why}; about {self.estimated_rows:,} rows, {size(self.bytes)}"


class Export:
    """One partition, step by step, on `connection` and, while it reads rows, on a session beside it."""

    def __init__(
        self,
        connection: db.Connection,
        store: Store,
        candidate: Candidate,
        *,
        row_group: int = parquet.ROW_GROUP,
        part_bytes: int = parquet.PART_BYTES,
    ) -> None:
        self._connection, self.store, self._candidate = connection, store, candidate
        self._row_group, self._part_bytes = row_group, part_bytes
        self.archive_id: int | None = None
        self.attempt = ""
        self.files: list[File] = []
        self._uploads: list[Future[File]] = []

    def run(self) -> int:
        """All steps; returns the rows, 0 if another session is at it.

        Raises DamagedError if what was read back differs, other JobsErrors, psycopg.Error.
        """
        if not self.open():
            log.info("%s: another run is at it, or has done it", self._candidate.partition)
            return 0
        try:
            # What was interrupted is given up, and its objects with it.
            publish.clear(self._connection, self.store)
            with temporary() as folder:
                self.export(folder)
                self.read_back(folder)
            rows = self.record()
            publish.publish(self._connection, self.store, self._number)
            return rows
        except DamagedError as error:
            self._one("SELECT ops.archive_failed(%s, %s)", self._number, str(error))
            publish.clear(self._connection, self.store)
            raise
        finally:
            if not self._connection.closed:
                self.close()

    @property
    def _number(self) -> int:
        assert self.archive_id is not None
        return self.archive_id

    def open(self) -> bool:
        """Lock the partition against other runs and compactions, and begin the record."""
        try:
            self.archive_id = self._one("SELECT ops.archive_open(%s)", self._candidate.partition)
        except (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.UndefinedTable):
            return False
        if self.archive_id is None:
            return False
        self.attempt = self._one(
            "SELECT attempt::text FROM ops.partition_archives WHERE archive_id = %s", self.archive_id
        )
        return True

    def close(self) -> None:
        """Let go of the lock."""
        unlock(self._connection)

    def export(self, folder: Path) -> None:
        """Write what one snapshot shows to files, upload each that is complete, and sum it up in the server.

        The snapshot is let go when the last row is written, whatever uploads are still to be done.
        """
        about = self._about()
        with ThreadPoolExecutor(1) as uploader:
            try:
                self._write_all(folder, about, uploader)
                self.files = [upload.result() for upload in self._uploads]
            except BaseException:
                uploader.shutdown(wait=True, cancel_futures=True)
                raise

    def _write_all(self, folder: Path, about: dict[str, Any], uploader: ThreadPoolExecutor) -> None:
        with arrow.beside(self._connection) as beside, ThreadPoolExecutor(1) as pool:
            with self._snapshot() as snapshot:
                beside.do("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                beside.do(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                beside.do("SET LOCAL idle_in_transaction_session_timeout = 0")
                beside.do("SET LOCAL work_mem = '256MB'")
                # Should this process die, the server is not to sort on for long.
                beside.do("SET LOCAL client_connection_check_interval = '2s'")
                cursor = beside.one(f"SELECT ops.archive_cursor({self._number})")
                measured = pool.submit(self._one, "SELECT ops.archive_measure(%s)", self._number)
                try:
                    self._write(
                        folder,
                        beside.rows(cursor),
                        lambda: about | {"checksums": measured.result()},
                        about["sorted_by"],
                        uploader,
                    )
                    measured.result()
                except BaseException:
                    if not measured.done():
                        self._connection.cancel()
                    raise
            beside.do("COMMIT")

    @contextmanager
    def _snapshot(self) -> Iterator[str]:
        """A transaction whose snapshot another session may take."""
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        try:
            self._connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield self._one("SELECT pg_export_snapshot()")
            self._connection.execute("COMMIT")
        finally:
            if not self._connection.closed:
                self._connection.rollback()

    def _write(
        self,
        folder: Path,
        tables: Iterator[pa.Table],
        about: Callable[[], dict[str, Any]],
        sorted_by: list[str],
        uploader: ThreadPoolExecutor,
    ) -> None:
        writer = parquet.Writer(
            folder, about, sorted_by, row_group=self._row_group, part_bytes=self._part_bytes
        )
        log.info("%s: sorting; then its rows come", self._candidate.partition)
        says = Says(self._candidate, "exported")
        try:
            for table in tables:
                if not table.num_rows:
                    break
                self._upload(writer.write(table), uploader)
                says.at(table.num_rows)
            self._upload(writer.end(), uploader)
        finally:
            writer.close()

    def _about(self) -> dict[str, Any]:
        """What the footer of each file says, so that it can be read without the record."""
        about: dict[str, Any] = self._one(
            "SELECT jsonb_build_object('archive_id', archive_id, 'table', parent_table, 'partition', partition,"
            " 'starts_at', starts_at, 'ends_at', ends_at, 'columns', columns,"
            " 'table_bytes', table_bytes, 'index_bytes', index_bytes,"
            " 'sorted_by', ops.archive_order(parent_table), 'exported_at', begun_at,"
            " 'replaces', replaces)"
            " FROM ops.partition_archives WHERE archive_id = %s",
            self._number,
        )
        return about

    def _upload(self, part: parquet.Part | None, uploader: ThreadPoolExecutor) -> None:
        if part is None:
            return
        number = len(self._uploads) + 1
        self._uploads.append(uploader.submit(self._put, part, number))
        # One that failed ends the export; one that is slow bounds what is on the disk.
        if number > AHEAD:
            self._uploads[-1 - AHEAD].result()

    def _put(self, part: parquet.Part, number: int) -> File:
        key = f"{self.store.settings.staging(self.attempt)}{number}.parquet"
        self.store.upload(part.path, key)
        file = File(key, part.path.stat().st_size, part.rows, digest(part.path))
        part.path.unlink()
        return file

    def read_back(self, folder: Path) -> None:
        """Load what is in the bucket, a row group at a time, and sum it up in the server. Raises DamagedError."""
        says = Says(self._candidate, "read back")
        with arrow.beside(self._connection) as beside:
            scratch = beside.one(f"SELECT ops.archive_scratch({self._number})")
            for group in downloaded(self.store, self.files, folder):
                beside.load(scratch, group)
                beside.one(f"SELECT ops.archive_piece({self._number})")
                says.at(group.num_rows)

    def record(self) -> int:
        """Make this the archive of its partition; returns its rows.

        Raises DamagedError if the server, which has summed up both, finds that other rows were read back.
        """
        files = Jsonb([vars(file) for file in self.files])
        try:
            rows: int = self._one(
                "SELECT ops.archive_verified(%s, %s, %s)", self._number, self.store.settings.bucket, files
            )
        except psycopg.errors.DataCorrupted as error:
            raise DamagedError(db.one_line(error)) from None
        written = sum(file.bytes for file in self.files)
        log.info(
            "%s: %s rows verified, %s became %s of Parquet",
            self._candidate.partition, f"{rows:,}", size(self._candidate.bytes), size(written),
        )  # fmt: skip
        return rows

    def _one(self, query: str, *params: object) -> Any:
        row = self._connection.execute(query.encode(), params).fetchone()
        assert row is not None
        return row[0]


def downloaded(store: Store, files: Sequence[File], folder: Path) -> Iterator[pa.Table]:
    """The rows of an archive, a row group at a time and a file at a time. Raises DamagedError, StoreError."""
    path = folder / "read.parquet"
    for file in files:
        store.download(file, path)
        rows = 0
        try:
            for group in parquet.groups(path):
                rows += group.num_rows
                yield group
        except pa.ArrowException as error:
            raise DamagedError(f"{file.key} is no Parquet file: {str(error).splitlines()[0]}") from None
        if rows != file.rows:
            raise DamagedError(f"{file.key} has {rows:,} rows, written were {file.rows:,}")
        path.unlink()


class Says:
    """Progress, every few seconds."""

    def __init__(self, candidate: Candidate, what: str) -> None:
        self._candidate, self._what = candidate, what
        self._rows, self._began = 0, time.monotonic()
        self._said = self._began

    def at(self, rows: int) -> None:
        """So many more are done."""
        self._rows += rows
        now = time.monotonic()
        if now - self._said < SAY_EVERY:
            return
        self._said = now
        seconds, estimated = now - self._began, max(self._candidate.estimated_rows, self._rows)
        share = self._rows / max(estimated, 1)
        log.info(
            "%s: %s rows %s, about %.0f%%, %.1f MB/s",
            self._candidate.partition, f"{self._rows:,}", self._what, 100 * share,
            self._candidate.bytes * share / seconds / 1e6,
        )  # fmt: skip
