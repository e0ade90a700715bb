"""Runs the checks one after the other; one that fails never keeps the next from running."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from migrations.lint import database, functions, landed, revisions, style
from migrations.lint.outcome import Check, Finding, LintError, Outcome

CHECKS: dict[str, Check] = {
    "sqlfluff": style.check,
    "squawk": revisions.check,
    "pglast": functions.check,
    "landed": landed.check,
    "plpgsql_check": database.check,
}
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Result:
    """One check's outcome or, where it could not run, the reason; `seconds` is wall time."""

    name: str
    outcome: Outcome | None
    error: str
    seconds: float

    @property
    def failed(self) -> bool:
        """True if it found something or could not run."""
        return self.outcome is None or bool(self.outcome.findings)

    def as_json(self) -> dict[str, object]:
        """The result as `--json` prints it."""
        outcome = self.outcome or Outcome(checked="nothing")
        return {
            "name": self.name,
            "failed": self.failed,
            "checked": outcome.checked,
            "skipped": outcome.skipped,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "findings": [dataclasses.asdict(finding) for finding in sorted(outcome.findings)],
        }


def run(name: str, root: Path) -> Result:
    """Run one check on the repository at `root`; never raises for what the check raises."""
    started = time.monotonic()
    outcome: Outcome | None = None
    error = ""
    try:
        outcome = CHECKS[name](root)
    except LintError as reason:
        error = " ".join(str(reason).split())
    except Exception as defect:  # noqa: BLE001 - a defect of one check must not hide what the others find
        traceback.print_exc()
        error = f"the check itself failed, {type(defect).__name__}: {' '.join(str(defect).split())}"
    return Result(name, outcome, error, time.monotonic() - started)


def summary(result: Result) -> str:
    """One line: what was looked at, how long it took, how it ended."""
    if result.outcome is None:
        return f"FAILED to run: {result.error}"
    if result.outcome.skipped:
        return f"SKIPPED: {result.outcome.skipped}"
    findings: Sequence[Finding] = result.outcome.findings
    ending = f"FAILED, {len(findings)} found" if findings else "ok"
    return f"{ending} ({result.outcome.checked}, {result.seconds:.1f} s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks named in `arguments`, all without any; 1 if one found something or could not run."""
    parser = argparse.ArgumentParser(
        prog="python -m migrations.lint",
        description="Lints what PostgreSQL will run: the SQL files, each revision's SQL, each function.",
        epilog="A finding is one line, file:line: rule: message. Exit code 1 if there is any, else 0.",
    )
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"only these: {', '.join(CHECKS)}")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="lint this copy of the repository")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.checks if name not in CHECKS]
    if unknown:
        parser.error(f"no such check: {', '.join(unknown)} (there are {', '.join(CHECKS)})")
    if not options.root.is_dir():
        parser.error(f"--root {options.root}: no such folder")

    results = []
    for name in options.checks or CHECKS:
        if not options.json:
            print(f"==> {name}", flush=True)
        result = run(name, options.root.resolve())
        results.append(result)
        if not options.json:
            for finding in sorted(result.outcome.findings) if result.outcome else ():
                print(finding)
            print(f"{name}: {summary(result)}", flush=True)
    failed = any(result.failed for result in results)
    if options.json:
        print(json.dumps({"ok": not failed, "checks": [result.as_json() for result in results]}, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
