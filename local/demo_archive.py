"""The part of the demo that needs an AWS: old items of a table and a closed partition go to S3, and are verified."""

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


def archive(say: Callable[[str], None], url: str, partition: str | None) -> dict[str, Any] | None:
    """All of it; what was found, None if there is no AWS here. Raises LocalError.

    `partition` is one of the database at `url` that is closed, if there is one.
    """
    found = aws.current_aws()
    if found is None:
        say(f"no archive: {aws.why_none()}")
        return None
    environment = found.environment(os.environ) | {
        "DATABASE_URL": url, "SOURCE_TABLE": TABLE, "ARCHIVE_BUCKET": BUCKET, "STATE_TABLE": STATE,
        "TIME_ATTRIBUTE": "modifiedAt",
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

    return _items(run, say) | {"partition": partition and _partition(run, say, partition)}


def _partition(run: Callable[..., Any], say: Callable[[str], None], partition: str) -> dict[str, Any]:
    archived = run("jobs", "archive-partitions", "--partition", partition, "--json")
    if archived["status"] != "ok":
        raise LocalError(f"python -m jobs archive-partitions: {archived['error'] or archived['status']}")
    found = next(
        one for one in run("jobs", "restore-partition", "--list", "--json") if one["partition"] == partition
    )
    say(
        f"python -m jobs archive-partitions --partition {partition}: {archived['rows']:,} rows archived now,"
        f" {found['rows']:,} are there as Parquet, read back and compared"
    )
    return {
        "name": partition,
        "rows": found["rows"],
        "bytes": found["parquet_bytes"],
        "status": found["status"],
    }


def _items(run: Callable[..., Any], say: Callable[[str], None]) -> dict[str, Any]:
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
