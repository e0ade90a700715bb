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
FORMAT_SPECIFIER = re.compile(r"%(?:(?P<number>\d+)\$)?-?(?:\d+|\*(?:\d+\$)?)?(?P<kind>.)", re.DOTALL)
# What prints as a number or quotes itself.
SAFE_TYPES = {
    "int2",
    "int4",
    "int8",
    "regclass",
    "regnamespace",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
}
QUOTING = {"format", "quote_ident", "quote_literal", "quote_nullable"}

# Variables that PL/pgSQL itself declares in an exception block.
IMPLICIT = {"sqlerrm", "sqlstate"}

HEADER = re.compile(
    r"(CREATE\s+(?:OR\s+REPLACE\s+)?\w+\s+[\w.]+)(.*?)(\$\w*\$.*|)", re.DOTALL | re.IGNORECASE
)
DECLARATIONS = re.compile(r"\bDECLARE\b.*?\bBEGIN\b", re.DOTALL | re.IGNORECASE)
QUALIFIED_TYPE = re.compile(
    r"\b(?!pg_catalog\.)[a-z_]\w*\.(?P<name>[a-z_]\w*\b)(?P<array>\s*\[\s*\])?(?!\s*[.%(])", re.IGNORECASE
)


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
    """A parsed body. Lines count from the line where its quote opens, as PostgreSQL counts them.

    `safe` are the variables and arguments of a type that can carry no SQL, as numbers and regclass.
    """

    variables: tuple[tuple[str, int], ...] = ()
    safe: frozenset[str] = frozenset()
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
        function = pglast.parse_plpgsql(_with_known_types(create_function))[0]["PLpgSQL_function"]
    except pglast.Error as error:
        raise BodyError(str(error.args[0])) from error
    except json.JSONDecodeError as error:
        raise BodyError(f"pglast could not read this body: {error}") from error
    nodes = list(_nodes(function, line=0))
    return Body(
        variables=tuple(_variables(function.get("datums", []))),
        safe=frozenset(
            node["refname"]
            for kind, node, _ in nodes
            if kind == "PLpgSQL_var" and _type_name(node) in SAFE_TYPES
        ),
        queries=tuple(_query(node, line) for kind, node, line in nodes if kind == "PLpgSQL_expr"),
        dynamic=tuple(
            _query(node[DYNAMIC[kind]]["PLpgSQL_expr"], line)
            for kind, node, line in nodes
            if DYNAMIC.get(kind, "") in node
        ),
        commits=any(kind in COMMITTING for kind, _, _ in nodes),
    )


def _with_known_types(create_function: str) -> str:
    """The statement with types that pglast can resolve: it knows those of pg_catalog and public only.

    A type of ours, `eav.tenants`, becomes `public.tenants`, which it takes for a row; an array of them, where
    that is no use, an array of text. No syntax changes, and no line.
    """
    parts = HEADER.fullmatch(create_function)
    if parts is None:
        return create_function
    name, header, body = parts.groups()
    header = QUALIFIED_TYPE.sub(_known, header)
    body = DECLARATIONS.sub(lambda part: QUALIFIED_TYPE.sub(_known, part[0]), body)
    return name + header + body


def _known(match: re.Match[str]) -> str:
    return "text[]" if match["array"] else f"public.{match['name']}"


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
    """What the body declares, loop variables too, but for constants named c_….

    Arguments, FOUND, NEW, OLD and TG_… have no line there.
    """
    for datum in datums:
        for kind in ("PLpgSQL_var", "PLpgSQL_rec"):
            node = datum.get(kind, {})
            constant = node.get("isconst", False) and node["refname"].startswith("c_")
            if "lineno" in node and node["refname"] not in IMPLICIT and not constant:
                yield node["refname"], node["lineno"]


def _type_name(variable: dict[str, Any]) -> str:
    """`regclass`, however it was written."""
    name: str = variable.get("datatype", {}).get("PLpgSQL_type", {}).get("typname", "")
    return name.removeprefix("pg_catalog.")


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
        why = _unsafe(query.tree[0].stmt.targetList[0].val, body.safe)
        if why:
            yield Problem(
                query.line, "dynamic-sql", f"EXECUTE takes a literal, or format() with %I and %L: {why}"
            )


def _unsafe(node: Any, safe: frozenset[str]) -> str:
    """Why this text may carry what a caller wrote, or nothing if it cannot."""
    kind = syntax.kind(node)
    if _literal(node) is not None:
        return ""
    if kind == "FuncCall" and node.funcname[-1].sval == "format":
        return _unsafe_format(node.args, safe)
    if kind == "FuncCall" and node.funcname[-1].sval in QUOTING:
        return ""
    if kind == "TypeCast" and node.typeName.names[-1].sval in SAFE_TYPES:
        return ""
    if kind == "ColumnRef" and len(node.fields) == 1 and getattr(node.fields[0], "sval", None) in safe:
        return ""
    parts: list[Any] = []
    if kind == "A_Expr" and syntax.names(node.name) == ("||",):
        parts = [node.lexpr, node.rexpr]
    elif kind == "CaseExpr":
        parts = [*(branch.result for branch in node.args), node.defresult or node.args[0].result]
    if parts:
        return next(filter(None, (_unsafe(part, safe) for part in parts)), "")
    return "this expression is neither"


def _literal(node: Any) -> str | None:
    """The text of a literal, or of literals put together with ||; None for anything else."""
    if syntax.kind(node) == "A_Const":
        return str(getattr(node.val, "sval", "") or "")
    if syntax.kind(node) == "A_Expr" and syntax.names(node.name) == ("||",):
        left, right = _literal(node.lexpr), _literal(node.rexpr)
        return None if left is None or right is None else left + right
    return None


def _unsafe_format(arguments: Any, safe: frozenset[str]) -> str:
    """The same for format(): %I and %L quote, %s is as safe as what it prints."""
    template = _literal(arguments[0])
    if template is None:
        return "the template of format() is not a literal"
    values = arguments[1:]
    position = 0
    for specifier in FORMAT_SPECIFIER.finditer(template):
        if specifier["kind"] == "%":
            continue
        position = int(specifier["number"] or position + 1)
        value = values[position - 1] if position <= len(values) else None
        if specifier["kind"] == "s" and (value is None or _unsafe(value, safe)):
            return f"%s puts its argument {position} in unquoted, and that may be any text"
    return ""
