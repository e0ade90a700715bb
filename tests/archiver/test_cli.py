"""The command line: what it prints, its exit codes, and a process that is killed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archiver import cli, state
from archiver.settings import DESCRIBED
from tests.archiver.world import BUCKET, STATE, TABLE, World, item
from tests.aws import Aws
from tests.jobs.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def told(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, as the command line finds it. Items are much older than today."""
    for name in DESCRIBED:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"SOURCE_TABLE": TABLE, "ARCHIVE_BUCKET": BUCKET, "SEGMENTS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "_connect", lambda settings: world.aws)
    return world


def test_run_verify_restore(told: World, capsys: pytest.CaptureFixture[str]) -> None:
    told.put(*[item(number) for number in range(5)])
    assert cli.main(["run"]) == 0
    said = capsys.readouterr()
    assert "finished" in said.out
    assert " requests" in said.err
    assert told.table() == []

    assert cli.main(["verify"]) == 0
    assert "with 5 items" in capsys.readouterr().out

    told.make_table("restored")
    assert cli.main(["restore", "--table", "restored", "--key", "o00003"]) == 0
    assert "1 items of 1 objects" in capsys.readouterr().out
    assert told.table("restored") == [item(3)]
    assert cli.main(["restore", "--table", "restored", "--all"]) == 0
    assert len(told.table("restored")) == 5


def test_json(told: World, capsys: pytest.CaptureFixture[str]) -> None:
    told.put(item(1))
    assert cli.main(["run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tables"][0]["stats"]["deleted"] == 1
    assert found["tables"][0]["finished"] is True
    assert found["api_calls"]["TransactWriteItems"] == 2
    assert cli.main(["verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["read"] == 1
    told.make_table("restored")
    assert cli.main(["restore", "--json", "--all", "--table", "restored"]) == 0
    assert json.loads(capsys.readouterr().out)["restored"] == 1
    assert cli.main(["setup", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"state_table": STATE, "made": False}


def test_a_dry_run_says_so(told: World, capsys: pytest.CaptureFixture[str]) -> None:
    told.put(item(1))
    assert cli.main(["run", "--dry-run"]) == 0
    assert "dry run: nothing was written" in capsys.readouterr().out
    assert told.table() == [item(1)]


def test_a_run_that_has_to_be_run_again(told: World, capsys: pytest.CaptureFixture[str]) -> None:
    told.put(item(1))
    assert cli.main(["run", "--time-limit", "0.000001"]) == cli.NOT_YET
    said = capsys.readouterr()
    assert "time limit" in said.out
    assert "run it again" in said.err
    assert cli.main(["run"]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "SOURCE_TABLE is not set"),
        (["restore", "--table", "nowhere", "--all"], "could not describe the table nowhere"),
        (["restore", "--table", TABLE, "--day", "today"], "'today' is no day"),
        (["restore", "--table", TABLE, "--all", "--filter", "=="], "is no JMESPath"),
        (["verify", "--day", "2024-13-01"], "is no day"),
    ],
)
def test_a_mistake_is_one_line(
    told: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    if says.startswith("SOURCE"):
        monkeypatch.delenv("SOURCE_TABLE")
    assert cli.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"python -m archiver {arguments[0]}: ")
    assert says in said
    assert said.count("\n") == 1


def test_a_key_that_is_not_in_the_archive(told: World, capsys: pytest.CaptureFixture[str]) -> None:
    told.put(item(1))
    cli.main(["run"])
    assert cli.main(["restore", "--table", TABLE, "--key", "o00002"]) == 1
    assert "the archive has no item o00002" in capsys.readouterr().err


def test_problems_are_said_and_fail(told: World, capsys: pytest.CaptureFixture[str]) -> None:
    told.put(item(1))
    cli.main(["run"])
    told.s3.delete_object(Bucket=BUCKET, Key=min(told.objects()))
    capsys.readouterr()
    assert cli.main(["verify"]) == 1
    assert "is not there" in capsys.readouterr().err


def test_each_line_is_said_once(
    told: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python itself prints what is logged where nobody listens, as in a process of its own."""
    for name in ("archiver", None):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    monkeypatch.setenv("SOURCE_TABLE", f"nowhere,{TABLE}")
    assert cli.main(["run"]) == 1
    said = capsys.readouterr().err
    assert said.count("could not describe the table nowhere") == 1


def make_table(aws: Aws, name: str) -> None:
    aws.dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )


def fill(aws: Aws, items: int) -> None:
    """A bucket, and a table with so many old items."""
    aws.s3.create_bucket(Bucket=BUCKET)
    make_table(aws, TABLE)
    state.create_table(aws.dynamodb, STATE)
    for first in range(0, items, 25):
        puts: list[Any] = [{"PutRequest": {"Item": item(n)}} for n in range(first, min(items, first + 25))]
        aws.dynamodb.batch_write_item(RequestItems={TABLE: puts})


@pytest.mark.timeout(120)
def test_a_process_that_is_killed_again_and_again(aws: Aws) -> None:
    """kill -9 after each bit of progress; what it leaves is gone on with, and all comes back."""
    fill(aws, 120)
    environment = aws.environment() | {
        "SOURCE_TABLE": TABLE, "ARCHIVE_BUCKET": BUCKET, "SEGMENTS": "2", "OBJECT_ITEMS": "30", "BATCH_SIZE": "4",
    }  # fmt: skip

    def left() -> int:
        return aws.dynamodb.scan(TableName=TABLE, Select="COUNT")["Count"]

    def unlock() -> None:
        aws.dynamodb.delete_item(TableName=STATE, Key={"table": {"S": TABLE}, "what": {"S": "lock"}})

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "archiver", "run"],
            cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    for _ in range(2):
        before = left()
        process = start()
        until(lambda before=before, process=process: left() < before - 5 or process.poll() is not None)  # type: ignore[misc]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert left() > 0, "it was done before it was killed"
        unlock()  # nobody waits a minute here
    process = start()
    assert process.wait(60) == 0, process.communicate()
    assert left() == 0
    make_table(aws, "restored")
    restored = subprocess.run(
        [sys.executable, "-m", "archiver", "restore", "--all", "--table", "restored", "--json"],
        cwd=REPOSITORY, env=environment, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert json.loads(restored.stdout)["restored"] == 120


@pytest.mark.timeout(60)
def test_sigterm_ends_a_run_cleanly(aws: Aws) -> None:
    fill(aws, 60)
    environment = aws.environment() | {
        "SOURCE_TABLE": TABLE, "ARCHIVE_BUCKET": BUCKET, "SEGMENTS": "1", "BATCH_SIZE": "2",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "archiver", "run", "--json"],
        cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until(lambda: aws.dynamodb.scan(TableName=TABLE, Select="COUNT")["Count"] < 55)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == cli.NOT_YET, err
    assert json.loads(out)["tables"][0]["reason"] == "stopped"
    # Its lock is given back: the next run goes on at once.
    held = aws.dynamodb.get_item(TableName=STATE, Key={"table": {"S": TABLE}, "what": {"S": "lock"}})
    assert "Item" not in held
