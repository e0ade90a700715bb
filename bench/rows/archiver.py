"""The archiver: API calls for what it archives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from bench.model import Figures, Line, Row, Step, at_most

if TYPE_CHECKING:
    from bench.archivers import Outcome

SEGMENTS: Final = 1
"""Each costs a few calls of its own, which thousands of items do not outweigh, and millions do."""


class Archiver(Row):
    """DESIGN: archiver, API calls per 1 000 items archived."""

    name = "archiver"
    title = "the archiver: old items of 1 KB of a DynamoDB table, with an emulator in this process"
    state = "no database server takes part"

    def prepare(self) -> None:
        """Load what the first round would load else."""
        self._calls: dict[str, dict[str, int]] = {}
        self._archive("ours", 10)
        self._archive("reference", 10)

    def steps(self) -> Sequence[Step]:
        """The reference, then ours, each with a table of its own."""
        return (lambda: self._measured("reference"), lambda: self._measured("ours"))

    def lines(self) -> Sequence[Line]:
        """The bar, and what the emulator took."""
        number = f"{self.bench.sizes.archived:,} items of 1 KB, one segment"
        return (
            Line(
                f"archiver, API calls per 1,000 items archived, {number}",
                "ours, calls",
                "calls",
                "reference, calls",
                bar=at_most(1 / 3),
            ),
            Line(
                "the same, items/s: for the most part the emulator's time, which checks a condition for each of ours",
                "ours, rate",
                "items/s",
                "reference, rate",
            ),
        )

    def notes(self) -> dict[str, Any]:
        """Which calls they were."""
        return {"items": self.bench.sizes.archived, "segments": SEGMENTS, "calls": self._calls}

    def _measured(self, who: Literal["ours", "reference"]) -> Figures:
        count = self.bench.sizes.archived
        outcome = self._archive(who, count)
        self._calls[who] = dict(outcome.calls)
        return {
            f"{who}, calls": outcome.total_calls * 1000 / count,
            f"{who}, rate": count / outcome.seconds,
        }

    def _archive(self, who: Literal["ours", "reference"], count: int) -> Outcome:
        # Here, since the emulator takes a second to load, and other rows do without.
        from bench import archivers, archiving, emulator

        with emulator.inside(count):
            outcome = archivers.archive(archivers.Order(who, count, SEGMENTS))
            archiving.check(outcome.archived, outcome.deleted, count)
            archiving.check(count, count - emulator.left(), count)
        return outcome
