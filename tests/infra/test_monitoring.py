"""Alarms, incidents, the dashboard and the publisher in the graph of each stack."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from infra import publisher
from infra.bundle import FIGURES
from infra.graph import Graph, Resource
from infra.monitoring import OPERATORS
from infra.settings import AWAKE_LEAST, Cost, minutes
from tests.infra.conftest import STACKS, graph_of
from tests.infra.test_alarms import ALARMS, known

DIMENSIONS = {
    "DBInstanceIdentifier": ("rds.Instance", "identifier"),
    "ProxyName": ("rds.Proxy", "name"),
    "ClusterIdentifier": ("redshift.Cluster", "clusterIdentifier"),
    "Workgroup": ("redshiftserverless.Workgroup", "workgroupName"),
    "StreamName": ("kinesis.Stream", "name"),
    "TableName": ("dynamodb.Table", "name"),
    "BucketName": ("s3.Bucket", "bucket"),
    "FunctionName": ("lambda.Function", "name"),
    "StateMachineArn": ("sfn.StateMachine", "arn"),
    "QueueName": ("sqs.Queue", "name"),
    "ClusterName": ("ecs.Cluster", "name"),
    "ServiceName": ("ecs.Service", "name"),
    "NatGatewayId": ("ec2.NatGateway", "id"),
    "TopicName": ("sns.Topic", "name"),
    "FilterId": ("s3.BucketMetric", "name"),
    "table": ("dynamodb.Table", "name"),
}
"""Dimension → what it names: kind of resource, and property of that."""
FREE = {"Stack", "TargetGroup", "TargetRole", "DatabaseName", "Operation", "service", "Path"}


def metrics_of(alarm: Resource) -> list[dict[str, Any]]:
    """namespace, metricName, dimensions of each metric of an alarm."""
    queries = alarm.inputs.get("metricQueries")
    if queries is None:
        return [dict(alarm.inputs)]
    return [one["metric"] for one in queries if "metric" in one]


def named(graph: Graph, dimension: str) -> set[str]:
    kind, name = DIMENSIONS[dimension]
    return {one.outputs[name] for one in graph.of_kind(kind)}


def test_every_alarm_watches_a_resource_of_the_stack(graph: Graph) -> None:
    for alarm in graph.of_kind("cloudwatch.MetricAlarm"):
        for metric in metrics_of(alarm):
            for dimension, value in metric.get("dimensions", {}).items():
                assert dimension in FREE or value in named(graph, dimension), (alarm.name, dimension, value)


def test_an_alarm_is_what_the_catalogue_says(graph: Graph) -> None:
    # The catalogue is what the tests of thresholds look at; this is that AWS gets the same.
    catalogue = {f"alarm-{one.name}": one for one in ALARMS[graph.settings.stack][1]}
    for alarm in graph.of_kind("cloudwatch.MetricAlarm"):
        said, got = catalogue[alarm.name], alarm.inputs
        assert got["threshold"] == said.threshold
        assert (got["datapointsToAlarm"], got["evaluationPeriods"]) == (said.datapoints, said.periods)
        assert got["comparisonOperator"] == OPERATORS[said.comparison]
        assert got["treatMissingData"] == said.missing.treat
        assert got["alarmDescription"] == said.description
        shown = metrics_of(alarm)
        expressions = [one for one in got.get("metricQueries", ()) if "expression" in one]
        assert [one["expression"] for one in expressions] == ([said.expression] if said.expression else [])
        assert [one.get("returnData") for one in expressions] in ([], [True])
        for metric, found in zip(said.metrics, shown, strict=True):
            assert (found["namespace"], found["metricName"]) == (metric.namespace, metric.name)
            assert (found.get("stat") or found["statistic"]) == metric.statistic
            assert found["period"] == metric.period
            # Of a gateway only AWS knows the name, when it has made it.
            assert {name: value for name, value in found["dimensions"].items() if name != "NatGatewayId"} == {
                name: value for name, value in metric.dimensions.items() if name != "NatGatewayId"
            }


def test_an_alarm_is_a_child_of_the_component_it_watches(graph: Graph) -> None:
    homes = {
        "DBInstanceIdentifier": "postgres", "ProxyName": "postgres", "StreamName": "stream", "TableName": "items",
        "BucketName": "archive", "NatGatewayId": "network", "Workgroup": "warehouse", "ClusterIdentifier": "warehouse",
        "ServiceName": "workers", "TopicName": "notices", "Stack": "publisher", "StateMachineArn": "archiver",
    }  # fmt: skip
    for alarm in graph.of_kind("cloudwatch.MetricAlarm"):
        dimensions = metrics_of(alarm)[0].get("dimensions", {})
        for dimension in dimensions.keys() & homes.keys():
            assert graph.component(alarm) == homes[dimension], alarm.name
        assert not alarm.protect


def test_who_is_told(graph: Graph) -> None:
    topics = {one.name.removeprefix("topic-"): one.outputs["arn"] for one in graph.of_kind("sns.Topic")}
    incidents = graph.of_kind("cloudwatch.CompositeAlarm")
    rules = " ".join(one.inputs["alarmRule"] for one in incidents)
    members = set(re.findall(r'ALARM\("([^"]+)"\)', rules))
    everything = {one.inputs["name"]: one for one in graph.of_kind("cloudwatch.MetricAlarm")}
    for name, alarm in everything.items():
        assert alarm.inputs["alarmActions"] == alarm.inputs["okActions"]
        assert alarm.inputs["alarmActions"] in ([], [topics["notice"]])
        silent = name in members or name.endswith("warehouse-maintenance")
        assert (alarm.inputs["alarmActions"] == []) == silent, name
    told = [one.inputs["alarmActions"] for one in incidents]
    assert all(one.inputs["alarmActions"] == one.inputs["okActions"] for one in incidents)
    assert ([topics["page"]] in told) == (not graph.settings.cost.rest)
    assert members <= everything.keys() | {one.inputs["alarmName"] for one in incidents}


def test_an_incident_waits_for_its_cause(prod: Graph) -> None:
    waiting = prod.one("cloudwatch.CompositeAlarm", "incident-data-flow")
    assert waiting.inputs["actionsSuppressor"] == {
        "alarm": "eav-prod-incident-platform-trouble", "waitPeriod": 180, "extensionPeriod": 300,
    }  # fmt: skip
    (cause,) = waiting.references["actionsSuppressor"]
    rule = prod.resources[cause].inputs["alarmRule"]
    assert 'ALARM("eav-prod-incident-database-unavailable") OR ' in rule


def test_alarms_on_silence_wait_for_who_is_to_speak(prod: Graph) -> None:
    schedule = prod.one("scheduler.Schedule", "publisher").urn
    assert schedule in prod.one("cloudwatch.MetricAlarm", "alarm-figures-missing").depends_on


def test_s3_is_asked_for_the_metrics_that_alarms_watch(graph: Graph) -> None:
    counted = {(one.inputs["bucket"], one.inputs["name"]) for one in graph.of_kind("s3.BucketMetric")}
    watched = {
        (metric["dimensions"]["BucketName"], metric["dimensions"]["FilterId"])
        for alarm in graph.of_kind("cloudwatch.MetricAlarm")
        for metric in metrics_of(alarm)
        if metric.get("namespace") == "AWS/S3"
    }
    assert watched == counted
    assert len(counted) == 2


# -- the dashboard -------------------------------------------------------------------------------------------


def widgets(graph: Graph) -> list[dict[str, Any]]:
    body = json.loads(graph.one("cloudwatch.Dashboard").inputs["dashboardBody"])
    found: list[dict[str, Any]] = body["widgets"]
    return found


def test_widgets_neither_overlap_nor_leave_the_grid(graph: Graph) -> None:
    def area(one: dict[str, Any]) -> set[tuple[int, int]]:
        across = range(one["x"], one["x"] + one["width"])
        return {(x, y) for x in across for y in range(one["y"], one["y"] + one["height"])}

    found = widgets(graph)
    for one in found:
        assert 0 <= one["x"] < one["x"] + one["width"] <= 24
        assert one["height"] >= 1
    for one, other in combinations(found, 2):
        assert not area(one) & area(other)
    assert len(found) < 100  # and 500 is what CloudWatch takes


def test_every_chart_shows_what_is_published_of_what_the_stack_has(graph: Graph) -> None:
    from infra.alarms import Metric

    shown = set()
    for one in widgets(graph):
        for line in one["properties"].get("metrics", []):
            namespace, name, *pairs, options = line
            dimensions = dict(zip(pairs[::2], pairs[1::2], strict=True))
            assert known(Metric(namespace, name, dimensions, options["stat"], options["period"])), line
            for dimension, value in dimensions.items():
                if dimension not in FREE | {"Currency", "StorageType"}:
                    assert value in named(graph, dimension), line
            shown.add((namespace, name))
    assert ("EavPlatform/Database", "Freshness") in shown
    assert ("AWS/Billing", "EstimatedCharges") in shown


def test_a_threshold_is_a_line_in_the_chart_of_what_it_is_of(prod: Graph) -> None:
    (chart,) = [one for one in widgets(prod) if one["properties"].get("title") == "Replicas behind, by RDS"]
    lines = {one["value"] for one in chart["properties"]["annotations"]["horizontal"]}
    assert lines == {3, 10}


def test_the_incidents_stand_at_the_top(graph: Graph) -> None:
    first = widgets(graph)[0]
    arns = {one.outputs["arn"] for one in graph.of_kind("cloudwatch.CompositeAlarm")}
    assert first["type"] == "alarm"
    assert set(first["properties"]["alarms"]) < arns
    assert len(first["properties"]["alarms"]) <= 100


# -- the publisher -------------------------------------------------------------------------------------------


def statements(graph: Graph, name: str) -> dict[str, dict[str, Any]]:
    policy = json.loads(graph.one("iam.RolePolicy", f"{name}-policy").inputs["policy"])
    return {one["Sid"]: one for one in policy["Statement"]}


def test_the_publisher_logs_in_as_one_user_at_the_primary_alone(graph: Graph) -> None:
    found = statements(graph, "publisher")["LogInToThePrimary"]
    primary = graph.one("rds.Instance", "primary")
    assert found["Action"] == ["rds-db:connect"]
    assert [one.rsplit(":", 1)[1] for one in found["Resource"]] == [
        f"{primary.outputs['resourceId']}/eav_monitor"
    ]
    variables = graph.one("lambda.Function", "publisher").inputs["environment"]["variables"]
    assert variables["DATABASE_URL"].startswith(
        f"postgresql://eav_monitor@{primary.outputs['address']}:5432/eav?"
    )
    assert "sslmode=verify-full" in variables["DATABASE_URL"]
    assert variables["EAV_STACK"] == graph.settings.stack


def test_the_publisher_may_do_nothing_wide_but_what_has_no_resource(graph: Graph) -> None:
    found = statements(graph, "publisher")
    wide = {sid for sid, one in found.items() if one["Effect"] == "Allow" and "*" in one["Resource"]}
    assert wide == {"SendTraces", "LeaveThem"}
    denied = set(found["NotByItsOwnCode"]["Action"])
    given_away = {
        action for sid, one in found.items() if one["Effect"] == "Allow" for action in one["Action"]
    }
    assert {action for action in given_away if action.startswith("ec2:")} == denied
    function = graph.one("lambda.Function", "publisher")
    assert found["NotByItsOwnCode"]["Condition"] == {
        "ArnEquals": {"lambda:SourceFunctionArn": function.outputs["arn"]}
    }


def test_the_publisher_is_in_the_private_tier_one_at_a_time(graph: Graph) -> None:
    function = graph.one("lambda.Function", "publisher")
    subnets = {one.outputs["id"]: one for one in graph.of_kind("ec2.Subnet")}
    inside = function.inputs["vpcConfig"]
    assert {subnets[one].inputs["tags"]["Tier"] for one in inside["subnetIds"]} == {"private"}
    assert inside["securityGroupIds"] == [graph.one("ec2.SecurityGroup", "group-jobs").outputs["id"]]
    assert function.inputs["reservedConcurrentExecutions"] == 1
    assert function.inputs["timeout"] == 60
    assert function.inputs["handler"] == FIGURES.handler
    group = graph.one("cloudwatch.LogGroup", "publisher")
    assert function.inputs["loggingConfig"]["logGroup"] == group.inputs["name"]
    assert {group.urn, graph.one("iam.RolePolicy", "publisher-policy").urn} <= set(function.depends_on)


def test_the_archive_of_the_publisher_has_its_queries() -> None:
    names = set(FIGURES.sources())
    from jobs.figures import MEANINGS

    assert {f"sql/queries/operational/{name}.sql" for name in MEANINGS} <= names
    assert "jobs/figures.py" in names


@pytest.mark.parametrize("stack", STACKS)
def test_the_publisher_runs_as_often_as_the_alarms_look(stack: str) -> None:
    graph = graph_of(stack)
    minutes = graph.settings.monitoring.publish_minutes
    schedule = graph.one("scheduler.Schedule", "publisher").inputs
    expected = {"dev": f"cron(0/{minutes} 8-19 ? * MON-FRI *)"}.get(stack, f"rate({minutes} minute)")
    assert schedule["scheduleExpression"] == expected
    assert schedule["scheduleExpressionTimezone"] == ("Europe/Berlin" if stack == "dev" else "UTC")


CLOCKS = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))


@given(CLOCKS, CLOCKS, st.integers(0, 1439))
def test_in_a_stack_that_rests_it_runs_only_while_the_database_is_up(up: str, down: str, at: int) -> None:
    start, stop = minutes(up), minutes(down)
    awake = (stop - start) % 1440
    assume(180 <= awake <= 1440 - AWAKE_LEAST)
    first, last = publisher.waking_hours(Cost(budget_usd=1, rest=True, rest_from=down, rest_to=up))
    assert 0 <= first <= last <= 23
    end = start + awake
    if start < 22 * 60 and first <= at // 60 <= last:
        assert start + 15 <= at < end
    elif start + 75 <= at < min(end - 60, 1440):
        assert first <= at // 60 <= last  # and for nearly all of that day


def test_the_publisher_of_a_stack_that_rests_does_not_run_by_night() -> None:
    assert publisher.waking_hours(graph_of("dev").settings.cost) == (8, 19)
