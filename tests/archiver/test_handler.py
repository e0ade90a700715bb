"""The Lambda function: statistics, logs, metrics, and errors that an alarm can see."""

from __future__ import annotations

import importlib
import json
import logging
import socket
import subprocess
import sys
import time
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from archiver import names, run, state
from archiver.errors import ArchiverError
from archiver.settings import DESCRIBED
from tests.archiver.world import BUCKET, STATE, TABLE, World, item
from tests.aws import Aws


class Now:
    """The standard output of the moment."""

    def write(self, text: str) -> None:
        sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


HANDLERS: list[Any] = []
"""Those of the module's log, which is made once."""


@pytest.fixture
def handler(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ModuleType:
    for name in DESCRIBED:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"SOURCE_TABLE": TABLE, "ARCHIVE_BUCKET": BUCKET, "SEGMENTS": "1"}.items():
        monkeypatch.setenv(name, value)
    module = importlib.import_module("archiver.handler")
    monkeypatch.setattr(module, "connect", lambda *arguments, **more: world.aws)
    # Its log goes to the standard output of this test, and of no other.
    log = logging.getLogger("archiver")
    HANDLERS.extend(one for one in log.handlers if isinstance(one, logging.StreamHandler))
    log.handlers.clear()
    monkeypatch.setattr(log, "handlers", HANDLERS)
    for one in HANDLERS:
        monkeypatch.setattr(one, "stream", Now())
    return module


def context(seconds: float = 900) -> Any:
    return SimpleNamespace(
        function_name="archiver",
        memory_limit_in_mb=1024,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:archiver",
        aws_request_id="made-up",
        get_remaining_time_in_millis=lambda: seconds * 1000,
    )


def test_a_run(handler: ModuleType, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.put(*[item(number) for number in range(5)])
    found = handler.handler({}, context())
    assert found["finished"] is True
    assert found["tables"][0]["stats"]["deleted"] == 5
    json.dumps(found)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    completed = next(line for line in lines if line.get("message") == "Archival process completed")
    assert completed["level"] == "INFO"
    assert completed["service"] == "archiver"
    assert completed["function_request_id"] == "made-up"
    assert {"scanned", "archived", "deleted", "errors", "startTime"} <= completed["stats"].keys()
    assert completed["durationSeconds"] >= 0
    # What the core logs is a line of the same kind.
    archived = [line for line in lines if line.get("message") == "archived"]
    assert sum(line["items"] for line in archived) == 5

    metrics = next(line for line in lines if "_aws" in line)
    assert metrics["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "EavPlatform/Archiver"
    assert set(metrics["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]) == {"service", "table"}
    assert (metrics["table"], metrics["Deleted"], metrics["Errors"], metrics["Finished"]) == (
        TABLE,
        [5],
        [0],
        [1],
    )
    units = {one["Name"]: one["Unit"] for one in metrics["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert (units["Deleted"], units["Bytes"], units["Duration"]) == ("Count", "Bytes", "Seconds")


def test_every_statistic_has_a_unit() -> None:
    assert names.STATISTICS.keys() == run.Stats().__dict__.keys()


def test_near_its_time_limit_it_stops_and_is_gone_on_with(handler: ModuleType, world: World) -> None:
    world.put(item(1))
    found = handler.handler({}, context(seconds=59))
    assert found["finished"] is False
    assert found["tables"][0]["reason"] == "time limit"
    assert world.table() == [item(1)]
    assert handler.handler({}, context())["finished"] is True
    assert world.table() == []


def test_a_dry_run_by_its_event(handler: ModuleType, world: World) -> None:
    world.put(item(1))
    assert handler.handler({"dry_run": True}, context())["tables"][0]["stats"]["archived"] == 1
    assert world.table() == [item(1)]


def test_a_failure_is_raised_after_all_tables_had_their_turn(
    handler: ModuleType, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_TABLE", f"nowhere,{TABLE}")
    world.put(item(1))
    with pytest.raises(ArchiverError, match="could not describe the table nowhere"):
        handler.handler({}, context())
    assert world.table() == []
    metrics = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert [(one["table"], one["Errors"], one["Finished"]) for one in metrics] == [
        ("nowhere", [1], [0]),
        (TABLE, [0], [1]),
    ]


def test_what_it_took_is_said_of_each_table(
    handler: ModuleType, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clock that a request moves by a second."""
    monkeypatch.setattr(
        run, "time", SimpleNamespace(monotonic=lambda: float(len(world.line.requests)), time=time.time)
    )
    world.make_table("events")
    monkeypatch.setenv("SOURCE_TABLE", f"{TABLE},events")
    world.put(*[item(number) for number in range(5)])
    tables = handler.handler({}, context())["tables"]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    closing = [line for line in lines if line.get("message") == "Archival process completed"]
    metrics = [line for line in lines if "_aws" in line]
    assert [one["table"] for one in closing] == [one["table"] for one in metrics] == [TABLE, "events"]
    took = [one["apiCalls"] for one in closing]
    assert sum(took) == len(world.line.requests) - 4, "less what it took to choose the order of tables"
    assert 0 < took[1] < took[0]
    assert [one["durationSeconds"] for one in closing] == took
    assert [(one["Duration"], one["ApiCalls"]) for one in metrics] == [([n], [n]) for n in took]
    assert [(one["seconds"], one["api_calls"]) for one in tables] == [(n, n) for n in took]
    assert closing[1]["stats"]["startTime"] >= closing[0]["stats"]["startTime"] > 1.7e12


TRACED = """
import json, types
from archiver.handler import handler
context = types.SimpleNamespace(
    function_name="archiver", memory_limit_in_mb=1024, invoked_function_arn="made-up", aws_request_id="made-up",
    get_remaining_time_in_millis=lambda: 900_000,
)
try:
    handler({}, context)
except Exception as error:
    print(type(error).__name__)
"""


def traced(aws: Aws, **environment: str) -> list[dict[str, Any]]:
    """What X-Ray's daemon gets of an invocation, in a process to which all is as in Lambda."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.setblocking(False)
        subprocess.run(
            [sys.executable, "-c", TRACED],
            env=aws.environment() | {
                "LAMBDA_TASK_ROOT": "/var/task", "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
                "_X_AMZN_TRACE_ID": f"Root={TRACE};Parent={PARENT};Sampled=1", "ARCHIVE_BUCKET": BUCKET, **environment,
            },
            check=True, timeout=60, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        found: list[dict[str, Any]] = []
        while True:
            try:
                head, _, body = daemon.recv(65536).partition(b"\n")
            except BlockingIOError:
                return found
            assert json.loads(head) == {"format": "json", "version": 1}
            found.append(json.loads(body))


TRACE, PARENT = "1-5759e988-bd862e3fe1be46a994272793", "53995c3f42cd8ad8"


def test_its_trace(aws: Aws) -> None:
    """The real recorder, and what it sends: of the function, of each table, of each call."""
    aws.s3.create_bucket(Bucket=BUCKET)
    state.create_table(aws.dynamodb, STATE)
    for table in (TABLE, "events"):
        aws.dynamodb.create_table(
            TableName=table, AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}], BillingMode="PAY_PER_REQUEST",
        )  # fmt: skip
    aws.dynamodb.put_item(TableName=TABLE, Item=item(1))
    sent = traced(aws, SOURCE_TABLE=f"{TABLE},nowhere,events", SEGMENTS="2")
    assert {one["trace_id"] for one in sent} == {TRACE}
    named = {one["name"]: one for one in sent if one["namespace"] == "local"}
    assert named.keys() == {"## handler", f"## {TABLE}", "## nowhere", "## events"}
    whole = named.pop("## handler")
    assert whole["parent_id"] == PARENT
    assert whole["annotations"] == {"ColdStart": True, "Service": "archiver"}
    assert whole["fault"] is True
    assert {one["parent_id"] for one in named.values()} == {whole["id"]}
    assert [name for name, one in named.items() if one.get("fault")] == ["## nowhere"]
    cause = named["## nowhere"]["cause"]["exceptions"][0]
    assert (cause["type"], "the table nowhere" in cause["message"]) == ("ArchiverError", True)
    calls = [one for one in sent if one["namespace"] == "aws"]
    # Those of the threads, too: two segments of each table, which are looked at and then scanned.
    assert Counter(one["aws"]["operation"] for one in calls)["Scan"] == 8
    assert {"DescribeTable", "PutObject", "GetObject", "TransactWriteItems"} <= {
        one["aws"]["operation"] for one in calls
    }
    within = [one["aws"]["operation"] for one in calls if one["parent_id"] == named["## events"]["id"]]
    assert within[0] == "DescribeTable"
    assert "o00001" not in json.dumps(sent), "what is in the tables is nothing for a trace"


def test_settings_that_are_no_good_are_raised(handler: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_DAYS", "soon")
    with pytest.raises(ArchiverError, match="ARCHIVE_DAYS"):
        handler.handler({}, context())
