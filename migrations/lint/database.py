"""plpgsql_check on every PL/pgSQL function of a database that `alembic upgrade head` has just made.

The database is made for this check on the server that the tests use, and dropped afterwards.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy import make_url

from migrations.lint import functions
from migrations.lint.outcome import Finding, LintError, Outcome, count

EXTENSION = "plpgsql_check"
# `v_rows bigint := 0`: the cast of one value when it is assigned. The cast that keeps an index from being
# used has another message, and an assignment for which there is no cast is a warning of its own.
HARMLESS = "target type is different type than source type"

# Not the functions of extensions. A trigger function comes once for each table it is on, partitions left out.
CHECKED = """
    SELECT p.oid, n.nspname AS schema, p.proname AS name,
           p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype AS is_trigger,
           t.tgrelid AS table_oid, t.tgoldtable AS old_table, t.tgnewtable AS new_table
      FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
      JOIN pg_catalog.pg_language l ON l.oid = p.prolang
      LEFT JOIN pg_catalog.pg_trigger t ON t.tgfoid = p.oid AND NOT t.tgisinternal AND t.tgparentid = 0
     WHERE l.lanname = 'plpgsql'
       AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
         WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
           AND d.deptype = 'e')
     ORDER BY 2, 3, 1, 5
"""


def check(root: Path) -> Outcome:
    """Migrate a throw-away database and check its functions; raises LintError if that cannot be done."""
    from local.errors import LocalError  # here, so that the other checks run without a server's packages
    from local.server import test_server

    if not (root / "alembic.ini").is_file():
        raise LintError("alembic.ini is missing, so no database can be migrated")
    try:
        with test_server() as server:
            return check_on(root, server.url)
    except LocalError as reason:
        raise LintError(f"no PostgreSQL server: {reason}") from reason
    except psycopg.Error as reason:
        raise LintError(f"PostgreSQL refused: {reason}") from reason


def check_on(root: Path, server_url: str) -> Outcome:
    """The same on the server at `server_url`, whose user may make databases and extensions."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        offered = connection.execute(
            "SELECT FROM pg_available_extensions WHERE name = %s", [EXTENSION]
        ).fetchone()
    if offered is None:
        why = "the server lacks plpgsql_check; on Debian install postgresql-<version>-plpgsql-check"
        return Outcome(checked="nothing", skipped=why)
    with _database(server_url) as url:
        _migrate(root, url)
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
            connection.execute("CREATE EXTENSION plpgsql_check")
            rows = connection.execute(CHECKED).fetchall()
            places = _Places(root)
            findings = [finding for row in rows for finding in _check_function(connection, row, places)]
    return Outcome(checked=count(len(rows), "function"), findings=tuple(findings))


@contextlib.contextmanager
def _database(server_url: str) -> Iterator[str]:
    """A new database for as long as the block runs; yields its URL."""
    name = f"lint_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _migrate(root: Path, url: str) -> None:
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    environment = {**os.environ, "DATABASE_URL": url}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        # Behind the line of the error, SQLAlchemy prints the statement and where to read more.
        errors = [line for line in lines if re.search(r"^FAILED:|\w(Error|Exception)\b.*: ", line)]
        why = (errors or lines or [f"exit code {done.returncode}"])[-1]
        raise LintError(f"alembic upgrade head failed: {why}")


def _check_function(
    connection: psycopg.Connection[dict[str, Any]], function: dict[str, Any], places: _Places
) -> Iterator[Finding]:
    """What plpgsql_check says of one function, a trigger function on one table."""
    schema, name = function["schema"], function["name"]
    if function["is_trigger"] and function["table_oid"] is None:
        path, line = places.find(schema, name, 1)
        finding = Finding(
            path,
            line,
            "trigger-unused",
            f"{schema}.{name} is the trigger of no table, so it cannot be checked",
        )
        if not places.waived(schema, name, finding):
            yield finding
        return
    complaints = connection.execute(
        """
        SELECT lineno, sqlstate, message, detail, hint, level
          FROM plpgsql_check_function_tb(
    %(oid)s, coalesce(%(table_oid)s, 0::oid), fatal_errors => false,
    other_warnings => true, extra_warnings => true, performance_warnings => true,
    security_warnings => true, oldtable => %(old_table)s, newtable => %(new_table)s)
        """,
        function,
    ).fetchall()
    complaints = [c for c in complaints if (c["level"], c["message"]) != ("performance", HARMLESS)]
    # What follows from an error ("never read", "should be IMMUTABLE") is noise until it is mended.
    errors = [complaint for complaint in complaints if complaint["level"] == "error"]
    for complaint in errors or complaints:
        path, line = places.find(schema, name, complaint["lineno"] or 1)
        parts = [f"{schema}.{name}: {complaint['message']}", complaint["detail"], complaint["hint"]]
        # What it calls security is what the rule of `functions` is about: one waiver does for both.
        level = complaint["level"].replace(" ", "-")
        rule = "dynamic-sql" if level == "security" else f"plpgsql-check-{level}"
        finding = Finding(path, line, rule, "; ".join(filter(None, parts)))
        if not places.waived(schema, name, finding):
            yield finding


class _Places:
    """Where a function of the database stands in the repository: its newest file, and the line there."""

    def __init__(self, root: Path) -> None:
        files, _ = functions.read(root)
        self._newest = {file.qualified: file for file in files}  # they come oldest first

    def find(self, schema: str, name: str, body_line: int) -> tuple[str, int]:
        """Path and line; `body_line` counts from the line of the body's opening quote."""
        file = self._newest.get((schema, name))
        if file is None:
            return f"(no file) {schema}.{name}", body_line
        return file.path.as_posix(), functions.body_line(file) + body_line - 1

    def waived(self, schema: str, name: str, finding: Finding) -> bool:
        """True if the file of the function waives this finding."""
        file = self._newest.get((schema, name))
        return file is not None and file.waives(finding)
