"""Servers that tests of this folder may kill."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from local.binaries import choose, installed
from local.cluster import Cluster, temporary_cluster
from local.settings import Value
from tests.conftest import Database, in_database, run_alembic

pytest.register_assert_rewrite("tests.sql.load")

TEMPLATE = "migrated"


@contextmanager
def migrated_cluster(**settings: Value) -> Iterator[Cluster]:
    """A started server of its own, with a database `migrated` at head, which nobody is connected to."""
    if choose(installed()) is None:
        pytest.skip("no PostgreSQL server programs on this machine: python -m local install")
    with temporary_cluster(settings) as made:
        administer(made, "CREATE DATABASE {}", TEMPLATE)
        done = run_alembic(in_database(made.url(), TEMPLATE), "upgrade", "head")
        assert done.returncode == 0, done.stderr
        yield made


class Killable(Cluster):
    """With a socket in its data folder."""

    def start(self, timeout: float = 120.0) -> None:
        """As Cluster does, past the socket's lock of a server that was killed and that nobody has buried."""
        if not self.is_running():
            for lock in self.data_dir.glob(".s.PGSQL.*.lock"):
                lock.unlink()
        super().start(timeout)


@pytest.fixture(scope="session")
def killable() -> Iterator[Cluster]:
    """A server that tests may kill at any moment, as long as they start it again. What it acknowledges is on disk."""
    settings: dict[str, Value] = {
        "fsync": True,
        "full_page_writes": True,
        "unix_socket_directories": ".",  # see Database.shortcut
    }
    if sys.platform == "linux":
        # Recovery begins by syncing every file of the cluster, one by one: a second, for nothing a crash test needs.
        settings["recovery_init_sync_method"] = "syncfs"
    with migrated_cluster(**settings) as cluster:
        cluster.trust_sockets()
        administer(cluster, "SELECT pg_reload_conf() AS {}", "done")
        yield Killable(cluster.data_dir, cluster.binaries, cluster.os_user)


@pytest.fixture
def doomed(killable: Cluster) -> Iterator[Database]:
    """A migrated database on `killable`, of this test's own."""
    name = f"eav_test_{uuid4().hex[:12]}"
    administer(killable, f"CREATE DATABASE {{}} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY", name)
    yield Database(in_database(killable.url(), name), killable.socket_url(name))
    killable.start()
    administer(killable, "DROP DATABASE {} WITH (FORCE)", name)


def administer(cluster: Cluster, statement: str, name: str) -> None:
    """One statement, about a database of this name, from a database that no test uses."""
    with closing(psycopg.connect(in_database(cluster.url(), "postgres"), autocommit=True)) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
