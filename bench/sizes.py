"""How much is loaded, and what disk that takes."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from typing import Any

from local.errors import LocalError

TENANTS = 20
ATTRIBUTES = 1000
"""Of each tenant."""
HOT_ATTRIBUTES = 20
"""Of each tenant, where hot values are part of what is measured."""

# What was seen on disk, rounded up: both designs' history with indexes, and the rewrite of one by compaction.
HISTORY_BYTES = 420
ENTITY_BYTES = 2200
STAGED_BYTES = 500
WAL_BYTES = 9 * 2**30
"""max_wal_size and a little."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of rows and seconds; the defaults are the full run."""

    staged: int = 5_000_000
    staged_small: int = 100_000
    active_entities: int = 5_000
    history: int = 50_000_000
    """Rows in the partition that is flushed into, compacted and asked."""
    flushed: int = 500_000
    """Rows flushed into it."""
    entities: int = 2_000_000
    """Rows of the hot projection."""
    events: int = 200_000
    """Hot events, each of another entity."""
    queries: int = 50
    """Times that a query runs in a round."""
    seconds: float = 20.0
    """Of each end-to-end measurement."""
    lines: int = 1_000_000
    """Lines of NDJSON for each of two ingesters."""
    batch: int = 5_000
    """Rows a transaction of a producer, end to end."""
    window: int = 2
    """Batches of a producer that may be staged and not visible yet; then it waits."""
    archived: int = 10_000
    """Items of a DynamoDB table that are archived."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise LocalError(f"python -m bench: {name} must be more than 0, got {value}")

    def with_rows(self, rows: int) -> Sizes:
        """As many staged rows, ten times as many in the history, and everything else not larger than that."""
        if rows < 1000:
            raise LocalError(f"python -m bench: --rows must be 1000 or more, got {rows}")
        return replace(
            self,
            staged=rows,
            staged_small=min(self.staged_small, rows),
            history=rows * 10,
            flushed=min(self.flushed, rows),
            events=min(self.events, rows),
            lines=min(self.lines, rows),
        )

    def disk_bytes(self) -> int:
        """What the data folder grows to, at most."""
        wal = min(WAL_BYTES, 2**30 + 300 * (self.history + self.staged))
        return int(
            max(self.history * HISTORY_BYTES, self.entities * ENTITY_BYTES, self.staged * STAGED_BYTES)
            + wal
            + 2**29
        )

    def as_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return asdict(self)


FULL = Sizes()
QUICK = Sizes(
    staged=50_000,
    staged_small=10_000,
    history=300_000,
    flushed=20_000,
    entities=30_000,
    events=5_000,
    queries=20,
    seconds=1.0,
    lines=20_000,
    archived=2_000,
)


def check_disk(needed: int, folder: str | None = None) -> str:
    """One line that says what is needed and what is free. Raises LocalError if it does not fit."""
    folder = folder or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    line = f"needs about {needed / 2**30:.1f} GiB of disk in {folder}, {free / 2**30:.1f} GiB are free"
    if free < needed * 1.1:
        raise LocalError(f"python -m bench: {line}: choose another folder with TMPDIR, or smaller sizes")
    return line
