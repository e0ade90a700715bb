"""Every setting reaches the resource that it is for: two stacks with a value of its own for each of them."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, Final

import pytest

from infra.graph import Graph, read_config, record
from infra.rules.kit import values
from infra.settings import PROJECT, SECTIONS, Settings, load, unused

DIGEST: Final = f"sha256:{'7' * 64}"
# Unlike the defaults, unlike what the files say, and unlike each other where two could be taken for one another.
BIG: Final[dict[str, dict[str, Any]]] = {
    "network": {
        "cidr": "172.20.0.0/17", "zones": 3, "nat": "per_zone", "flow_log_days": 545, "bastion": True,
        "bastion_instance": "t4g.small", "bastion_log_days": 731,
        "interface_endpoints": ["ecr.api", "kms", "xray"],
    },
    "postgres": {
        "engine_version": "16.4", "instance_class": "db.r8g.8xlarge", "replica_class": "db.r8g.4xlarge", "replicas": 3,
        "storage_gb": 5000, "storage_max_gb": 9000, "iops": 20000, "throughput": 900, "multi_az": True,
        "database": "facts", "backup_days": 21, "backup_window": "01:10-01:50",
        "maintenance_window": "tue:02:10-tue:03:10", "backup_copy_region": "eu-west-2", "managed_master": False,
        "insights_days": 93, "monitoring_seconds": 5, "proxy": True, "slow_statement_ms": 1234,
        "standby_delay_seconds": 77, "log_days": 400, "allow_major_upgrade": True, "next_major": 18,
        "also_connect": ["db-ABCDEFGHIJ9"], "deletion_protection": True,
    },
    "warehouse": {
        "kind": "provisioned", "node_type": "ra3.xlplus", "nodes": 3, "spectrum_tb_a_day": 7,
        "longest_query_minutes": 11, "database": "olap", "snapshot_hours": 6, "snapshot_days": 13,
        "snapshot_copy_region": "eu-west-3", "maintenance_window": "wed:05:00-wed:06:00", "log_days": 1096,
    },
    "stream": {"retention_hours": 200, "shard_metrics": ["OutgoingBytes"]},
    "items": {
        "hash_key": "thing", "hash_key_type": "N", "range_key": "when", "range_key_type": "B",
        "time_attribute": "made", "time_format": "epoch-ms", "ttl_attribute": "gone", "max_reads": 3210,
        "max_writes": 1230, "deletion_protection": True,
    },
    "archive": {
        "archive_days": 44, "glacier_days": 101, "expire_days": 2000, "lock_mode": "compliance", "lock_days": 1999,
        "schedule": "cron(33 4 * * ? *)", "memory_mb": 1536, "timeout_seconds": 840, "batch_size": 55, "log_days": 1827,
        "partitions_leave": True, "partitions_cool_days": 45,
    },
    "workers": {
        "image_digest": DIGEST, "worker_cpu": 2048, "worker_memory_mb": 5120, "ingest_cpu": 4096,
        "ingest_memory_mb": 9216, "workers": 3, "ingesters": 1, "insights": "enhanced", "log_days": 2192,
    },
    "monitoring": {
        "page": ["p@example.com"], "notice": ["n@example.com"], "dashboard": True, "publish_minutes": 2,
        "log_days": 2557,
    },
    "cost": {"budget_usd": 4321, "alert_percent": [33, 66]},
}  # fmt: skip
SMALL: Final[dict[str, dict[str, Any]]] = {
    "network": {"nat": "single", "bastion": False},
    "postgres": {"multi_az": False, "proxy": False, "deletion_protection": False, "managed_master": True},
    "warehouse": {"kind": "serverless", "base_rpu": 16, "max_rpu_hours_a_day": 40, "database": "cubes"},
    "items": {"deletion_protection": False},
    "workers": {"image_digest": DIGEST, "workers": 1, "ingesters": 0},
    "monitoring": {"dashboard": False},
    "cost": {"rest": True, "rest_zone": "Asia/Tokyo", "rest_from": "21:00", "rest_to": "06:00"},
}  # fmt: skip
PAUSED: Final[dict[str, dict[str, Any]]] = {
    "warehouse": {
        "kind": "provisioned", "node_type": "ra3.large", "nodes": 1, "maintenance_window": "wed:08:00-wed:09:00",
        "pause": "cron(5 19 ? * MON-FRI *)", "resume": "cron(35 6 ? * MON-FRI *)",
    },
}  # fmt: skip


@cache
def graph_of(stack: str) -> Graph:
    config, changes = {
        "big": (read_config("prod"), BIG),
        "small": (read_config("dev"), SMALL),
        "paused": (read_config("dev"), PAUSED),
    }[stack]
    config = copy.deepcopy(config)
    for section, given in changes.items():
        # The big one says everything; the others only change their file.
        own = {} if stack == "big" else {**config.get(f"{PROJECT}:{section}", {})}
        if section == "warehouse":
            own = {}
        config[f"{PROJECT}:{section}"] = own | given
    name = "prod" if stack == "big" else "dev"
    # As after the upgrade that allow_major_upgrade and an older engine_version speak of.
    return record(load(name, config), running="16.4" if stack == "big" else None)


def seen(stack: str, kind: str, name: str | None, path: str) -> list[Any]:
    """The values at a path of the inputs of one resource, or of all of a kind."""
    graph = graph_of(stack)
    found = [one for one in graph.of_kind(kind) if name is None or one.name == name]
    assert found, (kind, name)
    return [value for one in found for value in values(one.inputs, path) or [None]]


def log_days(stack: str, *groups: str) -> list[Any]:
    return [day for group in groups for day in seen(stack, "cloudwatch.LogGroup", group, "retentionInDays")]


PRIMARY: Final = ("rds.Instance", "primary")
CLUSTER: Final = ("redshift.Cluster", "cluster")
REACHED: Final[tuple[tuple[str, str, str, str | None, str, Any], ...]] = (
    ("network.cidr", "big", "ec2.Vpc", "vpc", "cidrBlock", "172.20.0.0/17"),
    ("network.bastion_instance", "big", "ec2.Instance", "bastion", "instanceType", "t4g.small"),
    ("network.bastion_log_days", "big", "cloudwatch.LogGroup", "bastion", "retentionInDays", 731),
    ("network.flow_log_days", "big", "cloudwatch.LogGroup", "flow-logs", "retentionInDays", 545),
    ("network.interface_endpoints", "big", "ec2.VpcEndpoint", "endpoint-xray", "vpcEndpointType", "Interface"),
    ("postgres.engine_version", "big", *PRIMARY, "engineVersion", "16.4"),
    ("postgres.engine_version", "big", *PRIMARY, "autoMinorVersionUpgrade", False),
    ("postgres.instance_class", "big", *PRIMARY, "instanceClass", "db.r8g.8xlarge"),
    ("postgres.replica_class", "big", "rds.Instance", "replica-2", "instanceClass", "db.r8g.4xlarge"),
    ("postgres.replicas", "big", "rds.Instance", "replica-3", "engineVersion", None),
    ("postgres.storage_gb", "big", *PRIMARY, "allocatedStorage", 5000),
    ("postgres.storage_max_gb", "big", *PRIMARY, "maxAllocatedStorage", 9000),
    ("postgres.storage_max_gb", "big", "rds.Instance", "replica-1", "maxAllocatedStorage", 9000),
    ("postgres.iops", "big", *PRIMARY, "iops", 20000),
    ("postgres.iops", "big", "rds.Instance", "replica-1", "iops", 20000),
    ("postgres.throughput", "big", *PRIMARY, "storageThroughput", 900),
    ("postgres.throughput", "big", "rds.Instance", "replica-1", "storageThroughput", 900),
    ("postgres.multi_az", "big", *PRIMARY, "multiAz", True),
    ("postgres.multi_az", "small", *PRIMARY, "multiAz", False),
    ("postgres.database", "big", *PRIMARY, "dbName", "facts"),
    ("postgres.backup_days", "big", *PRIMARY, "backupRetentionPeriod", 21),
    ("postgres.backup_window", "big", *PRIMARY, "backupWindow", "01:10-01:50"),
    ("postgres.maintenance_window", "big", *PRIMARY, "maintenanceWindow", "tue:02:10-tue:03:10"),
    ("postgres.maintenance_window", "big", "rds.Instance", "replica-1", "maintenanceWindow", "tue:02:10-tue:03:10"),
    ("postgres.backup_copy_region", "big", "rds.InstanceAutomatedBackupsReplication", None, "region", "eu-west-2"),
    ("postgres.deletion_protection", "big", *PRIMARY, "deletionProtection", True),
    ("postgres.deletion_protection", "small", *PRIMARY, "deletionProtection", False),
    ("postgres.managed_master", "big", *PRIMARY, "manageMasterUserPassword", None),
    ("postgres.managed_master", "small", *PRIMARY, "manageMasterUserPassword", True),
    ("postgres.insights_days", "big", *PRIMARY, "performanceInsightsRetentionPeriod", 93),
    ("postgres.insights_days", "big", "rds.Instance", "replica-1", "performanceInsightsRetentionPeriod", 93),
    ("postgres.monitoring_seconds", "big", *PRIMARY, "monitoringInterval", 5),
    ("postgres.monitoring_seconds", "big", "rds.Instance", "replica-1", "monitoringInterval", 5),
    ("postgres.log_days", "big", "cloudwatch.LogGroup", "primary-postgresql", "retentionInDays", 400),
    ("postgres.allow_major_upgrade", "big", *PRIMARY, "allowMajorVersionUpgrade", True),
    ("postgres.allow_major_upgrade", "small", *PRIMARY, "allowMajorVersionUpgrade", False),
    ("warehouse.node_type", "big", *CLUSTER, "nodeType", "ra3.xlplus"),
    ("warehouse.nodes", "big", *CLUSTER, "numberOfNodes", 3),
    ("warehouse.nodes", "big", *CLUSTER, "clusterType", "multi-node"),
    ("warehouse.nodes", "paused", *CLUSTER, "clusterType", "single-node"),
    ("warehouse.spectrum_tb_a_day", "big", "redshift.UsageLimit", None, "amount", 7),
    ("warehouse.database", "big", *CLUSTER, "databaseName", "olap"),
    ("warehouse.database", "small", "redshiftserverless.Namespace", None, "dbName", "cubes"),
    ("warehouse.snapshot_hours", "big", "redshift.SnapshotSchedule", None, "definitions", "rate(6 hours)"),
    ("warehouse.snapshot_days", "big", *CLUSTER, "automatedSnapshotRetentionPeriod", 13),
    ("warehouse.snapshot_days", "big", "redshift.SnapshotCopy", None, "retentionPeriod", 13),
    ("warehouse.snapshot_copy_region", "big", "redshift.SnapshotCopy", None, "destinationRegion", "eu-west-3"),
    ("warehouse.maintenance_window", "big", *CLUSTER, "preferredMaintenanceWindow", "wed:05:00-wed:06:00"),
    ("warehouse.log_days", "big", "cloudwatch.LogGroup", "userlog", "retentionInDays", 1096),
    ("warehouse.base_rpu", "small", "redshiftserverless.Workgroup", None, "baseCapacity", 16),
    ("warehouse.max_rpu_hours_a_day", "small", "redshiftserverless.UsageLimit", None, "amount", 40),
    ("stream.retention_hours", "big", "kinesis.Stream", None, "retentionPeriod", 200),
    ("stream.shard_metrics", "big", "kinesis.Stream", None, "shardLevelMetrics", "OutgoingBytes"),
    ("items.hash_key", "big", "dynamodb.Table", "items", "hashKey", "thing"),
    ("items.range_key", "big", "dynamodb.Table", "items", "rangeKey", "when"),
    ("items.ttl_attribute", "big", "dynamodb.Table", "items", "ttl.attributeName", "gone"),
    ("items.max_reads", "big", "dynamodb.Table", "items", "onDemandThroughput.maxReadRequestUnits", 3210),
    ("items.max_writes", "big", "dynamodb.Table", "items", "onDemandThroughput.maxWriteRequestUnits", 1230),
    ("items.deletion_protection", "big", "dynamodb.Table", "items", "deletionProtectionEnabled", True),
    ("items.deletion_protection", "small", "dynamodb.Table", "items", "deletionProtectionEnabled", False),
    ("items.time_attribute", "big", "lambda.Function", "archiver", "environment.variables.TIME_ATTRIBUTE", "made"),
    ("items.time_format", "big", "lambda.Function", "archiver", "environment.variables.TIME_FORMAT", "epoch-ms"),
    ("archive.archive_days", "big", "lambda.Function", "archiver", "environment.variables.ARCHIVE_DAYS", "44"),
    ("archive.batch_size", "big", "lambda.Function", "archiver", "environment.variables.BATCH_SIZE", "55"),
    ("archive.memory_mb", "big", "lambda.Function", "archiver", "memorySize", 1536),
    ("archive.timeout_seconds", "big", "lambda.Function", "archiver", "timeout", 840),
    ("archive.log_days", "big", "cloudwatch.LogGroup", "archiver-logs", "retentionInDays", 1827),
    ("archive.schedule", "big", "scheduler.Schedule", "archiver", "scheduleExpression", "cron(33 4 * * ? *)"),
    ("archive.lock_mode", "big", "s3.BucketObjectLockConfiguration", None, "rule.defaultRetention.mode", "COMPLIANCE"),
    ("archive.lock_days", "big", "s3.BucketObjectLockConfiguration", None, "rule.defaultRetention.days", 1999),
    ("workers.worker_cpu", "big", "ecs.TaskDefinition", "worker", "cpu", "2048"),
    ("workers.worker_memory_mb", "big", "ecs.TaskDefinition", "worker", "memory", "5120"),
    ("workers.ingest_cpu", "big", "ecs.TaskDefinition", "ingest", "cpu", "4096"),
    ("workers.ingest_memory_mb", "big", "ecs.TaskDefinition", "ingest", "memory", "9216"),
    ("workers.workers", "big", "ecs.Service", "worker", "desiredCount", 3),
    ("workers.ingesters", "big", "ecs.Service", "ingest", "desiredCount", 1),
    ("workers.ingesters", "small", "ecs.Service", "ingest", "desiredCount", 0),
    ("workers.insights", "big", "ecs.Cluster", None, "settings.value", "enhanced"),
    ("workers.log_days", "big", "cloudwatch.LogGroup", "tasks-worker", "retentionInDays", 2192),
    ("monitoring.page", "big", "sns.TopicSubscription", "topic-page-0", "endpoint", "p@example.com"),
    ("monitoring.notice", "big", "sns.TopicSubscription", "topic-notice-0", "endpoint", "n@example.com"),
    ("monitoring.publish_minutes", "big", "scheduler.Schedule", "publisher", "scheduleExpression", "rate(2 minutes)"),
    ("monitoring.log_days", "big", "cloudwatch.LogGroup", "publisher", "retentionInDays", 2557),
    ("cost.budget_usd", "big", "budgets.Budget", None, "limitAmount", "4321"),
    ("cost.rest_zone", "small", "scheduler.Schedule", "rest-postgres-stop", "scheduleExpressionTimezone", "Asia/Tokyo"),
    ("cost.rest_from", "small", "scheduler.Schedule", "rest-worker-stop", "scheduleExpression",
     "cron(0 21 ? * MON-FRI *)"),
    ("cost.rest_to", "small", "scheduler.Schedule", "rest-postgres-start", "scheduleExpression",
     "cron(0 6 ? * MON-FRI *)"),
)  # fmt: skip
"""Setting, stack, kind of resource, its name (None: all of the kind), path of the input, value there."""

ELSEWHERE: Final[dict[str, str]] = {
    "network.zones": "test_network.py", "network.nat": "test_network.py", "network.bastion": "test_bastion.py",
    "postgres.proxy": "below", "postgres.slow_statement_ms": "below", "postgres.standby_delay_seconds": "below",
    "postgres.next_major": "below", "postgres.also_connect": "below",
    "warehouse.kind": "below", "warehouse.longest_query_minutes": "below", "warehouse.pause": "below",
    "warehouse.resume": "below", "items.hash_key_type": "below", "items.range_key_type": "below",
    "archive.glacier_days": "below", "archive.expire_days": "below", "archive.partitions_cool_days": "below",
    "archive.partitions_leave": "below", "workers.image_digest": "below", "monitoring.dashboard": "below",
    "cost.alert_percent": "below", "cost.rest": "below",
}  # fmt: skip
"""Settings that are not one input of one resource, and where they are looked at."""


@pytest.mark.parametrize(
    ("stack", "kind", "name", "path", "value"),
    [pytest.param(*one[1:], id=f"{one[0]} of {one[1]} at {one[4]}") for one in REACHED],
)
def test_a_setting_reaches_its_resource(
    stack: str, kind: str, name: str | None, path: str, value: Any
) -> None:
    found = seen(stack, kind, name, path)
    assert found
    assert all(one == value for one in found), found


def test_no_setting_is_forgotten() -> None:
    every = {
        f"{section}.{name}"
        for section in SECTIONS
        if hasattr(found := Settings.model_fields[section].annotation, "model_fields")
        for name in found.model_fields  # type: ignore[union-attr]
    }
    assert {one[0] for one in REACHED} | ELSEWHERE.keys() == every
    assert not {one[0] for one in REACHED} & ELSEWHERE.keys()


def test_the_big_stack_says_everything_that_means_something() -> None:
    settings = graph_of("big").settings
    said = {f"{section}.{name}" for section, given in BIG.items() for name in given}
    every = {one[0] for one in REACHED} | ELSEWHERE.keys()
    assert every - said == unused(settings) | {"warehouse.pause", "warehouse.resume", "cost.rest"}


def parameters(stack: str, kind: str, name: str | None = None) -> dict[str, str]:
    names, given = seen(stack, kind, name, "parameters.name"), seen(stack, kind, name, "parameters.value")
    return dict(zip(names, given, strict=True))


def test_parameters_of_postgresql() -> None:
    groups = graph_of("big").of_kind("rds.ParameterGroup")
    # The primary's, the replicas' of another size, and those of the next major version beside them.
    assert {one.inputs["family"] for one in groups} == {"postgres16", "postgres18"}
    for group in groups:
        found = parameters("big", "rds.ParameterGroup", group.name)
        assert found["log_min_duration_statement"] == "1234"
        assert found["max_standby_streaming_delay"] == "77000"
        assert found["cron.database_name"] == "facts"


def test_who_may_connect_may_connect_to_who_takes_the_place() -> None:
    policies = [
        one.inputs["policy"]
        for one in graph_of("big").of_kind("iam.RolePolicy")
        if "rds-db:connect" in one.inputs["policy"]
    ]
    assert len(policies) >= 4
    assert all("dbuser:db-ABCDEFGHIJ9/" in one for one in policies)


def test_what_is_there_by_choice() -> None:
    big, small, paused = map(graph_of, ("big", "small", "paused"))
    assert [len(one.of_kind("rds.Proxy")) for one in (big, small)] == [1, 0]
    assert [len(one.of_kind("cloudwatch.Dashboard")) for one in (big, small)] == [1, 0]
    assert [len(one.of_kind("redshift.Cluster")) for one in (big, small, paused)] == [1, 0, 1]
    assert [len(one.of_kind("redshiftserverless.Workgroup")) for one in (big, small, paused)] == [0, 1, 0]
    assert [bool(one.of_kind("scheduler.ScheduleGroup")) for one in (big, small)] == [False, True]
    assert len(big.of_kind("rds.Instance")) == 4


def test_a_warehouse_that_pauses() -> None:
    expressions = {
        one.inputs["scheduleExpression"]: one.inputs["target"]["arn"].rsplit(":", 1)[1]
        for one in graph_of("paused").of_kind("scheduler.Schedule")
    } | {
        one.inputs["schedule"]: next(iter(one.inputs["targetAction"]))
        for one in graph_of("paused").of_kind("redshift.ScheduledAction")
    }
    assert "pause" in expressions["cron(5 19 ? * MON-FRI *)"].lower()
    assert "resume" in expressions["cron(35 6 ? * MON-FRI *)"].lower()


def test_a_statement_of_the_warehouse_ends() -> None:
    assert parameters("big", "redshift.ParameterGroup")["statement_timeout"] == str(11 * 60_000)


def test_keys_of_the_table_have_their_types() -> None:
    (table,) = [one for one in graph_of("big").of_kind("dynamodb.Table") if one.name == "items"]
    types = {one["name"]: one["type"] for one in table.inputs["attributes"]}
    assert types == {"thing": "N", "when": "B"}


def test_the_archive_cools_and_ends() -> None:
    def rules(bucket: str) -> dict[str, Any]:
        (found,) = [
            one for one in graph_of("big").of_kind("s3.BucketLifecycleConfiguration") if one.name == bucket
        ]
        return {rule["id"]: rule for rule in found.inputs["rules"]}

    archives = rules("archive-items")["archives"]
    assert (archives["transitions"][0]["days"], archives["expiration"]["days"]) == (101, 2000)
    assert rules("archive-partitions")["partitions"]["transitions"][0]["days"] == 45


def test_the_worker_lets_partitions_leave_where_it_may() -> None:
    found = {
        stack: seen(stack, "ecs.TaskDefinition", "worker", "containerDefinitions")[0]
        for stack in ("big", "small")
    }
    assert '{"name": "PARTITIONS_LEAVE", "value": "true"}' in found["big"]
    assert '{"name": "PARTITIONS_LEAVE", "value": "true"}' not in found["small"]


def test_every_task_runs_the_image_of_the_digest() -> None:
    found = seen("big", "ecs.TaskDefinition", None, "containerDefinitions")
    assert len(found) == 3
    assert all(f"@{DIGEST}" in one for one in found)


def test_the_budget_tells_at_these_parts() -> None:
    (budget,) = graph_of("big").of_kind("budgets.Budget")
    told = [one["threshold"] for one in budget.inputs["notifications"] if one["notificationType"] == "ACTUAL"]
    assert told == [33, 66]
