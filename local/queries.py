"""The files of sql/queries: what their headers say, and how they are run from Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

import psycopg
from psycopg import sql

from local.place import CLONE

FOLDER: Final = CLONE / "sql" / "queries"

Connection = psycopg.Connection[tuple[Any, ...]]
Scope = Literal["one tenant", "all tenants", "none"]

_PARAMETER: Final = re.compile(r"(?<!:):'([a-z_]+)'")
_HEADER: Final = re.compile(
    r"-- (?P<label>answers|role|scope|index|param (?P<name>[a-z_]+)(?: = (?P<default>.+?))?): (?P<text>.+)"
)


class QueryError(ValueError):
    """A query, its header or its parameters are not as they should be; the text says which and how."""


@dataclass(frozen=True)
class Query:
    """One file. `parameters` maps each name to its default, None where a value must be given."""

    path: Path
    answers: str
    role: str
    scope: Scope
    index: str
    parameters: Mapping[str, str | None]
    text: str
    """The SQL, with parameters as psql writes them."""

    @property
    def name(self) -> str:
        """The file's name without its suffix; no two files share one."""
        return self.path.stem

    @property
    def psycopg_text(self) -> bytes:
        """The SQL with parameters as psycopg writes them."""
        return _PARAMETER.sub(r"%(\1)s", self.text.replace("%", "%%")).encode()

    def values(self, **given: object) -> dict[str, str]:
        """Every parameter as text: what is given, else its default. Raises QueryError."""
        if unknown := sorted(given.keys() - self.parameters.keys()):
            raise QueryError(f"{self.name} has no parameter {', '.join(unknown)}")
        known = {name: str(value) for name, value in given.items() if value is not None}
        values = {name: known.get(name, default) for name, default in self.parameters.items()}
        if missing := sorted(name for name, value in values.items() if value is None):
            raise QueryError(f"{self.name} needs {', '.join(missing)}")
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Rows:
    """What a query returned."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        """A dictionary a row, by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def parse(path: Path) -> Query:
    """Read one file. Raises QueryError if its header does not say what it should."""
    text = path.read_text(encoding="utf-8")
    found: dict[str, str] = {}
    parameters: dict[str, str | None] = {}
    label = ""
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        if line.startswith("--   "):
            found[label] += " " + line.removeprefix("--").strip()
            continue
        match = _HEADER.fullmatch(line)
        if match is None:
            raise QueryError(f"{path.name}: {line!r} is no line of a header")
        label = match["label"]
        found[label] = match["text"].strip()
        if match["name"]:
            parameters[match["name"]] = match["default"]
    if missing := [name for name in ("answers", "role", "scope", "index") if name not in found]:
        raise QueryError(f"{path.name}: its header says nothing of {', '.join(missing)}")
    if found["scope"] not in get_args(Scope):
        raise QueryError(f"{path.name}: scope must be one of {', '.join(get_args(Scope))}")
    used = set(_PARAMETER.findall(text))
    if used != parameters.keys():
        differ = ", ".join(sorted(used ^ parameters.keys()))
        raise QueryError(f"{path.name}: header and query do not have the same parameters: {differ}")
    return Query(
        path, found["answers"], found["role"], cast(Scope, found["scope"]), found["index"], parameters, text
    )


def all_queries(folder: Path = FOLDER) -> list[Query]:
    """Every query, by its path."""
    return [parse(path) for path in sorted(folder.rglob("*.sql"))]


def load(name: str, folder: Path = FOLDER) -> Query:
    """The query of that name. Raises QueryError if there is none."""
    for path in folder.rglob(f"{name}.sql"):
        return parse(path)
    raise QueryError(f"there is no query {name!r} in {folder.name}")


def run(
    connection: Connection, query: Query, *, tenant_id: int | None = None, why: str = "", **given: object
) -> Rows:
    """Run a query as its role, in its scope, and leave the connection as it was.

    The connection must be in autocommit, and of a user who may become the role. A query across all tenants is
    written down with `why`. Raises QueryError, psycopg.Error.
    """
    if "tenant_id" in query.parameters:
        given["tenant_id"] = tenant_id
    values = query.values(**given)
    if query.scope == "all tenants":
        # The record must be committed before the first row is read.
        with connection.transaction():
            _become(connection, query.role)
            connection.execute("SELECT ops.open_cross_tenant(%s, interval '1 minute')", [why])
    with connection.transaction():
        _become(connection, query.role)
        if query.scope == "one tenant":
            connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant_id)])
        # Text of unknown type, as a literal of psql is: both run the very same query.
        cursor = connection.execute(query.psycopg_text, values, prepare=False)
        return Rows(tuple(column.name for column in cursor.description or ()), cursor.fetchall())


def _become(connection: Connection, role: str) -> None:
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
