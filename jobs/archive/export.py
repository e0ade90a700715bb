"""One partition into the archive: exported from one snapshot, read back from the bucket, compared, recorded.

A run that is ended at any moment leaves the partition as it was, and a record with the status `exporting`, whose
objects the next run clears away before it begins again. What it uploaded lies where no table is read until it has
been read back; only then it is copied to the folder of its table.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
import pyarrow as pa
from psycopg.types.json import Jsonb

from jobs import db
from jobs.archive import arrow, checks, parquet
from jobs.archive.checks import Checks
from jobs.archive.folder import temporary
from jobs.archive.store import DamagedError, File, Store, digest
from jobs.compact import size, unlock

log = logging.getLogger(__name__)

SAY_EVERY: Final = 5.0
"""Seconds."""


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
        self._connection, self._store, self._candidate = connection, store, candidate
        self._row_group, self._part_bytes = row_group, part_bytes
        self.archive_id: int | None = None
        self.files: list[File] = []
        self.written: Checks | None = None

    def run(self) -> int:
        """All steps; returns the rows, 0 if another session is at it.

        Raises DamagedError if what was read back differs, other JobsErrors, psycopg.Error.
        """
        if not self.open():
            log.info("%s: another run is at it, or has done it", self._candidate.partition)
            return 0
        try:
            self.clear()
            with temporary() as folder:
                self.export(folder)
                read = self.read_back(folder)
            self.still_ours()
            self.publish()
            return self.record(read)
        except DamagedError as error:
            self.still_ours()
            self.clear()
            self._one("SELECT ops.archive_failed(%s, %s)", self._number, str(error))
            raise
        finally:
            if not self._connection.closed:
                self.close()

    @property
    def _number(self) -> int:
        assert self.archive_id is not None
        return self.archive_id

    @property
    def _staging(self) -> str:
        return f"{self._store.settings.prefix}/_unverified/{self._number}/"

    @property
    def _published(self) -> str:
        """The beginning of the names of the files in the folder of their table."""
        month = self._candidate.starts_at.astimezone(UTC)
        name = self._candidate.partition.rsplit(".", 1)[-1].strip('"')
        return (
            f"{self._store.settings.folder(self._candidate.parent_table)}"
            f"year={month:%Y}/month={month:%m}/{name}-{self._number}-"
        )

    def open(self) -> bool:
        """Lock the partition against other runs and compactions, and begin the record, or take up what is left."""
        try:
            self.archive_id = self._one("SELECT ops.archive_open(%s)", self._candidate.partition)
        except (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.UndefinedTable):
            return False
        return self.archive_id is not None

    def still_ours(self) -> None:
        """Raise psycopg.Error if the session that has the lock is gone: then another run may be at this archive.

        It has nothing to do for hours while rows are read back, and files that the other one has verified meanwhile
        have the same names.
        """
        self._one(
            "SELECT 1 FROM ops.partition_archives WHERE archive_id = %s AND status = 'exporting'",
            self._number,
        )

    def close(self) -> None:
        """Let go of the lock."""
        unlock(self._connection)

    def clear(self) -> None:
        """Take away what an interrupted run has uploaded."""
        self._store.clear(self._staging, self._published)

    def export(self, folder: Path) -> None:
        """Write what one snapshot shows to files, upload each that is complete, and sum it up in the server."""
        about = self._about()
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
                    )
                    self.written = measured.result()
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
                self._upload(writer.write(table))
                says.at(table.num_rows)
            self._upload(writer.end())
        finally:
            writer.close()

    def _about(self) -> dict[str, Any]:
        """What the footer of each file says, so that it can be read without the record."""
        about: dict[str, Any] = self._one(
            "SELECT jsonb_build_object('archive_id', archive_id, 'table', parent_table, 'partition', partition,"
            " 'starts_at', starts_at, 'ends_at', ends_at, 'columns', columns,"
            " 'sorted_by', ops.archive_order(parent_table), 'exported_at', begun_at)"
            " FROM ops.partition_archives WHERE archive_id = %s",
            self._number,
        )
        return about

    def _upload(self, part: parquet.Part | None) -> None:
        if part is None:
            return
        key = f"{self._staging}{len(self.files) + 1}.parquet"
        self._store.upload(part.path, key)
        self.files.append(File(key, part.path.stat().st_size, part.rows, digest(part.path)))
        part.path.unlink()

    def read_back(self, folder: Path) -> Checks:
        """Load what is in the bucket, a row group at a time, and sum it up in the server. Raises DamagedError."""
        assert self.written is not None
        read = checks.none(list(self.written["columns"]))
        says = Says(self._candidate, "read back")
        with arrow.beside(self._connection) as beside:
            scratch = beside.one(f"SELECT ops.archive_scratch({self._number})")
            for group in downloaded(self._store, self.files, folder):
                beside.load(scratch, group)
                piece = beside.one(f"SELECT ops.archive_piece({self._number})::text")
                read = checks.add(read, json.loads(piece))
                says.at(group.num_rows)
        if differs := checks.difference(self.written, read):
            raise DamagedError(
                f"{self._candidate.partition}: {differs}: not verified, the partition stays, nothing is lost"
            )
        return read

    def publish(self) -> None:
        """Copy the files to the folder of their table, under names that tell the archive."""
        self.files = [
            self._store.move(file, f"{self._published}{number}.parquet")
            for number, file in enumerate(self.files, 1)
        ]

    def record(self, read: Checks) -> int:
        """Make this the archive of its partition."""
        files = Jsonb([vars(file) for file in self.files])
        self._one(
            "SELECT ops.archive_verified(%s, %s, %s, %s)",
            self._number, self._store.settings.bucket, files, Jsonb(read),
        )  # fmt: skip
        written = sum(file.bytes for file in self.files)
        rows: int = read["rows"]
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
