"""What is ingested, in batches of numbered lines: a file that can be read again, or a stream that cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from jobs.errors import JobsError
from jobs.ingest.lines import FileSource, Line, LineReader, LongLine, Source, fingerprint
from jobs.ingest.parse import Bad, Good, parse_line, parse_lines, too_long

PIECE: Final = 500
"""Lines that are parsed at a time, while the server works on those before."""


@dataclass(frozen=True)
class Limits:
    """When a batch is full: lines, bytes, or seconds since its first line. `line` is a line's most bytes."""

    rows: int = 20_000
    size: int = 8 * 1024 * 1024
    linger: float = 0.1
    line: int = 1024 * 1024


@dataclass
class Counts:
    """What became of lines: staged, rejected (by reason), or blank."""

    staged: int = 0
    blank: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def lines(self) -> int:
        """All of them."""
        return self.staged + self.blank + self.rejected.total()

    def __iadd__(self, other: Counts) -> Counts:
        self.staged += other.staged
        self.blank += other.blank
        self.rejected += other.rejected
        return self


@dataclass(frozen=True)
class Batch:
    """Lines `first`, `first` + 1 … of a source."""

    first: int
    lines: Sequence[Line]

    @property
    def last(self) -> int:
        """The number of the last line."""
        return self.first + len(self.lines) - 1

    def rows(self, counts: Counts) -> Iterator[list[Good | Bad]]:
        """Their rows, some at a time, added up in `counts`."""
        for start in range(0, len(self.lines), PIECE):
            lines = self.lines[start : start + PIECE]
            rows = _rows(lines, self.first + start)
            bad = [row.reason for row in rows if type(row) is not tuple and isinstance(row, Bad)]
            counts.rejected.update(bad)
            counts.staged += len(rows) - len(bad)
            counts.blank += len(lines) - len(rows)
            yield rows


def _rows(lines: Sequence[Line], first: int) -> list[Good | Bad]:
    if LongLine not in set(map(type, lines)):
        return parse_lines(lines, first)  # type: ignore[arg-type] # there is no LongLine among them
    rows = [
        parse_line(line, offset)
        if isinstance(line, bytes)
        else too_long(offset, line.head, line.size, line.sha256)
        for offset, line in enumerate(lines, first)
    ]
    return [row for row in rows if row is not None]


class Feed(Protocol):
    """Something to ingest."""

    name: str
    replayable: bool

    def fingerprint(self, known: str | None) -> str | None:
        """What its content begins with, as long as that of `known`; None if that cannot be told."""

    def seek(self, position: int) -> None:
        """Go on behind line `position`. Raises JobsError if that is not possible."""

    def next(self) -> Batch | None:
        """The next lines; waits for them. None at the end."""

    def done(self, position: int) -> None:
        """The lines of the last batch are in the database, where `position` is the last one now."""

    def cut_off(self) -> str | None:
        """After the end: what is wrong with a last line that was left out."""

    def close(self) -> None:
        """Give back what it holds."""


class FileFeed:
    """The lines of a file. One without its newline at the end counts if it is complete."""

    replayable = True

    def __init__(self, path: Path, name: str | None = None, limits: Limits = Limits()) -> None:
        self.name = name or path.name
        self._path = path
        self._limits = limits
        self._reader: LineReader | None = None
        self._cut_off: str | None = None

    def fingerprint(self, known: str | None) -> str:
        """What the file begins with, as much of it as `known` is about."""
        return fingerprint(self._path, known)

    def seek(self, position: int) -> None:
        """Read the file from the line behind `position` on. Raises JobsError if it has not that many."""
        self.close()
        self._reader = LineReader(FileSource(self._path), max_line=self._limits.line)
        there = self._reader.skip(position)
        if there < position:
            raise JobsError(
                f"{self._path} has {there} lines, but {position} of {self.name} are in the database: it was"
                " cut or replaced; give other content a name of its own with --source"
            )

    def next(self) -> Batch | None:
        """The next lines, the unfinished last one too if it is a whole object."""
        reader = self._reader
        assert reader is not None
        first = reader.position + 1
        lines = reader.batch(rows=self._limits.rows, size=self._limits.size, linger=self._limits.linger)
        if lines:
            return Batch(first, lines)
        tail, reader.tail = reader.tail, None
        if tail is None or (isinstance(tail, bytes) and tail.isspace()):
            return None
        row = parse_line(tail, first) if isinstance(tail, bytes) else None
        if row is None or (isinstance(row, Bad) and row.reason == "malformed"):
            self._cut_off = (
                f"{self._path}: line {first} is cut off at the end of the file and was left out:"
                " run this again when it is complete"
            )
            return None
        reader.position += 1
        return Batch(first, [tail])

    def done(self, position: int) -> None:
        """Nothing is kept: the file is."""

    def cut_off(self) -> str | None:
        """What is wrong with the last line, if it was left out."""
        return self._cut_off

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class StreamFeed:
    """The lines of a stream. The last batch is kept until it is in the database, more cannot be had again.

    Whoever ingests a stream under a name of his own says that it begins anew, with its first line, each time:
    lines that the database has are skipped.
    """

    def __init__(self, source: Source, name: str, *, replayable: bool, limits: Limits = Limits()) -> None:
        self.name = name
        self.replayable = replayable
        self._limits = limits
        self._reader = LineReader(source, max_line=limits.line)
        self._kept: Batch | None = None
        self._started = False
        self._position = 0  # of the last row that the database has acknowledged

    def fingerprint(self, known: str | None) -> None:
        """Unknown: waiting for so many bytes could take for ever."""

    def seek(self, position: int) -> None:
        """At first skip lines that the database has; later send the kept ones again if they are missing."""
        if not self._started:
            self._started = True
            self._position = position
            there = self._reader.skip(position)
            if there < position:
                raise JobsError(
                    f"the stream ended after {there} lines, but {position} of {self.name} are in the"
                    " database: a stream with a --source must begin with the same first line each time"
                )
            return
        if position < self._position:
            raise JobsError(
                f"{self.name}: the server crashed and lost lines {position + 1} to {self._position}, staged"
                " but not yet durable: run this again with the stream from its beginning"
            )
        kept = self._kept
        if kept is not None and position >= kept.first:
            # It had been committed; only the answer was lost.
            rest = kept.lines[position - kept.first + 1 :]
            self._kept = Batch(position + 1, rest) if rest else None
        self._position = position

    def next(self) -> Batch | None:
        """The lines that were not acknowledged, else the next ones; an unfinished last line is one, too."""
        if self._kept is not None:
            return self._kept
        reader = self._reader
        first = reader.position + 1
        lines = reader.batch(rows=self._limits.rows, size=self._limits.size, linger=self._limits.linger)
        if not lines and reader.tail is not None:
            lines, reader.tail = [reader.tail], None
            reader.position += 1
        self._kept = Batch(first, lines) if lines else None
        return self._kept

    def done(self, position: int) -> None:
        """The kept lines are safe."""
        self._position = position
        self._kept = None

    def cut_off(self) -> None:
        """Nothing is left out of a stream."""

    def close(self) -> None:
        """Leave the stream to whoever opened it."""
        self._reader.close()
