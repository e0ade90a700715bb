from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local import docker
from local.place import Place
from local.server import destroy, find_server, own_server
from local.server import test_server as server_for_tests


def fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("DOCKER_HOST", raising=False)


def test_no_docker_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(docker.DockerError, match="no docker command"):
        docker.find_engine()


@pytest.mark.parametrize("script", ["exit 1", "echo ' 0'", "echo 'Cannot connect'"])
def test_a_docker_without_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    fake_docker(tmp_path, monkeypatch, script)
    with pytest.raises(docker.DockerError, match="no Docker daemon answers"):
        docker.find_engine()


def test_a_daemon_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(docker, "ANSWER_SECONDS", 0.2)
    with pytest.raises(docker.DockerError, match=r"did not answer in 0.2 s"):
        docker.find_engine()


def test_a_daemon_elsewhere_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, "echo 28.0 1000")
    assert docker.find_engine() == docker.Engine("28.0", 1000)
    monkeypatch.setenv("DOCKER_HOST", "tcp://build-box:2375")
    with pytest.raises(docker.DockerError, match="another machine"):
        docker.find_engine()


def test_a_failed_build_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(
        tmp_path,
        monkeypatch,
        'if [ "$1" = image ]; then exit 1; fi\necho Step 1/9\necho no such host\nexit 1',
    )
    lines: list[str] = []
    with pytest.raises(docker.DockerError, match=r"^the Docker image could not be built: no such host$"):
        docker.ensure_image(lines.append)
    assert lines[1:] == ["  Step 1/9"]


def test_the_image_is_another_when_its_sources_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = docker.image_tag()
    for name in docker.SOURCES:
        shutil.copy(docker.CONTEXT / name, tmp_path)
    monkeypatch.setattr(docker, "CONTEXT", tmp_path)
    assert docker.image_tag() == before
    (tmp_path / "docker-entrypoint.sh").open("a").write("# changed\n")
    assert docker.image_tag() != before


# ---- with a real daemon --------------------------------------------------------------------------------


@pytest.fixture
def engine() -> docker.Engine:
    if os.environ.get("EAV_SERVER", "docker") != "docker":
        pytest.skip(f"EAV_SERVER={os.environ['EAV_SERVER']}")
    try:
        return docker.find_engine()
    except docker.DockerError as error:
        pytest.skip(str(error))


@pytest.fixture
def place(engine: docker.Engine, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, tmp_path / "outside")
    yield made
    destroy(place=made)


DOCKER = {"EAV_SERVER": "docker"}


@pytest.mark.slow
def test_the_container_of_a_clone_keeps_port_password_and_data(place: Place) -> None:
    server = find_server(place=place, environ=DOCKER)
    assert server.kind == "docker"
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE EXTENSION pg_partman")
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        assert connection.execute("SHOW wal_level").fetchone() == ("logical",)
        assert connection.pgconn.ssl_in_use
    server.stop()
    assert own_server(place=place) is None
    again = find_server(place=place, environ={})
    assert again.url == server.url
    with psycopg.connect(again.url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
    container = place.container()
    assert destroy(place=place) == [f"Docker container and volume {container.name}"]
    assert not container.is_running()


@pytest.mark.slow
def test_a_throwaway_container_ends_with_its_last_user(engine: docker.Engine, tmp_path: Path) -> None:
    environ = {**DOCKER, "PYTEST_XDIST_TESTRUNUID": f"docker-{os.getpid()}"}
    lines: list[str] = []
    with server_for_tests(environ, lines.append) as server:
        assert "127.0.0.1" in server.url
        listed = ["docker", "ps", "--format", "{{.Ports}}"]
        published = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
        assert f"127.0.0.1:{psycopg.conninfo.conninfo_to_dict(server.url)['port']}->" in published
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("off",)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url, connect_timeout=2)
