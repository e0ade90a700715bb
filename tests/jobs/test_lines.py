"""Bytes become lines in bounded memory, whatever the pieces they arrive in."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import JobsError
from jobs.ingest.lines import FileSource, Line, LineReader, LongLine, fingerprint
from jobs.ingest.parse import KEPT_BYTES


class Pieces:
    """A source that hands out given pieces; None stands for nothing arriving in time."""

    def __init__(self, *pieces: bytes | None) -> None:
        self._pieces: Iterator[bytes | None] = iter(pieces)
        self.largest_wait: float | None = 0

    def read(self, timeout: float | None) -> bytes | None:
        self.largest_wait = timeout
        return next(self._pieces, b"")

    def close(self) -> None:
        pass


def everything(reader: LineReader) -> list[Line]:
    lines: list[Line] = []
    while batch := reader.batch(rows=3, size=10**9, linger=60):
        lines += batch
    return lines


@given(st.lists(st.binary(min_size=1), max_size=8))
def test_lines_do_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    *lines, tail = b"".join(pieces).split(b"\n")
    reader = LineReader(Pieces(*pieces))
    assert everything(reader) == lines
    assert (reader.tail or b"") == tail
    assert reader.position == len(lines)


@given(st.lists(st.binary(min_size=1), max_size=8), st.integers(0, 20))
def test_skipping_is_reading_and_forgetting(pieces: list[bytes], count: int) -> None:
    *lines, tail = b"".join(pieces).split(b"\n")
    reader = LineReader(Pieces(*pieces))
    skipped = reader.skip(count)
    assert skipped == min(count, len(lines) + bool(tail))
    assert reader.position == skipped
    assert everything(reader) == lines[count:]
    assert (reader.tail or b"") == (tail if count <= len(lines) else b"")


@given(st.lists(st.binary(min_size=1), max_size=8), st.integers(1, 30))
def test_a_line_over_the_limit_is_cut_and_hashed(pieces: list[bytes], limit: int) -> None:
    *lines, _ = b"".join(pieces).split(b"\n")
    found = everything(LineReader(Pieces(*pieces), max_line=limit))
    assert found == [
        line
        if len(line) <= limit
        else LongLine(line[:KEPT_BYTES], len(line), hashlib.sha256(line).hexdigest())
        for line in lines
    ]


def test_a_huge_line_is_not_held() -> None:
    piece = b"x" * 100_000
    reader = LineReader(Pieces(*[piece] * 200, b"\nnext\n"), max_line=150_000)
    reader_sizes = []
    found: list[Line] = []
    while not found:
        found = reader.batch(rows=1, size=1, linger=0)
        reader_sizes.append(len(found))
    whole = piece * 200
    assert found == [LongLine(whole[:KEPT_BYTES], len(whole), hashlib.sha256(whole).hexdigest())]
    assert reader.batch(rows=1, size=1, linger=0) == [b"next"]


def test_a_batch_ends_when_nothing_more_arrives() -> None:
    source = Pieces(b"one\ntw", None, b"o\n", None)
    reader = LineReader(source)
    assert reader.batch(rows=10, size=10**6, linger=0.1) == [b"one"]
    assert source.largest_wait is not None
    assert source.largest_wait <= 0.1
    assert reader.batch(rows=10, size=10**6, linger=0.1) == [b"two"]


def test_the_first_line_is_waited_for_without_a_limit() -> None:
    source = Pieces(b"one\n")
    LineReader(source).batch(rows=1, size=1, linger=0.1)
    assert source.largest_wait is None


def test_a_batch_ends_at_its_size() -> None:
    reader = LineReader(Pieces(b"a" * 100 + b"\n", b"b" * 100 + b"\n"))
    assert len(reader.batch(rows=10, size=50, linger=60)) == 1


def test_gzip_files_are_read_and_broken_ones_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\n"))
    assert everything(LineReader(FileSource(path))) == [b"one", b"two"]
    path.write_bytes(b"no gzip at all")
    with pytest.raises(JobsError, match="cannot read on in"):
        everything(LineReader(FileSource(path)))
    path.write_bytes(gzip.compress(b"one\n" * 100)[:-9])
    with pytest.raises(JobsError, match="cannot read on in"):
        everything(LineReader(FileSource(path)))


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JobsError, match="No such file"):
        FileSource(tmp_path / "nothing")


def test_a_fingerprint_holds_while_a_file_grows_and_only_then(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one\n")
    first = fingerprint(path)
    assert first.startswith("4:")
    path.write_bytes(b"one\n" + b"two\n" * 5000)
    assert fingerprint(path, first) == first
    second = fingerprint(path)
    assert second.startswith("4096:")
    path.write_bytes(b"one\n" + b"TWO\n" * 5000)
    assert fingerprint(path, second) != second
    path.write_bytes(b"one\n")
    assert fingerprint(path, second) != second
    packed = tmp_path / "x.gz"
    packed.write_bytes(gzip.compress(b"one\n"))
    assert fingerprint(packed) == first
