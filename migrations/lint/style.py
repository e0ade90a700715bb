"""sqlfluff on every file under sql/, with the rules of .sqlfluff."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from migrations.lint.outcome import Finding, LintError, Outcome, count


def check(root: Path) -> Outcome:
    """Lint every .sql file under `root`/sql; raises LintError if sqlfluff itself fails."""
    files = sorted(path.relative_to(root) for path in (root / "sql").rglob("*.sql"))
    if not files:
        return Outcome(checked="no file under sql/")
    command = [
        sys.executable,
        "-m",
        "sqlfluff",
        "lint",
        "--config",
        ".sqlfluff",
        "--format",
        "json",
        "--nocolor",
    ]
    command += ["--disable-progress-bar", "--processes", str(min(2, os.cpu_count() or 1)), "sql"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    try:
        reports = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise LintError(f"sqlfluff failed: {(done.stderr or done.stdout).strip()[-500:]}") from None
    findings = tuple(
        Finding(
            path=report["filepath"],
            line=violation["start_line_no"],
            rule=violation["name"] or violation["code"],
            message=violation["description"],
        )
        for report in reports
        for violation in report["violations"]
    )
    return Outcome(checked=count(len(files), "file"), findings=findings)
