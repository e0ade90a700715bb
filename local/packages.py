"""Server packages from Debian's or Ubuntu's archive, installed when they are missing and we may."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from local.binaries import DEBIAN_ROOT, MINIMUM_MAJOR, Binaries, choose, installed
from local.errors import LocalError

Say = Callable[[str], None]

NEWEST_MAJOR = 18
# Extension or library by which one sees that a package is installed, and the package's suffix.
REQUIRED = {"pg_partman": "partman"}
OPTIONAL = {"pg_cron": "cron", "wal2json": "wal2json", "plpgsql_check": "plpgsql-check"}

# Debian's server package makes and starts a cluster of its own on port 5432, which nobody asked us for.
NO_MAIN_CLUSTER = Path("/etc/postgresql-common/createcluster.d/eav-platform.conf")


@dataclass(frozen=True)
class Plan:
    """Packages to install for PostgreSQL `major`: without `required` there is no server."""

    major: int
    required: tuple[str, ...]
    optional: tuple[str, ...]


def server_binaries(say: Say, major: int | None = None) -> Binaries:
    """Server programs with pg_partman, of version `major` if given; what is missing is installed.

    Needs root or passwordless sudo for that. Raises LocalError: one line that says what to install.
    """
    servers = installed()
    best = choose(servers, major)
    if best is not None and not _missing(best) and shutil.which("openssl"):
        return best
    fit = best is not None and best.has_extension("pg_partman") and shutil.which("openssl") is not None
    sudo = _privilege()
    if shutil.which("apt-get") is None or sudo is None:
        if fit and best is not None:
            return best
        raise LocalError(_advice(best, major))
    plan = make_plan(servers, offered(), major)
    if plan is None or not _lists_present():
        say("asking the package archive what it has (apt-get update)")
        _apt(sudo, ["update"], say)
        plan = make_plan(servers, offered(), major)
    if plan is None:
        if fit and best is not None:
            return best
        raise LocalError(f"the package archive of this machine has no pg_partman. {_advice(best, major)}")
    _install(sudo, plan, say)
    found = choose(installed(), plan.major)
    if found is None or not found.has_extension("pg_partman"):
        raise LocalError(f"{', '.join(plan.required)} installed, yet there is no server with pg_partman")
    return found


def make_plan(servers: Sequence[Binaries], names: Collection[str], major: int | None = None) -> Plan | None:
    """What to install, given the `servers` found and the package `names` on offer; None if nothing would do.

    An installed server that lacks little is completed before another one is brought in; then the newest on
    offer.
    """
    majors = [major] if major is not None else list(range(NEWEST_MAJOR, MINIMUM_MAJOR - 1, -1))
    debian = {s.major: s for s in servers if DEBIAN_ROOT in s.bindir.parents and s.major in majors}
    best = choose(list(debian.values()))
    order = sorted(majors, key=lambda m: (best is None or m != best.major, m not in debian, -m))
    for candidate in order:
        server = debian.get(candidate)
        missing = _missing(server) if server else (*REQUIRED, *OPTIONAL)
        required = [] if server else [f"postgresql-{candidate}"]
        required += [f"postgresql-{candidate}-{REQUIRED[name]}" for name in missing if name in REQUIRED]
        optional = [f"postgresql-{candidate}-{OPTIONAL[name]}" for name in missing if name in OPTIONAL]
        if all(name in names for name in required):
            return Plan(candidate, tuple(required), tuple(name for name in optional if name in names))
    return None


def offered() -> set[str]:
    """The packages of all PostgreSQL versions we can use that apt could install now."""
    wanted = [
        f"postgresql-{major}{suffix}"
        for major in range(MINIMUM_MAJOR, NEWEST_MAJOR + 1)
        for suffix in ("", *(f"-{part}" for part in (*REQUIRED.values(), *OPTIONAL.values())))
    ]
    done = subprocess.run(
        ["apt-cache", "policy", *wanted],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(
        r"^(\S+):\n  Installed: .*\n  Candidate: (?!\(none\))", done.stdout, flags=re.MULTILINE
    )
    return set(found)


def add_extension(server: Binaries, name: str, suffix: str, say: Say) -> str | None:
    """Install the package `postgresql-<major>-<suffix>` if `server` lacks extension `name`.

    Returns None, or why it is not there. Only for Debian's or Ubuntu's server, as root or with passwordless sudo.
    """
    if server.has_extension(name):
        return None
    package = f"postgresql-{server.major}-{suffix}"
    sudo = _privilege()
    if sudo is None or shutil.which("apt-get") is None or DEBIAN_ROOT not in server.bindir.parents:
        return (
            f"the server has no extension {name} and it cannot be installed here: apt-get install {package}"
        )
    say(f"installing {package} (apt-get install)")
    try:
        if not _lists_present():
            _apt(sudo, ["update"], say)
        _apt(sudo, ["install", "--yes", "--no-install-recommends", package], say)
    except LocalError as error:
        return f"{package} could not be installed: {error}"
    return (
        None
        if server.has_extension(name)
        else f"{package} is installed, yet the server has no extension {name}"
    )


def _missing(server: Binaries) -> tuple[str, ...]:
    """Extensions that `server` lacks."""
    return tuple(
        name
        for name in (*REQUIRED, *OPTIONAL)
        if not (server.has_extension(name) or (name not in REQUIRED and server.has_library(name)))
    )


def _install(sudo: Sequence[str], plan: Plan, say: Say) -> None:
    server = f"postgresql-{plan.major}" in plan.required
    names = [*plan.required, *plan.optional, *([] if shutil.which("openssl") else ["openssl"])]
    if not names:
        return
    say(f"installing {', '.join(names)} (apt-get install; a minute or so)")
    if server:
        _shell(
            sudo, f"mkdir -p {NO_MAIN_CLUSTER.parent} && echo create_main_cluster = false > {NO_MAIN_CLUSTER}"
        )
    try:
        arguments = ["install", "--yes", "--no-install-recommends"]
        try:
            _apt(sudo, [*arguments, *names], say)
        except LocalError as error:
            # Lists older than the archive name files that are gone from it.
            say("that failed; asking the package archive anew (apt-get update) and trying once more")
            _apt(sudo, ["update"], say)
            try:
                _apt(sudo, [*arguments, *names], say)
            except LocalError:
                if plan.required:
                    raise
                say(f"going on without {', '.join(names)}: {error}")
    finally:
        if server:
            _shell(
                sudo, f"rm -f {NO_MAIN_CLUSTER}; rmdir --ignore-fail-on-non-empty {NO_MAIN_CLUSTER.parent}"
            )


def _apt(sudo: Sequence[str], arguments: Sequence[str], say: Say) -> None:
    command = [
        *sudo, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get", *arguments, "--quiet",
        "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0", "-o", "Acquire::Retries=2",
    ]  # fmt: skip
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
            if line.startswith(("Fetched ", "Setting up postgresql")):
                say(f"  {line}")
    if process.returncode:
        wrong = [line for line in lines if line.startswith(("E:", "Err:"))] or lines[-1:]
        raise LocalError(f"apt-get {arguments[0]} failed: {' '.join(wrong[:2])}")


def _shell(sudo: Sequence[str], command: str) -> None:
    subprocess.run([*sudo, "sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _privilege() -> list[str] | None:
    """What to put before a command that needs root: nothing as root, sudo where it asks no password, else
    None.
    """
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    done = subprocess.run(["sudo", "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return ["sudo", "-n"] if done.returncode == 0 else None


def _lists_present() -> bool:
    return any(Path("/var/lib/apt/lists").glob("*_Packages*"))


def _advice(best: Binaries | None, major: int | None) -> str:
    number = major or (best.major if best else MINIMUM_MAJOR)
    what = (
        f"PostgreSQL {best.major} of {best.bindir} lacks pg_partman"
        if best is not None and not best.has_extension("pg_partman")
        else "openssl is missing"
        if best is not None
        else "no PostgreSQL server found"
    )
    return (
        f"{what}: install it (Debian, Ubuntu: apt-get install postgresql-{number} postgresql-{number}-partman"
        " openssl), or start Docker, or set DATABASE_URL"
    )
