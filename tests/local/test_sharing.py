from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.sharing import Facts, shared

USER = """
import sys
from pathlib import Path
from local.sharing import shared
journal = Path(sys.argv[2])

def note(word):
    with journal.open("a") as out:
        out.write(word + "\\n")

def start(folder):
    note("start")
    return {"number": "42"}

def stop(folder, facts):
    note("stop " + facts.get("number", "nothing"))

with shared("eav-sharing-test", sys.argv[1], start, stop) as facts:
    print("in", facts["number"], flush=True)
    sys.stdin.readline()
"""


class User:
    """A process that shares until it is told to leave."""

    def __init__(self, run: str, journal: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, run, str(journal)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def joined(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "in 42\n"

    def leave(self) -> None:
        self.process.communicate("\n", timeout=30)
        assert self.process.returncode == 0

    def die(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path / "journal"
    monkeypatch.setattr(tempfile, "tempdir", None)


def links(folder: Path) -> list[str]:
    """What the links in `folder` point at; those that go away meanwhile are left out."""
    found = []
    for link in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return found


def words(journal: Path) -> list[str]:
    return journal.read_text().splitlines()


def leftovers(journal: Path) -> list[Path]:
    return list(journal.parent.glob("eav-sharing-test-*"))


def test_started_once_and_stopped_by_the_last_to_leave(journal: Path) -> None:
    users = [User("run", journal) for _ in range(4)]
    for user in users:
        user.joined()
    assert words(journal) == ["start"]
    for user in users[:-1]:
        user.leave()
    assert words(journal) == ["start"]
    users[-1].leave()
    assert words(journal) == ["start", "stop 42"]
    assert leftovers(journal) == []


def test_many_coming_and_going_at_once_never_use_a_stopped_thing(journal: Path) -> None:
    users = [User("run", journal) for _ in range(6)]
    for user in users:
        user.joined()
        user.leave()
    found = words(journal)
    assert found == ["start", "stop 42"] * (len(found) // 2)
    assert leftovers(journal) == []


def test_a_folder_removed_while_somebody_waits_for_it_is_made_anew(journal: Path) -> None:
    """As when the last user leaves while the next one comes."""
    folder = journal.parent / f"eav-sharing-test-{os.geteuid()}-run"
    folder.mkdir()
    with (folder / "gate.lock").open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        coming = User("run", journal)
        open_files = Path(f"/proc/{coming.process.pid}/fd")
        deadline = time.monotonic() + 30
        while not any(opened.endswith("gate.lock") for opened in links(open_files)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        shutil.rmtree(folder)
    coming.joined()
    assert folder.exists()
    coming.leave()
    assert words(journal) == ["start", "stop 42"]


def test_a_killed_user_does_not_keep_it_up(journal: Path) -> None:
    killed, stays = User("run", journal), User("run", journal)
    killed.joined()
    stays.joined()
    killed.die()
    assert words(journal) == ["start"]
    stays.leave()
    assert words(journal) == ["start", "stop 42"]


def test_what_a_killed_run_left_is_stopped_by_the_next_one_and_a_living_one_is_not(journal: Path) -> None:
    dead, living = User("dead", journal), User("living", journal)
    dead.joined()
    living.joined()
    dead.die()
    assert len(leftovers(journal)) == 2
    following = User("next", journal)
    following.joined()
    assert words(journal) == ["start", "start", "stop 42", "start"]
    following.leave()
    living.leave()
    assert leftovers(journal) == []


def test_a_failed_start_leaves_nothing_and_is_tried_again(journal: Path) -> None:
    def fail(folder: Path) -> Facts:
        raise RuntimeError("no luck")

    with (
        pytest.raises(RuntimeError, match="no luck"),
        shared("eav-sharing-test", "run", fail, lambda *_: None),
    ):
        pass
    assert leftovers(journal) == []
    with shared("eav-sharing-test", "run", lambda folder: {"number": "7"}, lambda *_: None) as facts:
        assert facts == {"number": "7"}


def test_a_folder_of_somebody_else_is_not_used(journal: Path) -> None:
    planted = journal.parent / f"eav-sharing-test-{os.geteuid()}-run"
    planted.symlink_to(journal.parent)
    with (
        pytest.raises(PermissionError, match="belongs to somebody else"),
        shared("eav-sharing-test", "run", lambda folder: {}, lambda *_: None),
    ):
        pass
