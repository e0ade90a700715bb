"""Bytes to lines, in bounded memory: files, gzip files and streams, resumable by line number."""

from __future__ import annotations

import gzip
import hashlib
import os
import select
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from jobs.errors import JobsError
from jobs.ingest.parse import KEPT_BYTES

CHUNK: Final = 256 * 1024
MAX_LINE: Final = 1024 * 1024
FINGERPRINT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line of `size` bytes, too long to be one: its beginning and the hash of all of it."""

    head: bytes
    size: int
    sha256: str

    @classmethod
    def of(cls, line: bytes, kept: int = KEPT_BYTES) -> LongLine:
        """One that is in memory whole; its first `kept` bytes stay."""
        return cls(line[:kept], len(line), hashlib.sha256(line).hexdigest())

    def __len__(self) -> int:
        """Bytes that are held."""
        return len(self.head)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that stand for a line and are known to be none, and why."""

    data: bytes
    why: str

    def __len__(self) -> int:
        """Bytes that are held."""
        return len(self.data)


Line = bytes | LongLine | Unreadable


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class ByteSource(Protocol):
    """Where bytes come from."""

    def read(self, timeout: float | None) -> bytes | None:
        """At most `CHUNK` bytes, b"" at the end, None after `timeout` seconds without any (None: wait)."""

    def close(self) -> None:
        """Give back what it holds. Safe to repeat."""


class FileSource:
    """A regular file, unpacked if its name ends in .gz."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: _Reader = gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115
        except OSError as error:
            raise JobsError(f"cannot read {path}: {error.strerror}") from None

    def read(self, timeout: float | None = None) -> bytes:
        """At most `CHUNK` bytes; b"" at the end. Raises JobsError if the file cannot be read or unpacked."""
        try:
            return self._file.read(CHUNK)
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise JobsError(
                f"cannot read on in {self._path}: {reason}; what came before it is ingested"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class StreamSource:
    """A pipe, a terminal, a socket: whatever arrives, when it arrives."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, timeout: float | None) -> bytes | None:
        """What has arrived, at most `CHUNK` bytes; None after `timeout` seconds without any."""
        if timeout is not None:
            ready, _, _ = select.select([self._descriptor], [], [], max(timeout, 0))
            if not ready:
                return None
        return os.read(self._descriptor, CHUNK)

    def close(self) -> None:
        """The descriptor belongs to whoever opened it."""


def fingerprint(path: Path, like: str | None = None) -> str:
    """What tells whether a file still is the one that was ingested: `<n>:<sha256 of its first n bytes>`.

    n is that of `like`, an earlier fingerprint, so that a file may grow; at most `FINGERPRINT_BYTES` else.
    A file that is now shorter than n gives another fingerprint. Of a gzip file the unpacked bytes count.
    """
    wanted = int(like.partition(":")[0]) if like else FINGERPRINT_BYTES
    source = FileSource(path)
    try:
        head = b""
        while len(head) < wanted and (chunk := source.read()):
            head += chunk
    finally:
        source.close()
    head = head[:wanted]
    return f"{len(head)}:{hashlib.sha256(head).hexdigest()}"


class LineReader:
    """The lines of a source, in order, with their numbers: the first one is 1.

    `position` is the number of the last line handed out or skipped. A line longer than `max_line` bytes
    becomes a `LongLine`; no more than that and one chunk is ever held of it. What follows the last newline of
    a source is never handed out as a line: it is in `tail` once the source is at its end.
    """

    def __init__(
        self, source: ByteSource, *, max_line: int = MAX_LINE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.position = 0
        self.tail: Line | None = None
        self._source = source
        self._max_line = max_line
        self._clock = clock
        self._ready: list[Line] = []
        self._open = _OpenLine(max_line)
        self._ended = False

    def skip(self, lines: int) -> int:
        """Skip that many lines, quickly; how many there were. An unfinished last line counts as one."""
        left = lines - self._take_ready(lines)
        while left > 0 and not self._ended:
            chunk = self._source.read(None)
            if not chunk:
                self._end()
                break
            found = chunk.count(b"\n")
            if found < left:
                left -= found
                self._open.restart(chunk[chunk.rfind(b"\n") + 1 :]) if found else self._open.add(chunk)
            else:
                self._open.restart(b"")
                self._feed(chunk.split(b"\n", left)[left])
                left = 0
        if left and self.tail is not None:
            self.tail = None
            left -= 1
        self.position += lines - left
        return lines - left

    def batch(self, *, rows: int, size: int, linger: float) -> list[Line]:
        """The next lines: `rows` of them or about `size` bytes, fewer once `linger` seconds have passed.

        Waits for the first line as long as it takes. Empty at the end of the source.
        """
        lines: list[Line] = []
        held = 0
        deadline: float | None = None
        while True:
            if self._ready:
                taken = self._ready[: rows - len(lines)]
                del self._ready[: len(taken)]
                lines += taken
                held += sum(map(len, taken))
                if len(lines) >= rows or held >= size:
                    break
            if self._ended:
                break
            if lines and deadline is None:
                deadline = self._clock() + linger
            chunk = self._source.read(None if deadline is None else deadline - self._clock())
            if chunk is None:
                break
            if chunk:
                self._feed(chunk)
            else:
                self._end()
            if deadline is not None and self._clock() >= deadline and not self._ready:
                break
        self.position += len(lines)
        return lines

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _take_ready(self, most: int) -> int:
        taken = min(most, len(self._ready))
        del self._ready[:taken]
        return taken

    def _feed(self, chunk: bytes) -> None:
        first, *others = chunk.split(b"\n")
        self._open.add(first)
        if not others:
            return
        self._ready.append(self._open.finish())
        last = others.pop()
        if self._max_line < CHUNK:
            for line in others:
                self._open.add(line)
                self._ready.append(self._open.finish())
        else:
            self._ready += others
        self._open.add(last)

    def _end(self) -> None:
        self._ended = True
        if self._open.size:
            self.tail = self._open.finish()


class _OpenLine:
    """A line of which the end has not been seen yet."""

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self.restart(b"")

    def restart(self, piece: bytes) -> None:
        """Forget what there is; go on with `piece`."""
        self.size = len(piece)
        self._pieces = [piece] if piece else []
        self._hash = hashlib.sha256()
        self._long = False  # if so, all pieces went into the hash, and only the first, the head, is kept
        self._shrink()

    def add(self, piece: bytes) -> None:
        """Append a piece that holds no newline."""
        if piece:
            self.size += len(piece)
            self._pieces.append(piece)
            self._shrink()

    def finish(self) -> Line:
        """The line; the next one begins."""
        line: Line
        if self.size > self._max_line:
            line = LongLine(self._pieces[0], self.size, self._hash.hexdigest())
        else:
            line = b"".join(self._pieces) if len(self._pieces) != 1 else self._pieces[0]
        self.restart(b"")
        return line

    def _shrink(self) -> None:
        if self.size <= self._max_line:
            return
        for piece in self._pieces[1:] if self._long else self._pieces:
            self._hash.update(piece)
        self._pieces = [b"".join(self._pieces)[:KEPT_BYTES]]
        self._long = True
