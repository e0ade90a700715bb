"""A Kinesis stream into a real database: every record exactly once, whatever is killed; gaps are never passed over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from jobs import db
from jobs.errors import JobsError
from jobs.ingest.kinesis import AGGREGATED, ShardSource, Stream
from jobs.ingest.load import Stage, open_stage
from jobs.ingest.run import Patience, Result, ingest
from jobs.ingest.source import Limits
from local.cluster import Cluster
from tests.conftest import ROOT, Database
from tests.jobs.conftest import line, lines, values
from tests.jobs.streams import SOURCE, STREAM, Emulator, emulator
from tests.jobs.waiting import until

Jobs = Callable[..., int]
Read = pytest.CaptureFixture[str]


@pytest.fixture
def kinesis(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with emulator(monkeypatch) as found:
        yield found


@contextmanager
def follower(database: Database, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m jobs ingest kinesis://… --follow`; killed at the end, if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "jobs", "ingest", SOURCE, "--follow", "--json", *arguments],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def staged(database: Database) -> int:
    """Lines that are staged or durable."""
    found: int = database.one(
        "SELECT (SELECT count(*) FROM eav.entity_values_ingest) + (SELECT count(*) FROM eav.entity_values_ts)"
    )
    return found


def position(database: Database, shard_id: str) -> int:
    found: int = database.one("SELECT eav.ingest_position(%s, %s)", SOURCE, shard_id)
    return found


def report(capsys: Read) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def age_marks(database: Database, by: timedelta) -> None:
    """Have been away for so long."""
    database.all("UPDATE eav.ingest_source_marks SET covered_until = covered_until - %s RETURNING 1", by)


def flush(database: Database) -> None:
    with database.session("eav_jobs") as connection:
        while connection.execute("SELECT eav.stage_flush()").fetchone() != (0,):
            pass


def test_every_record_of_every_shard_arrives_once(
    jobs: Jobs, database: Database, kinesis: Emulator, capsys: Read
) -> None:
    shards = kinesis.create(3)
    kinesis.put([line(n) for n in range(1, 2501)])
    assert jobs("ingest", SOURCE, "--flush", "--json", "--batch", 100) == 0
    found = report(capsys)
    assert (found["lines"], found["accepted"], found["settled"]) == (2500, 2500, True)
    assert sorted(one["partition"] for one in found["sources"]) == shards
    assert values(database) == list(range(1, 2501))
    kinesis.put([line(n) for n in range(2501, 2601)])
    assert jobs("ingest", SOURCE, "--flush", "--json") == 0
    found = report(capsys)
    assert (found["lines"], found["skipped"]) == (100, 2500)
    assert values(database) == list(range(1, 2601))


def test_a_record_holds_one_object_or_several_lines_and_bad_ones_harm_nobody(
    jobs: Jobs, database: Database, kinesis: Emulator, capsys: Read
) -> None:
    (shard,) = kinesis.create()
    packed = AGGREGATED + b"\n\x0a\x01k" + bytes(16)
    poison: list[str | bytes] = [
        b"\x00\xff\xfe", b"{", "[1]\n", packed, "9" * 5000, line(0).replace('"value": 0', '"value": 1e999999'),
        '{"tenant_id": 99999999999999999999, ' + line(0)[16:],
    ]  # fmt: skip
    kinesis.put([line(1).rstrip("\n"), lines(2, 4) + "\n \n" + line(5), "", "\n", *poison, line(6)])
    assert jobs("ingest", SOURCE, "--flush", "--json", "--max-line", 4000) == 0
    found = report(capsys)
    assert (found["accepted"], found["lines"]) == (6, 6 + len(poison))
    assert found["rejected"] == {"malformed": 5, "wrong_type": 2}
    assert values(database) == list(range(1, 7))
    # Blank lines count for nothing, so that offsets have no holes.
    assert position(database, shard) == found["lines"]
    assert database.one(
        "SELECT count(DISTINCT source_offset) FROM eav.entity_values_rejected WHERE source_offset > 5"
    ) == len(poison)
    note = database.one("SELECT value_text FROM eav.entity_values_rejected WHERE raw = %s", packed)
    assert note == "an aggregated record of the Kinesis Producer Library, which is not unpacked"


def test_a_follower_goes_on_until_it_is_told_to_stop(
    jobs: Jobs, database: Database, kinesis: Emulator
) -> None:
    kinesis.create(2)
    with follower(database) as running:
        for first in (1, 101, 201):
            kinesis.put([line(n) for n in range(first, first + 100)])
            until(lambda expected=first + 99: staged(database) == expected)  # type: ignore[misc]
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    assert json.loads(out)["accepted"] == 300
    flush(database)
    assert values(database) == list(range(1, 301))


def test_a_killed_ingester_leaves_nothing_out_and_nothing_twice(
    jobs: Jobs, database: Database, kinesis: Emulator
) -> None:
    kinesis.create(2)
    kinesis.put([line(n) for n in range(1, 1001)])
    with follower(database, "--batch", "50") as running:
        until(lambda: staged(database) >= 200)
        with database.session() as blocking:
            # The next batches are killed in the middle of their transactions, between rows and mark.
            blocking.execute("BEGIN; LOCK TABLE eav.ingest_source_marks")
            kinesis.put([line(n) for n in range(1001, 2001)])
            until(lambda: database.one("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0)
            running.send_signal(signal.SIGKILL)
            running.wait(30)
        flush(database)
    assert jobs("ingest", SOURCE, "--flush") == 0
    assert values(database) == list(range(1, 2001))


def test_two_ingesters_share_the_shards_and_one_takes_over(
    jobs: Jobs, database: Database, kinesis: Emulator
) -> None:
    kinesis.create(2)
    kinesis.put([line(n) for n in range(1, 101)])

    def readers() -> int:
        found: int = database.one(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s",
            f"eav ingest {SOURCE} shard%",
        )
        return found

    with follower(database, "--jobs", "1") as one, follower(database, "--jobs", "1") as other:
        # One shard is all that either may read, so that all is read by both.
        until(lambda: staged(database) == 100 and readers() == 2)
        for running in (one, other):
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 0
    with follower(database) as first:
        until(lambda: readers() == 2)
        with follower(database) as second:
            kinesis.put([line(n) for n in range(101, 201)])
            until(lambda: staged(database) == 200)
            first.kill()
            first.wait(30)
            kinesis.put([line(n) for n in range(201, 301)])
            until(lambda: staged(database) == 300)  # by the second, which had none
            second.send_signal(signal.SIGTERM)
            assert second.wait(30) == 0
    flush(database)
    assert values(database) == list(range(1, 301))


def test_shards_that_others_hold_are_waited_for_and_named(
    jobs: Jobs, database: Database, kinesis: Emulator, capsys: Read
) -> None:
    shards = kinesis.create(2)
    kinesis.put([line(n) for n in range(1, 11)])
    with db.connect(database.url, "eav_ingest", "test") as connection:
        Stage(connection, SOURCE, partition=shards[1], marked=True, url=database.url)
        assert jobs("ingest", SOURCE, "--json", "--retry", 1) == 1
        captured = capsys.readouterr()
        assert json.loads(captured.out)["accepted"] == 5
        assert f"another ingester is at {shards[1]}" in captured.err
    assert jobs("ingest", SOURCE, "--flush") == 0
    assert values(database) == list(range(1, 11))


def test_a_split_shard_is_read_to_its_end_before_its_children(
    jobs: Jobs, database: Database, kinesis: Emulator, capsys: Read
) -> None:
    (parent,) = kinesis.create()
    kinesis.put([line(n) for n in range(1, 101)])
    children = kinesis.split(parent)
    for number, child in enumerate(children):
        kinesis.put([line(n) for n in range(101 + 50 * number, 151 + 50 * number)], child)
    # Whoever wants a child only has to wait for its parent.
    assert jobs("ingest", SOURCE, "--shard", children[0], "--retry", 0) == 1
    assert f"their parents come first: --shard {parent}" in capsys.readouterr().err
    assert staged(database) == 0
    assert jobs("ingest", SOURCE, "--shard", parent, "--json") == 0
    assert report(capsys)["accepted"] == 100
    assert database.one("SELECT ended FROM eav.ingest_source_marks ORDER BY position DESC LIMIT 1")
    assert jobs("ingest", SOURCE, "--flush", "--json") == 0
    assert report(capsys)["accepted"] == 100
    assert values(database) == list(range(1, 201))
    born = database.all(
        "SELECT s.partition FROM eav.ingest_sources AS s WHERE s.source = %s ORDER BY s.source_id", SOURCE
    )
    assert born[0] == (parent,)
    assert {partition for (partition,) in born[1:]} == set(children)


def test_a_follower_sees_a_stream_being_resharded(jobs: Jobs, database: Database, kinesis: Emulator) -> None:
    (parent,) = kinesis.create()
    kinesis.put([line(n) for n in range(1, 101)])
    with follower(database) as running:
        until(lambda: staged(database) == 100)
        children = kinesis.split(parent)
        kinesis.put([line(n) for n in range(101, 201)])
        until(lambda: staged(database) == 200)
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    flush(database)
    assert values(database) == list(range(1, 201))
    assert all(position(database, child) == 50 for child in children)


def test_records_that_are_gone_are_a_gap_that_somebody_must_accept(
    jobs: Jobs, database: Database, kinesis: Emulator, capsys: Read
) -> None:
    (shard,) = kinesis.create()
    kinesis.put([line(n) for n in range(1, 101)])
    assert jobs("ingest", SOURCE, "--flush") == 0
    last = str(next(reversed(kinesis.shard(shard).records)))
    kinesis.put([line(n) for n in range(101, 201)])
    kinesis.forget(shard, 150)
    age_marks(database, timedelta(hours=30))
    capsys.readouterr()
    assert jobs("ingest", SOURCE) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"records of {shard} from {last} to " in error
    assert "may be gone: the stream keeps records for 24 hours" in error
    assert "--accept-gap" in error
    assert (staged(database), database.all("SELECT * FROM eav.ingest_gaps")) == (100, [])
    first_left = str(next(iter(kinesis.shard(shard).records)))
    assert jobs("ingest", SOURCE, "--flush", "--accept-gap") == 0
    assert values(database) == [*range(1, 101), *range(151, 201)]
    ((partition, behind, begin, end),) = database.all(
        "SELECT s.partition, g.position, g.gap_from, g.gap_to"
        " FROM eav.ingest_gaps AS g JOIN eav.ingest_sources AS s USING (source_id)"
    )
    assert (partition, behind, begin, end) == (shard, 100, last, first_left)
    # It is over with that: nothing stands between here and the next record.
    kinesis.put([line(201)])
    assert jobs("ingest", SOURCE, "--flush") == 0
    assert values(database)[-1] == 201


def test_a_silence_is_no_gap_as_long_as_it_was_listened_to(
    jobs: Jobs, database: Database, kinesis: Emulator
) -> None:
    (shard,) = kinesis.create()
    kinesis.put([line(n) for n in range(1, 11)])
    assert jobs("ingest", SOURCE, "--flush") == 0
    kinesis.forget(shard, 10)
    # Nothing is left of what was read, but it was caught up 23 hours ago, and the stream remembers 24.
    age_marks(database, timedelta(hours=23))
    kinesis.put([line(11)])
    assert jobs("ingest", SOURCE, "--flush") == 0
    assert values(database) == list(range(1, 12))


def test_a_shard_that_the_stream_has_forgotten_is_a_gap(
    jobs: Jobs, database: Database, kinesis: Emulator, capsys: Read
) -> None:
    (parent,) = kinesis.create()
    kinesis.put([line(n) for n in range(1, 11)])
    assert jobs("ingest", SOURCE, "--flush") == 0
    kinesis.put([line(n) for n in range(11, 21)])
    kinesis.split(parent)
    kinesis.put([line(n) for n in range(21, 31)])
    kinesis.forget_shard(parent)
    assert jobs("ingest", SOURCE) == 3
    assert f"{parent} is gone from the stream" in capsys.readouterr().err
    assert jobs("ingest", SOURCE, "--flush", "--accept-gap") == 0
    assert values(database) == [*range(1, 11), *range(21, 31)]
    assert database.one("SELECT gap_to FROM eav.ingest_gaps") == "the end of the shard"
    assert jobs("ingest", SOURCE, "--flush") == 0  # and that is settled


def test_what_was_staged_and_lost_before_it_was_ever_durable_can_be_a_gap_too(
    jobs: Jobs, database: Database, kinesis: Emulator, capsys: Read
) -> None:
    (shard,) = kinesis.create()
    kinesis.put([line(n) for n in range(1, 11)])
    assert jobs("ingest", SOURCE) == 0
    lose_slots(database)
    kinesis.forget(shard, 5)
    assert jobs("ingest", SOURCE) == 3
    assert "may be gone" in capsys.readouterr().err


def lose_slots(database: Database) -> None:
    """What a crash does to what is staged of sources that can be replayed."""
    for lane in range(1, 5):
        for slot in range(3):
            database.all(f"WITH x AS (DELETE FROM eav.staging_{lane}_{slot} RETURNING 1) SELECT FROM x")


def test_a_busy_service_and_an_expired_iterator_are_lived_with(
    jobs: Jobs, database: Database, kinesis: Emulator, capsys: Read
) -> None:
    kinesis.create()
    kinesis.put([line(n) for n in range(1, 101)])
    busy = kinesis.fail("get_records", "ProvisionedThroughputExceededException", 3)
    gone = kinesis.fail("get_shard_iterator", "InternalFailure", 2)
    old = kinesis.fail("get_records", "ExpiredIteratorException", 1)
    assert jobs("ingest", SOURCE, "--flush") == 0
    assert (len(busy), len(gone), len(old)) == (3, 2, 1)
    assert "ProvisionedThroughputExceededException: as it happens; trying again" in capsys.readouterr().err
    assert values(database) == list(range(1, 101))


def test_an_iterator_that_expires_in_the_middle_goes_on_behind_what_was_read(
    jobs: Jobs, database: Database, kinesis: Emulator
) -> None:
    (shard,) = kinesis.create()
    kinesis.put([line(n) for n in range(1, 11)])
    stream = Stream(STREAM)
    source = ShardSource(stream, shard, SOURCE, follow=True, limits=Limits(rows=10))
    with pytest.raises(JobsError, match="somebody else staged them"):
        source.seek(10)
    source.seek(0)
    batches = [source.next() for _ in range(2)]
    assert [len(one.lines) for one in batches if one] == [0, 10]
    kinesis.put([line(n) for n in range(11, 21)])
    failed = kinesis.fail("get_records", "ExpiredIteratorException", 1)
    batch = source.next()
    assert failed
    assert batch is not None
    assert (batch.first, batch.lines[0]) == (11, line(11).encode().rstrip(b"\n"))


def test_mistakes_are_one_line(
    jobs: Jobs, kinesis: Emulator, capsys: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error_of(*arguments: object) -> str:
        assert jobs("ingest", *arguments) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "ResourceNotFoundException" in error_of(SOURCE)
    kinesis.create()
    assert "there is no shard shardId-7 in the stream" in error_of(SOURCE, "--shard", "shardId-7")
    assert "names no stream" in error_of("kinesis://")
    assert "give one kinesis:// stream and nothing else" in error_of(SOURCE, "x.ndjson")
    assert "are of a stream" in error_of("x.ndjson", "--follow")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION")
    assert "no region" in error_of(SOURCE)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials" in error_of(SOURCE)


def test_a_service_that_is_away_is_waited_for(
    jobs: Jobs, kinesis: Emulator, capsys: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert jobs("ingest", SOURCE, "--retry", 0.3) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) > 1
    assert error[0].endswith("; trying again")
    assert not error[-1].endswith("; trying again")


def test_a_stream_made_anew_under_the_same_name_is_refused(
    jobs: Jobs, database: Database, kinesis: Emulator, capsys: Read
) -> None:
    kinesis.create()
    kinesis.put([line(1)])
    assert jobs("ingest", SOURCE) == 0
    database.all("UPDATE eav.ingest_sources SET fingerprint = fingerprint || ' before' RETURNING 1")
    assert jobs("ingest", SOURCE) == 1
    assert "ingested before with other content" in capsys.readouterr().err


def test_marks_are_pruned_with_their_checkpoints(jobs: Jobs, database: Database, kinesis: Emulator) -> None:
    kinesis.create()
    for first in (1, 11, 21):
        kinesis.put([line(n) for n in range(first, first + 10)])
        assert jobs("ingest", SOURCE, "--flush") == 0
    assert database.one("SELECT count(*) FROM eav.ingest_source_marks") > 1
    assert jobs("run", "prune-ingest") == 0
    assert database.all("SELECT position FROM eav.ingest_source_marks") == [(30,)]
    kinesis.put([line(31)])
    assert jobs("ingest", SOURCE, "--flush") == 0
    assert values(database) == list(range(1, 32))


def read(database: Database, source: ShardSource, after: Callable[[int], object]) -> Result:
    """One shard, in this process; `after` is called with the number of each batch that was staged."""
    staged = 0

    def progress(count: int, event: str) -> None:
        nonlocal staged
        if count:
            staged += 1
            after(staged)

    return ingest(source, lambda one: open_stage(database.url, one), patience=Patience(60), progress=progress)


@pytest.mark.cluster
def test_a_crash_of_the_server_rewinds_the_shard(
    crashing: tuple[Cluster, Database], kinesis: Emulator
) -> None:
    cluster, database = crashing
    (shard,) = kinesis.create()
    kinesis.put([line(n) for n in range(1, 3001)])
    numbers = list(kinesis.shard(shard).records)

    def crash(batch: int) -> None:
        if batch == 6:
            database.one("SELECT eav.stage_flush()")
        if batch in (4, 8, 20):  # with rows staged only; with some durable and some staged; again
            cluster.kill()
            cluster.start()
        if batch in (9, 21):
            # Where it was sent to is where the database is, in the shard's own numbers.
            ((at, mark),) = database.all("SELECT staged_through, mark FROM eav.ingest_marks(%s)", SOURCE)
            assert mark == str(numbers[at - 1])

    source = ShardSource(Stream(STREAM), shard, SOURCE, limits=Limits(rows=100))
    result = read(database, source, crash)
    assert result.reconnects >= 3
    assert (result.counts.staged, result.last) == (3000, 3000)
    flush(database)
    assert values(database) == list(range(1, 3001))


@pytest.mark.cluster
def test_a_shard_that_had_ended_is_read_again_when_a_crash_loses_its_lines(
    crashing: tuple[Cluster, Database], kinesis: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, database = crashing
    (parent,) = kinesis.create()
    kinesis.put([line(n) for n in range(10_001, 10_101)])
    kinesis.split(parent)
    with follower(database, "--source", "resharded") as running:
        kinesis.put([line(n) for n in range(10_101, 10_201)])
        until(lambda: database.one("SELECT count(*) FROM eav.entity_values_ingest") == 200)
        cluster.kill()
        cluster.start()
        kinesis.put([line(n) for n in range(10_201, 10_301)])
        until(lambda: database.one("SELECT count(*) FROM eav.entity_values_ingest") == 300)
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    flush(database)
    assert [one for one in values(database) if one > 10_000] == list(range(10_001, 10_301))


def test_boto3_is_loaded_by_who_needs_it_only() -> None:
    script = (
        "import sys; from jobs.cli import parser; parser();"
        " print([name for name in sys.modules if name.startswith('boto')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
