"""What an ingester says: progress on standard error, the result as a table or as JSON."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from rich.console import Console
from rich.status import Status
from rich.table import Table

from jobs.errors import JobsError
from jobs.ingest.run import Result
from jobs.ingest.settle import Outcome

BEGIN: Final = "\0"
"""An event that begins with it is the name of the next source."""
EVERY: Final = 5.0
"""Seconds between two lines of progress where nobody watches a terminal."""


class Progress:
    """Lines so far and their rate: redrawn on a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.Lock()
        self._name = ""
        self._lines = 0
        self._began = self._next = clock()
        self._status: Status | None = console.status("…") if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def begin(self, name: str) -> None:
        """The next source."""
        self._name, self._lines = name, 0
        self._began = self._clock()
        self._next = self._began + EVERY

    def lines(self, lines: int, event: str) -> None:
        """So many more lines, or something that happened. Several threads may say so."""
        with self._lock:
            if event.startswith(BEGIN):
                self.begin(event.removeprefix(BEGIN))
                return
            if event:
                self._console.print(event, markup=False, highlight=False, soft_wrap=True)
                return
            self._lines += lines
            rate = self._lines / max(self._clock() - self._began, 1e-3)
            self.say(f"{self._name}: {self._lines:,} lines, {rate:,.0f}/s")

    def say(self, text: str) -> None:
        """Where we are."""
        if self._status is not None:
            self._status.update(text)
        elif self._clock() >= self._next:
            self._next = self._clock() + EVERY
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


@dataclass
class Done:
    """What a run of the command amounts to."""

    reports: list[Report] = field(default_factory=list)
    failure: JobsError | None = None
    interrupted: bool = False
    at_once: bool = False
    """Whether the sources were ingested at the same time."""


@dataclass(frozen=True)
class Report:
    """One source's result, with what the database said of it (None if it was not asked)."""

    result: Result
    outcome: Outcome | None

    @property
    def label(self) -> str:
        """The source, and which partition of it if it has several."""
        result = self.result
        return result.source if result.partition == "0" else f"{result.source} {result.partition}"

    @property
    def settled(self) -> bool:
        """Whether the flush is through with every line."""
        return self.outcome is not None and self.outcome.settled(self.result)

    @property
    def rejected(self) -> Counter[str]:
        """By reason: the database's own count once it is through, the ingester's until then."""
        return (
            self.outcome.rejected
            if self.outcome is not None and self.settled
            else self.result.counts.rejected
        )

    @property
    def accepted(self) -> int:
        """Values that are durable once settled, that are staged until then."""
        counts = self.result.counts
        return counts.staged + counts.rejected.total() - self.rejected.total()

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        result = self.result
        return {
            "source": result.source,
            "partition": result.partition,
            "lines": result.counts.lines,
            "accepted": self.accepted,
            "rejected": dict(sorted(self.rejected.items())),
            "blank": result.counts.blank,
            "skipped": result.skipped,
            "position": result.last,
            "settled": self.settled,
            "cut_off": result.cut_off,
            "reconnects": result.reconnects,
            "seconds": round(result.seconds, 3),
            "lines_per_second": round(result.counts.lines / max(result.seconds, 1e-3)),
        }


def as_dict(reports: Iterable[Report], seconds: float | None = None) -> dict[str, Any]:
    """The object that --json prints: totals, and the sources they are made of.

    `seconds` is what those took that were ingested at the same time; without it their times are added up.
    """
    sources = [report.as_dict() for report in reports]
    rejected: Counter[str] = Counter()
    for source in sources:
        rejected.update(source["rejected"])
    if seconds is None:
        seconds = sum(source["seconds"] for source in sources)
    totals = {
        key: sum(source[key] for source in sources) for key in ("lines", "accepted", "blank", "skipped")
    }
    return {
        **totals,
        "rejected": dict(sorted(rejected.items())),
        "settled": all(source["settled"] for source in sources),
        "seconds": round(seconds, 3),
        "lines_per_second": round(totals["lines"] / max(seconds, 1e-3)),
        "sources": sources,
    }


def show(console: Console, reports: Sequence[Report], seconds: float | None = None) -> None:
    """The result for people."""
    made = Table(title="ingested", title_justify="left")
    made.add_column("source", overflow="fold")
    for column in ("lines", "accepted", "rejected", "there before", "lines/s"):
        made.add_column(column, justify="right")
    made.add_column("state")
    for report in reports:
        facts = report.as_dict()
        numbers = [facts["lines"], facts["accepted"], report.rejected.total(), facts["skipped"]]
        made.add_row(
            report.label,
            *(f"{number:,}" for number in (*numbers, facts["lines_per_second"])),
            "durable" if report.settled else "staged",
        )
    console.print(made)
    if len(reports) > 1:
        total = as_dict(reports, seconds)
        console.print(
            f"together: {total['lines']:,} lines, {total['accepted']:,} accepted, {total['lines_per_second']:,}/s",
            highlight=False,
        )
    for report in reports:
        if report.rejected:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.rejected.most_common())
            console.print(f"{report.label}: rejected {reasons}", markup=False, highlight=False)
        if report.result.counts.blank:
            console.print(f"{report.label}: {report.result.counts.blank:,} lines were blank", markup=False)
    if not all(report.settled for report in reports):
        console.print("staged values become durable with the next flush: python -m jobs worker, or run flush")
