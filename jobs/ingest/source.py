"""What is ingested: anything that yields numbered lines in order, and can go on behind a position.

A source is one partition of it: a file, a stream, a shard. Its lines are numbered 1, 2, 3 … without holes, and
`eav.ingest_position` is the number of the last one that the database has. A source whose own positions are
no such numbers (a shard's sequence numbers have up to 56 digits and holes) gives a `Mark` with each batch,
which is kept in the transaction that stages the batch, and is handed back with the position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from jobs.errors import JobsError
from jobs.ingest.lines import Line, LongLine, Unreadable
from jobs.ingest.parse import Bad, Good, parse_line, parse_lines, rejected, too_long

PIECE: Final = 500
"""Lines that are parsed at a time, while the server works on those before."""


@dataclass(frozen=True)
class Limits:
    """When a batch is full: lines, bytes, or seconds since its first line. `line` is a line's most bytes."""

    rows: int = 20_000
    size: int = 8 * 1024 * 1024
    linger: float = 0.1
    line: int = 1024 * 1024


LIMITS: Final = Limits()


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
class Mark:
    """A source's own name for a position; empty before its first line.

    All that had arrived at the source before `covered_until` is at or before it. `ended`: nothing will follow.
    """

    text: str
    covered_until: datetime | None = None
    ended: bool = False


@dataclass(frozen=True)
class Batch:
    """Lines `first`, `first` + 1 … of a source, none of them if only its `mark` moved."""

    first: int
    lines: Sequence[Line]
    mark: Mark | None = None

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
    if set(map(type, lines)) <= {bytes}:
        return parse_lines(lines, first)  # type: ignore[arg-type] # all of them are bytes
    rows = [_row(line, offset) for offset, line in enumerate(lines, first)]
    return [row for row in rows if row is not None]


def _row(line: Line, offset: int) -> Good | Bad | None:
    match line:
        case LongLine():
            return too_long(offset, line.head, line.size, line.sha256)
        case Unreadable():
            return rejected("malformed", line.data, offset, note=line.why)
    return parse_line(line, offset)


@dataclass(frozen=True)
class Gap:
    """What is missing of a source: from where to where, in the source's own terms, and why."""

    begin: str
    end: str
    why: str


class GapError(JobsError):
    """Something of a source is missing, or may be: nobody but a person may decide to go on without it."""

    exit_code = 3

    def __init__(self, text: str, gap: Gap) -> None:
        super().__init__(text)
        self.gap = gap


class Source(Protocol):
    """One partition of something to ingest."""

    name: str
    partition: str
    replayable: bool
    """Whether it can be read again from any position; what cannot be is staged in the durable lane."""
    marked: bool
    """Whether its batches carry marks."""

    def fingerprint(self, known: str | None) -> str | None:
        """What its content begins with, as long as that of `known`; None if that cannot be told."""

    def seek(self, position: int, mark: Mark | None = None) -> None:
        """Go on behind line `position`, which is at `mark`. Raises JobsError, GapError if that cannot be."""

    def accept(self, gap: Gap) -> None:
        """The gap is recorded: the next `seek` goes on behind it. Raises JobsError if it cannot."""

    def next(self) -> Batch | None:
        """The next lines; waits for them. None at the end. Raises GapError."""

    def done(self, position: int) -> None:
        """The lines of the last batch are in the database, where `position` is the last one now."""

    def cut_off(self) -> str | None:
        """After the end: what is wrong with a last line that was left out."""

    def close(self) -> None:
        """Give back what it holds."""
