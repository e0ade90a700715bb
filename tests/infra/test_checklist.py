from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from infra import checklist
from infra.checklist import Checklist, Line
from infra.graph import Graph
from tests.infra.account import empty_account
from tests.infra.conftest import graph_of

REGION = "eu-central-1"


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with empty_account(monkeypatch):
        yield boto3.Session(region_name=REGION)


def looked_up(graph: Graph, session: Any, when: Any) -> dict[str, tuple[str, str]]:
    return {line.title: (line.state, line.detail) for line in Checklist(graph, session).run(when)}


def make_database(session: Any, graph: Graph) -> None:
    rds = session.client("rds")
    (primary,) = (one for one in graph.of_kind("rds.Instance") if "replicateSourceDb" not in one.inputs)
    rds.create_db_instance(
        DBInstanceIdentifier=primary.inputs["identifier"],
        DBInstanceClass="db.t4g.large",
        Engine="postgres",
        AllocatedStorage=100,
    )


def test_an_empty_account_is_not_fine_and_every_line_is_looked_at(account: Any) -> None:
    found = looked_up(graph_of("dev"), account, "after")
    state, detail = found["the database is available, with nothing pending"]
    assert state == "unknown"
    assert "not found" in detail.lower()
    assert found["lessons are written down"][0] == "by hand"
    assert len(found) == 7, "the rest goes on"


def test_a_list_of_which_nothing_could_be_seen_is_not_well(
    account: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setattr(
        Checklist,
        "run",
        lambda self, when: iter([Line("a", "unknown", "no credentials"), Line("b", "by hand", "")]),
    )
    assert checklist.main(["dev", "after"]) == 1
    assert "1 could not be looked up: --strict counts them as failed" in capsys.readouterr().out
    monkeypatch.setattr(
        Checklist, "run", lambda self, when: iter([Line("a", "unknown", "not yet"), Line("b", "ok", "")])
    )
    assert checklist.main(["dev", "after"]) == 0
    with pytest.raises(SystemExit):
        checklist.main(["dev", "after", "--watch", "-3"])


def test_alarms_that_are_up_are_named(account: Any) -> None:
    graph = graph_of("dev")
    name = str(graph.of_kind("cloudwatch.MetricAlarm")[0].inputs["name"])
    watch = account.client("cloudwatch")
    for one in (name, "of-somebody-else"):
        watch.put_metric_alarm(
            AlarmName=one, Namespace="n", MetricName="m", Period=60, EvaluationPeriods=1, Threshold=1,
            ComparisonOperator="GreaterThanThreshold", Statistic="Sum",
        )  # fmt: skip
    assert looked_up(graph, account, "before")["no alarm is up"][0] == "ok"
    for one in (name, "of-somebody-else"):
        watch.set_alarm_state(AlarmName=one, StateValue="ALARM", StateReason="a test")
    assert looked_up(graph, account, "before")["no alarm is up"] == ("failed", name)


def test_a_database_that_is_there_is_fine_and_one_without_a_backup_is_not(account: Any) -> None:
    graph = graph_of("dev")
    make_database(account, graph)
    assert looked_up(graph, account, "after")["the database is available, with nothing pending"][0] == "ok"
    assert looked_up(graph, account, "before")["the database can be restored to now"][0] in ("ok", "failed")


def test_the_lag_of_replicas_is_what_cloudwatch_says(account: Any) -> None:
    from datetime import UTC, datetime, timedelta

    graph = graph_of("staging")
    title = "replicas are less than 3 s behind"
    assert looked_up(graph, account, "after")[title][0] == "unknown", "silence is not health"
    (replica,) = (one for one in graph.of_kind("rds.Instance") if "replicateSourceDb" in one.inputs)

    def say(seconds: float) -> None:
        account.client("cloudwatch").put_metric_data(
            Namespace="AWS/RDS",
            MetricData=[
                {
                    "MetricName": "ReplicaLag",
                    "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": replica.inputs["identifier"]}],
                    "Timestamp": datetime.now(UTC) - timedelta(minutes=2),
                    "Value": seconds,
                }
            ],
        )

    say(0.4)
    assert looked_up(graph, account, "after")[title][0] == "ok"
    say(7.5)
    assert looked_up(graph, account, "after")[title] == (
        "failed",
        f"at most 7.5 s ({replica.inputs['identifier']})",
    )


def test_an_image_goes_to_staging_before_prod(account: Any) -> None:
    prod = graph_of("prod")
    digest = "sha256:" + "1" * 64
    workers = prod.settings.workers.model_copy(update={"image_digest": digest})
    graph = Graph(prod.settings.model_copy(update={"workers": workers}), prod.resources)
    state, detail = looked_up(graph, account, "before")["the image was in the stack before this one"]
    assert state == "failed"
    assert digest in detail


def test_it_ends_with_what_scripts_need(
    account: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checklist, "load_graph", graph_of)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    code = checklist.main(["dev", "after", "--json"])
    lines = json.loads(capsys.readouterr().out)
    assert code == int(any(line["state"] == "failed" for line in lines))
    assert checklist.main(["dev", "after", "--strict"]) == 1, "what is unknown is not well"
    assert "by hand" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        checklist.main(["dev", "after", "--json", "--watch", "1"])
    assert ended.value.code == 2
