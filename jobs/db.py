"""Connections as the role that the work needs, and errors of the server as one line a person can act on."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

import psycopg
from psycopg import conninfo, errors, sql

from jobs import login
from jobs.errors import ConnectionLostError, JobsError

Role = Literal["eav_owner", "eav_ingest", "eav_jobs", "eav_monitor"]
Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_TIMEOUT: Final = 10
"""Seconds."""

MIGRATE: Final = "run: alembic upgrade head"

# psycopg warns of a rollback that failed on the way out of another error, such as Ctrl-C just after a query was sent.
# That error is the one to say, and closing the connection rolls back too.
logging.getLogger("psycopg").setLevel(logging.ERROR)

# The server says these before there is a connection, so that no SQLSTATE comes with them.
_REFUSED: Final = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|not permitted to log in"
    r"|(?:role|database) \".*\" does not exist|permission denied for database"
    r"|server does not support SSL|certificate|could not translate host name|Unix.* path .* too long"
)


def database_url(environment: Mapping[str, str] = os.environ) -> str:
    """DATABASE_URL. Raises JobsError if there is none or it is no database's."""
    url = environment.get("DATABASE_URL", "")
    if not url:
        raise JobsError("DATABASE_URL is not set: export DATABASE_URL=$(make url)")
    try:
        conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # libpq's own text quotes the URL, with the password in it.
        raise JobsError(
            "DATABASE_URL is not a database's: expected postgresql://user:password@host:port/database"
        ) from None
    return url


def where(url: str) -> str:
    """`host:port/database` of a URL: what may be shown of it."""
    parts = conninfo.conninfo_to_dict(url)
    host = parts.get("host") or os.environ.get("PGHOST") or "local socket"
    port = parts.get("port") or os.environ.get("PGPORT") or "5432"
    return f"{host}:{port}/{parts.get('dbname') or os.environ.get('PGDATABASE') or parts.get('user') or ''}"


def connect(url: str, role: Role | None, application_name: str) -> Connection:
    """A connection that is `role` (None: who logs in), in autocommit, without prepared statements.

    Whoever logs in as the role itself stays it, anybody else takes it by SET ROLE. Raises ConnectionLostError
    if the server cannot be reached now, JobsError if it refuses or is not migrated.
    """

    def once(options: dict[str, str]) -> Connection:
        return psycopg.connect(
            conninfo.make_conninfo(url, **options),
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=CONNECT_TIMEOUT,
            application_name=application_name,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )

    try:
        connection = login.connected(url, once, psycopg.OperationalError)
    except psycopg.OperationalError as error:
        text = one_line(error)
        if _REFUSED.search(text):
            raise JobsError(f"cannot connect to {where(url)}: {text}; check DATABASE_URL") from None
        raise ConnectionLostError(
            f"cannot connect to {where(url)}: {text}; is the server running? (make up starts the local one)"
        ) from None
    try:
        with translated(url):
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            _become(connection, role, url)
    except BaseException:
        connection.close()
        raise
    return connection


def _become(connection: Connection, role: Role | None, url: str) -> None:
    row = connection.execute(
        "SELECT current_user, to_regnamespace('eav') IS NOT NULL"
        " AND EXISTS (SELECT FROM pg_roles WHERE rolname = %s)",
        [role or "eav_jobs"],
    ).fetchone()
    assert row is not None
    user, migrated = row
    if not migrated:
        raise JobsError(f"{where(url)} is not migrated: {MIGRATE}")
    if role is not None and user != role:
        try:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        except errors.InsufficientPrivilege:
            raise JobsError(
                f"{user} at {where(url)} may not act as {role}: log in as {role}, or GRANT {role} TO {user}"
            ) from None


@contextmanager
def another(connection: Connection) -> Iterator[Connection]:
    """A second connection like this one: same server, login, role, timeouts. Closed at the end."""
    names = ("role", "statement_timeout", "search_path")
    settings = [connection.execute("SELECT current_setting(%s)", [name]).fetchall()[0][0] for name in names]
    made: Connection = psycopg.connect(
        conninfo.make_conninfo(
            connection.info.dsn, connect_timeout=CONNECT_TIMEOUT, **password_of(connection)
        ),
        autocommit=True,
        prepare_threshold=None,
    )
    try:
        made.isolation_level = connection.isolation_level
        for name, value in zip(names, settings, strict=True):
            made.execute("SELECT set_config(%s, %s, false)", [name, value])
        yield made
    finally:
        made.close()


def password_of(connection: Connection) -> dict[str, str]:
    """User and password for another connection to where this one is; a token of its own, where it came with one."""
    info = connection.info
    here = conninfo.make_conninfo(info.dsn, host=info.host, port=info.port, user=info.user)
    return login.options(here) or ({"password": info.password} if info.password else {})


def one_line(error: psycopg.Error) -> str:
    """The server's own words, first line only, without `FATAL:` and the name of the host."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in lines if "FATAL:" in line), lines[0] if lines else type(error).__name__)
    text = re.sub(r"^.*?(?:FATAL|ERROR): +", "", text)
    return re.sub(r"^(?:connection failed: )?(?:connection to server .*?,? port \d+ failed: )?", "", text)


def lost(error: psycopg.Error) -> bool:
    """Whether the error means that the connection is gone, or the server going or not yet there."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith("08") or state in {"57P01", "57P02", "57P03", "25P03", "57P05"}


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn errors of psycopg into JobsError (ConnectionLostError where trying again may help)."""
    try:
        yield
    except psycopg.Error as error:
        raise explain(error, url) from None


def explain(error: psycopg.Error, url: str) -> JobsError:
    """What to tell a person about an error of the server."""
    text, place = one_line(error), where(url)
    if lost(error):
        return ConnectionLostError(f"lost the connection to {place}: {text}")
    match error:
        case (
            errors.UndefinedTable()
            | errors.UndefinedFunction()
            | errors.InvalidSchemaName()
            | errors.UndefinedColumn()
        ):
            return JobsError(f"{place} is not migrated to this version ({text}): {MIGRATE}")
        case errors.DiskFull():
            return JobsError(f"the disk of {place} is full ({text}): make room and run this again")
        case errors.ReadOnlySqlTransaction():
            return JobsError(f"{place} is read-only ({text}): use the primary")
        case errors.InsufficientPrivilege():
            return JobsError(f"{place}: {text}")
    return JobsError(f"{place}: {text}")
