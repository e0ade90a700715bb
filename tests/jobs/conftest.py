"""What the tests of the jobs share."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

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


@pytest.fixture(scope="module")
def crashing() -> Iterator[tuple[Cluster, Database]]:
    """A server of its own, to be killed, with the platform and tenant 1 on it."""
    with temporary_cluster() as cluster:
        done = run_alembic(cluster.url(), "upgrade", "head")
        assert done.returncode == 0, done.stderr
        database = Database(cluster.url())
        database.one("SELECT eav.tenant_add('one', 1, true)")
        yield cluster, database


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
