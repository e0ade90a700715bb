"""Rows of PostgreSQL as Arrow, and back: a connection of ADBC beside one of psycopg, to the same server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import adbc_driver_postgresql
import pyarrow as pa
from adbc_driver_manager import Error as AdbcError
from adbc_driver_postgresql import dbapi
from psycopg import conninfo

from jobs import db
from jobs.errors import ConnectionLostError, JobsError

FETCH: Final = 65_536
"""Rows that are fetched at a time, at most, and so are in memory twice for a moment."""
FETCH_FIRST: Final = 1024
FETCH_LEAST: Final = 16
FETCH_BYTES: Final = 16 * 2**20
"""About as much is fetched at a time: how wide rows are is known from those before."""
_NO_COPY: Final = {adbc_driver_postgresql.StatementOptions.USE_COPY.value: "false"}


class Arrow:
    """A session of its own, with the role and timeouts of the connection it was made beside."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def do(self, statement: str) -> None:
        """Run a statement that returns nothing. Raises JobsError, as all methods do."""
        with _translated(), self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**_NO_COPY)
            cursor.execute(statement)

    def one(self, query: str) -> Any:
        """The first column of the only row of a query, which must not be NULL."""
        with _translated(), self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**_NO_COPY)
            cursor.execute(query)
            return cursor.fetchone()[0]

    def rows(self, cursor_name: str, at_once: int = FETCH) -> Iterator[pa.Table]:
        """The rows of an open cursor, `at_once` a table; one without rows at the end tells their types.

        By FETCH, not by COPY: a cursor is what a function that runs as its owner can hand out, and it keeps memory
        flat on both sides.
        """
        with _translated(), self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**_NO_COPY)
            count = min(at_once, FETCH_FIRST)
            while True:
                cursor.execute(f"FETCH {count} FROM {cursor_name}")
                table = cursor.fetch_arrow_table()
                yield table
                if not table.num_rows:
                    return
                fitting = FETCH_BYTES * table.num_rows // max(table.nbytes, 1)
                count = max(min(at_once, fitting, 4 * count), min(at_once, FETCH_LEAST))

    def load(self, table: str, rows: pa.Table) -> None:
        """COPY rows into a temporary table that has their columns."""
        with _translated(), self._connection.cursor() as cursor:
            cursor.adbc_ingest(table, rows, mode="append", temporary=True)


@contextmanager
def beside(connection: db.Connection) -> Iterator[Arrow]:
    """A session on the very server that `connection` is on: with several hosts in the URL there is a choice."""
    info = connection.info
    # Several addresses, or none, belong to what was asked for, not to what was found.
    given = {
        key: str(value)
        for key, value in conninfo.conninfo_to_dict(info.dsn).items()
        if key not in ("hostaddr", "host", "port") and value is not None
    }
    found = {"host": info.host, "port": str(info.port), **db.password_of(connection)}
    uri = conninfo.make_conninfo("", **given | {key: value for key, value in found.items() if value})
    with _translated():
        made = dbapi.connect(uri, autocommit=True)
    try:
        arrow = Arrow(made)
        settings = ("role", "statement_timeout")
        rows = connection.execute(
            "SELECT string_agg(format('SET %%I = %%L', s, current_setting(s)), ';') FROM unnest(%s::text[]) AS s",
            [list(settings)],
        ).fetchall()
        for statement in rows[0][0].split(";"):
            arrow.do(statement)
        yield arrow
    finally:
        made.close()


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of ADBC as one line."""
    try:
        yield
    except AdbcError as error:
        text = str(error)
        found = re.search(r"(?:ERROR|FATAL): +([^\n]+)", text)
        line = found[1] if found else text.splitlines()[0]
        if re.search(
            r"server closed the connection|no connection to the server|terminating connection", text
        ):
            raise ConnectionLostError(f"lost the connection: {line}") from None
        raise JobsError(line) from None
