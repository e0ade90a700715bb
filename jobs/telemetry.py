"""`python -m jobs telemetry`: this very host and its processes as NDJSON, sampled live."""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson
import psutil

from jobs import db, tenants
from jobs.errors import JobsError

HOST: Final = 1
"""The host's entity_id; processes have large ones."""

Value = float | int | str | bool
Sample = tuple[int, str, datetime, Value]
"""entity_id, attribute, observed_at, value."""


ATTRIBUTES: Final[dict[str, tuple[str, str | None, bool]]] = {
    "host.cpu.percent": ("number", "percent", True),
    "host.cpu.count": ("integer", None, False),
    "host.memory.total_bytes": ("integer", "byte", False),
    "host.memory.used_bytes": ("integer", "byte", False),
    "host.memory.available_bytes": ("integer", "byte", False),
    "host.memory.percent": ("number", "percent", True),
    "host.swap.used_bytes": ("integer", "byte", False),
    "host.processes": ("integer", None, False),
    "host.booted_at": ("timestamp", None, False),
    "host.load.1m": ("number", None, True),
    "host.load.5m": ("number", None, False),
    "host.load.15m": ("number", None, False),
    "host.disk.read_bytes": ("integer", "byte", False),
    "host.disk.write_bytes": ("integer", "byte", False),
    "host.network.sent_bytes": ("integer", "byte", False),
    "host.network.received_bytes": ("integer", "byte", False),
    "process.cpu.percent": ("number", "percent", False),
    "process.memory.rss_bytes": ("integer", "byte", False),
    "process.threads": ("integer", None, False),
    "process.name": ("text", None, True),
    "process.status": ("text", None, True),
    "process.running": ("boolean", None, False),
    "process.started_at": ("timestamp", None, False),
}
"""Data type, unit, hot or not, of what is sampled."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `telemetry` to the commands."""
    parser = commands.add_parser(
        "telemetry",
        help="this host and its processes as NDJSON, sampled live",
        description="Sample this host (entity 1) and its processes (an entity each) for some seconds, as"
        " NDJSON: python -m jobs telemetry --seconds 10 --tenant demo | python -m jobs ingest -",
    )
    parser.set_defaults(run=command)
    parser.add_argument("--seconds", type=_positive, default=10.0, metavar="N", help="how long (default 10)")
    parser.add_argument(
        "--every", type=_positive, default=0.5, metavar="N", help="seconds a sample (default 0.5)"
    )
    parser.add_argument("--tenant", required=True, metavar="NAME", help="whose values they are")
    parser.add_argument("--out", default="-", metavar="FILE", help="where to (default -, standard output)")
    parser.add_argument(
        "--register",
        action="store_true",
        help="first add the attributes to the tenant, with type, unit, hot or not",
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return value


def command(args: argparse.Namespace) -> int:
    """Sample and write; returns the exit code. Raises JobsError."""
    url = db.database_url()
    tenant_id = tenants.find(url, args.tenant)
    if args.register:
        register(url, tenant_id)
    with ExitStack() as stack:
        try:
            out = sys.stdout.buffer if args.out == "-" else stack.enter_context(Path(args.out).open("wb"))
        except OSError as error:
            raise JobsError(f"cannot write {args.out}: {error.strerror}") from None
        lines = 0
        for samples in rounds(args.seconds, args.every):
            found = b"".join(line(tenant_id, sample) for sample in samples)
            lines += found.count(b"\n")
            out.write(found)
            out.flush()
    print(f"{lines:,} values of this host and its processes in {args.seconds:g} s", file=sys.stderr)
    return 0


def register(url: str, tenant_id: int) -> None:
    """Add the attributes that the tenant has not yet; those it has stay as they are. Raises JobsError."""
    with db.translated(url), db.connect(url, "eav_owner", "eav jobs telemetry") as connection:
        connection.cursor().executemany(
            "INSERT INTO eav.attributes (tenant_id, name, data_type, unit, is_hot)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (tenant_id, name) DO NOTHING",
            [(tenant_id, name, *facts) for name, facts in ATTRIBUTES.items()],
        )


def line(tenant_id: int, sample: Sample) -> bytes:
    """A sample as one line of NDJSON."""
    entity_id, attribute, observed_at, value = sample
    record = {
        "tenant_id": tenant_id,
        "entity_id": entity_id,
        "attribute": attribute,
        "observed_at": _text(observed_at),
        "value": value,
    }
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def rounds(
    seconds: float,
    every: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[Sample]]:
    """Samples of everything, every so often, for so many seconds; at least one round."""
    known: dict[tuple[int, float], psutil.Process] = {}
    end = clock() + seconds
    due = clock()
    while True:
        yield [*host(datetime.now(UTC)), *processes(known)]
        due = max(due + every, clock())
        if due >= end:
            return
        sleep(max(0.0, due - clock()))


def host(now: datetime) -> Iterator[Sample]:
    """The host itself. What this system does not tell is left out."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    facts: dict[str, Value] = {
        "host.cpu.percent": psutil.cpu_percent(),
        "host.cpu.count": psutil.cpu_count() or 1,
        "host.memory.total_bytes": memory.total,
        "host.memory.used_bytes": memory.used,
        "host.memory.available_bytes": memory.available,
        "host.memory.percent": memory.percent,
        "host.swap.used_bytes": swap.used,
        "host.processes": len(psutil.pids()),
        "host.booted_at": _text(datetime.fromtimestamp(psutil.boot_time(), UTC)),
    }
    facts.update(zip(("host.load.1m", "host.load.5m", "host.load.15m"), psutil.getloadavg(), strict=True))
    if (disk := psutil.disk_io_counters()) is not None:
        facts["host.disk.read_bytes"] = disk.read_bytes
        facts["host.disk.write_bytes"] = disk.write_bytes
    if (network := psutil.net_io_counters()) is not None:
        facts["host.network.sent_bytes"] = network.bytes_sent
        facts["host.network.received_bytes"] = network.bytes_recv
    return ((HOST, attribute, now, value) for attribute, value in facts.items())


def processes(known: dict[tuple[int, float], psutil.Process]) -> Iterator[Sample]:
    """Every process. `known` keeps them between rounds: CPU use is measured from one to the next."""
    alive: dict[tuple[int, float], psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            key = (process.pid, process.create_time())
            process = alive[key] = known.get(key, process)
            with process.oneshot():
                facts: dict[str, Value] = {
                    "process.cpu.percent": process.cpu_percent(),
                    "process.memory.rss_bytes": process.memory_info().rss,
                    "process.threads": process.num_threads(),
                    "process.name": _printable(process.name()),
                    "process.status": str(process.status()),
                    "process.running": process.status() != psutil.STATUS_ZOMBIE,
                    "process.started_at": _text(datetime.fromtimestamp(key[1], UTC)),
                }
        except (psutil.Error, OSError):
            # It has ended meanwhile, or may not be looked at: the next one.
            continue
        now = datetime.now(UTC)
        yield from ((entity_id(*key), attribute, now, value) for attribute, value in facts.items())
    known.clear()
    known.update(alive)


def entity_id(pid: int, created: float) -> int:
    """A process's entity: positive, the same while it lives, not that of a later process with its pid."""
    digest = hashlib.blake2b(f"{pid}:{created:.2f}".encode(), digest_size=8).digest()
    return max(int.from_bytes(digest, "big") >> 1, HOST + 1)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode().replace("\0", "") or "?"
