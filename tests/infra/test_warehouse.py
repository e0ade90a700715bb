from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.archive import Archive
from infra.component import Context
from infra.errors import SettingsError
from infra.graph import ACCOUNT, Graph, Resource, read_config, record
from infra.keys import Keys
from infra.network import Network
from infra.notices import Notices
from infra.settings import Settings, load
from infra.settings import Warehouse as WarehouseSettings
from infra.stream import Stream
from infra.warehouse import LOGS, MB_A_TB, Warehouse, parameters_of, workgroup_parameters_of
from jobs.archive.settings import Settings as ArchiveFolders
from tests.infra.conftest import graph_of

USES = ("copy", "spectrum", "stream")
BUCKET = "arn:aws:s3:::eav-{stack}-archive-partitions-" + ACCOUNT
FOLDERS = ArchiveFolders(bucket="")


def changed(stack: str, **sections: Mapping[str, Any]) -> Settings:
    """The settings of a stack with some of its sections replaced, or merged where the stack has them."""
    config = read_config(stack)
    for section, values in sections.items():
        key = f"eav-platform:{section}"
        config[key] = {**config.get(key, {}), **values}
    return load(stack, config)


def replaced(stack: str, **sections: Mapping[str, Any]) -> Settings:
    return load(stack, read_config(stack) | {f"eav-platform:{name}": one for name, one in sections.items()})


def declare(chosen: Settings) -> None:
    """The warehouse alone, in a network that is a word: recording a whole stack for one more setting is slow."""
    context = Context.of(chosen)
    keys = Keys(context)
    network = SimpleNamespace(subnet_ids=lambda tier: [f"subnet-{tier}"], group_id=lambda name: f"sg-{name}")
    Warehouse(
        context,
        keys,
        Notices(context, keys),
        cast(Network, network),
        Stream(context, keys),
        Archive(context, keys),
    )


def target(graph: Graph, resource: Resource, name: str) -> Resource:
    """The one resource that a property refers to."""
    (urn,) = resource.references[name]
    return graph.resources[urn]


def statements(graph: Graph, role: str) -> list[dict[str, Any]]:
    policy = json.loads(graph.one("iam.RolePolicy", f"{role}-policy").inputs["policy"])
    found: list[dict[str, Any]] = policy["Statement"]
    return found


def may(graph: Graph, use: str, action: str, resource: str, **sent: str) -> bool:
    """Whether a role's policy allows a request; `sent` are condition keys with : and - as _."""

    def holds(conditions: Mapping[str, Mapping[str, Any]]) -> bool:
        for tests in conditions.values():
            for key, wanted in tests.items():
                value = sent.get(key.replace(":", "_").replace("-", "_"))
                patterns = [wanted] if isinstance(wanted, str) else wanted
                if value is None or not any(fnmatchcase(value, pattern) for pattern in patterns):
                    return False
        return True

    return any(
        one["Effect"] == "Allow"
        and action in one["Action"]
        and any(fnmatchcase(resource, pattern) for pattern in one["Resource"])
        and holds(one.get("Condition", {}))
        for one in statements(graph, f"warehouse-{use}")
    )


@pytest.fixture
def staging() -> Graph:
    return graph_of("staging")


@pytest.fixture
def dev() -> Graph:
    return graph_of("dev")


# -- what both kinds have ------------------------------------------------------------------------------------


def compute(graph: Graph) -> Resource:
    """The cluster or the workgroup."""
    return (graph.of_kind("redshift.Cluster") or graph.of_kind("redshiftserverless.Workgroup"))[0]


def store(graph: Graph) -> Resource:
    """What holds the data: the cluster or the namespace."""
    return (graph.of_kind("redshift.Cluster") or graph.of_kind("redshiftserverless.Namespace"))[0]


def test_nobody_reaches_the_warehouse_from_outside_its_tier(graph: Graph) -> None:
    found = compute(graph)
    assert found.inputs["publiclyAccessible"] is False
    assert found.inputs["enhancedVpcRouting"] is True
    groups = found.inputs.get("vpcSecurityGroupIds") or found.inputs["securityGroupIds"]
    assert groups == [graph.one("ec2.SecurityGroup", "group-warehouse").outputs["id"]]
    placed = found.inputs.get("subnetIds") or graph.one("redshift.SubnetGroup").inputs["subnetIds"]
    tier = [one for one in graph.of_kind("ec2.Subnet") if one.inputs["tags"]["Tier"] == "warehouse"]
    assert sorted(placed) == sorted(one.outputs["id"] for one in tier)


def test_storage_and_password_are_encrypted_with_the_key_of_the_warehouse(graph: Graph) -> None:
    found = store(graph)
    secret = (
        "masterPasswordSecretKmsKeyId" if found.kind == "redshift.Cluster" else "adminPasswordSecretKmsKeyId"
    )
    assert target(graph, found, "kmsKeyId").name == "key-warehouse"
    assert target(graph, found, secret).name == "key-warehouse"


def test_no_password_is_in_the_program(graph: Graph) -> None:
    found = store(graph)
    assert found.inputs.get("manageMasterPassword") or found.inputs["manageAdminPassword"]
    assert not {"masterPassword", "masterPasswordWo", "adminUserPassword", "adminUserPasswordWo"} & set(
        found.inputs
    )


def test_the_warehouse_is_kept_where_data_is_protected(graph: Graph) -> None:
    keep = graph.settings.protect_data
    assert (store(graph).protect, store(graph).retain_on_delete) == (keep, keep)


def test_logs_go_into_groups_that_were_there_first(graph: Graph) -> None:
    groups = [one for one in graph.of_kind("cloudwatch.LogGroup") if graph.component(one) == "warehouse"]
    exporter = (graph.of_kind("redshift.Logging") or [store(graph)])[0]
    folder = "/aws/redshift/" + ("cluster/" if graph.of_kind("redshift.Cluster") else "")
    assert {one.inputs["name"] for one in groups} == {
        f"{folder}eav-{graph.settings.stack}-warehouse/{log}" for log in exporter.inputs["logExports"]
    }
    assert set(exporter.inputs["logExports"]) == set(LOGS)
    assert {one.urn for one in groups} <= set(exporter.depends_on)
    for one in groups:
        assert one.inputs["retentionInDays"] == graph.settings.warehouse.log_days
        assert target(graph, one, "kmsKeyId").name == "key-logs"


def test_each_use_has_a_role_and_the_default_reaches_the_least(graph: Graph) -> None:
    arns = {use: graph.one("iam.Role", f"warehouse-{use}-role").outputs["arn"] for use in USES}
    assert sorted(store(graph).inputs["iamRoles"]) == sorted(arns.values())
    assert store(graph).inputs["defaultIamRoleArn"] == arns["copy"]


def test_spectrum_reads_verified_partitions_and_nothing_else_of_the_bucket(graph: Graph) -> None:
    bucket = BUCKET.format(stack=graph.settings.stack)
    archived = FOLDERS.folder("eav.entity_values_ts")
    assert may(graph, "spectrum", "s3:GetObject", f"{bucket}/{archived}year=2026/month=11/a.parquet")
    assert may(graph, "spectrum", "s3:ListBucket", bucket, s3_prefix=archived)
    for key in (FOLDERS.staging("1"), FOLDERS.mark, "partitions/_superseded/table=x/a", "staging/a"):
        assert not may(graph, "spectrum", "s3:GetObject", f"{bucket}/{key}"), key
        assert not may(graph, "spectrum", "s3:ListBucket", bucket, s3_prefix=key), key
    assert not may(graph, "spectrum", "s3:ListBucket", bucket)
    assert not may(graph, "spectrum", "s3:ListBucket", bucket, s3_prefix="")


def test_copy_reads_what_is_staged_and_not_the_archive(graph: Graph) -> None:
    bucket = BUCKET.format(stack=graph.settings.stack)
    assert may(graph, "copy", "s3:GetObject", f"{bucket}/staging/entities/1.csv.gz")
    assert not may(
        graph, "copy", "s3:GetObject", f"{bucket}/{FOLDERS.folder('eav.entity_values_ts')}a.parquet"
    )


def test_no_role_of_the_warehouse_writes_to_s3_or_the_stream(graph: Graph) -> None:
    allowed = {
        action for use in USES for one in statements(graph, f"warehouse-{use}") for action in one["Action"]
    }
    assert not {one for one in allowed if "*" in one}
    data = {one for one in allowed if not one.startswith("glue:")}
    assert {one.split(":")[1] for one in data} <= {
        "GetBucketLocation", "ListBucket", "GetObject", "Decrypt", "DescribeStream", "DescribeStreamSummary",
        "GetRecords", "GetShardIterator", "ListShards", "ListStreams",
    }  # fmt: skip


def test_spectrum_keeps_tables_of_its_database_alone(graph: Graph) -> None:
    stack = graph.settings.stack
    database = graph.one("glue.CatalogDatabase").inputs["name"]
    assert database == f"eav_{stack}_archive"
    glue = f"arn:aws:glue:{graph.settings.region}:{ACCOUNT}:"
    for action in ("glue:GetPartitions", "glue:CreateTable", "glue:BatchCreatePartition"):
        assert may(graph, "spectrum", action, f"{glue}table/{database}/eav_entity_values_ts")
        assert not may(graph, "spectrum", action, f"{glue}table/{database}_2/eav_entity_values_ts")
        assert not may(graph, "spectrum", action, f"{glue}table/default/eav_entity_values_ts")
    for action in ("glue:CreateDatabase", "glue:DeleteDatabase", "glue:UpdateDatabase"):
        assert not may(graph, "spectrum", action, f"{glue}database/{database}")


def test_streaming_reads_this_stream_by_its_key(graph: Graph) -> None:
    stream, key = graph.one("kinesis.Stream"), graph.one("kms.Key", "key-stream")
    arn = stream.outputs["arn"]
    assert may(graph, "stream", "kinesis:GetRecords", arn)
    assert not may(graph, "stream", "kinesis:GetRecords", f"{arn}-other")
    assert may(graph, "stream", "kinesis:ListStreams", "*")
    service = f"kinesis.{graph.settings.region}.amazonaws.com"
    asked = {"kms_ViaService": service, "kms_EncryptionContext_aws_kinesis_arn": arn}
    assert may(graph, "stream", "kms:Decrypt", key.outputs["arn"], **asked)
    assert not may(graph, "stream", "kms:Decrypt", key.outputs["arn"])
    assert not may(
        graph, "stream", "kms:Decrypt", graph.one("kms.Key", "key-archive").outputs["arn"], **asked
    )


@pytest.mark.parametrize("use", ["copy", "spectrum"])
def test_the_archives_key_opens_objects_of_this_bucket_only(graph: Graph, use: str) -> None:
    bucket = BUCKET.format(stack=graph.settings.stack)
    key = graph.one("kms.Key", "key-archive").outputs["arn"]
    service = f"s3.{graph.settings.region}.amazonaws.com"
    sent = {"kms_ViaService": service, "kms_EncryptionContext_aws_s3_arn": bucket}
    assert may(graph, use, "kms:Decrypt", key, **sent)
    assert not may(
        graph, use, "kms:Decrypt", key, **(sent | {"kms_EncryptionContext_aws_s3_arn": f"{bucket}-2"})
    )
    assert not may(graph, use, "kms:Decrypt", key, **(sent | {"kms_ViaService": "rds.amazonaws.com"}))


def test_only_users_of_this_warehouse_take_its_roles(graph: Graph) -> None:
    here = f"arn:aws:redshift:{graph.settings.region}:{ACCOUNT}:dbuser:"
    other = f"arn:aws:redshift:{graph.settings.region}:210987654321:dbuser:"
    if graph.of_kind("redshift.Cluster"):
        name = f"eav-{graph.settings.stack}-warehouse"
        ours = [f"{here}{name}/eav_admin"]
        theirs = [f"{here}another/eav_admin", f"{here}{name}-2/eav_admin", f"{other}{name}/eav_admin"]
    else:
        ours = [f"{here}serverless-{ACCOUNT}-0c2a/IAMR:reader"]
        theirs = [f"{other}serverless-210987654321-0c2a/IAMR:reader", f"{here}another/eav_admin"]
    for use in USES:
        policy = json.loads(graph.one("iam.Role", f"warehouse-{use}-role").inputs["assumeRolePolicy"])
        (statement,) = policy["Statement"]
        pattern = statement["Condition"]["StringLike"]["sts:ExternalId"]
        assert all(fnmatchcase(one, pattern) for one in ours)
        assert not any(fnmatchcase(one, pattern) for one in theirs)
        assert "redshift.amazonaws.com" in statement["Principal"]["Service"]


def test_a_limit_of_cost_stops_queries_except_in_prod(graph: Graph) -> None:
    (limit,) = graph.of_kind("redshift.UsageLimit", "redshiftserverless.UsageLimit")
    stops = {"redshift.UsageLimit": "disable", "redshiftserverless.UsageLimit": "deactivate"}[limit.kind]
    assert limit.inputs["period"] == "daily"
    assert limit.inputs["breachAction"] == ("emit-metric" if graph.settings.stack == "prod" else stops)


# -- provisioned ---------------------------------------------------------------------------------------------


def test_prod_has_the_nodes_of_its_settings_and_moves_to_another_zone(prod: Graph) -> None:
    cluster = prod.one("redshift.Cluster")
    assert (cluster.inputs["nodeType"], cluster.inputs["numberOfNodes"]) == ("ra3.4xlarge", 4)
    assert cluster.inputs["availabilityZoneRelocationEnabled"] is True
    assert 5431 <= cluster.inputs["port"] <= 5455
    assert prod.one("redshift.UsageLimit").inputs["amount"] == prod.settings.warehouse.spectrum_tb_a_day


def test_a_last_snapshot_is_taken_where_data_is_protected(prod: Graph, staging: Graph) -> None:
    assert prod.one("redshift.Cluster").inputs["finalSnapshotIdentifier"] == "eav-prod-warehouse-final"
    assert prod.one("redshift.Cluster").inputs["skipFinalSnapshot"] is False
    assert staging.one("redshift.Cluster").inputs["skipFinalSnapshot"] is True


def test_snapshots_are_copied_with_a_grant_and_a_key_of_the_other_region(prod: Graph) -> None:
    copy, grant = prod.one("redshift.SnapshotCopy"), prod.one("redshift.SnapshotCopyGrant")
    elsewhere = prod.settings.warehouse.snapshot_copy_region
    assert elsewhere not in (None, prod.settings.region)
    assert copy.inputs["destinationRegion"] == grant.inputs["region"] == elsewhere
    assert copy.inputs["snapshotCopyGrantName"] == grant.inputs["snapshotCopyGrantName"]
    key = target(prod, grant, "kmsKeyId")
    assert (key.name, key.inputs["region"]) == (f"key-warehouse-{elsewhere}", elsewhere)
    assert "region" not in copy.inputs, "it is the cluster's region that copies"
    assert copy.inputs["retentionPeriod"] == prod.settings.warehouse.snapshot_days


def test_snapshots_have_a_schedule_and_a_retention(prod: Graph, staging: Graph) -> None:
    for found in (prod, staging):
        hours = found.settings.warehouse.snapshot_hours
        assert found.one("redshift.SnapshotSchedule").inputs["definitions"] == [f"rate({hours} hours)"]
        association = found.one("redshift.SnapshotScheduleAssociation")
        assert target(found, association, "scheduleIdentifier").kind == "redshift.SnapshotSchedule"
        retention = found.one("redshift.Cluster").inputs["automatedSnapshotRetentionPeriod"]
        assert retention == found.settings.warehouse.snapshot_days
    assert not staging.of_kind("redshift.SnapshotCopy", "redshift.SnapshotCopyGrant")


def test_staging_rests_by_a_role_that_stops_and_starts_one_cluster(staging: Graph) -> None:
    rest = staging.settings.warehouse
    actions = {one.name: one for one in staging.of_kind("redshift.ScheduledAction")}
    assert actions["pause"].inputs["schedule"] == rest.pause
    assert actions["resume"].inputs["schedule"] == rest.resume
    identifier = "eav-staging-warehouse"
    assert actions["pause"].inputs["targetAction"] == {"pauseCluster": {"clusterIdentifier": identifier}}
    assert actions["resume"].inputs["targetAction"] == {"resumeCluster": {"clusterIdentifier": identifier}}
    (allowed,) = statements(staging, "warehouse-rest")
    assert allowed["Action"] == ["redshift:PauseCluster", "redshift:ResumeCluster"]
    assert allowed["Resource"] == [staging.one("redshift.Cluster").outputs["arn"]]


def test_prod_never_rests(prod: Graph) -> None:
    assert not prod.of_kind("redshift.ScheduledAction")
    assert prod.settings.warehouse.running_hours_a_week == 168


def test_staging_runs_fourteen_hours_on_workdays(staging: Graph) -> None:
    assert staging.settings.warehouse.running_hours_a_week == 5 * 14


def test_redshift_reports_each_event_once(prod: Graph, staging: Graph) -> None:
    for found, sources in ((prod, {"cluster"}), (staging, {"cluster", "scheduled-action"})):
        events = found.of_kind("redshift.EventSubscription")
        assert {one.inputs["sourceType"] for one in events} == sources
        heard = [category for one in events for category in one.inputs.get("eventCategories", [])]
        assert sorted(heard) == ["configuration", "management", "monitoring", "pending", "security"]
        assert {target(found, one, "snsTopicArn").name for one in events} == {"topic-notice"}
        assert all(one.inputs["sourceIds"] for one in events)
        policy = found.one("sns.TopicPolicy", "topic-notice-policy").urn
        assert all(policy in one.depends_on for one in events), "or Redshift may not publish yet"


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(1, 1439))
def test_parameters_hold_the_limits_of_the_settings(terabytes: int, minutes: int) -> None:
    asked = WarehouseSettings(kind="provisioned", spectrum_tb_a_day=terabytes, longest_query_minutes=minutes)
    found = parameters_of(asked)
    assert (found["require_ssl"], found["enable_user_activity_logging"]) == ("true", "true")
    assert int(found["statement_timeout"]) == minutes * 60 * 1000
    queue, short = json.loads(found["wlm_json_configuration"])
    assert queue["auto_wlm"] is True
    assert short == {"short_query_queue": True}
    (rule,) = queue["rules"]
    assert rule["predicate"][0]["value"] == terabytes * MB_A_TB
    assert rule["action"] == "abort"


def test_the_cluster_has_the_parameters(prod: Graph) -> None:
    group = prod.one("redshift.ParameterGroup")
    given_ = {one["name"]: one["value"] for one in group.inputs["parameters"]}
    assert given_ == parameters_of(prod.settings.warehouse)
    assert prod.one("redshift.Cluster").inputs["clusterParameterGroupName"] == group.inputs["name"]


# -- serverless ----------------------------------------------------------------------------------------------


def test_dev_stops_at_its_units_of_a_day(dev: Graph) -> None:
    asked = dev.settings.warehouse
    limit = dev.one("redshiftserverless.UsageLimit")
    assert limit.inputs["amount"] == asked.max_rpu_hours_a_day
    assert limit.inputs["usageType"] == "serverless-compute"
    assert target(dev, limit, "resourceArn").kind == "redshiftserverless.Workgroup"
    assert dev.one("redshiftserverless.Workgroup").inputs["baseCapacity"] == asked.base_rpu


def test_a_workgroup_says_all_its_parameters_once(dev: Graph) -> None:
    told = dev.one("redshiftserverless.Workgroup").inputs["configParameters"]
    found = {one["parameterKey"]: one["parameterValue"] for one in told}
    assert len(told) == len(found)
    assert found == workgroup_parameters_of(dev.settings.warehouse)
    assert (found["require_ssl"], found["enable_user_activity_logging"]) == ("true", "true")
    assert int(found["max_query_execution_time"]) == dev.settings.warehouse.longest_query_minutes * 60


def test_dev_rests_on_recovery_points_of_a_day(dev: Graph) -> None:
    assert dev.settings.warehouse.snapshot_days == 1
    assert not [one for one in dev.of_kind("scheduler.Schedule") if dev.component(one) == "warehouse"]


@cache
def with_snapshots() -> Graph:
    return record(changed("dev", warehouse={"snapshot_days": 14}), declare)


def test_serverless_snapshots_are_kept_as_long_as_the_settings_say() -> None:
    found = with_snapshots()
    schedule = found.one("scheduler.Schedule")
    asked = json.loads(schedule.inputs["target"]["input"])
    assert (asked["NamespaceName"], asked["RetentionPeriod"]) == ("eav-dev-warehouse", 14)
    assert asked["SnapshotName"] != asked["SnapshotName"].replace("<aws.scheduler.execution-id>", "1")
    (allowed,) = statements(found, "warehouse-snapshot")
    assert allowed["Action"] == ["redshift-serverless:CreateSnapshot"]
    assert found.one("redshiftserverless.Namespace").outputs["arn"] in allowed["Resource"]
    assert "*" not in allowed["Resource"]


def test_no_warehouse_declares_nothing() -> None:
    found = record(replaced("dev", warehouse={"kind": "none"}), declare)
    assert [one.kind for one in found if found.component(one) == "warehouse"] == ["eav:warehouse:Warehouse"]


# -- settings ------------------------------------------------------------------------------------------------


SERVERLESS = {"kind": "serverless"}
PROVISIONED = {"kind": "provisioned", "node_type": "ra3.large"}
WORKDAYS = {"pause": "cron(0 19 ? * MON-FRI *)", "resume": "cron(0 5 ? * MON-FRI *)"}


@pytest.mark.parametrize(
    ("warehouse", "line"),
    [
        (SERVERLESS | {"base_rpu": 5}, "base_rpu must be 4, 8, or a multiple of 8, got 5"),
        (SERVERLESS | {"base_rpu": 20}, "base_rpu must be 4, 8, or a multiple of 8, got 20"),
        (SERVERLESS | {"base_rpu": 32}, "max_rpu_hours_a_day must be at least base_rpu (32)"),
        (SERVERLESS | {"nodes": 4}, "nodes is for a provisioned warehouse, kind is serverless"),
        (SERVERLESS | {"snapshot_copy_region": "eu-west-1"}, "snapshot_copy_region is for a provisioned"),
        (SERVERLESS | WORKDAYS, "pause is for a provisioned cluster"),
        (PROVISIONED | {"base_rpu": 8}, "base_rpu is for a serverless warehouse, kind is provisioned"),
        (PROVISIONED | {"nodes": 17}, "nodes may be 16 for ra3.large, got 17"),
        (PROVISIONED | {"node_type": "ra3.4xlarge", "nodes": 1}, "ra3.4xlarge needs 2 nodes or more"),
        (PROVISIONED | {"maintenance_window": "mon:05:00-mon:05:15"}, "must be 30 minutes or longer"),
        (PROVISIONED | {"pause": WORKDAYS["pause"]}, "pause and resume come together"),
        (PROVISIONED | WORKDAYS, "maintenance_window (sun:05:30-sun:06:30) must lie where the cluster runs"),
        (
            PROVISIONED | WORKDAYS | {"pause": "cron(0 19 ? * MON-SAT *)"},
            "resume and pause must take turns, got two stops in a row from fri:19:00",
        ),
        (PROVISIONED | WORKDAYS | {"resume": WORKDAYS["pause"]}, "resume and pause must"),
        (PROVISIONED | WORKDAYS | {"pause": "cron(0 19 ? * 2-6 *)"}, "must have weekdays such as MON-FRI"),
        (PROVISIONED | {"longest_query_minutes": 1440}, "longest_query_minutes"),
        (PROVISIONED | {"snapshot_hours": 5}, "snapshot_hours"),
    ],
)
def test_contradictory_settings_are_refused_in_one_line(warehouse: Mapping[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        replaced("dev", warehouse=warehouse)
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"network": {"zones": 2}}, "warehouse.kind serverless needs network.zones 3, got 2"),
        (
            {"network": {"cidr": "10.10.0.0/20"}, "warehouse": {"base_rpu": 512, "max_rpu_hours_a_day": 512}},
            "warehouse.base_rpu 512 needs 133 free addresses in each subnet of the warehouse, network.cidr"
            " 10.10.0.0/20 leaves 59",
        ),
        (
            {
                "network": {
                    "nat": "none",
                    "bastion": False,
                    "interface_endpoints": [
                        "ecr.api", "ecr.dkr", "kinesis-streams", "kms", "logs", "monitoring", "secretsmanager", "sts",
                    ],
                }
            },
            "network.interface_endpoints must have glue too",
        ),
    ],
)  # fmt: skip
def test_a_network_that_redshift_cannot_live_in_is_refused(
    sections: Mapping[str, Mapping[str, Any]], line: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        changed("dev", **sections)
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("warehouse", "line"),
    [
        ({"node_type": "ra3.xlplus", "nodes": 1}, "warehouse.nodes must be 2 or more in prod"),
        (
            WORKDAYS | {"maintenance_window": "mon:05:30-mon:06:30"},
            "warehouse.pause must not be set in prod",
        ),
        ({"snapshot_days": 6}, "warehouse.snapshot_days must be 7 or more in prod"),
    ],
)
def test_production_does_not_go_without(warehouse: Mapping[str, Any], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        changed("prod", warehouse=warehouse)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([4, *range(8, 513, 8)]),
    st.integers(16, 20).map(lambda length: IPv4Network(f"10.64.0.0/{length}")),
)
def test_a_workgroup_is_refused_exactly_where_its_addresses_do_not_fit(units: int, cidr: IPv4Network) -> None:
    sections: dict[str, Mapping[str, Any]] = {
        "network": {"cidr": str(cidr)},
        "warehouse": {"base_rpu": units, "max_rpu_hours_a_day": 512},
    }
    fits = units // 4 + 5 <= cidr.num_addresses // 64 - 5
    if fits:
        changed("dev", **sections)
    else:
        with pytest.raises(SettingsError, match="free addresses"):
            changed("dev", **sections)
