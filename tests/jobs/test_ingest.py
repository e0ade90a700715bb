"""Files and streams into a real database: exactly once, whatever stops them in between."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from jobs import db
from jobs.errors import JobsError
from jobs.ingest.feed import Batch, FileFeed, Limits, StreamFeed
from jobs.ingest.lines import StreamSource
from jobs.ingest.load import AttributeCache, SourceBusyError, Stage
from jobs.ingest.parse import parse_lines
from jobs.ingest.run import Patience, Result, ingest
from local.cluster import Cluster
from tests.conftest import ROOT, Database
from tests.jobs.conftest import line, lines, values
from tests.jobs.waiting import until

Jobs = Callable[..., int]
Read = pytest.CaptureFixture[str]


def report(capsys: Read) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@contextmanager
def process(database: Database, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m jobs …` with a pipe for its input; killed at the end, if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database.url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def send(running: subprocess.Popen[bytes], text: str) -> None:
    assert running.stdin is not None
    running.stdin.write(text.encode())
    running.stdin.flush()


def position(database: Database, source: str) -> int:
    found: int = database.one("SELECT eav.ingest_position(%s)", source)
    return found


def test_a_file_arrives_whole(jobs: Jobs, database: Database, tmp_path: Path, capsys: Read) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 2500))
    assert jobs("ingest", path, "--flush", "--json", "--batch", 1000) == 0
    found = report(capsys)
    assert {key: found[key] for key in ("lines", "accepted", "rejected", "skipped", "settled")} == {
        "lines": 2500, "accepted": 2500, "rejected": {}, "skipped": 0, "settled": True,
    }  # fmt: skip
    assert values(database) == list(range(1, 2501))
    assert position(database, "x.ndjson") == 2500


def test_a_file_is_gone_on_with_where_the_database_says(
    jobs: Jobs, database: Database, tmp_path: Path, capsys: Read
) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 10))
    assert jobs("ingest", path) == 0
    assert jobs("ingest", path) == 0
    path.write_text(lines(1, 15))
    capsys.readouterr()
    assert jobs("ingest", path, "--flush", "--json") == 0
    found = report(capsys)
    assert (found["skipped"], found["lines"], found["accepted"]) == (10, 5, 5)
    assert values(database) == list(range(1, 16))


def test_every_kind_of_line_ends_where_it_belongs(
    jobs: Jobs, database: Database, tmp_path: Path, capsys: Read
) -> None:
    database.all("""
        INSERT INTO eav.attributes (tenant_id, name, data_type)
        VALUES (1, 'when', 'timestamp'), (1, 'level', 'number')
        RETURNING 1
    """)
    time = "2026-11-21T20:55:42.123456+02:00"
    path = tmp_path / "x.ndjson"
    good = [
        line(1, value=True), line(2, attribute="name", value="tab\tnewline\nback\\slash \\N é 𝄞"),
        line(3, attribute="when", value=time), line(4, attribute="level", value=1),
        line(5, attribute="level", value="@").replace('"@"', "0.1234567890123456789"),
        line(6, attribute="level", value="@").replace('"@"', "123456789012345678901234567890"),
        line(7, attribute="level", value="@").replace('"@"', "1e400"),
        line(8, attribute="new\tname\\", value=1),
    ]  # fmt: skip
    bad = [
        "garbage\n", "\x00\xff\n", line(1, tenant_id="x"), line(1, value=[1]), line(1, value="a\0b"),
        '{"tenant_id": 1}\n', line(1, observed_at=0), line(1, attribute="level", value="high"),
        line(1, attribute="when", value="soon"), line(1, tenant_id=7), "x" * 3000 + "\n",
        *(line(1, attribute="level", observed_at=f"{year}-01-01T00:00:00Z") for year in ("1970", "2099", "0001")),
    ]  # fmt: skip
    path.write_text("".join(["\n", *good, " \n", *bad]), encoding="utf-8")
    assert jobs("ingest", path, "--flush", "--json", "--max-line", 2000) == 0
    found = report(capsys)
    assert found["settled"]
    assert (found["lines"], found["blank"], found["accepted"]) == (2 + len(good) + len(bad), 2, len(good))
    assert found["rejected"]["malformed"] == 3
    assert found["rejected"]["missing_field"] == 1
    assert found["rejected"]["wrong_type"] == 6
    assert found["rejected"]["unknown_tenant"] == 1
    assert sum(found["rejected"].values()) == len(bad)
    stored = dict(
        database.all("""
            SELECT a.name, coalesce(v.value_text, v.value_bool::text, (v.value_time AT TIME ZONE 'UTC')::text)
            FROM eav.entity_values_ts AS v JOIN eav.attributes AS a USING (attribute_id) WHERE a.name <> 'level'
        """)
    )
    assert stored["n"] == "true"
    assert stored["name"] == "tab\tnewline\nback\\slash \\N é 𝄞"
    assert stored["when"] == "2026-11-21 18:55:42.123456"
    assert "new\tname\\" in stored
    numbers = database.all("""
        SELECT v.value_number FROM eav.entity_values_ts AS v JOIN eav.attributes AS a USING (attribute_id)
        WHERE a.name = 'level' ORDER BY 1
    """)
    assert [one for (one,) in numbers] == [
        Decimal("0.1234567890123456789"), 1, 123456789012345678901234567890, 10**400,
    ]  # fmt: skip
    cut = database.all(
        "SELECT raw, value_text FROM eav.entity_values_rejected WHERE value_text LIKE '3000 bytes%'"
    )
    assert [bytes(raw) for raw, _ in cut] == [b"x" * 3000]
    assert jobs("ingest", path, "--strict") == 0  # nothing new, so nothing rejected
    assert jobs("ingest", path, "--strict", "--source", "again", "--max-line", 2000) == 1


def test_another_file_of_the_same_name_is_refused(jobs: Jobs, tmp_path: Path, capsys: Read) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 10))
    assert jobs("ingest", path) == 0
    path.write_text(lines(2, 12))
    assert jobs("ingest", path) == 1
    assert (
        "x.ndjson: ingested before with other content: choose another name with --source"
        in capsys.readouterr().err
    )
    assert jobs("ingest", path, "--source", "y") == 0


def test_a_file_that_shrank_is_refused(jobs: Jobs, tmp_path: Path, capsys: Read) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 500))
    assert jobs("ingest", path) == 0
    path.write_text(lines(1, 400))
    assert jobs("ingest", path) == 1
    assert "has 400 lines, but 500 of x.ndjson are in the database" in capsys.readouterr().err


def test_a_line_cut_off_at_the_end_waits_for_its_rest(
    jobs: Jobs, database: Database, tmp_path: Path, capsys: Read
) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 10)[:-20])
    assert jobs("ingest", path) == 1
    assert "line 10 is cut off at the end of the file" in capsys.readouterr().err
    path.write_text(lines(1, 10).rstrip("\n"))
    assert jobs("ingest", path, "--flush") == 0
    assert values(database) == list(range(1, 11))


def test_gzip_is_unpacked(jobs: Jobs, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson.gz"
    path.write_bytes(gzip.compress(lines(1, 100).encode()))
    assert jobs("ingest", path, "--flush") == 0
    assert values(database) == list(range(1, 101))


def test_several_files_stop_at_the_first_that_cannot_be_read(
    jobs: Jobs, database: Database, tmp_path: Path, capsys: Read
) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 10))
    assert jobs("ingest", path, tmp_path / "none", "--json", "--flush") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["accepted"] == 10
    assert f"cannot read {tmp_path}/none: No such file or directory" in captured.err
    assert jobs("ingest", tmp_path) == 1
    assert "it is a folder" in capsys.readouterr().err


def test_a_second_ingester_of_a_source_is_refused(
    jobs: Jobs, database: Database, tmp_path: Path, capsys: Read
) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 10))
    with db.connect(database.url, "eav_ingest", "test") as connection:
        stage = Stage(connection, "x.ndjson", url=database.url)
        assert jobs("ingest", path) == 1
        assert capsys.readouterr().err.count("\n") == 1
        with db.connect(database.url, "eav_ingest", "test") as other:
            with pytest.raises(SourceBusyError):
                Stage(other, "x.ndjson", url=database.url)
            assert Stage(other, "x.ndjson", partition="1", url=database.url).source_id != stage.source_id
    assert jobs("ingest", path, "--flush") == 0
    assert values(database) == list(range(1, 11))


def test_a_batch_with_new_names_is_all_or_nothing(
    jobs: Jobs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with db.connect(database.url, "eav_ingest", "test") as connection:
        stage = Stage(connection, "s", url=database.url)
        # The first piece has no name to look up, the second has one.
        pieces = [parse_lines([b"garbage"], 1), parse_lines([line(2).encode()], 2)]
        with monkeypatch.context() as patched:
            patched.setattr(AttributeCache, "look_up", fail)
            with pytest.raises(ZeroDivisionError):
                stage.add(pieces)
        assert (stage.position, position(database, "s")) == (0, 0)
        stage.add(pieces)
        assert (stage.position, position(database, "s")) == (2, 2)
    assert database.one("SELECT count(*) FROM eav.entity_values_ingest") == 2


def test_a_live_stream_is_staged_as_it_comes_and_kept(jobs: Jobs, database: Database) -> None:
    with process(database, "ingest", "-", "--json") as running:
        send(running, lines(1, 3))
        until(lambda: database.one("SELECT count(*) FROM eav.entity_values_ingest WHERE lane = 0") == 3)
        send(running, line(4) + "cut o")
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    found = json.loads(out)
    assert (found["accepted"], found["rejected"]) == (4, {"malformed": 1})
    assert found["sources"][0]["source"].startswith("stdin-")


def test_a_killed_ingester_is_run_again_from_the_start_of_its_stream(jobs: Jobs, database: Database) -> None:
    with process(database, "ingest", "-", "--source", "s") as running:
        send(running, lines(1, 700))
        until(lambda: position(database, "s") == 700)
        with database.session() as blocking:
            # The next batch is killed in the middle of its transaction.
            blocking.execute("BEGIN; LOCK TABLE eav.ingest_sources")
            send(running, lines(701, 800))
            until(lambda: database.one("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0)
            running.send_signal(signal.SIGKILL)
            running.wait(30)
    with process(database, "ingest", "-", "--source", "s", "--flush") as running:
        _, err = running.communicate(lines(1, 900).encode(), timeout=60)
    assert running.returncode == 0, err
    assert values(database) == list(range(1, 901))


def run(database: Database, feed: FileFeed | StreamFeed, after: Callable[[int], object]) -> Result:
    """Ingest in this process; `after` is called with the number of each batch that was staged."""
    staged = 0

    def progress(count: int, event: str) -> None:
        nonlocal staged
        if count:
            staged += 1
            after(staged)

    @contextmanager
    def open_stage(feed: Any) -> Iterator[Stage]:
        with db.translated(database.url), db.connect(database.url, "eav_ingest", "test ingest") as connection:
            yield Stage(
                connection,
                feed.name,
                durable=not feed.replayable,
                fingerprint=feed.fingerprint,
                url=database.url,
            )

    return ingest(feed, open_stage, patience=Patience(60), progress=progress)


TERMINATE = (
    "SELECT count(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity"
    " WHERE application_name = 'test ingest'"
)


@pytest.mark.parametrize("stream", [False, True])
def test_a_lost_connection_is_made_again(
    jobs: Jobs, database: Database, tmp_path: Path, stream: bool
) -> None:
    path = tmp_path / "x.ndjson"
    # Blank lines are in no batch's rows, and must not be taken for lost ones.
    path.write_text(lines(1, 500) + "\n\n" + lines(503, 1000))

    def terminate(batch: int) -> None:
        if batch in (2, 5):
            assert database.one(TERMINATE) == 1

    limits = Limits(rows=100, size=1)
    with path.open("rb") as opened:
        feed: FileFeed | StreamFeed = FileFeed(path, limits=limits)
        if stream:
            feed = StreamFeed(StreamSource(opened.fileno()), "s", replayable=False, limits=limits)
        result = run(database, feed, terminate)
    assert result.reconnects == 2
    assert (result.counts.staged, result.last) == (998, 1000)
    assert jobs("run", "flush") == 0
    assert values(database) == [*range(1, 501), *range(503, 1001)]


def test_an_answer_that_was_lost_is_not_sent_again() -> None:
    read, write = os.pipe()
    os.write(write, lines(1, 10).encode())
    os.close(write)
    feed = StreamFeed(StreamSource(read), "s", replayable=False)
    feed.seek(0)
    kept = feed.next()
    assert kept == Batch(1, lines(1, 10).encode().splitlines())
    feed.seek(4)  # in one transaction it is all or none; were it not, nothing would be sent twice
    assert feed.next() == Batch(5, lines(5, 10).encode().splitlines())
    feed.seek(10)
    assert feed.next() is None
    feed.done(10)
    with pytest.raises(JobsError, match="lost lines 8 to 10"):
        feed.seek(7)
    os.close(read)


def test_patience_ends() -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    patience = Patience(10, clock=lambda: now, sleep=sleep)
    error = JobsError("gone")
    while now < 10:
        patience.wait(error)
    with pytest.raises(JobsError, match="gone"):
        patience.wait(error)
    assert 10 <= now < 13
    patience.reset()
    patience.wait(error)


def test_a_read_only_server_is_one_line(
    jobs: Jobs, database: Database, tmp_path: Path, capsys: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 10))
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
    assert jobs("ingest", path) == 1
    error = capsys.readouterr().err
    assert "is read-only" in error
    assert error.count("\n") == 1


def test_a_huge_line_is_rejected_in_little_memory(jobs: Jobs, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    size = 100 * 1024 * 1024
    with path.open("wb") as out:
        out.write(line(1).encode())
        for _ in range(100):
            out.write(b"x" * (size // 100))
        out.write(b"\n" + line(3).encode())
    # VmHWM and not ru_maxrss, which a process inherits from the one that started it.
    script = (
        "import pathlib, re, sys; from jobs.cli import main; code = main(sys.argv[1:]);"
        " status = pathlib.Path('/proc/self/status').read_text();"
        " print(re.search('VmHWM:\\\\s+(\\\\d+) kB', status)[1], file=sys.stderr);"
        " sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "ingest", path, "--flush", "--json"],
        cwd=ROOT, env=os.environ | {"DATABASE_URL": database.url}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["rejected"] == {"malformed": 1}
    assert int(done.stderr.split()[-1]) * 1024 < size
    ((raw, note),) = database.all("SELECT raw, value_text FROM eav.entity_values_rejected")
    assert bytes(raw) == b"x" * 65536
    assert note.startswith(f"{size} bytes, sha256 ")
    assert values(database) == [1, 3]


@pytest.mark.cluster
def test_a_crash_of_the_server_costs_nothing(crashing: tuple[Cluster, Database], tmp_path: Path) -> None:
    cluster, database = crashing
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 3000))

    def crash(batch: int) -> None:
        if batch == 6:
            database.one("SELECT eav.stage_flush()")
        if batch in (4, 8, 20):  # with rows staged only; with some durable and some staged; again
            cluster.kill()
            cluster.start()

    result = run(database, FileFeed(path, limits=Limits(rows=100, size=1)), crash)
    assert result.reconnects >= 3
    assert (result.counts.staged, result.last) == (3000, 3000)
    with database.session("eav_jobs") as connection:
        while connection.execute("SELECT eav.stage_flush()").fetchone() != (0,):
            pass
    assert values(database) == list(range(1, 3001))
