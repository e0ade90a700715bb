"""The throw-away server that everything is measured on, and databases on it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import psycopg
from psycopg import sql

from bench.sizes import Sizes
from local.cluster import Cluster, temporary_cluster
from local.errors import LocalError
from local.server import become
from local.settings import Value

ROOT = Path(__file__).resolve().parent.parent
Connection = psycopg.Connection[tuple[Any, ...]]
Say = Callable[[str], None]

SETTINGS: dict[str, Value] = {
    "fsync": True,
    "full_page_writes": True,
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    # A checkpoint comes where a row says so. By the clock it would hit whoever happens to be measured.
    "checkpoint_timeout": "1h",
    "maintenance_work_mem": "512MB",
    "max_parallel_maintenance_workers": 2,
}
"""The same for every contestant, and written into the JSON file."""

TEMPLATE = "bench_template"
PARTITION_INTERVAL = "1 month"
"""Of both designs, so that a partition of one holds what a partition of the other does."""


@dataclass
class Bench:
    """A running server, the sizes, and where to say what goes on."""

    cluster: Cluster
    sizes: Sizes
    rounds: int
    say: Say
    _made: set[str] = field(default_factory=set)

    def url(self, database: str) -> str:
        """The URL of a database, as the superuser."""
        return self.cluster.url(database)

    def connect(self, database: str, role: str | None = None, **options: Any) -> Connection:
        """A new autocommit connection, with the rights of `role` if given."""
        connection = psycopg.connect(self.url(database), autocommit=True, **options)
        if role is not None:
            become(connection, role)
        return connection

    def create_database(self, name: str, template: str = TEMPLATE) -> None:
        """A database with the platform in it (or `template0`: empty)."""
        if template == TEMPLATE and TEMPLATE not in self._made:
            self.create_database(TEMPLATE, "template0")
            self.migrate(TEMPLATE)
        with self.connect("postgres") as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        self._made.add(name)

    def drop_database(self, name: str) -> None:
        """With all that is in it; no matter whether it is there."""
        with self.connect("postgres") as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )
        self._made.discard(name)

    def migrate(self, database: str) -> float:
        """`alembic upgrade head`; returns its seconds."""
        start = time.perf_counter()
        self.run(database, "alembic", "-x", f"partition_interval={PARTITION_INTERVAL}", "upgrade", "head")
        return time.perf_counter() - start

    def run(self, database: str, module: str, *arguments: str) -> str:
        """`python -m MODULE ARGUMENTS` on that database; returns its output. Raises LocalError if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=self.environment(database),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise LocalError(f"python -m {module} {' '.join(arguments)} failed: {last}")
        return done.stdout

    def environment(self, database: str) -> dict[str, str]:
        """For a program that works on that database."""
        return os.environ | {"DATABASE_URL": self.url(database)}

    def checkpoint(self) -> None:
        """So that the next change of each page writes the whole page to the log."""
        with self.connect("postgres") as connection:
            connection.execute("CHECKPOINT")

    def checkpoints(self) -> int:
        """How many there were so far, by the clock or asked for."""
        with self.connect("postgres") as connection:
            return int(
                one(connection, "SELECT checkpoints_timed + checkpoints_req FROM pg_stat_bgwriter")
                if connection.info.server_version < 170000
                else one(connection, "SELECT num_timed + num_requested FROM pg_stat_checkpointer")
            )

    def about(self) -> dict[str, Any]:
        """The machine, the server and the code, for the JSON file."""
        with self.connect("postgres") as connection:
            version = str(one(connection, "SHOW server_version"))
            names = [*SETTINGS, "synchronous_commit", "wal_level", "autovacuum", "work_mem", "jit"]
            settings = {name: str(one(connection, f"SHOW {name}")) for name in names}
        return {
            **here(),
            "postgresql": version,
            "settings": settings,
            "sizes": self.sizes.as_dict(),
            "rounds": self.rounds,
            "partition_interval": PARTITION_INTERVAL,
        }


@contextlib.contextmanager
def running(
    sizes: Sizes, rounds: int, say: Say, settings: Mapping[str, Value] | None = None
) -> Iterator[Bench]:
    """A server for the length of the block; nothing of it is left, whatever ends the block, SIGTERM included."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        with temporary_cluster({**SETTINGS, **(settings or {})}) as cluster:
            yield Bench(cluster, sizes, rounds, say)
    finally:
        signal.signal(signal.SIGTERM, previous)


def here() -> dict[str, Any]:
    """The machine and the code, for the JSON file."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_at_start": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
    }


def one(connection: Connection, query: str, *params: object) -> Any:
    """The first column of the only row."""
    ((value, *_),) = connection.execute(query.encode(), params or None).fetchall()
    return value


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def _cpu() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()
