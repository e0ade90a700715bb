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
from typing import Any, cast, get_args

import psycopg
from psycopg import sql

from local import database_url, docker, packages, sharing
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


def become(connection: psycopg.Connection[Any], role: str) -> None:
    """Be `role` on a superuser's connection as if it had logged in: with its settings, which a switch leaves out."""
    settings = connection.execute(
        "SELECT split_part(s, '=', 1), substr(s, strpos(s, '=') + 1) FROM pg_roles, unnest(rolconfig) AS s"
        " WHERE rolname = %s",
        [role],
    ).fetchall()
    for setting in settings:
        connection.execute("SELECT set_config(%s, %s, false)", setting)
    connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))


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
        memory = place.recall()
        # Once there is data it stays where it is, whatever starts to answer later.
        settled = kind is None and memory is not None
        kind = memory.kind if kind is None and memory else kind
        if kind == "binaries":
            return _on_binaries(place, say, "chosen by an earlier up" if settled else "EAV_SERVER=binaries")
        try:
            engine = docker.find_engine()
        except docker.DockerError as error:
            if settled:
                raise LocalError(
                    f"the data of this clone is in Docker volume {place.name}, but {error}: start Docker,"
                    " or set EAV_SERVER=binaries for a new, empty server"
                ) from None
            if kind == "docker":
                raise LocalError(
                    f"EAV_SERVER=docker, but {error}: start Docker, or unset EAV_SERVER"
                ) from None
            return _on_binaries(place, say, f"no DATABASE_URL, {error}")
        try:
            why = "chosen by an earlier up" if settled else f"Docker {engine.version} answers"
            return _in_docker(place, engine, memory.docker_port if memory else 0, say, why)
        except docker.DockerError as error:
            if kind == "docker":
                raise
            say(f"{error}; going on with server programs of this machine")
            return _on_binaries(place, say, "Docker could not")


def current_server(*, place: Place | None = None, environ: Mapping[str, str] = os.environ) -> Server | None:
    """The server that commands use now, if it is up; starts nothing. Raises LocalError."""
    kind = wanted(environ)
    if kind == "url":
        return _named(environ["DATABASE_URL"])
    return own_server(place=place, kind=kind)


def own_server(*, place: Place | None = None, kind: Kind | None = None) -> Server | None:
    """The server that `up` made for this clone (of `kind`, if given) if it is up; DATABASE_URL is not looked
    at.

    Raises LocalError.
    """
    place = place or Place()
    memory = place.recall()
    if memory is not None and (kind or memory.kind) == "docker" and memory.docker_port:
        container = place.container()
        if container.is_running():
            return _of_container(container, memory.docker_port, "")
    if kind != "docker":
        data_dir = place.data_dir()
        if data_dir is not None and (cluster := Cluster.open(data_dir)).is_running():
            return _of_cluster(cluster, "")
    return None


def destroy(*, place: Place | None = None) -> list[str]:
    """Stop this clone's servers and remove their data; returns what was removed, one line each. Raises
    LocalError.
    """
    place = place or Place()
    removed = []
    with place.lock():
        for data_dir in place.data_dirs():
            if data_dir.exists():
                with contextlib.suppress(ClusterError):  # data that cannot be opened can still be removed
                    Cluster.open(data_dir).stop("immediate")
                Cluster.remove_data(data_dir)
                removed.append(str(data_dir))
        place.remove_outside()
        container = place.container()
        if container.password_file.exists():
            docker.find_engine()
            container.remove()
            removed.append(f"Docker container and volume {container.name}")
        place.remember(None)
    return removed


@contextlib.contextmanager
def test_server(
    environ: Mapping[str, str] = os.environ,  # noqa: PT028  (no test, in spite of its name)
    say: Say = say_on_stderr,  # noqa: PT028
) -> Iterator[Server]:
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
        facts = _start_throwaway(folder, kind, say)
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


def _on_binaries(place: Place, say: Say, why: str) -> Server:
    data_dir = place.data_dir()
    if data_dir is None:
        binaries = packages.server_binaries(say)
        os_user = server_user()
        data_dir = place.new_data_dir(os_user)
        if place.folder not in data_dir.parents:
            say(
                f"user {os_user.name}, who runs the server, cannot enter {place.clone}:"
                f" data goes to {data_dir}"
            )
        cluster = Cluster.create(data_dir, binaries=binaries)
    else:
        cluster = Cluster.open(data_dir)
        if not cluster.is_running():
            packages.server_binaries(say, cluster.binaries.major)
            cluster.reconfigure()
    port = cluster.port
    if start_on_free_port(cluster):
        say(f"port {port} was taken by another program: the server is now on {cluster.port}")
    memory = place.recall()
    place.remember(Memory("binaries", memory.docker_port if memory else 0))
    return _of_cluster(cluster, why)


def _in_docker(place: Place, engine: docker.Engine, port: int, say: Say, why: str) -> Server:
    container = place.container()
    chosen = container.start(engine, port, say)
    place.remember(Memory("docker", chosen))
    return _of_container(container, chosen, why)


def _of_cluster(cluster: Cluster, why: str) -> Server:
    origin = f"PostgreSQL {cluster.binaries.major} of {cluster.binaries.bindir} on 127.0.0.1:{cluster.port}"
    return Server(cluster.url(), _because(origin, why), "binaries", cluster.stop, cluster)


def _of_container(container: docker.Container, port: int, why: str) -> Server:
    origin = f"PostgreSQL 15 in Docker container {container.name} on 127.0.0.1:{port}"
    return Server(container.url(port), _because(origin, why), "docker", container.stop)


def _because(origin: str, why: str) -> str:
    return f"{origin} ({why})" if why else origin


def _start_throwaway(folder: Path, kind: Kind | None, say: Say) -> sharing.Facts:
    why = "EAV_SERVER=binaries"
    if kind != "binaries":
        try:
            engine = docker.find_engine()
            identifier, url = docker.start_throwaway(engine, say)
            origin = f"a throw-away PostgreSQL 15 in Docker (Docker {engine.version} answers)"
            return {"kind": "docker", "url": url, "origin": origin, "container": identifier}
        except docker.DockerError as error:
            if kind == "docker":
                raise LocalError(f"EAV_SERVER=docker, but {error}") from None
            why = f"no DATABASE_URL, {error}"
    binaries = packages.server_binaries(say)
    data_dir = folder / "data"
    settings = {**THROWAWAY, "unix_socket_directories": str(data_dir)}
    cluster = Cluster.create(data_dir, settings=settings, binaries=binaries)
    cluster.trust_sockets()
    start_on_free_port(cluster)
    origin = (
        f"a throw-away PostgreSQL {binaries.major} of {binaries.bindir} on 127.0.0.1:{cluster.port} ({why})"
    )
    return {"kind": "binaries", "url": cluster.url(), "origin": origin, "data_dir": str(cluster.data_dir)}


def _stop_throwaway(folder: Path, facts: sharing.Facts) -> None:
    if "container" in facts:
        docker.remove_throwaway(facts["container"])
    with contextlib.suppress(ClusterError):  # a run killed while it made its cluster left none
        Cluster.open(folder / "data").stop("immediate")
