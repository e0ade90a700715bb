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
        (["restore", "--table", TABLE, "--all"], "there are no archives in s3://archive/archives/"),
        (["restore", "--table", TABLE, "--object", "x"], "there is no s3://archive/x"),
        (
            ["restore", "--table", TABLE, "--object", "s3://other/x"],
            "s3://other/x is not in the bucket s3://archive/",
        ),
        (["restore", "--table", TABLE, "--key", "N:x"], "--key 'x' is no number"),
        (["restore", "--table", TABLE, "--key", "N:1e999999999"], "is beyond what DynamoDB holds"),
        (["restore", "--table", TABLE, "--key", "N:NaN"], "is beyond what DynamoDB holds"),
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


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("ARCHIVE_BUCKET", "nowhere", "could not write to s3://nowhere/manifests/: NoSuchBucket"),
        ("FILTER_EXPRESSION", "((", "could not scan orders: ValidationException"),
        ("STATE_TABLE", "restored", "could not lock in the state table restored: ValidationException"),
        ("STATE_TABLE", "nowhere", "there is no state table nowhere (STATE_TABLE): make it with"),
        ("SOURCE_TABLE", "nowhere", "could not describe the table nowhere"),
    ],
)
def test_what_is_wrong_for_each_segment_is_one_line(
    told: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, setting: str, value: str,
    says: str,
) -> None:  # fmt: skip
    told.make_table("restored")
    told.put(*[item(number) for number in range(20)])
    monkeypatch.setenv("SEGMENTS", "4")
    monkeypatch.setenv(setting, value)
    assert cli.main(["run"]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" requests")]
    assert [line.startswith(f"python -m archiver run: {says}") for line in said] == [True], said
    assert len(told.table()) == 20


def test_what_is_wrong_with_each_object_is_said_of_some(
    told: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "MOST_PROBLEMS", 2)
    for number in range(4):
        told.s3.put_object(Bucket=BUCKET, Key=f"archives/2024/01/20/archive-{number}.json", Body=b"{")
    assert cli.main(["restore", "--table", TABLE, "--all"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[-1] == "python -m archiver restore: and 2 more: --json has them all"
    assert cli.main(["restore", "--table", TABLE, "--all", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 4


def test_a_table_that_the_archive_has_nothing_of(told: World, capsys: pytest.CaptureFixture[str]) -> None:
    told.put(item(1))
    cli.main(["run"])
    assert cli.main(["restore", "--table", TABLE, "--all", "--from-table", "ordres"]) == 1
    assert "none of these archives is of the table ordres" in capsys.readouterr().err
    assert cli.main(["restore", "--table", TABLE, "--all", "--from-table", TABLE]) == 0


@pytest.mark.parametrize("days", ["0", "-3", "x", "1.5", ""])
def test_days_that_are_none(capsys: pytest.CaptureFixture[str], days: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["restore", "--table", TABLE, "--all", f"--thaw-days={days}"])
    assert "is no number of days" in capsys.readouterr().err


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
