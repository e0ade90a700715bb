"""The part of the demo that needs an AWS: old items of a table move to S3, are verified, and one comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from local import aws
from local.demo_items import BUCKET, RESTORED, STATE, TABLE, files
from local.demo_jobs import PATIENCE, last_line
from local.errors import LocalError
from local.place import CLONE


def archive_items(say: Callable[[str], None]) -> dict[str, Any] | None:
    """All of it; what was found, None if there is no AWS here. Raises LocalError."""
    found = aws.current_aws()
    if found is None:
        say(f"no archive: {aws.why_none()}")
        return None
    environment = found.environment(os.environ) | {
        "SOURCE_TABLE": TABLE, "ARCHIVE_BUCKET": BUCKET, "STATE_TABLE": STATE, "TIME_ATTRIBUTE": "modifiedAt",
    }  # fmt: skip

    def run(*arguments: str) -> Any:
        """What `python -m ARGUMENTS` prints, as JSON."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", *arguments],
                cwd=CLONE, env=environment, capture_output=True, timeout=PATIENCE, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise LocalError(f"python -m {' '.join(arguments)} took longer than {PATIENCE:.0f} s") from None
        if done.returncode:
            raise LocalError(last_line(done.stderr) or f"python -m {arguments[0]} failed")
        return json.loads(done.stdout)

    put = run("local.demo_items")["items"]
    say(f"{put:,} files of this host are items of the DynamoDB table {TABLE}")
    stats = run("archiver", "run", "--json")["tables"][0]["stats"]
    say(
        f"python -m archiver run: {stats['archived']:,} of them, older than 30 days, are in s3://{BUCKET};"
        f" {stats['deleted']:,} left the table"
    )
    verified = run("archiver", "verify", "--json")
    say(f"python -m archiver verify: {verified['read']:,} objects read, {verified['items']:,} items")
    restored = 0
    if stats["deleted"]:
        key = str(files()[-1])
        restored = run("archiver", "restore", "--key", key, "--table", RESTORED, "--json")
        restored = restored["restored"] + restored["identical"]
        say(f"python -m archiver restore --key {key} --table {RESTORED}: {restored:,} item came back")
    return {
        "table": TABLE, "bucket": BUCKET, "items": put, "archived": stats["archived"], "deleted": stats["deleted"],
        "objects": verified["objects"], "verified_items": verified["items"], "restored": restored,
    }  # fmt: skip
