from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.binaries import choose, installed
from local.cluster import Cluster, temporary_cluster, temporary_folder


@pytest.fixture(scope="session", autouse=True)
def server_programs() -> None:
    found = choose(installed())
    if found is None:
        pytest.skip("no PostgreSQL server programs on this machine: python -m local install")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user who runs servers can enter, which pytest's tmp_path is not when root runs the
    tests.
    """
    with temporary_folder() as path:
        yield path


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without what would choose a server."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("EAV_SERVER", raising=False)
    monkeypatch.delenv("EAV_AWS", raising=False)
    return monkeypatch


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A running throw-away cluster. Whoever stops it starts it again."""
    with temporary_cluster() as made:
        yield made
