"""What every source keeps to: order, going on behind a position, no hole unnoticed; and several at once."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import db
from jobs.cli import main
from jobs.errors import JobsError
from jobs.ingest.feed import FileFeed, StreamFeed
from jobs.ingest.lines import StreamSource
from jobs.ingest.load import Stage, open_stage
from jobs.ingest.run import Patience, Result, ingest
from jobs.ingest.source import Batch, Gap, GapError, Limits, Mark, Source
from local.queries import load, run
from tests.conftest import ROOT, Database
from tests.jobs.conftest import lines, values
from tests.jobs.waiting import until

Jobs = Callable[..., int]
Read = pytest.CaptureFixture[str]


def file(tmp_path: Path, text: str) -> Source:
    path = tmp_path / "x.ndjson"
    path.write_text(text)
    return FileFeed(path, limits=Limits(rows=7))


def packed(tmp_path: Path, text: str) -> Source:
    path = tmp_path / "x.ndjson.gz"
    path.write_bytes(gzip.compress(text.encode()))
    return FileFeed(path, limits=Limits(rows=7))


def stream(tmp_path: Path, text: str) -> Source:
    path = tmp_path / "x.ndjson"
    path.write_text(text)
    return StreamFeed(StreamSource(os.open(path, os.O_RDONLY)), "x", replayable=True, limits=Limits(rows=7))


@pytest.mark.parametrize("make", [file, packed, stream])
@pytest.mark.parametrize("position", [0, 1, 13, 40])
def test_a_source_goes_on_behind_a_position_in_order(
    tmp_path: Path, make: Callable[[Path, str], Source], position: int
) -> None:
    source = make(tmp_path, lines(1, 40))
    source.seek(position)
    expected = position + 1
    while (batch := source.next()) is not None:
        assert batch.first == expected
        wanted = lines(batch.first, batch.last).encode().splitlines()
        assert list(batch.lines) == wanted
        source.done(batch.last)
        expected = batch.last + 1
    assert expected == 41
    source.close()


class Given:
    """A source that yields the batches it was given."""

    name, partition, replayable, marked = "given", "7", True, True

    def __init__(self, *batches: Batch | GapError) -> None:
        self._batches = list(batches)
        self.sought: list[tuple[int, Mark | None]] = []
        self.accepted: list[Gap] = []

    def fingerprint(self, known: str | None) -> None:
        pass

    def seek(self, position: int, mark: Mark | None = None) -> None:
        self.sought.append((position, mark))

    def accept(self, gap: Gap) -> None:
        self.accepted.append(gap)

    def next(self) -> Batch | None:
        if not self._batches:
            return None
        batch = self._batches.pop(0)
        if isinstance(batch, GapError):
            raise batch
        return batch

    def done(self, position: int) -> None:
        pass

    def cut_off(self) -> None:
        pass

    def close(self) -> None:
        pass


def take(database: Database, source: Source, *, accept_gap: bool = False) -> Result:
    return ingest(
        source, lambda one: open_stage(database.url, one), patience=Patience(5), accept_gap=accept_gap
    )


def batch(first: int, last: int, mark: str) -> Batch:
    return Batch(first, lines(first, last).encode().splitlines(), Mark(mark))


def gaps(database: Database) -> list[tuple[Any, ...]]:
    with database.session("eav_jobs") as connection:
        found = run(connection, load("ingest_gaps")).dicts()
    return [(one["partition"], one["behind_offset"], one["gap_from"], one["gap_to"]) for one in found]


def test_the_mark_that_comes_back_is_that_of_the_position(jobs: Jobs, database: Database) -> None:
    take(database, Given(batch(1, 10, "a"), batch(11, 20, "b")))
    again = Given(Batch(21, [], Mark("c")), batch(21, 25, "d"))
    take(database, again)
    assert again.sought == [(20, Mark("b"))]
    with database.session() as connection:
        # As a crash leaves it that loses the last batch: positions go back, and marks with them.
        connection.execute("DELETE FROM eav.staging_1_0 WHERE source_offset > 20")
    last = Given()
    take(database, last)
    assert last.sought == [(20, Mark("c"))]


def test_rows_and_mark_are_one_transaction(
    jobs: Jobs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(database, Given(batch(1, 10, "a")))
    with monkeypatch.context() as patched:
        patched.setattr(Stage, "_note", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            take(database, Given(batch(11, 20, "b")))
    again = Given()
    take(database, again)
    assert again.sought == [(10, Mark("a"))]
    assert database.one("SELECT count(*) FROM eav.entity_values_ingest") == 10


def test_offsets_that_jump_are_a_gap_that_somebody_must_accept(jobs: Jobs, database: Database) -> None:
    def source() -> Given:
        return Given(batch(1, 10, "a"), batch(15, 20, "b"))

    with pytest.raises(GapError, match=r"lines 11 to 14 are missing.*--accept-gap"):
        take(database, source())
    assert gaps(database) == []
    assert take(database, Given(batch(11, 12, "a2"), batch(15, 20, "b")), accept_gap=True).last == 20
    assert gaps(database) == [("7", 12, "13", "14")]
    # What is staged now shows it too, without anybody's record.
    with database.session("eav_jobs") as connection:
        (hole,) = run(connection, load("staged_holes")).dicts()
    assert (hole["source"], hole["missing"], hole["last_offset"]) == ("given", 2, 20)


def test_a_source_that_begins_too_late_is_a_gap(jobs: Jobs, database: Database) -> None:
    with pytest.raises(GapError, match=r"lines 1 to 4 are missing.*--accept-gap"):
        take(database, Given(batch(5, 10, "a")))
    take(database, Given(batch(1, 10, "a")))
    with pytest.raises(GapError, match=r"lines 11 to 14 are missing.*--accept-gap"):
        take(database, Given(batch(15, 20, "b")))
    assert gaps(database) == []
    assert take(database, Given(batch(15, 20, "b")), accept_gap=True).last == 20
    assert gaps(database) == [("7", 10, "11", "14")]


def test_offsets_that_come_again_are_refused(jobs: Jobs, database: Database) -> None:
    with pytest.raises(JobsError, match="line 10 came again behind line 10"):
        take(database, Given(batch(1, 10, "a"), batch(10, 20, "b")), accept_gap=True)
    assert database.one("SELECT count(*) FROM eav.entity_values_ingest") == 10


def test_a_gap_that_the_source_reports_is_recorded_before_it_goes_on(jobs: Jobs, database: Database) -> None:
    gap = GapError("given: gone", Gap("x", "y", "it was forgotten"))
    source = Given(batch(1, 10, "a"), gap, batch(11, 20, "b"))
    assert take(database, source, accept_gap=True).last == 20
    assert source.accepted == [gap.gap]
    assert source.sought == [(0, None), (10, Mark("a"))]
    assert gaps(database) == [("7", 10, "x", "y")]


def test_a_stream_whose_acknowledged_lines_are_gone_stops_unless_that_is_accepted(
    jobs: Jobs, database: Database
) -> None:
    read, write = os.pipe()
    os.write(write, lines(1, 10).encode())
    os.close(write)
    feed = StreamFeed(StreamSource(read), "s", replayable=False)
    feed.seek(0)
    assert feed.next()
    feed.done(10)
    with pytest.raises(GapError, match=r"lost lines 8 to 10.*they are gone.*--accept-gap") as caught:
        feed.seek(7)
    feed.accept(caught.value.gap)
    feed.seek(7)
    assert feed.next() is None
    os.close(read)


def test_several_files_at_once_are_one_result(
    jobs: Jobs, database: Database, tmp_path: Path, capsys: Read
) -> None:
    paths = [tmp_path / f"{number}.ndjson" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_text(lines(number * 100 + 1, number * 100 + 100) + "garbage\n")
    assert jobs("ingest", "--jobs", 2, "--json", *paths) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["accepted"], found["rejected"]) == (400, {"malformed": 4})
    assert [one["source"] for one in found["sources"]] == [path.name for path in paths]
    assert jobs("run", "flush") == 0
    assert values(database) == list(range(1, 401))
    assert jobs("ingest", "--jobs", 2, "--json", *paths) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["lines"] == 0


def test_of_several_files_at_once_the_good_ones_are_reported(
    jobs: Jobs, database: Database, tmp_path: Path, capsys: Read
) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 10))
    assert jobs("ingest", "--jobs", 2, "--json", path, tmp_path / "none") == 1
    captured = capsys.readouterr()
    assert f"cannot read {tmp_path}/none: No such file or directory" in captured.err
    assert json.loads(captured.out)["accepted"] == 10
    assert jobs("ingest", "--jobs", 2, "-", path) == 1
    assert "standard input can be read by one process only" in capsys.readouterr().err


def test_files_at_once_end_with_the_one_who_started_them_and_are_gone_on_with(
    jobs: Jobs, database: Database, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.ndjson" for number in range(2)]
    for number, path in enumerate(paths):
        path.write_text(lines(number * 5000 + 1, number * 5000 + 5000))
    ingesters = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s"
    with (
        database.session() as blocking,
        subprocess.Popen(
            [sys.executable, "-m", "jobs", "ingest", "--jobs", "2", *map(str, paths)],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": database.url},
            stderr=subprocess.DEVNULL,
        ) as running,
    ):
        blocking.execute("BEGIN; LOCK TABLE eav.ingest_sources")
        until(lambda: database.one("SELECT count(*) FROM pg_locks WHERE NOT granted") == 2)
        running.send_signal(signal.SIGKILL)
        running.wait(30)
        blocking.execute("ROLLBACK")
        until(lambda: database.one(ingesters, "eav ingest %") == 0)
    assert jobs("ingest", "--jobs", 2, "--flush", *paths) == 0
    assert values(database) == list(range(1, 10_001))


def test_a_position_that_was_never_marked_comes_without_a_mark(jobs: Jobs, database: Database) -> None:
    with db.connect(database.url, "eav_ingest", "test") as connection:
        Stage(connection, "given", partition="7", url=database.url).add(
            [[(1, 1, 42, "n", "2026-01-01T00:00:00Z", "number", "1")]]
        )
    source = Given()
    take(database, source)
    assert source.sought == [(1, None)]


def test_help_teaches(capsys: Read) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ingest", "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for word in ("kinesis://NAME", "--accept-gap", "--follow", "--jobs N", "exit codes"):
        assert word in said
