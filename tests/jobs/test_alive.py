"""The file of `--alive` is touched by the loop itself, as long as that turns."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import alive, db, worker
from jobs.errors import ConnectionLostError, JobsError
from jobs.events import Events
from jobs.worker import Worker
from tests.conftest import Database
from tests.jobs.streams import SOURCE, emulator
from tests.jobs.waiting import until


class Beats:
    """Counts, and asks to stop at a number of them."""

    def __init__(self, most: int) -> None:
        self.count, self.most, self.stop = 0, most, threading.Event()

    def __call__(self) -> None:
        self.count += 1
        if self.count >= self.most:
            self.stop.set()

    def work(self, database: Database) -> list[str]:
        """A worker without jobs, until the last beat; what it says."""
        said = io.StringIO()
        Worker(database.url, Events(as_json=False, stream=said), self.stop, (), self).run()
        return said.getvalue().splitlines()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POLL", 0.01)


def test_a_worker_beats_while_it_leads_and_while_it_stands_by(database: Database) -> None:
    leader, follower = Beats(10**9), Beats(20)
    thread = threading.Thread(target=leader.work, args=[database])
    thread.start()
    try:
        until(lambda: leader.count >= 20)
        said = follower.work(database)
    finally:
        leader.stop.set()
        thread.join()
    assert any("standing by" in one for one in said)
    assert not any("leading:" in one for one in said)


def test_a_worker_beats_while_the_server_is_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, tried = db.connect, 0

    def lost(*arguments: str) -> db.Connection:
        nonlocal tried
        tried += 1
        if tried > 1:
            raise ConnectionLostError("away")
        return connect(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(db, "connect", lost)
    monkeypatch.setattr(worker, "PAUSE_MOST", 0.01)
    assert any("away; trying again" in one for one in Beats(4).work(database))


def test_an_ingester_of_a_stream_beats(
    jobs: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    beats, made = Beats(10**9), []

    def beat(path: Path) -> Beats:
        made.append(path)
        return beats

    monkeypatch.setattr(alive, "beat", beat)
    with emulator(monkeypatch) as kinesis:
        kinesis.create()
        assert jobs("ingest", SOURCE, "--alive", tmp_path / "alive") == 0
    assert made == [tmp_path / "alive"]
    assert beats.count > 1


def test_the_file_is_there_from_the_first_moment_and_its_age_is_that_of_the_last_turn(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    beat = alive.beat(path)
    os.utime(path, (0, 0))
    beat()
    assert path.stat().st_mtime > 1e9


def test_a_file_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JobsError, match=r"--alive: cannot write .*/none/alive: No such file"):
        alive.beat(tmp_path / "none" / "alive")
