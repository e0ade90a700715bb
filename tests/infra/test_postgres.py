"""The database of each stack: who reaches it, what is kept of it, and how it becomes another version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.component import Context
from infra.errors import SettingsError
from infra.graph import read_config, record
from infra.keys import Keys
from infra.network import Network
from infra.notices import Notices
from infra.parameters import STANDBY_AT_LEAST
from infra.postgres import EVENTS, PROXY_USERS, Postgres, replica_zones
from infra.settings import Settings, load, overlap
from infra.upgrade import judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from infra.graph import Graph, Resource


def settings_of(stack: str, **postgres: Any) -> Settings:
    config = read_config(stack)
    section = dict(config["eav-platform:postgres"]) | postgres
    return load(stack, config | {"eav-platform:postgres": section})


class Somewhere:
    """Subnets and groups by their names, in place of a network of eighty resources."""

    def subnet_ids(self, tier: str) -> list[pulumi.Output[str]]:
        return [pulumi.Output.from_input(f"subnet-{tier}-{zone}") for zone in "ab"]

    def group_id(self, name: str) -> pulumi.Output[str]:
        return pulumi.Output.from_input(f"sg-{name}")


def recorded(settings: Settings, look: Callable[[Postgres], object] = id) -> Graph:
    """The graph of PostgreSQL, its keys and its topics alone; `look` sees the component."""

    def declare(wanted: Settings) -> None:
        context = Context.of(wanted)
        keys = Keys(context)
        look(Postgres(context, keys, Notices(context, keys), cast(Network, Somewhere())))

    return record(settings, declare)


def instances(graph: Graph) -> list[Resource]:
    return graph.of_kind("rds.Instance")


def key(graph: Graph, purpose: str) -> str:
    return str(graph.one("kms.Key", f"key-{purpose}").outputs["arn"])


def parameters_of(graph: Graph, instance: Resource) -> dict[str, str]:
    (group,) = [
        one
        for one in graph.of_kind("rds.ParameterGroup")
        if one.inputs["name"] == instance.inputs["parameterGroupName"]
    ]
    return {one["name"]: one["value"] for one in group.inputs["parameters"]}


def master_arn(graph: Graph) -> str:
    """Of the secret with the master's password, whoever keeps it."""
    found = graph.of_kind("secretsmanager.Secret")
    if found:
        (own,) = found
        return str(own.outputs["arn"])
    return str(graph.one("rds.Instance", "primary").outputs["masterUserSecrets"][0]["secretArn"])


def test_a_primary_with_replicas_has_a_password_that_rds_does_not_manage(graph: Graph) -> None:
    primary = graph.one("rds.Instance", "primary")
    if graph.settings.postgres.replicas:
        (secret,) = graph.of_kind("secretsmanager.Secret")
        version = graph.one("secretsmanager.SecretVersion")
        assert "manageMasterUserPassword" not in primary.inputs
        assert secret.inputs["kmsKeyId"] == key(graph, "postgres")
        assert json.loads(version.inputs["secretString"]) == {
            "username": primary.inputs["username"],
            "password": primary.inputs["password"],
        }
        assert primary.ignore_changes == ("password",), "the generator says another one at each run"
        assert version.ignore_changes == ("secretString",)
    else:
        assert primary.inputs["manageMasterUserPassword"] is True
        assert primary.inputs["masterUserSecretKmsKeyId"] == key(graph, "postgres")
        assert graph.of_kind("secretsmanager.Secret") == []


def test_replicas_of_a_managed_primary_are_refused() -> None:
    config = read_config("prod")
    postgres = config["eav-platform:postgres"] | {"managed_master": True}
    with pytest.raises(SettingsError, match="postgres: managed_master must be false with replicas"):
        load("prod", config | {"eav-platform:postgres": postgres})


# -- every stack ---------------------------------------------------------------------------------------------


def test_encrypted_private_and_without_a_password(graph: Graph) -> None:
    for one in instances(graph):
        found = one.inputs
        assert found["publiclyAccessible"] is False
        assert found["storageEncrypted"] is True
        assert found["performanceInsightsKmsKeyId"] == key(graph, "postgres")
        assert found["iamDatabaseAuthenticationEnabled"] is True
        assert found["vpcSecurityGroupIds"] == [
            graph.one("ec2.SecurityGroup", "group-postgres").outputs["id"]
        ]
        assert found["caCertIdentifier"] == "rds-ca-rsa2048-g1"
        assert "password" not in found or one.name == "primary"
    primary = graph.one("rds.Instance", "primary").inputs
    assert primary["kmsKeyId"] == key(graph, "postgres")
    assert (primary["engine"], primary["storageType"], primary["port"]) == ("postgres", "gp3", 5432)
    assert primary["dbSubnetGroupName"] == graph.one("rds.SubnetGroup").inputs["name"]
    database = {
        one.outputs["id"] for one in graph.of_kind("ec2.Subnet") if one.inputs["tags"]["Tier"] == "database"
    }
    assert set(graph.one("rds.SubnetGroup").inputs["subnetIds"]) == database


def test_logs_are_made_first_and_do_not_stay_for_ever(graph: Graph) -> None:
    for one in instances(graph):
        for log in one.inputs["enabledCloudwatchLogsExports"]:
            name = f"/aws/rds/instance/{one.inputs['identifier']}/{log}"
            (group,) = [
                found for found in graph.of_kind("cloudwatch.LogGroup") if found.inputs["name"] == name
            ]
            assert group.inputs["retentionInDays"] == graph.settings.postgres.log_days
            assert group.inputs["kmsKeyId"] == key(graph, "logs")
            assert group.urn in one.depends_on
    for proxy in graph.of_kind("rds.Proxy"):
        (group,) = [
            found
            for found in graph.of_kind("cloudwatch.LogGroup")
            if found.inputs["name"] == f"/aws/rds/proxy/{proxy.inputs['name']}"
        ]
        assert group.urn in proxy.depends_on


def test_sessions_are_by_tls_and_the_log_can_be_read_logically(graph: Graph) -> None:
    for one in instances(graph):
        found = parameters_of(graph, one)
        assert (
            found["rds.force_ssl"] == found["rds.logical_replication"] == found["hot_standby_feedback"] == "1"
        )
        assert found["cron.database_name"] == graph.one("rds.Instance", "primary").inputs["dbName"]
        assert found["max_standby_streaming_delay"] == "30000"
        assert int(found["max_slot_wal_keep_size"]) < graph.settings.postgres.storage_gb * 1024 / 4


def test_replicas(graph: Graph) -> None:
    wanted = graph.settings.postgres
    primary = graph.one("rds.Instance", "primary")
    replicas = [one for one in instances(graph) if one is not primary]
    assert len(replicas) == wanted.replicas
    for one in replicas:
        assert one.inputs["replicateSourceDb"] == primary.inputs["identifier"]
        assert primary.urn in one.references["replicateSourceDb"]
        # What RDS takes from the primary, and the provider refuses or replaces for.
        assert not {"username", "manageMasterUserPassword", "dbName", "engine", "engineVersion", "allocatedStorage",
                    "dbSubnetGroupName", "finalSnapshotIdentifier", "kmsKeyId"} & set(one.inputs)  # fmt: skip
        assert one.inputs["skipFinalSnapshot"] is True
    zones = [one.inputs["availabilityZone"] for one in replicas]
    assert len(set(zones)) == min(len(zones), wanted.replicas, graph.settings.network.zones)


def test_enhanced_monitoring_can_write_its_figures(graph: Graph) -> None:
    role = graph.one("iam.Role", "postgres-monitoring-role")
    assert "monitoring.rds.amazonaws.com" in role.inputs["assumeRolePolicy"]
    right = graph.one("iam.RolePolicyAttachment", "postgres-monitoring")
    assert right.inputs["role"] == role.inputs["name"]
    assert all(right.urn in one.depends_on for one in instances(graph)), "RDS asks when it makes an instance"
    assert all(one.inputs["monitoringRoleArn"] == role.outputs["arn"] for one in instances(graph))


def test_events_reach_people(graph: Graph) -> None:
    told: dict[str, list[str]] = {}
    names = {one.inputs["identifier"] for one in instances(graph)}
    for one in graph.of_kind("rds.EventSubscription"):
        assert set(one.inputs["sourceIds"]) == names
        told[one.inputs["snsTopic"]] = one.inputs["eventCategories"]
    topics = {name: graph.one("sns.Topic", f"topic-{name}").outputs["arn"] for name in ("page", "notice")}
    assert set(told[topics["page"]]) >= {"failover", "failure", "low storage"}
    assert set(told) == set(topics.values())
    assert not set(EVENTS["page"]) & set(EVENTS["notice"])


def test_the_proxy_has_no_secret_and_no_master(graph: Graph) -> None:
    proxies = graph.of_kind("rds.Proxy")
    assert len(proxies) == graph.settings.postgres.proxy
    for proxy in proxies:
        assert proxy.inputs["requireTls"] is True
        assert proxy.inputs["defaultAuthScheme"] == "IAM_AUTH"
        assert "auths" not in proxy.inputs
        assert proxy.inputs["vpcSecurityGroupIds"] == [
            graph.one("ec2.SecurityGroup", "group-proxy").outputs["id"]
        ]
        private = {
            one.outputs["id"]
            for one in graph.of_kind("ec2.Subnet")
            if one.inputs["tags"]["Tier"] == "private"
        }
        assert set(proxy.inputs["vpcSubnetIds"]) == private
        target = graph.one("rds.ProxyTarget").inputs
        assert target["dbInstanceIdentifier"] == graph.one("rds.Instance", "primary").inputs["identifier"]
        (statement,) = json.loads(graph.one("iam.RolePolicy", "postgres-proxy-policy").inputs["policy"])[
            "Statement"
        ]
        assert statement["Action"] == ["rds-db:connect"]
        resource = graph.one("rds.Instance", "primary").outputs["resourceId"]
        assert {one.split("dbuser:")[1] for one in statement["Resource"]} == {
            f"{resource}/{user}" for user in PROXY_USERS
        }


def test_prod_is_kept(prod: Graph) -> None:
    primary = prod.one("rds.Instance", "primary")
    assert primary.protect
    assert primary.retain_on_delete
    found = primary.inputs
    assert found["deletionProtection"] is found["multiAz"] is True
    assert found["skipFinalSnapshot"] is found["deleteAutomatedBackups"] is found["applyImmediately"] is False
    assert found["finalSnapshotIdentifier"] == "eav-prod-postgres-final"
    copy = prod.one("rds.InstanceAutomatedBackupsReplication")
    assert copy.inputs["region"] == "eu-west-1"
    assert copy.inputs["retentionPeriod"] == found["backupRetentionPeriod"] == 35
    assert copy.inputs["kmsKeyId"] == prod.one("kms.Key", "key-postgres-eu-west-1").outputs["arn"]
    assert ":eu-west-1:" in copy.inputs["kmsKeyId"]
    assert primary.ignore_changes == ("password",), "and nothing else of it may drift unseen"


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=3, unique=True), st.integers(0, 5))
def test_replicas_lie_as_far_apart_as_they_can(zones: list[str], count: int) -> None:
    found = replica_zones(zones, count)
    assert len(found) == count
    often = [found.count(zone) for zone in zones]
    assert sum(often) == count
    assert max(often) - min(often) <= 1


# -- another version -----------------------------------------------------------------------------------------


def test_a_major_upgrade_is_asked_about_first() -> None:
    with pytest.raises(SettingsError) as caught:
        record(settings_of("prod"), running="16.9")
    assert str(caught.value) == (
        "Pulumi.prod.yaml: postgres.engine_version is 17, eav-prod-postgres runs 16.9: a major upgrade is a blue/green"
        " deployment, or in place with postgres.allow_major_upgrade for that one deployment"
        " (docs/database-operations.md)"
    )


def test_there_is_no_way_back() -> None:
    with pytest.raises(SettingsError, match=r'runs 18\.1, and there is no way .* set it to "18"'):
        judge(settings_of("prod", allow_major_upgrade=True), "eav-prod-postgres", "18.1")


@pytest.mark.parametrize("version", ["17", "17.4"])
def test_a_minor_is_nobodys_business(version: str) -> None:
    assert judge(settings_of("prod", engine_version=version), "eav-prod-postgres", "17.2") == []


def test_a_permission_that_was_forgotten_is_said() -> None:
    (warning,) = judge(settings_of("prod", allow_major_upgrade=True), "eav-prod-postgres", "17.6")
    assert "remove it" in warning
    assert "\n" not in warning


def test_an_upgrade_in_place_changes_the_version_and_what_belongs_to_it() -> None:
    prod = recorded(settings_of("prod"))
    after = recorded(settings_of("prod", engine_version="18", allow_major_upgrade=True))
    for old, new in zip(
        *(sorted(instances(one), key=lambda each: each.name) for one in (prod, after)), strict=True
    ):
        changed = {
            name for name in {**old.inputs, **new.inputs} if old.inputs.get(name) != new.inputs.get(name)
        }
        own = {"engineVersion", "allowMajorVersionUpgrade"} if old.name == "primary" else set()
        assert changed == {"parameterGroupName", "applyImmediately"} | own
        assert (old.urn, old.protect, old.retain_on_delete) == (new.urn, new.protect, new.retain_on_delete)
        assert new.inputs["applyImmediately"] is True
    (before,), (group,) = (one.of_kind("rds.ParameterGroup") for one in (prod, after))
    # Another resource with another name: made before the instance changes to it, the old one deleted after.
    assert (before.urn, before.inputs["name"]) != (group.urn, group.inputs["name"])
    assert (before.inputs["family"], group.inputs["family"]) == ("postgres17", "postgres18")
    assert group.urn in after.one("rds.Instance", "primary").references["parameterGroupName"]


def test_the_next_major_is_prepared_beside() -> None:
    prod = recorded(settings_of("prod"))
    green = "db-GREENGREENGREENGREEN"
    ready = recorded(settings_of("prod", next_major=18, also_connect=[green]))
    families = {one.inputs["name"]: one.inputs["family"] for one in ready.of_kind("rds.ParameterGroup")}
    assert families == {"eav-prod-postgres-17": "postgres17", "eav-prod-postgres-18": "postgres18"}
    # Nothing of what runs changes, and the roles can log in there as here.
    assert {one.urn: one.inputs for one in instances(ready)} == {
        one.urn: one.inputs for one in instances(prod)
    }
    policy = json.loads(ready.one("iam.RolePolicy", "postgres-proxy-policy").inputs["policy"])
    assert {one.split("dbuser:")[1] for one in policy["Statement"][0]["Resource"]} >= {
        f"{green}/{user}" for user in PROXY_USERS
    }


def test_who_may_connect_may_at_every_door() -> None:
    arns: list[str] = []
    hosts: dict[str, str] = {}

    def look(postgres: Postgres) -> None:
        pulumi.Output.all(*postgres.may_connect("eav_jobs").resources).apply(arns.extend)
        pulumi.Output.all(**postgres.endpoints).apply(lambda found: hosts.update(found))

    graph = recorded(settings_of("prod", also_connect=["db-GREENGREENGREENGREEN"]), look)
    doors = [one.outputs["resourceId"] for one in instances(graph)]
    doors += ["db-GREENGREENGREENGREEN", graph.one("rds.Proxy").outputs["arn"].split(":")[-1]]
    prefix = "arn:aws:rds-db:eu-central-1:123456789012:dbuser"
    assert sorted(arns) == sorted(f"{prefix}:{one}/eav_jobs" for one in doors)
    assert hosts == {
        "writer": graph.one("rds.Instance", "primary").outputs["address"],
        "replica-1": graph.one("rds.Instance", "replica-1").outputs["address"],
        "replica-2": graph.one("rds.Instance", "replica-2").outputs["address"],
        "proxy": graph.one("rds.Proxy").outputs["endpoint"],
    }


def test_a_smaller_replica_has_parameters_of_its_own() -> None:
    graph = recorded(settings_of("prod", replica_class="db.r7g.2xlarge", next_major=18))
    own = parameters_of(graph, graph.one("rds.Instance", "replica-1"))
    primary = parameters_of(graph, graph.one("rds.Instance", "primary"))
    assert {name for name in STANDBY_AT_LEAST if int(own[name]) < int(primary[name])} == set()
    assert int(own["effective_cache_size"]) < int(primary["effective_cache_size"])
    assert sorted(one.inputs["name"] for one in graph.of_kind("rds.ParameterGroup")) == [
        "eav-prod-postgres-17",
        "eav-prod-postgres-18",
        "eav-prod-postgres-replica-17",
        "eav-prod-postgres-replica-18",
    ]


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (
            {"instance_class": "db.t4g.16xlarge"},
            "postgres.instance_class: db.t4g.16xlarge does not exist: db.t4g has micro, small, medium, large, xlarge,"
            " 2xlarge",
        ),
        (
            {"replica_class": "db.r7g.large"},
            "replica_class must have at least half the memory of db.r7g.4xlarge, db.r7g.large has less: a replica must"
            " allow as many connections as its primary",
        ),
        (
            {"next_major": 17},
            "next_major must be above engine_version (17), got 17: remove it after the upgrade",
        ),
        ({"next_major": 19}, "next_major must be 17 to 18, got 19"),
        ({"also_connect": ["eav-prod-postgres"]}, "must be the DbiResourceId of an instance such as db-ABC…"),
        (
            {"backup_window": "04:00-05:00"},
            "backup_window 04:00-05:00 and maintenance_window sun:04:30-sun:05:30 overlap",
        ),
        (
            {"backup_window": "23:30-00:30", "maintenance_window": "sat:22:00-sun:00:10"},
            "overlap",
        ),
        ({"backup_window": "03:00-03:10"}, "shorter than 30 minutes"),
    ],
)
def test_wrong_settings_are_one_line(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_of("prod", **wrong)
    text = str(caught.value)
    assert text.startswith("Pulumi.prod.yaml: ")
    assert line in text
    assert "\n" not in text


minutes = st.integers(0, 24 * 60 - 1)


@given(minutes, st.integers(30, 24 * 60 - 1), st.integers(0, 6), minutes, st.integers(30, 24 * 60 - 1))
def test_windows_that_meet_are_found(begin: int, length: int, day: int, start: int, span: int) -> None:
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    whole = 24 * 60

    def clock(at: int) -> str:
        return f"{at // 60 % 24:02}:{at % 60:02}"

    last = day * whole + start + span
    weekly = f"{days[day]}:{clock(start)}-{days[last // whole % 7]}:{clock(last)}"
    daily = f"{clock(begin)}-{clock(begin + length)}"
    # Minute by minute of a week, as a calendar would.
    busy = {(day * whole + start + minute) % (7 * whole) % whole for minute in range(span)}
    expected = any((begin + minute) % whole in busy for minute in range(length))
    assert overlap(daily, weekly) == expected
