from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from infra import checklist
from infra.checklist import Checklist, Line
from infra.graph import Graph
from tests.infra.account import empty_account
from tests.infra.changed import graph as changed_graph
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
    assert len(found) == 10, "the rest goes on"


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
    state, detail = looked_up(graph, account, "before")["no alarm is up"]
    assert state == "failed"
    assert detail.startswith(f"{name} since ")
    assert "of-somebody-else" not in detail


def test_a_notice_that_has_been_up_for_long_is_a_persons_and_a_page_is_not(
    account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack to which nobody sends could not be deployed to."""
    graph = graph_of("staging")
    page = graph.one("sns.Topic", "topic-page").outputs["arn"]
    found = [
        *graph.of_kind("cloudwatch.MetricAlarm"),
        *graph.of_kind("cloudwatch.CompositeAlarm"),
    ]
    (paging, *_), (quiet, *_) = (
        [
            one.inputs.get("name") or one.inputs["alarmName"]
            for one in found
            if (page in (one.inputs.get("alarmActions") or ())) is wanted
        ]
        for wanted in (True, False)
    )
    watch = account.client("cloudwatch")
    monkeypatch.setattr(checklist, "FRESH", timedelta(0))
    for name, state in ((quiet, "by hand"), (paging, "failed")):
        watch.put_metric_alarm(
            AlarmName=name, Namespace="n", MetricName="m", Period=60, EvaluationPeriods=1, Threshold=1,
            ComparisonOperator="GreaterThanThreshold", Statistic="Sum",
        )  # fmt: skip
        watch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
        is_state, detail = looked_up(graph, account, "before")["no alarm is up"]
        assert is_state == state
        assert name in detail


def test_a_database_that_is_there_is_fine_and_one_without_a_backup_is_not(account: Any) -> None:
    graph = graph_of("dev")
    make_database(account, graph)
    assert looked_up(graph, account, "after")["the database is available, with nothing pending"][0] == "ok"
    assert looked_up(graph, account, "before")["the database can be restored to now"][0] in ("ok", "failed")


WATCHED = {*checklist.KEY_FIGURES, "alarm-stream-silent"}
SOURCE = {
    "before": {
        "review what changes": "what changes was read",
        "back up the database": "the database can be restored to now",
        "staging matches prod": "the stack before this one is like it",
        "schema changes were tested on staging": "the image runs in that stack, on its schema",
        "the team knows": "people know",
    },
    "after": {
        "key metrics": "values come in, are durable soon, and the disk is fast",
        "replica lag under 3 s": "replicas are less than 3 s behind",
        "critical user flows": "what users do works",
        "errors for an hour": "it stays so for an hour",
        "lessons learned": "lessons are written down",
    },
}
"""What the source document has on its list → the line that has it."""


@pytest.mark.parametrize("when", list(SOURCE))
def test_the_checklist_of_the_source(account: Any, when: str) -> None:
    assert set(SOURCE[when].values()) <= set(looked_up(graph_of("prod"), account, when))


def test_the_stack_before_is_not_behind(account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    title = "the stack before this one is like it"
    assert looked_up(graph_of("dev"), account, "before")[title][0] == "ok"
    state, detail = looked_up(graph_of("prod"), account, "before")[title]
    assert state == "by hand"
    assert "s3.BucketObjectLockConfiguration" in detail
    assert "plan prod --diff staging" in detail
    monkeypatch.setattr(checklist, "load_graph", lambda stack: graph_of("prod"))
    assert looked_up(graph_of("prod"), account, "before")[title] == ("ok", "staging has all that prod has")
    newer = changed_graph("prod", postgres={"engine_version": "18"})
    assert looked_up(newer, account, "before")[title] == (
        "failed",
        "staging has PostgreSQL 17, prod is to have 18",
    )


def test_what_prod_is_to_run_runs_in_staging(account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    title, digest = "the image runs in that stack, on its schema", "sha256:" + "1" * 64
    prod, staging = (changed_graph(one, workers={"image_digest": digest}) for one in ("prod", "staging"))
    monkeypatch.setattr(checklist, "load_graph", lambda stack: staging)
    assert looked_up(graph_of("prod"), account, "before")[title] == ("ok", "no image is set")
    assert looked_up(prod, account, "before")[title][0] == "unknown", "there is no cluster"
    ecs = account.client("ecs")
    services = staging.of_kind("ecs.Service")
    ecs.create_cluster(clusterName=str(services[0].inputs["cluster"]).rsplit("/", 1)[-1])
    assert looked_up(prod, account, "before")[title] == (
        "failed",
        "staging has no service that runs it: deploy it there",
    )

    def deploy(image: str) -> None:
        ecs.register_task_definition(
            family="task", containerDefinitions=[{"name": "task", "image": image, "memory": 64}]
        )
        for one in services:
            settings = {"cluster": one.inputs["cluster"].rsplit("/", 1)[-1], "taskDefinition": "task"}
            try:
                ecs.update_service(service=one.inputs["name"], **settings)
            except ecs.exceptions.ServiceNotFoundException:
                ecs.create_service(serviceName=one.inputs["name"], desiredCount=0, **settings)

    deploy("registry/eav@sha256:" + "2" * 64)
    state, detail = looked_up(prod, account, "before")[title]
    assert state == "failed"
    assert all(one.inputs["name"] in detail for one in services)
    deploy(f"registry/eav@{digest}")
    assert looked_up(prod, account, "before")[title] == ("ok", f"{len(services)} services of staging")


def test_key_figures_are_looked_at_before_alarms_have_made_up_their_mind(account: Any) -> None:
    graph = graph_of("dev")
    title = "values come in, are durable soon, and the disk is fast"
    state, detail = looked_up(graph, account, "after")[title]
    assert state == "unknown"
    assert detail.startswith("nothing came in for 10 min")

    def say(values: dict[str, float]) -> None:
        for one in graph.of_kind("cloudwatch.MetricAlarm"):
            if one.name in WATCHED and one.inputs["metricName"] in values:
                account.client("cloudwatch").put_metric_data(
                    Namespace=one.inputs["namespace"],
                    MetricData=[
                        {
                            "MetricName": one.inputs["metricName"],
                            "Dimensions": [
                                {"Name": name, "Value": value}
                                for name, value in one.inputs["dimensions"].items()
                            ],
                            "Timestamp": datetime.now(UTC) - timedelta(minutes=2),
                            "Value": values[one.inputs["metricName"]],
                        }
                    ],
                )

    well = {
        "StagedAge": 0.4,
        "GetRecords.IteratorAgeMilliseconds": 210.0,
        "IncomingRecords": 12_000.0,
        "ReadLatency": 0.001,
        "WriteLatency": 0.002,
    }
    say({"IncomingRecords": 12_000.0, "StagedAge": 0.4})
    assert looked_up(graph, account, "after")[title][1].startswith("nothing said of GetRecords")
    say(well)
    state, detail = looked_up(graph, account, "after")[title]
    assert state == "ok"
    assert all(name in detail for name in well)
    say({"StagedAge": 700.0})
    assert looked_up(graph, account, "after")[title] == ("failed", "StagedAge 700, should be at most 60")


def test_the_lag_of_replicas_is_what_cloudwatch_says(account: Any) -> None:
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
