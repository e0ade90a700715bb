"""The Lambda function: statistics, logs, metrics, and errors that an alarm can see."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from archiver.errors import ArchiverError
from archiver.settings import DESCRIBED
from tests.archiver.world import BUCKET, TABLE, World, item


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


def test_every_statistic_has_a_unit(handler: ModuleType) -> None:
    run = importlib.import_module("archiver.run")
    assert handler.UNITS.keys() == run.Stats().__dict__.keys()


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


def test_settings_that_are_no_good_are_raised(handler: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_DAYS", "soon")
    with pytest.raises(ArchiverError, match="ARCHIVE_DAYS"):
        handler.handler({}, context())
