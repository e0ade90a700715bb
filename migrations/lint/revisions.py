"""squawk on the SQL of every revision, as `alembic upgrade --sql` prints it: one transaction a revision."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from migrations.lint import syntax
from migrations.lint.outcome import Finding, LintError, Outcome, count

VERSION_TABLE = "alembic_version"


@dataclasses.dataclass(frozen=True)
class RevisionSql:
    """The SQL of one upgrade, and the file it comes from (relative to the repository)."""

    revision: str
    path: Path
    source: str
    sql: str

    def source_line(self, statement: str) -> int:
        """The line of the revision file that holds `statement`, one line of SQL, else the line of upgrade().

        SQL that a library wrote (op.create_table), or that stands in a function file, is not in the revision.
        """
        lines = self.source.splitlines()
        wanted = statement.strip().rstrip(";")
        for matches in (
            lambda line: bool(wanted) and wanted in line,
            lambda line: line.startswith("def upgrade"),
        ):
            for number, line in enumerate(lines, start=1):
                if matches(line):
                    return number
        return 1


def render(root: Path) -> list[RevisionSql]:
    """The SQL of every revision, oldest first; raises LintError if alembic cannot render one."""
    configuration = root / "alembic.ini"
    if not configuration.is_file():
        raise LintError("alembic.ini is missing, so no revision can be read")
    # env.py and relative paths in alembic.ini expect the repository as the working folder.
    with contextlib.chdir(root), _no_progress():
        directory = ScriptDirectory.from_config(Config(configuration))
        scripts = list(directory.walk_revisions())
        return [_render_one(root, configuration, script) for script in reversed(scripts)]


@contextlib.contextmanager
def _no_progress() -> Iterator[None]:
    """What alembic logs of each revision is no news here."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def _render_one(root: Path, configuration: Path, script: Script) -> RevisionSql:
    path = Path(script.path).resolve().relative_to(root)
    below = script.down_revision
    start = below if isinstance(below, str) else below[0] if below else "base"
    printed = io.StringIO()
    config = Config(configuration, output_buffer=printed)
    try:
        command.upgrade(config, f"{start}:{script.revision}", sql=True)
    except Exception as reason:
        why = f"{type(reason).__name__}: {reason}"
        raise LintError(f"{path}: alembic upgrade --sql {start}:{script.revision} failed, {why}") from reason
    source = (root / path).read_text(encoding="utf-8")
    return RevisionSql(script.revision, path, source, without_version_table(printed.getvalue()))


def without_version_table(sql: str) -> str:
    """`sql` with every statement on alembic's own table blanked out; line numbers stay.

    What alembic does to its table is neither ours to change nor on a busy table.
    """
    try:
        statements = syntax.parse(sql)
    except syntax.SqlError:
        return sql  # squawk reports the syntax error, with its place
    kept = sql
    for raw in statements:
        relation: Any = getattr(raw.stmt, "relation", None)
        if syntax.kind(relation) == "RangeVar" and relation.relname == VERSION_TABLE:
            start, end = syntax.span(sql, raw)
            blank = "".join(character if character == "\n" else " " for character in kept[start : end + 1])
            kept = kept[:start] + blank + kept[end + 1 :]
    return kept


def squawk_program() -> str:
    """The squawk of this Python environment."""
    return str(Path(sysconfig.get_path("scripts")) / "squawk")


def check(root: Path) -> Outcome:
    """Run squawk, with the rules of .squawk.toml, on every revision; raises LintError if it cannot run."""
    revisions = render(root)
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="squawk-") as folder:
        files = {}
        for revision in revisions:
            file = Path(folder) / f"{revision.path.stem}.sql"
            file.write_text(revision.sql, encoding="utf-8")
            files[str(file)] = revision
        if files:
            reports = _squawk(root / ".squawk.toml", list(files))
            findings = [_finding(files[report["file"]], report) for report in reports]
    return Outcome(checked=count(len(revisions), "revision"), findings=tuple(findings))


def _squawk(configuration: Path, files: list[str]) -> list[dict[str, Any]]:
    """squawk's findings; it counts lines from 0."""
    program = Path(sysconfig.get_path("scripts")) / "squawk"
    if not program.is_file():
        raise LintError("squawk is not in this Python environment: install requirements/dev.txt")
    command = [str(program), "--config", str(configuration), "--reporter", "json", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        reports: list[dict[str, Any]] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise LintError(f"squawk failed: {(done.stderr or done.stdout).strip()[-500:]}") from None
    return reports


def _finding(revision: RevisionSql, report: dict[str, Any]) -> Finding:
    statement = next((line for line in revision.sql.splitlines()[report["line"] :] if line.strip()), "")
    message = f"revision {revision.revision}: {report['message']} {report.get('help') or ''}"
    message += f" [{statement.strip()[:80]}]"
    return Finding(revision.path.as_posix(), revision.source_line(statement), report["rule_name"], message)
