"""`python -m bench archive`: a partition out as Parquet, read back, and in again: speed, size, and memory.

The job runs in a process of its own, whose largest memory is what the system says of it. S3 is an emulator on the same
machine, so that network is left out, and its work is not: read the seconds as an upper bound.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench import docs, load
from bench.server import ROOT, Bench, Connection, Say, one, running
from bench.sizes import QUICK

DATABASE: Final = "bench_archive"
PARTITION: Final = "eav.entity_values_ts_p_bench"
ENTITIES: Final = 200_000
BUCKET: Final = "bench"

STEPS: Final = """
import json, os, re, sys, time
from pathlib import Path
from datetime import timedelta
from jobs import db
from jobs.archive import publish, restore, run
from jobs.archive.export import Export
from jobs.archive.settings import required
from jobs.archive.folder import temporary
from jobs.archive.store import Store
connection = db.connect(os.environ["DATABASE_URL"], "eav_jobs", "bench")
def largest():
    # Not getrusage, which counts what the parent had when it forked.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
idle = largest()
seconds = {}
def timed(name, step):
    began = time.perf_counter()
    answer = step()
    seconds[name] = time.perf_counter() - began
    return answer
if sys.argv[1] == "archive":
    (candidate,) = run.candidates(connection, partition=sys.argv[2])
    export = Export(connection, Store(required()), candidate)
    assert export.open()
    with temporary() as folder:
        timed("export", lambda: export.export(folder))
        timed("read back", lambda: export.read_back(folder))
    timed("publish", lambda: (export.record(), publish.publish(connection, export.store, export.archive_id)))
    export.close()
else:
    chosen = restore.choose(connection, sys.argv[2])
    timed("restore", lambda: restore.restore(connection, required(), chosen, timedelta(days=1)))
print(json.dumps({"seconds": seconds, "idle_bytes": idle, "peak_bytes": largest()}))
"""


def command(rows: tuple[int, ...], output: Path | None, say: Say) -> int:
    """Measure each number of rows; writes archive.json."""
    from moto.server import ThreadedMotoServer  # only this command needs it

    service = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    service.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        host, port = service.get_host_and_port()
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "ARCHIVE_BUCKET": BUCKET,
        }
        with running(replace(QUICK), 1, say) as bench:
            results = [_measured(bench, count, environment, say) for count in rows]
            result = {"about": bench.about(), "rows": results}
    finally:
        service.stop()
    path = docs.write_result("archive", result, output)
    print(json.dumps(results, indent=1))
    print(f"JSON: {path}")
    return 0


def _measured(bench: Bench, rows: int, environment: dict[str, str], say: Say) -> dict[str, Any]:
    bench.create_database(DATABASE)
    try:
        with bench.connect(DATABASE) as connection:
            say(f"{rows:,} rows: filled")
            _fill(connection, rows)
            found: dict[str, Any] = {"rows": rows}
            for state in ("as flushed", "compacted"):
                if state == "compacted":
                    bench.run(DATABASE, "jobs", "run", "compact")
                connection.execute("CHECKPOINT")
                connection.execute("DELETE FROM ops.partition_archives")
                measured = _step(bench, environment, "archive")
                heap, parquet = connection.execute(
                    "SELECT table_bytes, parquet_bytes FROM ops.partition_archives"
                ).fetchall()[0]
                whole = sum(measured["seconds"].values())
                found[state] = measured | {
                    "table_bytes": heap,
                    "index_bytes": one(connection, "SELECT index_bytes FROM ops.partition_archives"),
                    "parquet_bytes": parquet,
                    "parquet_over_table": round(parquet / heap, 4),
                    "mb_per_second": round(heap / whole / 1e6, 1),
                    "rows_per_second": round(rows / whole),
                }
                say(f"{rows:,} rows, {state}: {found[state]}")
            connection.execute("UPDATE ops.partition_policies SET retention = '1 month'")
            bench.run(DATABASE, "jobs", "run", "archive-partitions")
            connection.execute("SELECT ops.archive_leave(archive_id) FROM ops.partition_archives")
            connection.execute(
                "SELECT ops.archive_detach(archive_id, '3 seconds') FROM ops.partition_archives"
            )
            bench.run(DATABASE, "jobs", "run", "expire-partitions")
            assert one(connection, "SELECT status FROM ops.partition_archives") == "dropped"
            found["restore"] = _step(bench, environment, "restore")
            assert one(connection, f"SELECT count(*) FROM {PARTITION}") == rows
            say(f"{rows:,} rows, restored: {found['restore']}")
            return found
    finally:
        bench.drop_database(DATABASE)


def _fill(connection: Connection, rows: int) -> None:
    connection.execute(load.functions(ENTITIES).encode())
    connection.execute(
        f"CREATE TABLE {PARTITION} PARTITION OF eav.entity_values_ts"
        " FOR VALUES FROM ('2024-01-01') TO ('2024-01-02');"
        f" ALTER TABLE {PARTITION} OWNER TO eav_owner".encode()
    )
    connection.execute(
        "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_number)"
        " SELECT tenant_id, entity_id, attribute_id, observed_at, value"
        " FROM bench.load(1, %s, '2024-01-01 00:00Z', %s::interval)",
        [rows, f"{86_000_000_000 // (rows + 1)} microseconds"],
    )
    connection.execute(f"VACUUM ANALYZE {PARTITION}".encode())
    connection.execute("UPDATE ops.partition_policies SET retention = '100 years'")


def _step(bench: Bench, environment: dict[str, str], what: str) -> dict[str, Any]:
    import boto3

    if what == "archive":
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name=environment["AWS_DEFAULT_REGION"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=BUCKET)
    done = subprocess.run(
        [sys.executable, "-c", STEPS, what, PARTITION],
        cwd=ROOT,
        env=bench.environment(DATABASE) | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    answer["seconds"] = {name: round(value, 2) for name, value in answer["seconds"].items()}
    return answer
