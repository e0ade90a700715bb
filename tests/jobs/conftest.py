"""What the tests of the jobs share."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import conninfo

from jobs.cli import main
from local.cluster import Cluster, temporary_cluster
from tests.conftest import Database, run_alembic
from tests.jobs.buckets import Bucket, emulator, use

# Within the partitions that there are, whenever the tests run.
START = datetime.now(UTC) - timedelta(minutes=10)


def line(number: int, **fields: object) -> str:
    """A line (with its newline) of attribute n, whose value tells which one it is."""
    record = {"tenant_id": 1, "entity_id": 42, "attribute": "n", "value": number}
    record["observed_at"] = (START + timedelta(milliseconds=number)).isoformat()
    return json.dumps(record | fields) + "\n"


def lines(first: int, last: int) -> str:
    """Lines `first` to `last`."""
    return "".join(map(line, range(first, last + 1)))


def values(database: Database) -> list[int]:
    """The values that are durable, sorted."""
    return [int(one) for (one,) in database.all("SELECT value_number FROM eav.entity_values_ts ORDER BY 1")]


@pytest.fixture
def jobs(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`python -m jobs` on the test's database, which has tenant 1; returns the exit code."""
    monkeypatch.setenv("DATABASE_URL", database.url)
    database.one("SELECT eav.tenant_add('one', 1, true)")
    return lambda *arguments: main([str(one) for one in arguments])


@pytest.fixture(scope="session")
def to_be_killed() -> Iterator[Cluster]:
    """A server that tests may kill at any moment, with a database `migrated` at head."""
    with temporary_cluster() as cluster:
        administer(cluster, "CREATE DATABASE migrated")
        done = run_alembic(cluster.url("migrated"), "upgrade", "head")
        assert done.returncode == 0, done.stderr
        yield cluster


@pytest.fixture(scope="module")
def crashing(to_be_killed: Cluster) -> tuple[Cluster, Database]:
    """It with a new database, of the name that pg_cron looks for, with tenant 1."""
    to_be_killed.start()
    administer(to_be_killed, "DROP DATABASE eav WITH (FORCE)", "CREATE DATABASE eav TEMPLATE migrated")
    database = Database(to_be_killed.url())
    database.one("SELECT eav.tenant_add('one', 1, true)")
    return to_be_killed, database


def administer(cluster: Cluster, *statements: str) -> None:
    """Each by itself, from a database that no test uses."""
    with closing(psycopg.connect(cluster.url("postgres"), autocommit=True)) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture(scope="module")
def service() -> Iterator[Bucket]:
    with emulator() as bucket:
        yield bucket


@pytest.fixture
def bucket(service: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return use(monkeypatch, service)


@pytest.fixture
def worker_login(database: Database) -> Iterator[str]:
    """The URL of a login that may act as eav_jobs and as nobody else."""
    name = f"worker_{uuid4().hex[:8]}"
    with database.session() as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p w' IN ROLE eav_jobs".encode())
    yield conninfo.make_conninfo(database.url, user=name, password="p w")
    with database.session() as connection:
        connection.execute(f"DROP ROLE {name}".encode())
