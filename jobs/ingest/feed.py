"""Sources on this machine: a file that can be read again, or a stream that cannot."""

from __future__ import annotations

from pathlib import Path

from jobs.errors import JobsError
from jobs.ingest.lines import ByteSource, FileSource, LineReader, fingerprint
from jobs.ingest.parse import Bad, parse_line
from jobs.ingest.source import LIMITS, Batch, Gap, GapError, Limits, Mark

__all__ = ["Batch", "FileFeed", "Limits", "StreamFeed"]


class FileFeed:
    """The lines of a file. One without its newline at the end counts if it is complete."""

    partition = "0"
    replayable = True
    marked = False

    def __init__(self, path: Path, name: str | None = None, limits: Limits = LIMITS) -> None:
        self.name = name or path.name
        self._path = path
        self._limits = limits
        self._reader: LineReader | None = None
        self._cut_off: str | None = None

    def fingerprint(self, known: str | None) -> str:
        """What the file begins with, as much of it as `known` is about."""
        return fingerprint(self._path, known)

    def seek(self, position: int, mark: Mark | None = None) -> None:
        """Read the file from the line behind `position` on. Raises JobsError if it has not that many."""
        self.close()
        self._reader = LineReader(FileSource(self._path), max_line=self._limits.line)
        there = self._reader.skip(position)
        if there < position:
            raise JobsError(
                f"{self._path} has {there} lines, but {position} of {self.name} are in the database: it was"
                " cut or replaced; give other content a name of its own with --source"
            )

    def accept(self, gap: Gap) -> None:
        """A file has no gaps: `seek` finds it whole, or refuses it."""
        raise JobsError(f"{self.name}: {gap.why}")

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

    partition = "0"
    marked = False

    def __init__(self, source: ByteSource, name: str, *, replayable: bool, limits: Limits = LIMITS) -> None:
        self.name = name
        self.replayable = replayable
        self._limits = limits
        self._reader = LineReader(source, max_line=limits.line)
        self._kept: Batch | None = None
        self._started = False
        self._position = 0  # of the last row that the database has acknowledged

    def fingerprint(self, known: str | None) -> None:
        """Unknown: waiting for so many bytes could take for ever."""

    def seek(self, position: int, mark: Mark | None = None) -> None:
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
            lost = Gap(str(position + 1), str(self._position), "the server lost what it had acknowledged")
            again = (
                "give the stream from its beginning again, or"
                if self.replayable
                else "they are gone; run with"
            )
            raise GapError(
                f"{self.name}: the server lost lines {lost.begin} to {lost.end}, which it had acknowledged:"
                f" {again} --accept-gap, which goes on without them",
                lost,
            )
        kept = self._kept
        if kept is not None and position >= kept.first:
            # It had been committed; only the answer was lost.
            rest = kept.lines[position - kept.first + 1 :]
            self._kept = Batch(position + 1, rest) if rest else None
        self._position = position

    def accept(self, gap: Gap) -> None:
        """Go on with the lines that are kept; those that the server lost cannot be had again."""
        self._position = int(gap.begin) - 1

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
