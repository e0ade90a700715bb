"""The inside of a function's body, as pglast parses it: its variables, its queries, its dynamic SQL."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import pglast

from migrations.lint import syntax

# How PL/pgSQL has the text of an expression parsed (PostgreSQL's RawParseMode).
PARSE_STATEMENT = 0
PARSE_EXPRESSION = 2
PARSE_ASSIGNMENTS = (3, 4, 5)

COMMITTING = ("PLpgSQL_stmt_commit", "PLpgSQL_stmt_rollback")
# The statements whose query is text made at run time, and the field that holds it.
DYNAMIC = {
    "PLpgSQL_stmt_dynexecute": "query",
    "PLpgSQL_stmt_dynfors": "query",
    "PLpgSQL_stmt_return_query": "dynquery",
    "PLpgSQL_stmt_open": "dynquery",
}
FORMAT_SPECIFIER = re.compile(r"%(?:\d+\$)?-?(?:\d+|\*(?:\d+\$)?)?(?P<kind>.)", re.DOTALL)


class BodyError(Exception):
    """A body that does not parse; `line` counts from the line where its quote opens, 0 if unknown."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@dataclasses.dataclass(frozen=True)
class Query:
    """One SQL statement or expression of the body, an expression as `SELECT expression`."""

    line: int
    tree: list[Any]


@dataclasses.dataclass(frozen=True)
class Body:
    """A parsed body. Lines count from the line where its quote opens, as PostgreSQL counts them."""

    variables: tuple[tuple[str, int], ...] = ()
    queries: tuple[Query, ...] = ()
    dynamic: tuple[Query, ...] = ()
    commits: bool = False


@dataclasses.dataclass(frozen=True)
class Problem:
    """A house rule that the body breaks."""

    line: int
    rule: str
    message: str


def parse(create_function: str) -> Body:
    """Parse a CREATE FUNCTION or PROCEDURE statement in PL/pgSQL; raises BodyError."""
    try:
        function = pglast.parse_plpgsql(create_function)[0]["PLpgSQL_function"]
    except pglast.Error as error:
        raise BodyError(str(error.args[0])) from error
    except json.JSONDecodeError as error:
        raise BodyError(f"pglast could not read this body: {error}") from error
    nodes = list(_nodes(function, line=0))
    return Body(
        variables=tuple(_variables(function.get("datums", []))),
        queries=tuple(_query(node, line) for kind, node, line in nodes if kind == "PLpgSQL_expr"),
        dynamic=tuple(
            _query(node[DYNAMIC[kind]]["PLpgSQL_expr"], line)
            for kind, node, line in nodes
            if DYNAMIC.get(kind, "") in node
        ),
        commits=any(kind in COMMITTING for kind, _, _ in nodes),
    )


def parse_sql_body(body: str) -> Body:
    """Parse the body of a function in SQL, empty if it is BEGIN ATOMIC, parsed already; raises BodyError."""
    try:
        return Body(queries=(Query(1, syntax.parse(body)),))
    except syntax.SqlError as error:
        raise BodyError(str(error), body.count("\n", 0, error.offset) + 1) from error


def _nodes(value: Any, line: int) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Every PL/pgSQL node under `value`: its kind, its fields, and the nearest line above it."""
    if isinstance(value, list):
        for item in value:
            yield from _nodes(item, line)
    elif isinstance(value, dict):
        for key, item in value.items():
            here = line
            if key.startswith("PLpgSQL_") and isinstance(item, dict):
                here = item.get("lineno", line)
                yield key, item, here
            yield from _nodes(item, here)


def _variables(datums: list[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """What the body declares, loop variables too. Arguments, FOUND, NEW, OLD and TG_… have no line there."""
    for datum in datums:
        for kind in ("PLpgSQL_var", "PLpgSQL_rec"):
            if kind in datum and "lineno" in datum[kind]:
                yield datum[kind]["refname"], datum[kind]["lineno"]


def _query(node: dict[str, Any], line: int) -> Query:
    text: str = node["query"]
    mode = node.get("parseMode", PARSE_STATEMENT)
    if mode in PARSE_ASSIGNMENTS:
        text = re.sub(r"^[^:=]*:?=", "SELECT ", text, count=1)
    elif mode == PARSE_EXPRESSION:
        text = f"SELECT {text}"
    try:
        return Query(line, syntax.parse(text))
    except syntax.SqlError as error:
        raise BodyError(f"{error} in: {' '.join(text.split())[:80]}", line) from error


def problems(body: Body) -> Iterator[Problem]:
    """What the body breaks of the house rules: names of variables, dynamic SQL."""
    for name, line in body.variables:
        if not name.startswith(("v_", "p_")):  # p_: an argument of a cursor
            yield Problem(
                line, "v-prefix", f"variable {name}; variables are named v_…, so that no column hides one"
            )
    for query in body.dynamic:
        why = _unsafe(query.tree[0].stmt.targetList[0].val)
        if why:
            yield Problem(
                query.line, "dynamic-sql", f"EXECUTE takes a literal, or format() with %I and %L: {why}"
            )


def _unsafe(node: Any) -> str:
    """Why this text may carry what a caller wrote, or nothing if it cannot."""
    if syntax.kind(node) == "A_Const":
        return ""
    if syntax.kind(node) == "A_Expr" and syntax.names(node.name) == ("||",):
        return _unsafe(node.lexpr) or _unsafe(node.rexpr)
    if syntax.kind(node) == "FuncCall" and node.funcname[-1].sval == "format":
        template = node.args[0]
        if syntax.kind(template) != "A_Const":
            return "the template of format() is not a literal"
        kinds = {match["kind"] for match in FORMAT_SPECIFIER.finditer(template.val.sval)}
        return "%s puts its argument in unquoted" if "s" in kinds else ""
    return "this is an expression of another kind"
