from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from local import database_url
from local.cluster import Cluster, free_port, start_on_free_port
from local.errors import LocalError

pytestmark = pytest.mark.cluster

SECRET = "s3cret-Pa55word"


@pytest.mark.parametrize(
    "url",
    [
        f"nonsense {SECRET}",
        f"mysql://u:{SECRET}@127.0.0.1/eav",
        f"postgresql://u:{SECRET}@127.0.0.1/eav?no_such_parameter=1",
        f"postgresql://u:{SECRET}@[::1/eav",
        f"postgresql://u:{SECRET}%zz@127.0.0.1/eav",
    ],
)
def test_what_is_no_url_is_told_without_repeating_it(url: str) -> None:
    with pytest.raises(LocalError) as caught:
        database_url.check(url)
    assert "DATABASE_URL is no PostgreSQL URL" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_an_unreachable_server_is_one_line_without_the_password() -> None:
    with pytest.raises(LocalError) as caught:
        database_url.check(f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/eav")
    message = str(caught.value)
    assert "Connection refused" in message
    assert "\n" not in message
    assert SECRET not in message


def test_a_wrong_password_is_one_line_without_it(cluster: Cluster) -> None:
    with pytest.raises(LocalError, match="password authentication failed") as caught:
        database_url.check(cluster.url(user="postgres", password=SECRET))
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_database_is_named(cluster: Cluster) -> None:
    with pytest.raises(LocalError, match='database "nowhere" does not exist'):
        database_url.check(cluster.url("nowhere"))


def test_a_fit_server_gives_its_version_with_sqlalchemys_scheme_too(cluster: Cluster) -> None:
    assert database_url.check(cluster.url()).split(".")[0] == str(cluster.binaries.major)
    assert database_url.check(cluster.url().replace("postgresql://", "postgresql+psycopg://"))


@pytest.fixture
def statements(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        yield connection


def test_a_read_only_database_is_told(cluster: Cluster, statements: psycopg.Connection[Any]) -> None:
    statements.execute("CREATE DATABASE frozen")
    statements.execute("ALTER DATABASE frozen SET default_transaction_read_only = on")
    with pytest.raises(LocalError, match="'frozen' of DATABASE_URL is read-only"):
        database_url.check(cluster.url("frozen"))


def test_a_user_who_may_not_make_schemas_is_told(
    cluster: Cluster, statements: psycopg.Connection[Any]
) -> None:
    statements.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    with pytest.raises(LocalError, match=r"user 'guest' .* may not make schemas in database 'eav'"):
        database_url.check(cluster.url(user="guest", password="guest"))


def test_a_standby_is_told(cluster: Cluster) -> None:
    standby = cluster.create_standby(cluster.data_dir.with_name("follower"))
    try:
        start_on_free_port(standby)
        with pytest.raises(LocalError, match="is a standby, which takes no writes"):
            database_url.check(standby.url())
    finally:
        standby.stop("immediate")
        standby.remove()


@dataclass
class OtherServer:
    """A connection to a server of another kind than those installed here: answers by what is asked."""

    version: int = 150004
    answers: dict[str, object] = field(default_factory=dict)

    @property
    def info(self) -> SimpleNamespace:
        return SimpleNamespace(server_version=self.version, dbname="eav", user="me")

    def execute(self, statement: str) -> SimpleNamespace:
        usual = {"pg_is_in_recovery": False, "read_only": "off", "privilege": True, "pg_partman": True}
        answer = next(value for key, value in {**usual, **self.answers}.items() if key in statement)
        return SimpleNamespace(fetchone=lambda: (answer,))


def check_other(server: OtherServer) -> str:
    return database_url.check_connection(cast(Any, server))


def test_an_old_server_is_told() -> None:
    with pytest.raises(LocalError, match="is PostgreSQL 14: 15 or newer is needed"):
        check_other(OtherServer(version=140011))
    assert check_other(OtherServer(version=180001)) == "18.1"


def test_a_server_without_pg_partman_is_told() -> None:
    with pytest.raises(LocalError, match="lacks pg_partman: install postgresql-16-partman there"):
        check_other(OtherServer(version=160002, answers={"pg_partman": False}))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pw@h:1/d?sslmode=require", "postgresql://u:***@h:1/d?sslmode=require"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d?user=u&password=pw&x=1", "postgresql://h/d?user=u&password=***&x=1"),
    ],
)
def test_masked(url: str, shown: str) -> None:
    assert database_url.masked(url) == shown
