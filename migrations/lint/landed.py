"""A function file that was released never changes: a change is the next version, `<name>.v<N+1>.sql`.

A revision that loaded version 1 going up must find the same version 1 for ever, or two databases at the same
revision would differ.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from migrations.lint.outcome import Finding, Outcome, count

FUNCTIONS = "sql/functions"


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None if it fails (no git, no repository, no such object)."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def check(root: Path) -> Outcome:
    """Compare the function files with those of the last tag `v…` in this branch's history."""
    tag = (_git(root, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*") or "").strip()
    listing = _git(root, "ls-tree", "-r", "-z", tag, "--", FUNCTIONS) if tag else None
    if listing is None:
        return Outcome(checked="no release yet")
    findings = []
    entries = [entry for entry in listing.split("\0") if entry]
    for entry in entries:
        attributes, _, path = entry.partition("\t")
        blob = attributes.split()[2]
        now = _git(root, "hash-object", "--", path) if (root / path).is_file() else None
        if now is None:
            findings.append(
                Finding(path, 1, "landed-file-removed", f"it is in {tag}, whose revisions load it")
            )
        elif now.strip() != blob:
            message = f"it differs from {tag}; put it back and make the change in the next version's file"
            findings.append(Finding(path, 1, "landed-file-changed", message))
    return Outcome(checked=f"{count(len(entries), 'file')} of {tag}", findings=tuple(findings))
