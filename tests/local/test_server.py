from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local import database_url, docker
from local.cluster import Cluster
from local.errors import LocalError
from local.place import Memory, Place
from local.server import current_server, destroy, find_server, own_server, wanted
from local.server import test_server as server_for_tests

pytestmark = pytest.mark.cluster

BINARIES = {"EAV_SERVER": "binaries"}


@pytest.fixture
def place(folder: Path) -> Iterator[Place]:
    """A clone with nothing in it yet."""
    (folder / "clone").mkdir()
    made = Place(folder / "clone", folder / "outside")
    yield made
    destroy(place=made)


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> docker.Engine:
        raise docker.DockerError("no Docker daemon answers")

    monkeypatch.setattr(docker, "find_engine", nowhere)


@pytest.fixture
def broken_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that answers but can build no image."""

    def refuse(say: object) -> str:
        raise docker.DockerError("the Docker image could not be built: no network")

    monkeypatch.setattr(docker, "find_engine", lambda: docker.Engine("28.0", 2**30))
    monkeypatch.setattr(docker, "ensure_image", refuse)
    monkeypatch.setattr(docker.Container, "is_running", lambda self: False)


def test_what_is_wanted() -> None:
    assert wanted({}) is None
    assert wanted({"DATABASE_URL": ""}) is None
    assert wanted({"DATABASE_URL": "postgresql://h/d"}) == "url"
    assert wanted({"DATABASE_URL": "postgresql://h/d", "EAV_SERVER": "binaries"}) == "binaries"
    with pytest.raises(LocalError, match="EAV_SERVER must be one of url, docker, binaries, got 'podman'"):
        wanted({"EAV_SERVER": "podman"})
    with pytest.raises(LocalError, match="EAV_SERVER=url needs DATABASE_URL"):
        wanted({"EAV_SERVER": "url"})


def test_database_url_comes_first_and_is_never_stopped(cluster: Cluster, place: Place) -> None:
    server = find_server(place=place, environ={"DATABASE_URL": cluster.url()})
    assert (server.kind, server.url) == ("url", cluster.url())
    assert "named by DATABASE_URL" in server.origin
    server.stop()
    assert cluster.is_running()
    assert not place.folder.exists(), "a server named by DATABASE_URL leaves nothing in the clone"


def test_an_unfit_database_url_is_no_reason_to_take_another_server(place: Place) -> None:
    with pytest.raises(LocalError, match="DATABASE_URL"):
        find_server(place=place, environ={"DATABASE_URL": "nonsense"})


def test_up_twice_down_and_up_keep_server_port_password_and_data(place: Place, no_docker: None) -> None:
    lines: list[str] = []
    server = find_server(place=place, environ={}, say=lines.append)
    assert "no DATABASE_URL, no Docker daemon answers" in server.origin
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    again = find_server(place=place, environ={}, say=lines.append)
    assert again.url == server.url
    server.stop()
    assert current_server(place=place, environ={}) is None
    assert find_server(place=place, environ={}, say=lines.append).url == server.url
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT n FROM kept").fetchone()
    assert row == (7,)
    assert lines == []
    assert database_url.check(server.url)


def test_two_ups_at_once_make_one_server(place: Place) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from local.place import Place\nfrom local.server import find_server\n"
        "print(find_server(place=Place(Path(sys.argv[1]), Path(sys.argv[2]))).url)"
    )
    command = [sys.executable, "-c", script, str(place.clone), str(place.outside)]
    both = [
        subprocess.Popen(command, env={**os.environ, **BINARIES}, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    urls = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(urls) == 1


def test_up_after_kill_9_recovers(place: Place) -> None:
    server = find_server(place=place, environ=BINARIES)
    assert server.cluster is not None
    server.cluster.kill()
    assert current_server(place=place, environ=BINARIES) is None
    assert database_url.answers(find_server(place=place, environ=BINARIES).url)


def test_a_taken_port_is_said_in_one_line(place: Place) -> None:
    server = find_server(place=place, environ=BINARIES)
    assert server.cluster is not None
    port = server.cluster.port
    server.stop()
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", port)):
        moved = find_server(place=place, environ=BINARIES, say=lines.append)
    assert moved.cluster is not None
    assert lines == [f"port {port} was taken by another program: the server is now on {moved.cluster.port}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="everybody can enter his own clone")
def test_a_closed_clone_puts_its_data_outside_and_stays_closed(place: Place) -> None:
    place.clone.chmod(0o700)
    lines: list[str] = []
    server = find_server(place=place, environ=BINARIES, say=lines.append)
    assert server.cluster is not None
    assert server.cluster.data_dir == place.outside / place.name / "data"
    assert lines == [
        f"user postgres, who runs the server, cannot enter {place.clone}:"
        f" data goes to {server.cluster.data_dir}"
    ]
    assert place.clone.stat().st_mode & 0o777 == 0o700
    assert destroy(place=place) == [str(server.cluster.data_dir)]
    assert list(place.outside.iterdir()) == []


def test_destroy_removes_all_and_is_safe_to_repeat(place: Place) -> None:
    server = find_server(place=place, environ=BINARIES)
    assert server.cluster is not None
    assert destroy(place=place) == [str(server.cluster.data_dir)]
    assert not server.cluster.is_running()
    assert own_server(place=place) is None
    assert place.recall() is None
    assert destroy(place=place) == []


def test_destroy_removes_what_cannot_be_opened(place: Place) -> None:
    place.make()
    broken = place.data_dirs()[0]
    broken.mkdir()
    (broken / "PG_VERSION").write_text("no number")
    with pytest.raises(LocalError, match="PG_VERSION cannot be read"):
        find_server(place=place, environ=BINARIES)
    assert destroy(place=place) == [str(broken)]


def test_data_stays_where_it_is_when_docker_starts_to_answer(
    place: Place, no_docker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = find_server(place=place, environ={})
    monkeypatch.setattr(docker, "find_engine", lambda: docker.Engine("28.0", 2**30))
    again = find_server(place=place, environ={})
    assert again.url == server.url
    assert "chosen by an earlier up" in again.origin


def test_data_in_docker_is_not_forgotten_when_docker_is_away(place: Place, no_docker: None) -> None:
    place.make()
    place.remember(Memory("docker", 25000))
    with pytest.raises(LocalError, match=f"is in Docker volume {place.name}, but no Docker daemon answers"):
        find_server(place=place, environ={})
    assert find_server(place=place, environ=BINARIES).kind == "binaries"


def test_forced_docker_without_a_daemon_is_one_line(place: Place, no_docker: None) -> None:
    with pytest.raises(LocalError, match=r"^EAV_SERVER=docker, but no Docker daemon answers: start Docker"):
        find_server(place=place, environ={"EAV_SERVER": "docker"})
    with (
        pytest.raises(LocalError, match=r"^EAV_SERVER=docker, but no Docker daemon answers"),
        server_for_tests({"EAV_SERVER": "docker", "PYTEST_XDIST_TESTRUNUID": place.name}),
    ):
        pass


def test_a_docker_that_cannot_build_gives_way_unless_forced(place: Place, broken_docker: None) -> None:
    lines: list[str] = []
    assert find_server(place=place, environ={}, say=lines.append).kind == "binaries"
    assert lines == [
        "the Docker image could not be built: no network; going on with server programs of this machine"
    ]
    with pytest.raises(LocalError, match="could not be built"):
        find_server(place=place, environ={"EAV_SERVER": "docker"})


def test_a_spoilt_memory_is_one_line(place: Place) -> None:
    place.make()
    (place.folder / "server.json").write_text("{")
    with pytest.raises(LocalError, match=r"server\.json cannot be read"):
        find_server(place=place, environ=BINARIES)


def test_no_password_in_what_is_printed(place: Place) -> None:
    server = find_server(place=place, environ=BINARIES)
    assert server.cluster is not None
    assert server.cluster.password not in repr(server)


def test_processes_of_a_test_run_share_one_throwaway_server(place: Place) -> None:
    lines: list[str] = []
    environ = {**BINARIES, "PYTEST_XDIST_TESTRUNUID": place.name}
    with server_for_tests(environ, lines.append) as first, server_for_tests(environ, lines.append) as second:
        assert first.url == second.url
        with psycopg.connect(first.url) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("off",)
        cluster = second.cluster
        assert cluster is not None
        assert cluster.is_running()
    assert not cluster.is_running()
    assert not cluster.data_dir.exists()
    assert len(lines) == 1
    assert "throw-away PostgreSQL" in lines[0]
    assert "EAV_SERVER=binaries" in lines[0]


def test_tests_use_database_url_when_it_is_set(cluster: Cluster) -> None:
    lines: list[str] = []
    with server_for_tests({"DATABASE_URL": cluster.url()}, lines.append) as server:
        assert server.url == cluster.url()
    assert cluster.is_running()
    assert lines == [f"tests run on {server.origin}"]
