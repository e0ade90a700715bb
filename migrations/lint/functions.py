"""pglast on every function file: the syntax, inside the body too, and the house rules no linter knows.

A file is `sql/functions/<schema>/<name>.v<N>.sql` and holds one function or procedure, its COMMENT
and its REVOKE. One rule can be waived on its line, or in the comment above it, with the reason:

    EXECUTE v_statement; -- lint: ignore dynamic-sql: built by ops.partition_sql(), which quotes

and in a whole file with `-- lint: ignore-file RULE: reason`.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pglast import enums
from pglast.visitors import Visitor

from migrations.lint import plpgsql, syntax
from migrations.lint.outcome import Finding, Outcome, count

FILE_NAME = re.compile(r"(?P<name>[a-z_][a-z0-9_]*)\.v(?P<version>[1-9][0-9]*)\.sql")
WAIVER = re.compile(r"--\s*lint:\s*ignore(?P<scope>-file)?\s+(?P<rule>[a-z-]+):\s*\S")
ROUTINES = {
    enums.ObjectType.OBJECT_FUNCTION,
    enums.ObjectType.OBJECT_PROCEDURE,
    enums.ObjectType.OBJECT_ROUTINE,
}
ARGUMENTS = {
    enums.FunctionParameterMode.FUNC_PARAM_IN,
    enums.FunctionParameterMode.FUNC_PARAM_INOUT,
    enums.FunctionParameterMode.FUNC_PARAM_VARIADIC,
    enums.FunctionParameterMode.FUNC_PARAM_DEFAULT,
}


@dataclasses.dataclass(frozen=True)
class FunctionFile:
    """One file under sql/functions, its path relative to the repository."""

    path: Path
    schema: str
    name: str
    version: int
    text: str

    @property
    def qualified(self) -> tuple[str, str]:
        """Schema and name, as the path says them."""
        return self.schema, self.name

    def line_at(self, offset: int) -> int:
        """The line, from 1, of the character at `offset`."""
        return self.text.count("\n", 0, max(offset, 0)) + 1

    def finding(self, line: int, rule: str, message: str) -> Finding:
        """A finding in this file."""
        return Finding(self.path.as_posix(), line, rule, message)

    def waives(self, finding: Finding) -> bool:
        """True if the finding's line, the comment just above it, or the file as a whole waives its rule."""
        lines = self.text.splitlines()
        comment = itertools.takewhile(_is_comment, reversed(lines[: finding.line - 1]))
        here = [*lines[finding.line - 1 : finding.line], *comment]
        waivers = itertools.chain(
            (waiver for line in here for waiver in WAIVER.finditer(line)),
            (waiver for line in lines for waiver in WAIVER.finditer(line) if waiver["scope"]),
        )
        return any(waiver["rule"] == finding.rule for waiver in waivers)


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("--")


@dataclasses.dataclass(frozen=True)
class Routine:
    """The CREATE FUNCTION or PROCEDURE of a file: it begins at `line`, its body at `body_line`."""

    node: Any
    statement: str
    line: int
    body: str
    body_line: int

    @property
    def options(self) -> dict[str, Any]:
        """LANGUAGE, SET, SECURITY … by name."""
        return {option.defname: option.arg for option in self.node.options or ()}

    @property
    def is_definer(self) -> bool:
        """True for SECURITY DEFINER."""
        security = self.options.get("security")
        return security is not None and bool(security.boolval)


def read(root: Path) -> tuple[list[FunctionFile], list[Finding]]:
    """Every function file under `root`, oldest version first, and a finding for each misnamed one."""
    files, findings = [], []
    for path in sorted((root / "sql" / "functions").rglob("*.sql")):
        relative = path.relative_to(root)
        match = FILE_NAME.fullmatch(path.name)
        if match is None or len(relative.parts) != 4:
            message = "a function file is sql/functions/<schema>/<name>.v<N>.sql"
            findings.append(Finding(relative.as_posix(), 1, "file-name", message))
            continue
        text = path.read_text(encoding="utf-8")
        files.append(FunctionFile(relative, relative.parts[2], match["name"], int(match["version"]), text))
    return sorted(files, key=lambda file: (*file.qualified, file.version)), findings


def routines(file: FunctionFile, statements: list[Any]) -> list[Routine]:
    """The functions and procedures that the statements of `file` make."""
    made = []
    for raw in statements:
        if syntax.kind(raw.stmt) == "CreateFunctionStmt":
            start, end = syntax.span(file.text, raw)
            written = next((option.arg for option in raw.stmt.options or () if option.defname == "as"), None)
            body = written[0].sval if written else ""
            body_start = file.text.find(body, start) if body else start
            made.append(
                Routine(
                    node=raw.stmt,
                    statement=file.text[start:end],
                    line=file.line_at(start),
                    body=body,
                    body_line=file.line_at(body_start),
                )
            )
    return made


def body_line(file: FunctionFile) -> int:
    """The line where the body's quote opens; 1 if the file does not parse."""
    try:
        made = routines(file, syntax.parse(file.text))
    except syntax.SqlError:
        return 1
    return made[0].body_line if made else 1


def check(root: Path) -> Outcome:
    """Check every function file under `root`."""
    files, findings = read(root)
    ours = frozenset(file.name for file in files)
    findings += _gaps(files)
    for file in files:
        findings += [finding for finding in _check_file(file, ours) if not file.waives(finding)]
    return Outcome(checked=count(len(files), "function file"), findings=tuple(findings))


def _gaps(files: list[FunctionFile]) -> Iterator[Finding]:
    """Versions count 1, 2, 3: a gap is a file that was lost or a number that was mistyped."""
    for _, group in itertools.groupby(files, key=lambda file: file.qualified):
        for expected, file in enumerate(group, start=1):
            if file.version != expected:
                yield file.finding(1, "version-gap", f"versions count 1, 2, 3: version {expected} is missing")
                break


def _check_file(file: FunctionFile, ours: frozenset[str]) -> Iterator[Finding]:
    try:
        statements = syntax.parse(file.text)
    except syntax.SqlError as error:
        yield file.finding(file.line_at(error.offset), "syntax", str(error))
        return
    made = routines(file, statements)
    if len(made) != 1:
        yield file.finding(1, "one-function", f"one function or procedure a file, here are {len(made)}")
        return
    routine = made[0]
    for rule, message in itertools.chain(
        _name(file, routine),
        _companions(file, [raw.stmt for raw in statements]),
        _arguments(routine),
    ):
        yield file.finding(routine.line, rule, message)
    yield from _check_body(file, routine, ours)


def _check_body(file: FunctionFile, routine: Routine, ours: frozenset[str]) -> Iterator[Finding]:
    """The syntax of the body, then what depends on it: a procedure that commits has rules of its own."""
    language = routine.options["language"].sval.lower() if "language" in routine.options else "sql"
    if language not in ("plpgsql", "sql"):
        yield file.finding(
            routine.line, "language", f"{language} cannot be checked here; write plpgsql or sql"
        )
        return
    try:
        parsed = (
            plpgsql.parse(routine.statement)
            if language == "plpgsql"
            else plpgsql.parse_sql_body(routine.body)
        )
    except plpgsql.BodyError as error:
        yield file.finding(routine.body_line + max(error.line - 1, 0), "body-syntax", str(error))
        return
    for problem in plpgsql.problems(parsed):
        yield file.finding(routine.body_line + max(problem.line - 1, 0), problem.rule, problem.message)
    if not parsed.commits:
        for rule, message in _search_path(routine):
            yield file.finding(routine.line, rule, message)
        return
    for rule, message in _committing(routine):
        yield file.finding(routine.line, rule, message)
    for query in parsed.queries:
        for name in _unqualified(query.tree, ours):
            message = f"{name}: a procedure that commits has no fixed search_path, so write its schema"
            yield file.finding(routine.body_line + max(query.line - 1, 0), "unqualified", message)


def _name(file: FunctionFile, routine: Routine) -> Iterator[tuple[str, str]]:
    name = syntax.names(routine.node.funcname)
    if name != file.qualified:
        yield "file-name", f"the file's path says {'.'.join(file.qualified)}, it makes {'.'.join(name)}"


def _companions(file: FunctionFile, statements: list[Any]) -> Iterator[tuple[str, str]]:
    """COMMENT ON and REVOKE … FROM PUBLIC stand in the same file."""

    def comments(node: Any) -> bool:
        return (
            syntax.kind(node) == "CommentStmt"
            and node.objtype in ROUTINES
            and bool(node.comment)
            and syntax.names(node.object.objname) == file.qualified
        )

    def revokes(node: Any) -> bool:
        return (
            syntax.kind(node) == "GrantStmt"
            and not node.is_grant
            and node.objtype in ROUTINES
            and any(syntax.names(target.objname) == file.qualified for target in node.objects)
            and any(grantee.roletype == enums.RoleSpecType.ROLESPEC_PUBLIC for grantee in node.grantees)
        )

    name = ".".join(file.qualified)
    if not any(map(comments, statements)):
        yield "comment-missing", f"COMMENT ON … {name} is missing: say what it does, returns and raises"
    if not any(map(revokes, statements)):
        yield (
            "revoke-missing",
            f"REVOKE ALL ON … {name} … FROM PUBLIC is missing, so anyone may run it",
        )


def _arguments(routine: Routine) -> Iterator[tuple[str, str]]:
    """Arguments are named p_…, so that no column can be taken for one. Results keep their own names."""
    for number, parameter in enumerate(routine.node.parameters or (), start=1):
        if parameter.mode in ARGUMENTS and not (parameter.name or "").startswith("p_"):
            yield (
                "p-prefix",
                f"argument {number} is named {parameter.name or 'nothing'}; arguments are named p_…",
            )


def _search_path(routine: Routine) -> Iterator[tuple[str, str]]:
    """A fixed search_path: without one, the caller chooses which tables and operators the body means."""
    paths = [
        option.arg.args
        for option in routine.node.options or ()
        if option.defname == "set" and option.arg.name == "search_path" and option.arg.args
    ]
    if not paths:
        yield (
            "search-path",
            "SET search_path = … is missing: the caller chooses what the body's names mean",
        )
    elif routine.is_definer and paths[0][-1].val.sval != "pg_temp":
        # Otherwise pg_temp is searched first, for tables, and the caller owns that schema.
        yield (
            "search-path",
            "SECURITY DEFINER: end search_path with pg_temp, or the caller's tables win",
        )


def _committing(routine: Routine) -> Iterator[tuple[str, str]]:
    """What PostgreSQL refuses only when such a procedure runs: COMMIT under SET or SECURITY DEFINER."""
    if "set" in routine.options:
        yield "commit-with-set", "a procedure that commits cannot have SET: PostgreSQL refuses its COMMIT"
    if routine.is_definer:
        yield (
            "commit-as-definer",
            "a procedure that commits cannot be SECURITY DEFINER: PostgreSQL refuses it",
        )


class _Names(Visitor):
    """Collects the unqualified tables and functions of a query."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[str] = []
        self.functions: list[str] = []
        self.local: set[str] = set()

    def visit_RangeVar(self, _ancestors: Any, node: Any) -> None:  # noqa: N802 - pglast's name
        if not node.schemaname:
            self.tables.append(node.relname)

    def visit_FuncCall(self, _ancestors: Any, node: Any) -> None:  # noqa: N802 - pglast's name
        if len(node.funcname) == 1:
            self.functions.append(node.funcname[0].sval)

    def visit_CommonTableExpr(self, _ancestors: Any, node: Any) -> None:  # noqa: N802 - pglast's name
        self.local.add(node.ctename)


def _unqualified(tree: list[Any], ours: frozenset[str]) -> Iterator[str]:
    """Names without a schema; PostgreSQL's own functions need none."""
    names = _Names()
    names(tuple(tree))
    yield from (f"table {table}" for table in names.tables if table not in names.local)
    yield from (f"function {function}" for function in names.functions if function in ours)
