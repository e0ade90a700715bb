"""Which operating system user a server runs as, and which folders that user can enter.

PostgreSQL refuses to run as root. Anybody else runs it as himself; root hands it to the `postgres` user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local.errors import LocalError

SERVER_USER = "postgres"


@dataclass(frozen=True)
class OsUser:
    """An operating system user; `switch` tells whether this process has to become it to run a server."""

    name: str
    uid: int
    gid: int
    switch: bool

    def run(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user, in `/`, messages in English, output captured (stderr in stdout).

        The exit code is the caller's to judge. Raises subprocess.TimeoutExpired.
        """
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "en", **(env or {})}
        # A caller's PGDATA, PGOPTIONS or PGSERVICE would silently point the server's own tools elsewhere.
        for name in [name for name in environment if name.startswith("PG") and name not in (env or {})]:
            del environment[name]
        if self.switch:
            environment["HOME"] = "/nonexistent"  # root's own is closed to this user, and libpq looks into it
        common = {"user": self.uid, "group": self.gid, "extra_groups": [self.gid]} if self.switch else {}
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [os.fspath(arg) for arg in args],
            cwd="/",
            env=environment,
            **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            **common,
        )

    def own(self, path: Path) -> None:
        """Hand one file or folder, not what is in it, to this user."""
        if self.switch:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_enter(self, folder: Path) -> bool:
        """Whether this user may pass through `folder`, as far as it exists, and all above it."""
        while not folder.exists():
            folder = folder.parent
        return self.run(["test", "-x", folder.resolve()]).returncode == 0


def server_user() -> OsUser:
    """The user servers run as; as root, `postgres`, which is made if it is missing.

    Raises LocalError if root cannot make it.
    """
    if os.geteuid() != 0:
        uid = os.geteuid()
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:  # a container started with a bare --user number
            name = str(uid)
        return OsUser(name, uid, os.getegid(), switch=False)
    try:
        entry = pwd.getpwnam(SERVER_USER)
    except KeyError:
        _add_user()
        entry = pwd.getpwnam(SERVER_USER)
    return OsUser(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)


def _add_user() -> None:
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is None:
        raise LocalError(
            f"no server runs as root, and there is neither a user {SERVER_USER!r} nor useradd to make it:"
            f" add a system user {SERVER_USER!r}, or run this as an ordinary user"
        )
    done = subprocess.run(
        [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
         "--shell", "/usr/sbin/nologin", SERVER_USER],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise LocalError(f"could not add the system user {SERVER_USER!r}: {done.stderr.strip()}")
