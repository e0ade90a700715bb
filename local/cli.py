"""`python -m local`: the PostgreSQL of this clone, and the AWS emulator beside it."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import psutil
from psycopg import conninfo

from local import aws, database_url, packages
from local.errors import LocalError
from local.place import Place
from local.server import Server, current_server, destroy, find_server, own_server, say_on_stderr, wanted

DOWN = "no local PostgreSQL is up: start it with make up (or python -m local up)"

EPILOG = """\
Which server: DATABASE_URL if it is set, else a Docker daemon that answers, else server programs of this
machine. EAV_SERVER=url, docker or binaries forces one. Data stays in .local/ of the clone (or a Docker
volume) until destroy.

AWS is an emulator on loopback that keeps all in memory, until down. EAV_AWS=off leaves it out; EAV_AWS=env
uses the one of AWS_ENDPOINT_URL and starts nothing.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 cannot go on (one line on stderr), 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # What follows these is theirs to read, options too.
    if arguments[:1] == ["psql"] and arguments[1:] not in (["-h"], ["--help"]):
        return _guarded(lambda: _psql(arguments[1:]))
    if arguments[:1] == ["demo"]:
        return _guarded(lambda: _demo(arguments[1:]))
    options = _parser().parse_args(arguments)
    return _guarded(lambda: options.run(options))


def _guarded(run: Callable[[], int]) -> int:
    try:
        return run()
    except LocalError as error:
        say_on_stderr(f"error: {error}")
    except OSError as error:
        say_on_stderr(f"error: {error.filename or 'system call'}: {error.strerror or error}")
    except KeyboardInterrupt:
        say_on_stderr("interrupted: what was begun is made anew by the next run")
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local",
        description="The local PostgreSQL of this clone, and the AWS emulator beside it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(run=run)
        return added

    command("up", _up, "start both, making or installing the server if need be; prints which they are")
    command("down", _down, "stop both; the data of the server stays, that of the emulator is gone")
    command("url", _url, "print the server's URL and nothing else; exit code 1 if it is down")
    command(
        "aws-env", _aws_env, "print what a shell evaluates to use the emulator; exit code 1 if it is down"
    )
    command("psql", lambda options: _psql([]), "open psql on it; further arguments are psql's")
    status = command(
        "status", _status, "show what is up and where its data is; exit code 1 if the server is down"
    )
    status.add_argument("--json", action="store_true", help="for scripts: one JSON object")
    removal = command("destroy", _destroy, "stop both and remove their data for ever")
    removal.add_argument("--yes", action="store_true", help="do not ask")
    command("install", _install, "install server packages that are missing; starts nothing")
    command("demo", lambda options: _demo([]), "run live telemetry of this host through the platform")
    return parser


def _up(_: argparse.Namespace) -> int:
    aws.wanted()  # a mistake in it is said before anything is started
    print(find_server().origin, flush=True)
    try:
        found = aws.find_aws()
    except (LocalError, OSError) as error:
        # Most of the platform does without, and what does not will say so.
        say_on_stderr(f"going on without AWS: {error}")
        return 0
    print(found.origin if found else "no AWS emulator: EAV_AWS=off")
    return 0


def _down(_: argparse.Namespace) -> int:
    code = 0
    try:
        if origin := aws.stop():
            print(f"stopped: {origin}; what it held is gone")
    except LocalError as error:
        say_on_stderr(f"error: {error}")
        code = 1
    server = own_server()
    if server is None:
        print("no local PostgreSQL is up")
    else:
        server.stop()
        print(f"stopped: {server.origin}; its data stays")
    if os.environ.get("DATABASE_URL"):
        say_on_stderr("the server of DATABASE_URL is not ours to stop")
    return code


def _url(_: argparse.Namespace) -> int:
    print(_up_now().url)
    return 0


def _aws_env(_: argparse.Namespace) -> int:
    if aws.wanted() == "env":
        # Nothing to change, and what is there may be real credentials: not to be printed.
        say_on_stderr("EAV_AWS=env: the AWS of this environment is used as it is")
        return 0
    print(*aws.shell_lines(aws.environment()), sep="\n")
    return 0


def _psql(arguments: Sequence[str]) -> int:
    server = _up_now()
    psql = server.cluster.binaries.program("psql") if server.cluster else shutil.which("psql")
    if psql is None:
        raise LocalError(
            "no psql on this machine: install it (Debian, Ubuntu: apt-get install postgresql-client)"
        )
    parts = conninfo.conninfo_to_dict(server.url)
    # By the environment: anybody on the machine can read the arguments of a process.
    environment = dict(os.environ)
    if "password" in parts:
        environment["PGPASSWORD"] = str(parts.pop("password"))
    os.execve(psql, ["psql", conninfo.make_conninfo("", **parts), *arguments], environment)  # noqa: S606


def _status(options: argparse.Namespace) -> int:
    server = current_server()
    if server is None:
        facts: dict[str, Any] = {"up": False, "hint": DOWN}
    else:
        facts = {
            "up": True,
            "origin": server.origin,
            "url": database_url.masked(server.url),
            **_facts(server),
        }
    facts["aws"] = _aws_facts()
    if options.json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            print(f"{name.replace('_', ' '):<14} {shown}")
    return 0 if server else 1


def _aws_facts() -> dict[str, Any]:
    try:
        found = aws.current_aws()
        if found is None:
            return {"up": False, "hint": aws.why_none()}
    except LocalError as error:
        return {"up": False, "hint": str(error)}
    facts: dict[str, Any] = {"up": True, "kind": aws.wanted(), "url": found.url}
    if found.process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            up_for = timedelta(seconds=round(time.time() - found.process.create_time()))
            facts |= {
                "process": found.process.pid,
                "up_for": str(up_for),
                "memory": f"{found.process.memory_info().rss // 2**20} MB",
                "log": str(found.log),
            }
    return facts


def _facts(server: Server) -> dict[str, Any]:
    with database_url.connect(server.url) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), pg_size_pretty(pg_database_size(current_database())),"
            " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
            " date_trunc('second', now() - pg_postmaster_start_time())::text"
        ).fetchone()
        assert row is not None
        extensions = connection.execute(
            "SELECT name, default_version FROM pg_available_extensions"
            " WHERE name IN ('pg_partman', 'pg_cron', 'pg_stat_statements', 'plpgsql_check') ORDER BY name"
        ).fetchall()
    facts: dict[str, Any] = {
        "version": row[0],
        "up_for": row[3],
        "database_size": row[1],
        "connections": row[2],
        "extensions": {str(name): version for name, version in extensions},
    }
    if server.cluster is not None:
        facts |= {"data": str(server.cluster.data_dir), "log": str(server.cluster.log)}
    elif server.kind == "docker":
        facts |= {"data": f"Docker volume {Place().name}", "log": f"docker logs {Place().name}"}
    return facts


def _destroy(options: argparse.Namespace) -> int:
    if not options.yes:
        if not sys.stdin.isatty():
            raise LocalError("destroy removes all local data: say --yes to mean it")
        answer = input("Remove the local servers of this clone and all their data? Type yes: ")
        if answer.strip().lower() != "yes":
            print("nothing removed")
            return 1
    removed = aws.destroy() + destroy()
    print("\n".join(f"removed {line}" for line in removed) or "there was nothing to remove")
    return 0


def _install(_: argparse.Namespace) -> int:
    try:
        binaries = packages.server_binaries(say_on_stderr)
    except LocalError as error:
        # The platform itself can live on another server; only tests that crash a server need programs here.
        if wanted(os.environ) not in ("url", "docker"):
            raise
        say_on_stderr(f"going on without server programs of this machine: {error}")
        return 0
    print(f"PostgreSQL {binaries.major} of {binaries.bindir} is ready to use")
    return 0


def _demo(arguments: Sequence[str]) -> int:
    demo = importlib.import_module("local.demo")  # only here: it brings in the jobs, which nothing else needs
    return int(demo.main(list(arguments)) or 0)


def _up_now() -> Server:
    server = current_server()
    if server is None:
        raise LocalError(DOWN)
    return server
