"""Which PostgreSQL to use, here and now: DATABASE_URL, a container, or server programs of this machine.

EAV_SERVER=url|docker|binaries forces one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast, get_args

from local import database_url, sharing
from local.binaries import Binaries, choose, installed
from local.cluster import Cluster, start_on_free_port
from local.errors import ClusterError, LocalError
from local.osuser import server_user
from local.place import Kind, Memory, Place
from local.settings import THROWAWAY

Say = Callable[[str], None]


@dataclass(frozen=True)
class Server:
    """A server that takes connections."""

    url: str = field(repr=False)
    """Connection URL, with the password."""
    origin: str
    """One line for people: which server this is, and why it was chosen. No password."""
    kind: Kind
    stop: Callable[[], None]
    """Ends the server, data kept; does nothing to one that is not ours (DATABASE_URL)."""
    cluster: Cluster | None = None
    """The cluster behind it, if it runs on server programs of this machine."""


def say_on_stderr(line: str) -> None:
    """Stdout is for results: `url` is read by scripts."""
    print(line, file=sys.stderr, flush=True)


def wanted(environ: Mapping[str, str]) -> Kind | None:
    """The kind that EAV_SERVER forces, or that DATABASE_URL implies; None if the choice is free.

    Raises LocalError.
    """
    forced = environ.get("EAV_SERVER", "")
    if forced and forced not in get_args(Kind):
        raise LocalError(f"EAV_SERVER must be one of {', '.join(get_args(Kind))}, got {forced!r}")
    if forced == "url" and not environ.get("DATABASE_URL"):
        raise LocalError("EAV_SERVER=url needs DATABASE_URL: set it, or unset EAV_SERVER")
    if forced:
        return cast(Kind, forced)
    return "url" if environ.get("DATABASE_URL") else None


def find_server(
    *, place: Place | None = None, environ: Mapping[str, str] = os.environ, say: Say = say_on_stderr
) -> Server:
    """The server of this clone, started, made or installed if need be. Safe to repeat. Raises LocalError."""
    place = place or Place()
    kind = wanted(environ)
    if kind == "url":
        return _named(environ["DATABASE_URL"])
    with place.lock():
        return _on_binaries(place, say)


def current_server(*, place: Place | None = None, environ: Mapping[str, str] = os.environ) -> Server | None:
    """The server of this clone if it is up; starts nothing. Raises LocalError."""
    place = place or Place()
    kind = wanted(environ)
    if kind == "url":
        return _named(environ["DATABASE_URL"])
    data_dir = place.data_dir()
    if data_dir is None:
        return None
    cluster = Cluster.open(data_dir)
    return _of_cluster(cluster, "") if cluster.is_running() else None


@contextlib.contextmanager
def test_server(environ: Mapping[str, str] = os.environ, say: Say = say_on_stderr) -> Iterator[Server]:
    """A server for one test run, chosen in the same order; a throw-away one unless DATABASE_URL names it.

    Processes of one pytest-xdist run share it; the last one to leave ends it. Raises LocalError.
    """
    kind = wanted(environ)
    if kind == "url":
        server = _named(environ["DATABASE_URL"])
        say(f"tests run on {server.origin}")
        yield server
        return

    def start(folder: Path) -> sharing.Facts:
        facts = _start_throwaway(folder, say)
        say(f"tests run on {facts['origin']}")
        return facts

    run = environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    with sharing.shared("eav-tests", run, start, _stop_throwaway) as facts:
        cluster = Cluster.open(Path(facts["data_dir"])) if facts["kind"] == "binaries" else None
        yield Server(facts["url"], facts["origin"], cast(Kind, facts["kind"]), lambda: None, cluster)


test_server.__test__ = False  # type: ignore[attr-defined]  # its name makes pytest take it for a test


def _named(url: str) -> Server:
    version = database_url.check(url)
    origin = f"PostgreSQL {version} named by DATABASE_URL"
    return Server(database_url.libpq(url), origin, "url", lambda: None)


def _binaries(say: Say) -> Binaries:
    found = choose(installed())
    if found is None:
        raise LocalError("no PostgreSQL server programs")
    return found


def _on_binaries(place: Place, say: Say) -> Server:
    data_dir = place.data_dir()
    if data_dir is not None:
        cluster = Cluster.open(data_dir)
    else:
        binaries = _binaries(say)
        data_dir = place.new_data_dir(server_user())
        cluster = Cluster.create(data_dir, binaries=binaries)
    port = cluster.port
    if not cluster.is_running():
        if start_on_free_port(cluster):
            say(f"port {port} was taken by another program: the server is now on {cluster.port}")
    place.remember(Memory("binaries"))
    return _of_cluster(cluster, "")


def _of_cluster(cluster: Cluster, why: str) -> Server:
    origin = f"PostgreSQL {cluster.binaries.major} of {cluster.binaries.bindir}, port {cluster.port}{why}"
    return Server(cluster.url(), origin, "binaries", cluster.stop, cluster)


def _start_throwaway(folder: Path, say: Say) -> sharing.Facts:
    binaries = _binaries(say)
    cluster = Cluster.create(folder / "data", settings=THROWAWAY, binaries=binaries)
    start_on_free_port(cluster)
    origin = f"a throw-away PostgreSQL {binaries.major} of {binaries.bindir}, port {cluster.port}"
    return {"kind": "binaries", "url": cluster.url(), "origin": origin, "data_dir": str(cluster.data_dir)}


def _stop_throwaway(folder: Path, facts: sharing.Facts) -> None:
    with contextlib.suppress(ClusterError):  # a run killed while it made its cluster left none
        Cluster.open(folder / "data").stop("immediate")
