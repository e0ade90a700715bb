"""One PostgreSQL cluster on this machine: made, started, stopped, killed, copied to a standby, promoted.

Everything of a cluster lies in its data folder: settings in `eav.conf`, the superuser's password in
`superuser.password` (mode 0600), the log in `server.log`. It listens on 127.0.0.1 only, by TLS, with a
password.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psutil

from local import binaries as binaries_module
from local.binaries import Binaries
from local.errors import ClusterError, PortTakenError
from local.osuser import OsUser, server_user
from local.processes import lives, wait_for_end
from local.settings import DATABASE, SUPERUSER, THROWAWAY, Value, parse, render, server_settings

CONFIG = "eav.conf"
PASSWORD = "superuser.password"  # noqa: S105  (a file's name)
LOG = "server.log"
# Below the range that Linux hands to outgoing connections (32768 on), so that a kept port is seldom taken.
PORTS = range(20000, 32768)
# Above any number a kernel hands out (pid_max is 2^22 at most).
NOBODYS_PID = 2**30
ORPHAN_SECONDS = 10.0
# Less than a WAL segment: a server cannot work on it.
LITTLE_SPACE_BYTES = 16 * 2**20
LOG_LIMIT_BYTES = 20 * 2**20

HBA = """\
# TYPE   DATABASE     USER  ADDRESS        METHOD
hostssl  all          all   127.0.0.1/32   scram-sha-256
hostssl  replication  all   127.0.0.1/32   scram-sha-256
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster that exists on disk; running or not. Made with `create` or `open`."""

    data_dir: Path
    binaries: Binaries
    os_user: OsUser

    # ---- making and finding -------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        data_dir: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, Value] | None = None,
        binaries: Binaries | None = None,
    ) -> Cluster:
        """Make a cluster with an empty database `eav` in `data_dir`, which must not exist. Not started.

        `settings` come on top of `local.settings.server_settings`. Without `port` a free one is chosen. An
        interrupted call leaves nothing at `data_dir`. Raises ClusterError.
        """
        data_dir = data_dir.absolute()
        os_user = server_user()
        binaries = binaries or _any_binaries()
        if data_dir.exists():
            raise ClusterError(f"{data_dir} exists already: remove it, or choose another folder")
        staging = cls(data_dir.with_name(data_dir.name + ".new"), binaries, os_user)
        staging.remove()
        try:
            staging._initdb(fsync=(settings or {}).get("fsync", True) is not False)
            staging.configure(port=port or free_port(), settings=settings)
            # Here, not over a connection: url() holds from the first start on, and pg_cron finds its
            # database.
            staging._single_user(f"CREATE DATABASE {DATABASE}")
            staging.data_dir.rename(data_dir)
        except OSError as error:
            raise ClusterError(
                f"could not make a cluster in {data_dir}: {error.strerror or error}"
            ) from error
        finally:
            staging.remove()
        return cls(data_dir, binaries, os_user)

    @classmethod
    def open(cls, data_dir: Path) -> Cluster:
        """The cluster in `data_dir`, with the server programs of its version. Raises ClusterError."""
        data_dir = data_dir.absolute()
        try:
            major = int((data_dir / "PG_VERSION").read_text())
        except FileNotFoundError:
            raise ClusterError(f"{data_dir} holds no PostgreSQL cluster") from None
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"{data_dir}/PG_VERSION cannot be read ({error}): run this as the user who made it"
            ) from None
        binaries = binaries_module.choose(binaries_module.installed(), major)
        if binaries is None:
            raise ClusterError(
                f"{data_dir} was made by PostgreSQL {major}, which is not installed any more:"
                f" install postgresql-{major}, or remove the data with: python -m local destroy"
            )
        return cls(data_dir, binaries, server_user())

    def create_standby(self, data_dir: Path, *, settings: Mapping[str, Value] | None = None) -> Cluster:
        """Copy this running cluster to `data_dir`: a streaming standby with a port and slot of its own.

        Not started. Same password, same settings but for `settings`. Raises ClusterError.
        """
        data_dir = data_dir.absolute()
        _make_folder(data_dir, self.os_user)
        standby = Cluster(data_dir, self.binaries, self.os_user)
        connection = f"host=127.0.0.1 port={self.port} user={SUPERUSER} sslmode=require"
        self._run(
            "pg_basebackup", "--pgdata", data_dir, "--dbname", connection, "--checkpoint", "fast",
            "--wal-method", "stream", "--write-recovery-conf",
            "--create-slot", "--slot", f"standby_{secrets.token_hex(4)}",
            *(["--no-sync"] if self.setting("fsync") == "off" else []),
            env={"PGPASSWORD": self.password},
        )  # fmt: skip
        (data_dir / LOG).unlink(missing_ok=True)
        standby.configure(port=free_port(), settings={**self._overrides(), **(settings or {})})
        return standby

    def configure(self, *, port: int, settings: Mapping[str, Value] | None = None) -> None:
        """Write the settings, in full; they hold from the next start on."""
        every: dict[str, Value] = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            **server_settings(
                memory_bytes=psutil.virtual_memory().total, preload=self.binaries.preload, overrides=settings
            ),
        }
        overrides = "".join(f"# override: {name}\n" for name in settings or {})
        self._write(
            CONFIG, f"# Written by local/cluster.py at each change of settings.\n{overrides}{render(every)}"
        )

    def trust_sockets(self) -> None:
        """Ask nobody for a password who comes by a socket in the data folder, where only the server's user may go."""
        self._write("pg_hba.conf", f"{HBA}local    all          all                  trust\n")

    def socket_url(self, database: str) -> str:
        """To a database by that socket: a third of what TLS and a password cost."""
        host = quote(str(self.data_dir), safe="")
        return f"postgresql:///{quote(database, safe='')}?host={host}&port={self.port}&user={SUPERUSER}"

    # ---- running ------------------------------------------------------------------------------------------

    def start(self, timeout: float = 120.0) -> None:
        """Start and wait, `timeout` seconds at most, until connections are taken; nothing if it runs.

        Leftovers of a server that was killed are cleared. Raises PortTakenError, ClusterError (with the
        log's last lines).
        """
        deadline = time.monotonic() + timeout
        if self.is_running():
            self._wait_ready(deadline)
            return
        self._disown_pid_file()
        orphans_deadline = time.monotonic() + ORPHAN_SECONDS
        while True:
            lines = self._try_start(deadline)
            if lines is None:
                return
            # Backends of a killed server that have not noticed its death yet; most do in a moment.
            if time.monotonic() > orphans_deadline or not any(
                "pre-existing shared memory" in s for s in lines
            ):
                break
            time.sleep(0.2)
        if any("could not bind" in line and "Address already in use" in line for line in lines):
            raise PortTakenError(f"port {self.port} on 127.0.0.1 is taken by another program")
        tail = "".join(f"\n  {line}" for line in lines[-5:])
        why = telling(lines)
        # On a full disk it often cannot even write down why it ended.
        if shutil.disk_usage(self.data_dir).free < LITTLE_SPACE_BYTES and "No space left" not in why:
            why = f"No space left on device for {self.data_dir}: {why}"
        raise ClusterError(f"PostgreSQL did not start: {why}. The last lines of {self.log}:{tail}")

    def stop(self, mode: Literal["fast", "immediate"] = "fast", timeout: float = 120.0) -> None:
        """Stop and wait until it has ended; nothing if it does not run. Raises ClusterError."""
        if self.is_running():
            self._run("pg_ctl", "stop", "--pgdata", self.data_dir, "--mode", mode, "--wait",
                      "--timeout", str(int(timeout)), "--silent")  # fmt: skip

    def kill(self, patience: float = 2.0) -> None:
        """SIGKILL the postmaster, as a crash would, and wait until its children have ended too.

        They see its death by themselves; those still busy after `patience` seconds are killed as well. Raises
        ClusterError if the cluster does not run.
        """
        postmaster = self.postmaster()
        if postmaster is None:
            raise ClusterError(f"the cluster in {self.data_dir} does not run")
        postmaster.suspend()  # so that no child is born between the listing and the kill
        processes = [postmaster, *postmaster.children(recursive=True)]
        postmaster.kill()
        for process in wait_for_end(processes, patience):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if alive := wait_for_end(processes, 30.0):
            raise ClusterError(f"processes of the cluster in {self.data_dir} outlived SIGKILL: {alive}")

    def promote(self) -> None:
        """Turn this running standby into a primary, and wait until it takes writes. Raises ClusterError."""
        self._run("pg_ctl", "promote", "--pgdata", self.data_dir, "--wait", "--timeout", "60", "--silent")

    def is_running(self) -> bool:
        """Whether its main process lives."""
        return self.postmaster() is not None

    def postmaster(self) -> psutil.Process | None:
        """The cluster's main process; None if it does not run, whatever a stale postmaster.pid says."""
        pid = self._pid()
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            # After a reboot the number may be anybody's: ours is the one started on this very folder.
            ours = lives(process) and str(self.data_dir) in process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None
        return process if ours else None

    def remove(self) -> None:
        """Delete all data; the cluster must not run. Nothing if it does not exist. Raises ClusterError."""
        if self.is_running():
            raise ClusterError(f"the cluster in {self.data_dir} is running: stop it first")
        self.remove_data(self.data_dir)

    @staticmethod
    def remove_data(data_dir: Path) -> None:
        """Delete a data folder, whatever is in it; nothing if there is none. Raises ClusterError."""
        try:
            if data_dir.exists():
                shutil.rmtree(data_dir)
        except OSError as error:
            raise ClusterError(f"could not remove {data_dir}: {error.strerror or error}") from None

    # ---- what others need to know -------------------------------------------------------------------------

    def url(self, database: str = DATABASE, user: str | None = None, password: str | None = None) -> str:
        """A connection URL by TCP and TLS. Without `user` the superuser with its password."""
        if user is None:
            user, password = SUPERUSER, password or self.password
        return connection_url(self.port, database, user, password)

    @property
    def port(self) -> int:
        """Port on 127.0.0.1 of the next (or present) start."""
        return int(self.setting("port"))

    @property
    def password(self) -> str:
        """The superuser's password."""
        return self._read(PASSWORD).strip()

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data_dir / LOG

    def setting(self, name: str) -> str:
        """A setting as last written by `configure`; '' if it was not."""
        return parse(self._read(CONFIG)).get(name, "")

    def reconfigure(self, port: int | None = None) -> None:
        """Write the settings of today's code and machine, keeping what `create` was given on top."""
        self.configure(port=port or self.port, settings=self._overrides())

    # ---- inside -------------------------------------------------------------------------------------------

    def _initdb(self, *, fsync: bool) -> None:
        _make_folder(self.data_dir, self.os_user)
        password = secrets.token_urlsafe(24)
        # Beside the folder, which must be empty for initdb, and not in TMPDIR, which the server's user may
        # not enter.
        password_file = self.data_dir.with_name(f"{self.data_dir.name}.password")
        try:
            _write_private(password_file, password, self.os_user)
            self._run(
                "initdb", "--pgdata", self.data_dir, "--username", SUPERUSER, "--pwfile", password_file,
                "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--data-checksums",
                *([] if fsync else ["--no-sync"]),
            )  # fmt: skip
        finally:
            password_file.unlink(missing_ok=True)
        self._write(PASSWORD, password + "\n")
        self._write("pg_hba.conf", HBA)
        self._write("postgresql.conf", self._read("postgresql.conf") + f"\ninclude '{CONFIG}'\n")
        self._certificate()

    def _certificate(self) -> None:
        """A self-signed certificate for localhost: it encrypts, and sslmode=require asks for no more."""
        if shutil.which("openssl") is None:
            raise ClusterError("openssl is missing, which makes the server's certificate: install openssl")
        done = self.os_user.run(
            ["openssl", "req", "-new", "-x509", "-nodes", "-newkey", "ec",
             "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "3650", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-out", self.data_dir / "server.crt", "-keyout", self.data_dir / "server.key"]
        )  # fmt: skip
        if done.returncode:
            raise ClusterError(f"openssl could not make a certificate: {telling(done.stdout.splitlines())}")
        (self.data_dir / "server.key").chmod(0o600)

    def _single_user(self, statement: str) -> None:
        done = self.os_user.run(
            [self.binaries.program("postgres"), "--single", "-D", self.data_dir,
             "-c", "shared_preload_libraries=", "-c", "log_min_messages=error", "postgres"],
            stdin=statement + "\n",
        )  # fmt: skip
        if (
            done.returncode or "ERROR:" in done.stdout
        ):  # in this mode a failed statement does not fail the program
            raise ClusterError(f"{statement} failed in {self.data_dir}: {telling(done.stdout.splitlines())}")

    def _run(self, program: str, *args: str | Path | int, env: Mapping[str, str] | None = None) -> str:
        done = self.os_user.run([self.binaries.program(program), *map(str, args)], env=env)
        if done.returncode:
            raise ClusterError(f"{program} failed in {self.data_dir}: {telling(done.stdout.splitlines())}")
        return done.stdout

    def _read(self, name: str) -> str:
        try:
            return (self.data_dir / name).read_text(encoding="utf-8")
        except OSError as error:
            raise ClusterError(
                f"{self.data_dir / name}: {error.strerror}: run this as the user who made the cluster,"
                " or remove it with: python -m local destroy"
            ) from None

    def _write(self, name: str, content: str) -> None:
        """Replace a file of the data folder as a whole, mode 0600, owned by the server's user."""
        path, staged = self.data_dir / name, self.data_dir / f"{name}.new"
        try:
            _write_private(staged, content, self.os_user)
            staged.replace(path)
        except OSError as error:
            raise ClusterError(f"could not write {path}: {error.strerror}") from None

    def _overrides(self) -> dict[str, Value]:
        config = self._read(CONFIG)
        names = [
            line.removeprefix("# override: ")
            for line in config.splitlines()
            if line.startswith("# override: ")
        ]
        values = parse(config)
        return {name: values[name] for name in names}

    def _pid(self) -> int | None:
        try:
            pid = int((self.data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
            return pid if 0 < pid < 2**31 else None
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        except PermissionError:
            raise ClusterError(
                f"{self.data_dir} belongs to another user: run this as the one who made it"
            ) from None

    def _try_start(self, deadline: float) -> list[str] | None:
        """One start, waited for until `deadline`; None if it went well, else what the log says."""
        before = self._prepare_log(self.log)
        seconds = max(1, int(deadline - time.monotonic()))
        done = self.os_user.run(
            [self.binaries.program("pg_ctl"), "start", "--pgdata", self.data_dir, "--log", self.log, "--wait",
             "--timeout", str(seconds), "--silent"]
        )  # fmt: skip
        if done.returncode == 0:
            return None
        if self.is_running():
            raise ClusterError(
                f"PostgreSQL is not ready yet, after {seconds} s: it may still recover, see {self.log}"
            )
        with self.log.open(encoding="utf-8", errors="replace") as stream:
            stream.seek(before)
            return stream.read().splitlines() or done.stdout.splitlines()

    def _wait_ready(self, deadline: float) -> None:
        """Wait until the running server, which somebody else may have started just now, takes connections."""
        while self.is_running():
            with contextlib.suppress(OSError):
                # The last line that PostgreSQL writes into its pid file.
                state = (self.data_dir / "postmaster.pid").read_text().rstrip().rsplit("\n", 1)[-1].strip()
                if state in ("ready", "standby"):
                    return
            if time.monotonic() > deadline:
                raise ClusterError(f"PostgreSQL runs but is not ready: it may still recover, see {self.log}")
            time.sleep(0.1)
        raise ClusterError(f"PostgreSQL ended while it started: see {self.log}")

    def _disown_pid_file(self) -> None:
        """Take the number out of a stale postmaster.pid when a stranger has it now.

        PostgreSQL overlooks a number that nobody has. A stranger of the same user (after a reboot, or a dead
        process that nobody collected) would make it refuse to start for ever. The rest of the file stays: by
        it PostgreSQL still sees whether backends of the old server live on its data.
        """
        pid = self._pid()
        if pid is None or not psutil.pid_exists(pid) or self.is_running():
            return
        lines = self._read("postmaster.pid").split("\n")
        self._write("postmaster.pid", "\n".join([str(NOBODYS_PID), *lines[1:]]))

    def _prepare_log(self, log: Path) -> int:
        """Set a long log aside; return the length in bytes of what is in it now."""
        size = log.stat().st_size if log.exists() else 0
        if size > LOG_LIMIT_BYTES:
            log.replace(log.with_name(f"{LOG}.1"))
            size = 0
        if (
            not log.exists()
        ):  # made here, so that a disk too full even for the log still leaves a file to read
            log.touch(mode=0o600)
            self.os_user.own(log)
        return size


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A fresh folder that the server's user owns and can enter; removed at the end.

    pytest's tmp_path is closed to everybody but its user: as root, make clusters here instead.
    """
    os_user = server_user()
    choices = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108  (mkdtemp makes the name below it)
    base = next((path for path in choices if os_user.can_enter(path)), None)
    if base is None:
        raise ClusterError(
            f"user {os_user.name} can enter neither {tempfile.gettempdir()} nor /tmp: set TMPDIR"
        )
    folder = Path(tempfile.mkdtemp(prefix="eav-", dir=base)).resolve()
    try:
        os_user.own(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def temporary_cluster(settings: Mapping[str, Value] | None = None) -> Iterator[Cluster]:
    """A started throw-away cluster (fsync off, unless `settings` say else), removed at the end."""
    with temporary_folder() as folder:
        cluster = Cluster.create(folder / "data", settings={**THROWAWAY, **(settings or {})})
        try:
            start_on_free_port(cluster)
            yield cluster
        finally:
            cluster.stop("immediate")


def start_on_free_port(cluster: Cluster, attempts: int = 5) -> bool:
    """Start; while the port is taken choose another. Tells whether the port moved. Raises ClusterError."""
    for attempt in range(attempts):
        try:
            cluster.start()
            return attempt > 0
        except PortTakenError:
            cluster.reconfigure(free_port())
    cluster.start()
    return True


def connection_url(port: int, database: str, user: str, password: str | None) -> str:
    """`postgresql://user:password@127.0.0.1:port/database?sslmode=require`, its parts escaped."""
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password is not None else "")
    return f"postgresql://{login}@127.0.0.1:{port}/{quote(database, safe='')}?sslmode=require"


def free_port() -> int:
    """A TCP port that nobody listens on at 127.0.0.1 now."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            # As PostgreSQL binds: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ClusterError(
        f"no free port on 127.0.0.1 among 200 tried between {PORTS.start} and {PORTS.stop - 1}"
    )


def _any_binaries() -> Binaries:
    binaries = binaries_module.choose(binaries_module.installed())
    if binaries is None:
        raise ClusterError(
            f"no PostgreSQL server programs >= {binaries_module.MINIMUM_MAJOR} found:"
            " run python -m local install"
        )
    return binaries


def _make_folder(folder: Path, os_user: OsUser) -> None:
    """Make an empty folder (mode 0700) that belongs to the server's user, who must be able to reach it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        os_user.own(folder)
    except OSError as error:
        raise ClusterError(f"could not make {folder}: {error.strerror or error}") from None
    if not os_user.can_enter(folder):
        folder.rmdir()
        raise ClusterError(f"user {os_user.name}, who runs the server, cannot enter {folder.parent}")


def _write_private(path: Path, content: str, os_user: OsUser) -> None:
    """Make a file anew, mode 0600 from its first moment on, and hand it to the server's user."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(content)
    os_user.own(path)


def telling(lines: Sequence[str]) -> str:
    """What a person has to know of the output of a PostgreSQL program: its first error, with the hint on it.

    >>> telling(["LOG:  hello", "12:00 UTC [1] FATAL:  no room", "12:00 UTC [1] HINT:  Make some."])
    'no room (Make some.)'
    """
    full = [line.strip() for line in lines if line.strip()]
    for pattern in (r"\b(?:PANIC|FATAL|ERROR):\s+(.*)", r"(?:error|fatal):\s+(.*)", r"(could not .*)"):
        for number, line in enumerate(full):
            if match := re.search(pattern, line):
                why = match[1]
                if "contains errors" in why and number:  # of the configuration: the line before says which
                    why = full[number - 1].split(":  ", 1)[-1]
                hint = re.search(r"\bHINT:\s+(.*)", full[number + 1] if number + 1 < len(full) else "")
                return f"{why} ({hint[1]})" if hint else why
    return full[-1] if full else "no reason given"
