"""PostgreSQL in a container: the image, the container of this clone, throw-away ones for tests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local import database_url
from local.binaries import PRELOADED
from local.cluster import connection_url, free_port
from local.errors import LocalError
from local.settings import DATABASE, SUPERUSER, THROWAWAY, Value, server_settings, text

Say = Callable[[str], None]

CONTEXT = Path(__file__).resolve().parent
SOURCES = ("Dockerfile", "docker-entrypoint.sh")
PORT = 5432
ANSWER_SECONDS = 5
START_SECONDS = 120


class DockerError(LocalError):
    """The daemon could not do what was asked."""


@dataclass(frozen=True)
class Engine:
    """A Docker daemon on this machine that answers."""

    version: str
    memory_bytes: int


def find_engine() -> Engine:
    """The Docker daemon, asked for five seconds at most. Raises DockerError: why there is none."""
    if shutil.which("docker") is None:
        raise DockerError("no docker command")
    host = os.environ.get("DOCKER_HOST", "")
    if host and not host.startswith(("unix://", "npipe://")):
        raise DockerError("DOCKER_HOST names another machine, whose loopback ports are not ours")
    done = _docker(["info", "--format", "{{.ServerVersion}} {{.MemTotal}}"], timeout=ANSWER_SECONDS)
    version, _, memory = done.stdout.strip().partition(" ")
    if done.returncode or not memory.isdigit() or not int(memory):
        raise DockerError("no Docker daemon answers")
    return Engine(version, int(memory))


def image_tag() -> str:
    """The image's name; another one as soon as what it is built from changes."""
    content = b"".join((CONTEXT / name).read_bytes() for name in SOURCES)
    return f"eav-platform-postgres:{hashlib.sha256(content).hexdigest()[:12]}"


def ensure_image(say: Say) -> str:
    """Build the image unless it is there; returns its name. Raises DockerError."""
    tag = image_tag()
    if _docker(["image", "inspect", tag]).returncode == 0:
        return tag
    say(f"building the Docker image {tag} (a minute or two, once)")
    # The host's network for the build only: a bridge without a way out is common where packages come by a
    # proxy.
    command = ["docker", "build", "--network", "host", "--tag", tag, str(CONTEXT)]
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.strip()
            lines.append(line)
            if line.startswith("Step ") or "Setting up postgresql-15" in line:
                say(f"  {line[:100]}")
    if process.returncode:
        told = [line for line in lines if line and not line.startswith("Step ")]
        raise DockerError(f"the Docker image could not be built: {' '.join(told[-2:])}")
    return tag


@dataclass(frozen=True)
class Container:
    """The container and the volume of one clone, both called `name`."""

    name: str
    password_file: Path

    def start(self, engine: Engine, port: int, say: Say) -> int:
        """Run it on `port` of 127.0.0.1 and wait until it is ready; on another one if that is 0 or taken.

        Returns the port. Raises DockerError.
        """
        if port and self.is_running():
            return port
        tag = ensure_image(say)
        password = self._password()
        chosen = port
        for attempt in range(5):
            self._docker("rm", "--force", self.name)  # what a reboot or a failed start left; the volume stays
            chosen = port if port and attempt == 0 else free_port()
            done = _docker(
                ["run", "--detach", "--name", self.name, "--env", "EAV_PASSWORD", "--cap-drop", "ALL",
                 "--security-opt", "no-new-privileges", "--shm-size", "256m", "--stop-timeout", "60",
                 "--publish", f"127.0.0.1:{chosen}:{PORT}", "--volume", f"{self.name}:/var/lib/eav",
                 tag, *_arguments(engine)],
                env={"EAV_PASSWORD": password},
            )  # fmt: skip
            if done.returncode == 0:
                break
            if "already allocated" not in done.stderr and "address already in use" not in done.stderr:
                raise DockerError(f"docker run failed: {_last(done.stderr)}")
        else:
            raise DockerError("docker run found five ports of 127.0.0.1 taken, one after the other")
        if port and chosen != port:
            say(f"port {port} was taken by another program: the server is now on {chosen}")
        _wait(self.name, self.url(chosen))
        return chosen

    def url(self, port: int) -> str:
        """The superuser's connection URL."""
        return connection_url(port, DATABASE, SUPERUSER, self._password())

    def is_running(self) -> bool:
        """Whether the container runs now; False without a daemon."""
        return _is_running(self.name)

    def stop(self) -> None:
        """End it cleanly and remove the container; the volume with the data stays. Raises DockerError."""
        if self.is_running():
            self._docker("stop", self.name)
        self._docker("rm", "--force", self.name)

    def remove(self) -> None:
        """Remove container, volume and password. Raises DockerError."""
        self.stop()
        self._docker("volume", "rm", "--force", self.name)
        self.password_file.unlink(missing_ok=True)

    def _password(self) -> str:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(self.password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(secrets.token_urlsafe(24))
        return self.password_file.read_text().strip()

    def _docker(self, *arguments: str) -> None:
        done = _docker(arguments)
        if done.returncode and "No such container" not in done.stderr:
            raise DockerError(f"docker {arguments[0]} failed: {_last(done.stderr)}")


def start_throwaway(engine: Engine, say: Say) -> tuple[str, str]:
    """A container for a test run, through testcontainers; returns (container id, URL). Raises DockerError."""
    try:
        from docker.errors import DockerException
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.container import DockerContainer
    except ImportError:
        raise DockerError("tests in Docker need testcontainers: pip install testcontainers") from None
    # Its reaper ends containers when the process that started them ends, but here other processes may still
    # use the server: local/sharing.py clears leftovers, of killed runs too.
    testcontainers_config.ryuk_disabled = True
    password = secrets.token_urlsafe(24)
    container = (
        DockerContainer(ensure_image(say))
        .with_env("EAV_PASSWORD", password)
        .with_command(_arguments(engine, THROWAWAY))
    )
    # A port of loopback only, which with_bind_ports cannot say; the Docker library below takes it.
    container.ports[str(PORT)] = ("127.0.0.1", None)  # type: ignore[assignment]
    try:
        container.start()
    except (DockerException, OSError) as error:
        raise DockerError(f"no container for the tests: {_last(str(error))}") from None
    identifier = str(container.get_wrapped_container().id)
    url = connection_url(int(container.get_exposed_port(PORT)), DATABASE, SUPERUSER, password)
    try:
        _wait(identifier, url)
    except BaseException:
        remove_throwaway(identifier)
        raise
    return identifier, url


def remove_throwaway(identifier: str) -> None:
    """Remove a container and its data; nothing if it is gone."""
    _docker(["rm", "--force", "--volumes", identifier])


def _arguments(engine: Engine, overrides: Mapping[str, Value] | None = None) -> list[str]:
    settings = server_settings(memory_bytes=engine.memory_bytes, preload=PRELOADED, overrides=overrides)
    return [part for name, value in settings.items() for part in ("-c", f"{name}={text(value)}")]


def _wait(container: str, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not database_url.answers(url):
        if not _is_running(container):
            logs = _docker(["logs", "--tail", "5", container])
            lines = "".join(f"\n  {line}" for line in (logs.stdout + logs.stderr).splitlines()[-5:])
            raise DockerError(f"PostgreSQL in container {container} ended. Its last lines:{lines}")
        if time.monotonic() > deadline:
            raise DockerError(f"PostgreSQL in container {container} took no connection in {START_SECONDS} s")
        time.sleep(0.2)


def _is_running(container: str) -> bool:
    if shutil.which("docker") is None:
        return False
    state = _docker(["inspect", "--format", "{{.State.Running}}", container], timeout=ANSWER_SECONDS)
    return state.stdout.strip() == "true"


def _docker(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DockerError(f"the Docker daemon did not answer in {timeout:g} s") from None


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if "rror" in line), lines[-1] if lines else "no reason given")
