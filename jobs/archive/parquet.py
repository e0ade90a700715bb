"""Parquet files of a partition: written as rows come, split when they grow large, read a row group at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_BYTES: Final = 128 * 2**20
"""In memory: a row group is ended at so many, however few its rows are."""
ROW_GROUP: Final = 262_144
"""Rows of a row group: what is in memory at a time, and what a reader skips by its statistics."""
PART_BYTES: Final = 2**30
"""A file is ended by the first row group that makes it this large."""
KEY: Final = b"eav.archive"
"""Under which name the footer says what the file is an archive of."""


@dataclass(frozen=True)
class Part:
    """A file that is complete."""

    path: Path
    rows: int


class Writer:
    """Writes tables that come one after the other into files `1.parquet`, `2.parquet` … of a folder."""

    def __init__(
        self,
        folder: Path,
        about: Callable[[], Mapping[str, Any]],
        sorted_by: Sequence[str] = (),
        *,
        row_group: int = ROW_GROUP,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """`about` is asked for what the footer says when a file is ended."""
        self._folder, self._about, self._sorted_by = folder, about, sorted_by
        self._row_group, self._part_bytes = row_group, part_bytes
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = self._parts = self._part_rows = 0

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._parts}.parquet"

    def write(self, table: pa.Table) -> Part | None:
        """Add rows; the file, if that completed it."""
        self._waiting.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        done = None
        while self._rows >= self._row_group and done is None:
            done = self._group(self._row_group)
        if done is None and self._bytes >= GROUP_BYTES:
            done = self._group(self._rows)
        return done

    def end(self) -> Part | None:
        """Write what is left; the last file, if there is one."""
        if self._rows and (done := self._group(self._rows)):
            return done
        return self._end_part() if self._writer else None

    def _group(self, rows: int) -> Part | None:
        whole = pa.concat_tables(self._waiting)
        group, rest = whole.slice(0, rows), whole.slice(rows)
        self._waiting, self._rows, self._bytes = ([rest] if rest.num_rows else []), rest.num_rows, rest.nbytes
        if self._writer is None:
            self._parts, self._part_rows = self._parts + 1, 0
            self._writer = self._open(group.schema)
        self._writer.write_table(group.combine_chunks(), row_group_size=rows)
        self._part_rows += rows
        return self._end_part() if self._path.stat().st_size >= self._part_bytes else None

    def _open(self, schema: pa.Schema) -> pq.ParquetWriter:
        names = schema.names
        # Only while all of them are columns of the file as they are sorted: one with a companion is rounded.
        plain = [name for name in self._sorted_by if name in names and f"{name}__exact" not in names]
        order = (
            [pq.SortingColumn(names.index(name)) for name in plain]
            if plain == list(self._sorted_by)
            else None
        )
        return pq.ParquetWriter(
            self._path, schema.remove_metadata(), compression="zstd", compression_level=3, write_statistics=True,
            write_page_index=True, sorting_columns=order or None, version="2.6",
        )  # fmt: skip

    def _end_part(self) -> Part:
        assert self._writer is not None
        self._writer.add_key_value_metadata({KEY: json.dumps(self._about())})
        self._writer.close()
        self._writer = None
        return Part(self._path, self._part_rows)

    def close(self) -> None:
        """Let go of a file that is not complete."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def footer(tail: bytes) -> pq.FileMetaData:
    """The metadata of a file, from its last bytes. Raises pyarrow.ArrowException if they do not hold it."""
    return pq.read_metadata(pa.BufferReader(tail))


def about(metadata: pq.FileMetaData) -> dict[str, Any] | None:
    """What Writer was told to say in the footer; None if another program has written the file."""
    said = (metadata.metadata or {}).get(KEY)
    found: dict[str, Any] | None = None if said is None else json.loads(said)
    return found


def groups(path: Path) -> Iterator[pa.Table]:
    """The row groups of a file, one at a time. Raises pyarrow.ArrowInvalid if it is none."""
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)
