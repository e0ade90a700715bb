"""One server for the whole run, one migrated template database on it, and a clone of that for each test."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import psycopg
import pytest
from botocore.loaders import JSONFileLoader
from psycopg import sql
from xdist.scheduler import WorkStealingScheduling

from local.server import Server, become, test_server
from tests import warm

if TYPE_CHECKING:
    from tests.aws import Aws

ROOT = Path(__file__).resolve().parent.parent
MEMORY, MEMORY_NEEDED = Path("/dev/shm"), 4 * 2**30  # noqa: S108  (what is made there has names of its own)
CGROUP = Path("/sys/fs/cgroup")
Connection = psycopg.Connection[tuple[Any, ...]]


def use_memory() -> None:
    """Keep temporary files, servers' data among them, in memory if there is plenty and nobody has named a place.

    Each test's database is made of 750 files and dropped. Where ext4 looks for a free inode it passes over all that
    were freed in the last minutes, which is a quarter of what the whole suite takes.
    """
    # Workers of one run share a server, so they go where the first process has decided.
    if {"TMPDIR", "TEMP", "TMP", "PYTEST_XDIST_WORKER"} & os.environ.keys() or not os.path.ismount(MEMORY):
        return
    # In a container it is small, if nobody asked for more, and may be no place for scripts, which some tests write.
    usable = os.access(MEMORY, os.W_OK | os.X_OK) and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    free = [shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available]
    with contextlib.suppress(OSError, ValueError):  # no such limit: no such file, or "max"
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(limit - used)
    if usable and min(free) >= MEMORY_NEEDED:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


use_memory()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WorkStealingScheduling | None:
    """Keep the tests of a file on one worker, where they share its servers, until one has nothing left to do."""
    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


def remember_services() -> None:
    """Have what boto3 knows of AWS parsed once: each session does it again, for half a second, and tests make many."""
    parse = cache(JSONFileLoader().load_file)
    JSONFileLoader.load_file = lambda self, file_path: parse(file_path)  # type: ignore[method-assign]


remember_services()


def pytest_report_header() -> str:
    """Says where."""
    return f"temporary files: {tempfile.gettempdir()}"


@dataclass(frozen=True)
class Database:
    """A database of its own for one test."""

    url: str = field(repr=False)
    # Half of what a short test does is to connect: those that look at what was done come by the shorter way.
    shortcut: str | None = field(default=None, repr=False)

    @property
    def near(self) -> str:
        """The URL for those whom it does not matter how they come."""
        return self.shortcut or self.url

    def connect(self, role: str | None = None, **options: Any) -> Connection:
        """A new autocommit connection, logged in as `role` as far as the server can tell."""
        connection = psycopg.connect(self.near, autocommit=True, **options)
        if role is not None:
            become(connection, role)
        return connection

    @contextmanager
    def session(self, role: str | None = None) -> Iterator[Connection]:
        """`connect`, closed at the end."""
        with closing(self.connect(role)) as connection:
            yield connection

    def all(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """The rows of one query, as the superuser."""
        with self.session() as connection:
            return connection.execute(query.encode(), params or None).fetchall()

    def one(self, query: str, *params: Any) -> Any:
        """The first column of the only row."""
        ((value, *_),) = self.all(query, *params)
        return value


def run_alembic(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`alembic ARGUMENTS` on the database at `url`, as a user runs it."""
    return warm.run("alembic", *arguments, env=os.environ | {"DATABASE_URL": url})


def in_database(url: str, name: str) -> str:
    """`url` with another database; it stays a postgresql:// URL, which alembic and libpq both read."""
    base, _, query = url.partition("?")
    return f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


def database_on(server: Server, name: str) -> Database:
    """The database of this name."""
    return Database(
        in_database(server.url, name), server.cluster.socket_url(name) if server.cluster else None
    )


def schema_fingerprint() -> str:
    """Changes with anything that migrations read."""
    digest = hashlib.sha256()
    for folder in ("migrations", "sql/functions"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".sql"):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server of this test run; says which on stderr."""
    with test_server() as found:
        yield found


@pytest.fixture(scope="session")
def admin(server: Server) -> Iterator[Connection]:
    """A superuser's connection to a database that no test uses."""
    with psycopg.connect(in_database(server.url, "postgres"), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def template(server: Server, admin: Connection) -> str:
    """The name of a database at head, made once per server and state of the schema."""
    name = f"eav_template_{schema_fingerprint()}"
    with psycopg.connect(in_database(server.url, "postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('eav test template'))")
        if connection.execute("SELECT count(*) FROM pg_database WHERE datname = %s", (name,)).fetchone() == (
            0,
        ):
            for (old,) in connection.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE 'eav\\_template\\_%'"
            ):
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(old)))
            building = f"eav_building_{uuid4().hex[:8]}"
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(building)))
            done = run_alembic(in_database(server.url, building), "upgrade", "head")
            if done.returncode:
                pytest.exit(f"alembic upgrade head failed:\n{done.stderr}", returncode=1)
            connection.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                    sql.Identifier(building), sql.Identifier(name)
                )
            )
    return name


@pytest.fixture
def new_database(server: Server, admin: Connection) -> Iterator[Callable[..., Database]]:
    """Makes databases, empty or from a template, that are dropped after the test."""
    made: list[str] = []

    def make(template: str = "template1") -> Database:
        name = f"eav_test_{uuid4().hex[:12]}"
        # To copy files is quicker, and to drop them, where nothing waits for a disk.
        strategy = "STRATEGY FILE_COPY" if server.cluster else ""
        admin.execute(
            sql.SQL(f"CREATE DATABASE {{}} TEMPLATE {{}} {strategy}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        made.append(name)
        return database_on(server, name)

    yield make
    for name in made:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty_database(new_database: Callable[..., Database]) -> Database:
    """A database without the platform."""
    return new_database()


@pytest.fixture
def database(new_database: Callable[..., Database], template: str) -> Database:
    """A migrated database of this test's own, which may commit what it likes."""
    return new_database(template)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """DynamoDB and S3 on loopback, empty, and named by this test's environment."""
    from tests.aws import emulator  # only here: moto takes a second to import

    with emulator(monkeypatch) as found:
        yield found
