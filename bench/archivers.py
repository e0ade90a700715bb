"""Both archivers, each of which archives a table once and says what that took.

`python -m bench.archivers` does it in a process that holds nothing else: no emulator, and no pictures.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from archiver import aws, run
from archiver.errors import ArchiverError
from archiver.settings import Settings
from bench.reference.archiver import Reference
from local.aws import REGION
from local.errors import LocalError

Who = Literal["ours", "reference"]
Say = Callable[[str], None]

TABLE, BUCKET, STATE = "items", "archive", "archiver-state"
KEY: Final = "itemId"
MIB: Final = 2**20


@dataclass(frozen=True)
class Order:
    """What is to be archived by whom."""

    who: Who
    items: int
    segments: int = 4
    stop_after: int | None = None
    """Ours: end the run once so many items are deleted."""


@dataclass(frozen=True)
class Outcome:
    """What a run took."""

    seconds: float
    cpu_seconds: float
    """Of the archiver's process, which is not the emulator's if that has one of its own."""
    calls: Mapping[str, int]
    archived: int
    deleted: int
    objects: int
    bytes: int
    finished: bool
    peak_mib: float = 0.0
    idle_mib: float = 0.0
    """Before the run, programs and clients loaded."""

    @property
    def total_calls(self) -> int:
        """Requests sent."""
        return sum(self.calls.values())


def archive(order: Order, say: Say = lambda line: None) -> Outcome:
    """Archive what is in the table, by the AWS that the environment names. Raises LocalError."""
    try:
        clients = aws.connect(REGION, connections=order.segments + 1)
        idle, began, cpu = peak_mib(), time.perf_counter(), time.process_time()
        done = _ours(clients, order, say) if order.who == "ours" else _reference(clients)
    except ArchiverError as error:
        raise LocalError(f"python -m bench archiver: {error}") from error
    return Outcome(
        seconds=time.perf_counter() - began,
        cpu_seconds=time.process_time() - cpu,
        calls=dict(sorted(clients.calls.items())),
        **done,
        peak_mib=peak_mib(),
        idle_mib=idle,
    )


def _ours(clients: aws.Aws, order: Order, say: Say) -> dict[str, Any]:
    said = [time.monotonic()]
    so_far = run.Stats()

    def progressed(_table: str, stats: run.Stats) -> None:
        nonlocal so_far
        so_far = stats
        if time.monotonic() > said[0] + 15:
            said[0] = time.monotonic()
            say(f"  {stats.archived:,} archived, {stats.deleted:,} deleted")

    context = run.Context(
        clients,
        Settings((TABLE,), BUCKET, state_table=STATE, segments=order.segments),
        stopped=lambda: order.stop_after is not None and so_far.deleted >= order.stop_after,
        progressed=progressed,
    )
    (result,) = run.run(context)
    if result.problems or result.stats.kept or not (result.finished or result.reason == "stopped"):
        raise LocalError(f"python -m bench archiver: the archiver did not do its work: {result.facts()}")
    stats = result.stats
    return {
        "archived": stats.archived,
        "deleted": stats.deleted,
        "objects": stats.objects,
        "bytes": stats.bytes,
        "finished": result.finished,
    }


def _reference(clients: aws.Aws) -> dict[str, Any]:
    stats = Reference(clients.dynamodb, clients.s3, TABLE, KEY, BUCKET).run()
    if stats["errors"]:
        raise LocalError(f"python -m bench archiver: the reference did not do its work: {stats}")
    return {
        "archived": stats["archived"],
        "deleted": stats["deleted"],
        "objects": stats["objects"],
        "bytes": stats["bytes"],
        "finished": True,
    }


def peak_mib() -> float:
    """The most memory that this program has held at once.

    Not `ru_maxrss` where that can be helped: Linux counts in what the process held before it became this program, which
    is the memory of its parent.
    """
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (MIB if sys.platform == "darwin" else 1024)
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """The child's side: the order is `argv[1]`, the outcome goes to standard output."""
    order = Order(**json.loads(sys.argv[1]))
    try:
        outcome = archive(order, lambda line: print(line, file=sys.stderr, flush=True))
    except LocalError as error:
        sys.exit(str(error))
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
