"""A server named by DATABASE_URL: is it fit for the platform? No message ever shows its password."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import LiteralString

import psycopg
from psycopg import conninfo

from local.binaries import MINIMUM_MAJOR
from local.errors import LocalError

CONNECT_SECONDS = 5


def libpq(url: str) -> str:
    """`url` without the driver that SQLAlchemy writes into the scheme.

    >>> libpq("postgresql+psycopg://host/eav")
    'postgresql://host/eav'
    """
    return re.sub(r"^postgres(?:ql)?\+\w+://", "postgresql://", url)


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Connect, autocommit, giving up after five seconds unless the URL or PGCONNECT_TIMEOUT says else.

    Raises LocalError with one line, without the password.
    """
    try:
        parts = conninfo.conninfo_to_dict(libpq(url))
    except psycopg.ProgrammingError:
        # The driver's own text quotes the URL, and with it the password.
        raise LocalError(
            "DATABASE_URL is no PostgreSQL URL: write postgresql://user:password@host:port/database"
        ) from None
    if "connect_timeout" not in parts and "PGCONNECT_TIMEOUT" not in os.environ:
        parts["connect_timeout"] = CONNECT_SECONDS
    try:
        return psycopg.connect(conninfo.make_conninfo("", **parts), autocommit=True)
    except psycopg.Error as error:
        reason = without(parts.get("password"), " ".join(str(error).split()))
        raise LocalError(f"the server of DATABASE_URL does not let us in: {reason}") from None


def check(url: str) -> str:
    """Whether the platform can live in the database at `url`; returns the server's version, like '15.18'.

    Raises LocalError with one line: what is wrong and what to do.
    """
    with connect(url) as connection:
        return check_connection(connection)


def check_connection(connection: psycopg.Connection[tuple[object, ...]]) -> str:
    """As `check`, on an open connection."""

    def ask(statement: LiteralString) -> object:
        row = connection.execute(statement).fetchone()
        return row[0] if row else None

    version = connection.info.server_version
    name = connection.info.dbname
    if version < MINIMUM_MAJOR * 10000:
        raise LocalError(
            f"the server of DATABASE_URL is PostgreSQL {version // 10000}: {MINIMUM_MAJOR} or newer is needed"
        )
    if ask("SELECT pg_is_in_recovery()"):
        raise LocalError("the server of DATABASE_URL is a standby, which takes no writes: name its primary")
    if ask("SHOW transaction_read_only") == "on":
        raise LocalError(
            f"database {name!r} of DATABASE_URL is read-only (default_transaction_read_only):"
            " name one that takes writes"
        )
    if not ask("SELECT has_database_privilege(current_database(), 'CREATE')"):
        raise LocalError(
            f"user {connection.info.user!r} of DATABASE_URL may not make schemas in database {name!r}:"
            " GRANT CREATE ON DATABASE, or name its owner"
        )
    if not ask("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_partman')"):
        raise LocalError(
            "the server of DATABASE_URL lacks pg_partman:"
            f" install postgresql-{version // 10000}-partman there (on RDS it is there already)"
        )
    return f"{version // 10000}.{version % 10000}"


def answers(url: str) -> bool:
    """Whether a connection to `url` can be made now."""
    try:
        connect(url).close()
    except LocalError:
        return False
    return True


def masked(url: str) -> str:
    """`url` for people's eyes: the password is replaced by stars."""
    hidden = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)
    return re.sub(r"(password=)[^&\s]*", r"\1***", hidden)


def without(secret: object, message: str) -> str:
    """`message` with `secret` replaced by stars, should it occur."""
    return message.replace(secret, "***") if isinstance(secret, str) and secret else message


def first_line(lines: Iterable[str]) -> str:
    """The first line with something in it."""
    return next((line.strip() for line in lines if line.strip()), "")
