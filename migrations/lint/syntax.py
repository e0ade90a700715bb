"""Parsing SQL with pglast, which is PostgreSQL's own parser."""

from __future__ import annotations

import re
from typing import Any

import pglast

BLANK = re.compile(r"(?:\s|--[^\n]*|/\*.*?\*/)*", re.DOTALL)


class SqlError(Exception):
    """SQL that does not parse; `offset` is the character it is about."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


def parse(sql: str) -> list[Any]:
    """The statements of `sql` as pglast's RawStmt nodes; raises SqlError.

    Nodes are `Any` in this package, told apart by `kind()`: pglast declares every field of every node as
    optional, whatever the grammar says.
    """
    try:
        return list(pglast.parse_sql(sql))
    except pglast.Error as error:
        message, *place = error.args
        raise SqlError(str(message), place[0] if place and isinstance(place[0], int) else 0) from error


def span(sql: str, raw: Any) -> tuple[int, int]:
    """Where a statement of `sql` begins, after blanks and comments, and ends, before its semicolon."""
    blank = BLANK.match(sql, raw.stmt_location)
    start = blank.end() if blank else raw.stmt_location
    return start, raw.stmt_location + raw.stmt_len if raw.stmt_len else len(sql)


def kind(node: Any) -> str:
    """The name of a node's class in PostgreSQL's grammar, `SelectStmt`."""
    return type(node).__name__


def names(parts: Any) -> tuple[str, ...]:
    """The parts of a qualified name."""
    return tuple(part.sval for part in parts)
