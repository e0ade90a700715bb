"""What moto lacks of AWS and our stacks ask for: operations that keep what they are given, refuse a reference to
nothing, and give it back; and attributes that moto does not keep.

One class a service, on top of moto's own; `install` has moto's server dispatch to them. Only what Terraform's provider
asks for to create and to read is here: no update that nothing makes, and no deletion. State lies in moto's backends,
so it goes where theirs goes. Changes moto for the whole process: `infra.emulator` has one of its own.
"""

# ruff: noqa: D102  (each public method is the operation of AWS that its name says)

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any, Final

import xmltodict  # type: ignore[import-untyped]
from moto import backends
from moto.awslambda.models import LambdaFunction
from moto.awslambda.responses import LambdaResponse
from moto.budgets.exceptions import NotFoundException
from moto.budgets.responses import BudgetsResponse
from moto.cloudwatch.exceptions import ValidationError
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core import responses, utils
from moto.core.common_types import TYPE_RESPONSE
from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler, DynamoResult
from moto.ec2.exceptions import InvalidParameterCombination
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.responses import EC2Response
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.iam.models import iam_backends
from moto.kinesis.responses import KinesisResponse
from moto.kms.models import kms_backends
from moto.moto_api._internal import mock_random
from moto.rds.exceptions import DBInstanceNotFoundError, DBParameterGroupNotFoundError, RDSClientError
from moto.rds.models import DBInstance, rds_backends
from moto.rds.responses import RDSResponse
from moto.redshift.exceptions import (
    ClusterNotFoundError,
    ClusterParameterGroupNotFoundError,
    ClusterSubnetGroupNotFoundError,
    RedshiftClientError,
    SnapshotCopyGrantNotFoundFaultError,
)
from moto.redshift.models import Cluster, redshift_backends
from moto.redshift.responses import RedshiftResponse
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeBucket
from moto.s3.responses import S3Response
from moto.s3.utils import LOGGING_SERVICE_PRINCIPAL
from moto.secretsmanager.models import secretsmanager_backends
from moto.sns.models import sns_backends
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser, ASLParserException
from moto.stepfunctions.responses import StepFunctionResponse


def kept(backend: object, what: str) -> dict[Any, Any]:
    """What was kept under a name in a backend of moto; empty at first."""
    found: dict[Any, Any] = vars(backend).setdefault(f"kept_{what}", {})
    return found


# -- references ----------------------------------------------------------------------------------------------


def is_key(account: str, arn: str) -> bool:
    """Whether this KMS key is there, in the region that its ARN names."""
    match = re.fullmatch(r"arn:aws:kms:([a-z0-9-]+):\d+:key/(.+)", arn)
    return match is not None and match[2] in kms_backends[account][match[1]].keys


def is_role(account: str, arn: str) -> bool:
    """Whether this role is there."""
    return any(role.arn == arn for role in iam_backends[account]["aws"].get_roles())


def is_topic(account: str, region: str, arn: str) -> bool:
    """Whether this topic is there."""
    return arn in sns_backends[account][region].topics


def managed_secret(account: str, region: str, name: str, user: str, key: str | None) -> str:
    """Have Redshift keep the password of a user in Secrets Manager; the secret's ARN."""
    made = secretsmanager_backends[account][region].create_managed_secret(
        "redshift",
        f"redshift!{name}-{user}",
        secret_string=json.dumps({"username": user}),
        kms_key_id=key,
    )
    return str(made.arn)


# -- Redshift ------------------------------------------------------------------------------------------------


class Redshift(RedshiftResponse):
    """Schedules, limits, event subscriptions, scheduled actions, parameters; a cluster with all of its settings."""

    def _cluster(self, name: str) -> Cluster:
        found = self.redshift_backend.clusters.get(name)
        if found is None:
            raise ClusterNotFoundError(name)
        return found

    def _roles(self, arns: Collection[str]) -> None:
        for arn in arns:
            if not is_role(self.current_account, arn):
                raise RedshiftClientError("InvalidParameterValue", f"The IAM role {arn} is not valid.")

    def create_cluster(self) -> ActionResult:
        backend, given = self.redshift_backend, self._get_param
        subnets, parameters = given("ClusterSubnetGroupName"), given("ClusterParameterGroupName")
        if subnets and subnets not in backend.subnet_groups:
            raise ClusterSubnetGroupNotFoundError(subnets)
        if parameters and parameters not in backend.parameter_groups:
            raise ClusterParameterGroupNotFoundError(parameters)
        roles = given("IamRoles", [])
        self._roles([*roles, *filter(None, [given("DefaultIamRoleArn")])])
        for name in ("KmsKeyId", "MasterPasswordSecretKmsKeyId"):
            if given(name) and not is_key(self.current_account, given(name)):
                raise RedshiftClientError("LimitExceededFault", f"{name}: there is no key {given(name)}.")
        groups = {one.id for one in backend.ec2_backend.describe_security_groups()}
        for group in given("VpcSecurityGroupIds", []):
            if group not in groups:
                raise RedshiftClientError(
                    "InvalidVPCNetworkStateFault", f"There is no security group {group}."
                )
        managed = self._get_bool_param("ManageMasterPassword", False)
        if managed == bool(given("MasterUserPassword")):
            raise RedshiftClientError(
                "InvalidParameterCombination", "Either MasterUserPassword or ManageMasterPassword is needed."
            )
        super().create_cluster()
        cluster: Any = self._cluster(given("ClusterIdentifier"))
        cluster.cluster_availability_status = "Available"
        roles_of_nodes = ["LEADER", *(f"COMPUTE-{n}" for n in range(cluster.number_of_nodes))]
        cluster.cluster_nodes = [
            {"NodeRole": role} for role in (roles_of_nodes if cluster.number_of_nodes > 1 else ["SHARED"])
        ]
        relocates = self._get_bool_param("AvailabilityZoneRelocation", False)
        cluster.availability_zone_relocation_status = "enabled" if relocates else "disabled"
        cluster.multi_az = "Enabled" if self._get_bool_param("MultiAZ", False) else "Disabled"
        cluster.manual_snapshot_retention_period = self._get_int_param("ManualSnapshotRetentionPeriod", -1)
        cluster.maintenance_track_name = given("MaintenanceTrackName", "current")
        cluster.default_iam_role_arn = given("DefaultIamRoleArn")
        cluster.cluster_namespace_arn = (
            f"arn:aws:redshift:{self.region}:{self.current_account}:namespace:{mock_random.uuid4()}"
        )
        if managed:
            key = given("MasterPasswordSecretKmsKeyId")
            cluster.master_password_secret_arn = managed_secret(
                self.current_account, self.region, cluster.cluster_identifier, cluster.master_username, key
            )
            cluster.master_password_secret_kms_key_id = key
        return ActionResult({"Cluster": cluster})

    def modify_cluster_iam_roles(self) -> ActionResult:
        cluster: Any = self._cluster(self._get_param("ClusterIdentifier"))
        added, default = self._get_param("AddIamRoles", []), self._get_param("DefaultIamRoleArn")
        self._roles([*added, *filter(None, [default])])
        gone = set(self._get_param("RemoveIamRoles", []))
        cluster.iam_roles_arn = [
            one for one in dict.fromkeys([*cluster.iam_roles_arn, *added]) if one not in gone
        ]
        if default:
            cluster.default_iam_role_arn = default
        return ActionResult({"Cluster": cluster})

    # -- parameters

    def create_cluster_parameter_group(self) -> ActionResult:
        name = self._get_param("ParameterGroupName")
        if name in self.redshift_backend.parameter_groups:
            raise RedshiftClientError("ClusterParameterGroupAlreadyExists", f"{name} already exists.")
        return super().create_cluster_parameter_group()

    def _parameters(self, group: str) -> list[dict[str, Any]]:
        """All of a group's, defaults too. Raises RedshiftClientError for an unknown group."""
        changed = kept(self.redshift_backend, "parameters").get(group, {})
        return [
            one
            if one["ParameterName"] not in changed
            else one | {"ParameterValue": changed[one["ParameterName"]], "Source": "user"}
            for one in self.redshift_backend.describe_cluster_parameters(group)
        ]

    def modify_cluster_parameter_group(self) -> ActionResult:
        group = self._get_param("ParameterGroupName")
        names = {one["ParameterName"] for one in self._parameters(group)}
        given = {one["ParameterName"]: one["ParameterValue"] for one in self._get_param("Parameters", [])}
        if unknown := sorted(given.keys() - names):
            raise RedshiftClientError(
                "InvalidParameterValue", f"Could not find parameter with name: {unknown[0]}"
            )
        kept(self.redshift_backend, "parameters").setdefault(group, {}).update(given)
        return ActionResult({"ParameterGroupName": group, "ParameterGroupStatus": "updated"})

    def describe_cluster_parameters(self) -> ActionResult:
        source = self._get_param("Source")
        found = self._parameters(self._get_param("ParameterGroupName"))
        return ActionResult({"Parameters": [one for one in found if source in (None, one["Source"])]})

    # -- copies of snapshots

    def create_snapshot_copy_grant(self) -> ActionResult:
        key = self._get_param("KmsKeyId")
        if key and not is_key(self.current_account, key):
            raise RedshiftClientError("InvalidParameterValue", f"There is no key {key}.")
        made: Any = super().create_snapshot_copy_grant().result
        grant: Any = made["SnapshotCopyGrant"]
        grant.tags = self._get_param("Tags", [])
        return ActionResult(made)

    def enable_snapshot_copy(self) -> ActionResult:
        cluster: Any = self._cluster(self._get_param("ClusterIdentifier"))
        grant, region = self._get_param("SnapshotCopyGrantName"), self._get_param("DestinationRegion")
        if grant and grant not in redshift_backends[self.current_account][region].snapshot_copy_grants:
            raise SnapshotCopyGrantNotFoundFaultError(grant)
        answer = super().enable_snapshot_copy()
        cluster.cluster_snapshot_copy_status["ManualSnapshotRetentionPeriod"] = self._get_int_param(
            "ManualSnapshotRetentionPeriod", -1
        )
        return answer

    # -- snapshot schedules

    def create_snapshot_schedule(self) -> ActionResult:
        schedules = kept(self.redshift_backend, "snapshot_schedules")
        name = self._get_param("ScheduleIdentifier")
        if name in schedules:
            raise RedshiftClientError("SnapshotScheduleAlreadyExists", f"{name} already exists.")
        definitions = self._get_param("ScheduleDefinitions", [])
        for one in definitions:
            if not re.fullmatch(r"rate\([1-9]\d* hours?\)|cron\([^()]+\)", one):
                raise RedshiftClientError("InvalidSchedule", f"{one!r} is no schedule.")
        schedules[name] = {
            "ScheduleIdentifier": name,
            "ScheduleDefinitions": definitions,
            "ScheduleDescription": self._get_param("ScheduleDescription"),
            "Tags": self._get_param("Tags", []),
        }
        return ActionResult(schedules[name])

    def modify_cluster_snapshot_schedule(self) -> ActionResult:
        cluster = self._cluster(self._get_param("ClusterIdentifier")).cluster_identifier
        name = self._get_param("ScheduleIdentifier")
        followed = kept(self.redshift_backend, "snapshot_schedule_of")
        if self._get_bool_param("DisassociateSchedule", False):
            followed.pop(cluster, None)
        elif name not in kept(self.redshift_backend, "snapshot_schedules"):
            raise RedshiftClientError("SnapshotScheduleNotFound", f"There is no snapshot schedule {name}.")
        else:
            followed[cluster] = name
        return EmptyResult()

    def describe_snapshot_schedules(self) -> ActionResult:
        name, cluster = self._get_param("ScheduleIdentifier"), self._get_param("ClusterIdentifier")
        answer = []
        for one in kept(self.redshift_backend, "snapshot_schedules").values():
            clusters = [
                by
                for by, schedule in kept(self.redshift_backend, "snapshot_schedule_of").items()
                if schedule == one["ScheduleIdentifier"]
            ]
            if name in (None, one["ScheduleIdentifier"]) and (cluster is None or cluster in clusters):
                states = [{"ClusterIdentifier": by, "ScheduleAssociationState": "ACTIVE"} for by in clusters]
                answer.append(one | {"AssociatedClusterCount": len(clusters), "AssociatedClusters": states})
        return ActionResult({"SnapshotSchedules": answer})

    # -- usage limits

    def create_usage_limit(self) -> ActionResult:
        limits = kept(self.redshift_backend, "usage_limits")
        names = ("ClusterIdentifier", "FeatureType", "LimitType", "Amount", "Period", "BreachAction")
        limit = {name: self._get_param(name) for name in names}
        self._cluster(limit["ClusterIdentifier"])
        limit = {"Period": "monthly", "BreachAction": "log"} | {
            k: v for k, v in limit.items() if v is not None
        }
        same = ("ClusterIdentifier", "FeatureType", "LimitType", "Period")
        if any(all(one[name] == limit[name] for name in same) for one in limits.values()):
            raise RedshiftClientError("UsageLimitAlreadyExists", "There is such a usage limit already.")
        limit |= {"UsageLimitId": str(mock_random.uuid4()), "Tags": self._get_param("Tags", [])}
        limits[limit["UsageLimitId"]] = limit
        return ActionResult(limit)

    def describe_usage_limits(self) -> ActionResult:
        name, cluster = self._get_param("UsageLimitId"), self._get_param("ClusterIdentifier")
        limits = kept(self.redshift_backend, "usage_limits")
        if name is not None and name not in limits:
            raise RedshiftClientError("UsageLimitNotFound", f"There is no usage limit {name}.")
        return ActionResult(
            {
                "UsageLimits": [
                    one
                    for one in limits.values()
                    if name in (None, one["UsageLimitId"]) and cluster in (None, one["ClusterIdentifier"])
                ]
            }
        )

    # -- event subscriptions

    def create_event_subscription(self) -> ActionResult:
        subscriptions = kept(self.redshift_backend, "event_subscriptions")
        name, topic = self._get_param("SubscriptionName"), self._get_param("SnsTopicArn")
        if name in subscriptions:
            raise RedshiftClientError("SubscriptionAlreadyExist", f"{name} already exists.")
        if not is_topic(self.current_account, self.region, topic):
            raise RedshiftClientError("SNSTopicArnNotFound", f"There is no topic {topic}.")
        kind, sources = self._get_param("SourceType"), self._get_param("SourceIds", [])
        if sources and not kind:
            raise RedshiftClientError("InvalidParameterCombination", "SourceIds need a SourceType.")
        known: Mapping[str, Collection[str]] = {
            "cluster": self.redshift_backend.clusters,
            "cluster-parameter-group": self.redshift_backend.parameter_groups,
            "cluster-snapshot": self.redshift_backend.snapshots,
            "scheduled-action": kept(self.redshift_backend, "scheduled_actions"),
        }
        for one in sources:
            if one not in known.get(kind, ()):
                raise RedshiftClientError("SourceNotFound", f"There is no {kind} {one}.")
        subscriptions[name] = {
            "CustomerAwsId": self.current_account,
            "CustSubscriptionId": name,
            "SnsTopicArn": topic,
            "Status": "active",
            "SubscriptionCreationTime": utcnow(),
            "SourceType": kind,
            "SourceIdsList": sources,
            "EventCategoriesList": self._get_param("EventCategories", []),
            "Severity": self._get_param("Severity", "INFO"),
            "Enabled": self._get_bool_param("Enabled", True),
            "Tags": self._get_param("Tags", []),
        }
        return ActionResult({"EventSubscription": subscriptions[name]})

    def describe_event_subscriptions(self) -> ActionResult:
        name = self._get_param("SubscriptionName")
        subscriptions = kept(self.redshift_backend, "event_subscriptions")
        if name is not None and name not in subscriptions:
            raise RedshiftClientError("SubscriptionNotFound", f"There is no event subscription {name}.")
        return ActionResult(
            {"EventSubscriptionsList": [one for key, one in subscriptions.items() if name in (None, key)]}
        )

    # -- scheduled actions

    def create_scheduled_action(self) -> ActionResult:
        actions = kept(self.redshift_backend, "scheduled_actions")
        name = self._get_param("ScheduledActionName")
        if name in actions:
            raise RedshiftClientError("ScheduledActionAlreadyExists", f"{name} already exists.")
        self._roles([self._get_param("IamRole")])
        target = self._get_param("TargetAction")
        for call in target.values():
            self._cluster(call["ClusterIdentifier"])
        actions[name] = {
            "ScheduledActionName": name,
            "TargetAction": target,
            "Schedule": self._get_param("Schedule"),
            "IamRole": self._get_param("IamRole"),
            "ScheduledActionDescription": self._get_param("ScheduledActionDescription"),
            "State": "ACTIVE" if self._get_bool_param("Enable", True) else "DISABLED",
            "StartTime": self._get_param("StartTime"),
            "EndTime": self._get_param("EndTime"),
        }
        return ActionResult(actions[name])

    def describe_scheduled_actions(self) -> ActionResult:
        name = self._get_param("ScheduledActionName")
        actions = kept(self.redshift_backend, "scheduled_actions")
        if name is not None and name not in actions:
            raise RedshiftClientError("ScheduledActionNotFound", f"There is no scheduled action {name}.")
        return ActionResult(
            {"ScheduledActions": [one for key, one in actions.items() if name in (None, key)]}
        )


# -- RDS -----------------------------------------------------------------------------------------------------


class Rds(RDSResponse):
    """Performance Insights, replicas that are instances of their own, copies of automated backups, parameters."""

    def _check(self) -> None:
        """Refuse a role or a key that is not there."""
        role = self.params.get("MonitoringRoleArn")
        if role and not is_role(self.current_account, role):
            raise RDSClientError("InvalidParameterValue", f"IAM role ARN value is invalid: {role}")
        for name in ("KmsKeyId", "PerformanceInsightsKMSKeyId", "MasterUserSecretKmsKeyId"):
            key = self.params.get(name)
            if key and not is_key(self.current_account, key):
                raise RDSClientError("KMSKeyNotAccessibleFault", f"{name}: there is no key {key}.")

    def _insights(self, instance: Any) -> None:
        """Keep what this request says of Performance Insights."""
        if self.params.get("EnablePerformanceInsights") is not None:
            instance.performance_insights_enabled = self.params["EnablePerformanceInsights"]
        for name, attribute in (
            ("PerformanceInsightsKMSKeyId", "performance_insights_kms_key_id"),
            ("PerformanceInsightsRetentionPeriod", "performance_insights_retention_period"),
        ):
            if self.params.get(name) is not None:
                setattr(instance, attribute, self.params[name])

    def _instance(self, name: str) -> DBInstance:
        found = self.backend.databases.get(name)
        if found is None:
            raise DBInstanceNotFoundError(name)
        return found

    def create_db_instance(self) -> ActionResult:
        self._check()
        answer = super().create_db_instance()
        instance: Any = self._instance(self.params["DBInstanceIdentifier"])
        instance.dbi_resource_id = _resource_id()
        self._insights(instance)
        return answer

    def create_db_instance_read_replica(self) -> ActionResult:
        self._check()
        name, group = self.params["DBInstanceIdentifier"], self.params.get("DBParameterGroupName")
        if name in self.backend.databases:
            raise RDSClientError("DBInstanceAlreadyExists", "DB instance already exists")
        if group and group not in self.backend.db_parameter_groups:
            raise DBParameterGroupNotFoundError(group)
        source = self.backend.find_db_from_id(self.params["SourceDBInstanceIdentifier"])
        if not source.backup_retention_period:
            raise RDSClientError(
                "InvalidDBInstanceState", "Automated backups are not enabled for the source of the replica."
            )
        logs = self.params.get("EnableCloudwatchLogsExports") or []
        answer = super().create_db_instance_read_replica()
        # moto's is a copy of the primary, lists and all.
        replica: Any = self._instance(name)
        replica.dbi_resource_id = _resource_id()
        replica.tags = list(self.params.get("Tags") or [])
        replica.enabled_cloudwatch_logs_exports = list(logs)
        replica.backup_retention_period = self.params.get("BackupRetentionPeriod") or 0
        replica.multi_az = bool(self.params.get("MultiAZ"))
        replica.max_allocated_storage = self.params.get("MaxAllocatedStorage") or replica.allocated_storage
        replica.performance_insights_enabled = False
        self._insights(replica)
        return answer

    def modify_db_instance(self) -> ActionResult:
        self._check()
        answer = super().modify_db_instance()
        self._insights(self._instance(self.params["DBInstanceIdentifier"]))
        return answer

    def describe_db_parameters(self) -> ActionResult:
        name, source = self.params.get("DBParameterGroupName"), self.params.get("Source")
        groups = self.backend.describe_db_parameter_groups({"db_parameter_group_name": name})
        if not groups:
            raise DBParameterGroupNotFoundError(name)
        # Of a group's parameters moto knows those that were set, and these are the user's.
        found = [one | {"Source": "user"} for one in groups[0].parameters.values()]
        return ActionResult({"Parameters": found if source in (None, "user") else []})

    def start_db_instance_automated_backups_replication(self) -> ActionResult:
        self._check()
        source = self.params["SourceDBInstanceArn"]
        match = re.fullmatch(r"arn:aws:rds:([a-z0-9-]+):\d+:db:(.+)", source)
        if match is None or match[1] == self.region:
            raise RDSClientError("InvalidParameterValue", f"{source} is no instance of another region.")
        instance: Any = rds_backends[self.current_account][match[1]].databases.get(match[2])
        if instance is None:
            raise DBInstanceNotFoundError(match[2])
        if not instance.backup_retention_period:
            raise RDSClientError("InvalidDBInstanceState", f"{match[2]} has no automated backups.")
        key = self.params.get("KmsKeyId")
        if instance.storage_encrypted and (not key or f":{self.region}:" not in key):
            raise RDSClientError(
                "InvalidParameterValue", f"An encrypted instance needs a KmsKeyId of {self.region}."
            )
        copies = kept(self.backend, "backup_copies")
        if any(one["DBInstanceArn"] == source for one in copies.values()):
            raise RDSClientError("InvalidDBInstanceState", f"{source} is replicated already.")
        arn = f"arn:aws:rds:{self.region}:{self.current_account}:auto-backup:ab-{mock_random.get_random_hex(26)}"
        copies[arn] = {
            "DBInstanceArn": source,
            "DbiResourceId": instance.dbi_resource_id,
            "Region": match[1],
            "DBInstanceIdentifier": match[2],
            "Status": "replicating",
            "AllocatedStorage": instance.allocated_storage,
            "Port": instance.port,
            "Engine": instance.engine,
            "EngineVersion": instance.engine_version,
            "Encrypted": instance.storage_encrypted,
            "StorageType": instance.storage_type,
            "KmsKeyId": key,
            "BackupRetentionPeriod": self.params.get("BackupRetentionPeriod") or 7,
            "DBInstanceAutomatedBackupsArn": arn,
        }
        # The source tells of its copies.
        told = getattr(instance, "db_instance_automated_backups_replications", [])
        instance.db_instance_automated_backups_replications = [
            *told,
            {"DBInstanceAutomatedBackupsArn": arn},
        ]
        return ActionResult({"DBInstanceAutomatedBackup": copies[arn]})

    def describe_db_instance_automated_backups(self) -> ActionResult:
        arn = self.params.get("DBInstanceAutomatedBackupsArn")
        if arn is None:
            return super().describe_db_instance_automated_backups()
        found = kept(self.backend, "backup_copies").get(arn)
        if found is None:
            raise RDSClientError("DBInstanceAutomatedBackupNotFound", f"There is no automated backup {arn}.")
        return ActionResult({"DBInstanceAutomatedBackups": [found]})


def _resource_id() -> str:
    """moto has one for all."""
    return f"db-{mock_random.get_random_string(26).upper()}"


# -- CloudWatch ----------------------------------------------------------------------------------------------


class CloudWatch(CloudWatchResponse):
    """Composite alarms."""

    def put_composite_alarm(self) -> ActionResult:
        name, rule = self._get_param("AlarmName"), self._get_param("AlarmRule")
        suppressor = self._get_param("ActionsSuppressor")
        waits = [self._get_int_param(f"ActionsSuppressor{which}Period") for which in ("Wait", "Extension")]
        alarms = self.cloudwatch_backend.alarms
        named = {*rule_alarms(rule), *filter(None, [suppressor])}
        missing = sorted(one for one in named if one.rpartition(":alarm:")[2] not in alarms)
        if missing:
            raise ValidationError(
                f"Could not save the composite alarm {name}: there is no alarm {', '.join(missing)}",
            )
        if (suppressor is None) != (None in waits):
            raise ValidationError("ActionsSuppressor goes with its WaitPeriod and its ExtensionPeriod")
        self.put_metric_alarm()
        alarm: Any = alarms[name]
        alarm.actions_suppressor = suppressor
        alarm.actions_suppressor_wait_period, alarm.actions_suppressor_extension_period = waits
        return EmptyResult()


_RULE_TOKEN: Final = re.compile(
    r'\s*(?:(?P<state>ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*(?:"(?P<quoted>[^"]+)"|(?P<bare>[^\s()"]+))\s*\)'
    r"|(?P<word>AND|OR|NOT|TRUE|FALSE)\b|(?P<mark>[()]))"
)


def rule_alarms(rule: str) -> list[str]:
    """The alarms that a rule of a composite alarm names. Raises ValidationError for what is no rule."""
    tokens: list[str] = []
    names: list[str] = []
    end = 0
    while rule[end:].strip():
        match = _RULE_TOKEN.match(rule, end)
        if match is None:
            raise ValidationError(f"AlarmRule: nothing is known by {rule[end:].strip()!r}")
        if match["state"]:
            names.append(match["quoted"] or match["bare"])
        tokens.append("operand" if match["state"] else match["word"] or match["mark"])
        end = match.end()
    left = iter([*tokens, "end"])
    if not (_is_rule(_Ahead(left)) and len(rule) <= 10240):
        raise ValidationError(f"AlarmRule is no expression: {rule!r}")
    return names


class _Ahead:
    """Tokens with a look at the next one."""

    def __init__(self, tokens: Iterator[str]) -> None:
        self.tokens, self.next = tokens, next(tokens)

    def take(self, *any_of: str) -> bool:
        found = self.next in any_of
        if found and self.next != "end":
            self.next = next(self.tokens)
        return found


def _is_rule(ahead: _Ahead) -> bool:
    return _is_expression(ahead) and ahead.take("end")


def _is_expression(ahead: _Ahead) -> bool:
    """operand {AND|OR operand}."""
    while _is_operand(ahead):
        if not ahead.take("AND", "OR"):
            return True
    return False


def _is_operand(ahead: _Ahead) -> bool:
    if ahead.take("NOT"):
        return _is_operand(ahead)
    if ahead.take("("):
        return _is_expression(ahead) and ahead.take(")")
    return ahead.take("operand", "TRUE", "FALSE")


# -- Step Functions ------------------------------------------------------------------------------------------


class StepFunctions(StepFunctionResponse):
    """A definition is parsed as the Amazon States Language before it is kept."""

    def create_state_machine(self) -> ActionResult:
        role = self._get_param("roleArn")
        if not is_role(self.current_account, role):
            raise AWSError(f"There is no role {role} to be assumed.", "AccessDeniedException")
        if problems := definition_problems(self._get_param("definition")):
            raise AWSError(f"Invalid State Machine Definition: {problems[0]}", "InvalidDefinition")
        return super().create_state_machine()

    def list_state_machine_versions(self) -> ActionResult:
        machine = self.stepfunction_backend.describe_state_machine(self._get_param("stateMachineArn"))
        versions = [
            {"stateMachineVersionArn": one.arn, "creationDate": one.creation_date}
            for _, one in sorted(machine.versions.items(), reverse=True)
        ]
        return ActionResult({"stateMachineVersions": versions})

    def validate_state_machine_definition(self) -> ActionResult:
        problems = definition_problems(self._get_param("definition"))
        return ActionResult(
            {
                "result": "FAIL" if problems else "OK",
                "diagnostics": [
                    {"severity": "ERROR", "code": "SCHEMA_VALIDATION_FAILED", "message": one}
                    for one in problems
                ],
                "truncated": False,
            }
        )


def definition_problems(definition: str) -> list[str]:
    """What is wrong with a state machine: grammar, by moto's parser; then states that lead nowhere, or unreached."""
    try:
        AmazonStateLanguageParser.parse(definition)
        machine = json.loads(definition)
    except ASLParserException as error:
        return list(error.errors)
    except Exception as error:  # noqa: BLE001  (moto's visitor raises what comes to its mind)
        return [f"{type(error).__name__}: {error}"]
    return list(_state_problems(machine, "/"))


def _state_problems(machine: Mapping[str, Any], where: str) -> Iterator[str]:
    states: Mapping[str, Any] = machine.get("States", {})
    leads = {machine.get("StartAt")}
    if machine.get("StartAt") not in states:
        yield f"StartAt at {where}: there is no state {machine.get('StartAt')}"
    for name, state in states.items():
        follow = [
            state.get("Next"),
            state.get("Default"),
            *(one.get("Next") for one in [*state.get("Choices", []), *state.get("Catch", [])]),
        ]
        leads |= {one for one in follow if one is not None}
        for one in follow:
            if one is not None and one not in states:
                yield f"Next at {where}States/{name}: there is no state {one}"
        ends = state.get("End") is True or state["Type"] in ("Succeed", "Fail", "Choice")
        if not ends and state.get("Next") is None:
            yield f"{where}States/{name}: neither Next nor End"
        for inner in [*state.get("Branches", []), *filter(None, [state.get("ItemProcessor")])]:
            yield from _state_problems(inner, f"{where}States/{name}/")
    for name in states:
        if name not in leads:
            yield f"{where}States/{name}: no state leads to it"


# -- S3 ------------------------------------------------------------------------------------------------------


class S3(S3Response):
    """Metrics configurations; the policy of a log bucket may name several resources."""

    def _metrics(self, bucket_name: str) -> dict[str, Any]:
        bucket: Any = self.backend.head_bucket(bucket_name)
        return kept(bucket, "metrics")

    def _bucket_response_put(
        self, request: Any, bucket_name: str, querystring: dict[str, Any]
    ) -> str | TYPE_RESPONSE:
        if "metrics" not in querystring:
            return super()._bucket_response_put(request, bucket_name, querystring)
        given = xmltodict.parse(self.body)["MetricsConfiguration"]
        given = {key: value for key, value in given.items() if not key.startswith("@")}
        if given.get("Id") != querystring["id"][0]:
            raise S3ClientError("MalformedXML", "The Id is not the id of the request.")
        self._metrics(bucket_name)[given["Id"]] = given
        return ""

    def _bucket_response_get(self, bucket_name: str, querystring: dict[str, Any]) -> str | TYPE_RESPONSE:
        if "metrics" not in querystring:
            return super()._bucket_response_get(bucket_name, querystring)
        found = self._metrics(bucket_name).get(querystring["id"][0])
        if found is None:
            error = S3ClientError("NoSuchConfiguration", "The specified configuration does not exist.")
            error.status = 404  # type: ignore[attr-defined]
            raise error
        return 200, {"content-type": "application/xml"}, xmltodict.unparse({"MetricsConfiguration": found})


def _may_log(target_bucket: FakeBucket, target_prefix: str | None) -> bool:
    """Whether the policy of a bucket lets S3 write its logs there; moto reads one resource and one action only."""
    arn = f"arn:{target_bucket.partition}:s3:::{target_bucket.name}"
    for one in json.loads(target_bucket.policy or b'{"Statement": []}')["Statement"]:
        resources, actions = (_listed(one.get(name)) for name in ("Resource", "Action"))
        principal = one.get("Principal")
        service = principal.get("Service") if isinstance(principal, dict) else principal
        if (
            one["Effect"] == "Allow"
            and LOGGING_SERVICE_PRINCIPAL in _listed(service)
            and {"s3:PutObject", "s3:*"} & set(actions)
            and {f"{arn}/*", f"{arn}/{target_prefix or ''}*"} & set(resources)
        ):
            return True
    return False


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# -- EC2 -----------------------------------------------------------------------------------------------------


class Ec2(EC2Response):
    """Credits of an instance; descriptions of all rules."""

    def authorize_security_group_ingress(self) -> ActionResult:
        return self._described(super().authorize_security_group_ingress())

    def authorize_security_group_egress(self) -> ActionResult:
        return self._described(super().authorize_security_group_egress())

    def _described(self, answer: ActionResult) -> ActionResult:
        """Keep what the request says of prefix lists; moto keeps their ids."""
        said = {
            one["PrefixListId"]: one.get("Description")
            for permission in self._get_param("IpPermissions", [])
            for one in permission.get("PrefixListIds", [])
        }
        made: Any = answer.result
        for rule in made["SecurityGroupRules"]:
            rule.kept_description = said.get(rule.prefix_list_id)
        return answer

    def run_instances(self) -> ActionResult:
        answer = super().run_instances()
        given = self._get_param("CreditSpecification", {}).get("CpuCredits")
        reservation: Any = answer.result
        for one in reservation.instances:
            # moto leaves the groups with the interface, where AWS tells them of the instance too.
            if not one.security_groups:
                one.security_groups = list(one.nics[0]._group_set)  # noqa: SLF001  (there is no other way in)
            burstable = one.instance_type.startswith("t")
            if given and not burstable:
                raise InvalidParameterCombination(f"{one.instance_type} has no credits")
            one.kept_credits = given or ("standard" if one.instance_type.startswith("t2.") else "unlimited")
        return answer

    def describe_instance_credit_specifications(self) -> ActionResult:
        found: list[Instance] = self.ec2_backend.describe_instance_credit_specifications(
            self._get_param("InstanceIds", [])
        )
        return ActionResult(
            {
                "InstanceCreditSpecifications": [
                    {"InstanceId": one.id, "CpuCredits": one.kept_credits}  # type: ignore[attr-defined]
                    for one in found
                ]
            }
        )


def _rule_description(self: SecurityGroupRule) -> str | None:
    """moto has it of a rule for addresses only."""
    prefixes: str | None = vars(self).get("kept_description")
    return self.ip_range.get("Description") or self.source_group.get("Description") or prefixes


# -- what else is forgotten ----------------------------------------------------------------------------------


class Budgets(BudgetsResponse):
    """Who is told; tags."""

    def create_budget(self) -> str:
        answer = super().create_budget()
        arn = f"arn:aws:budgets::{self._get_param('AccountId')}:budget/{self._get_param('Budget')['BudgetName']}"
        kept(self.backend, "tags")[arn] = self._get_param("ResourceTags", [])
        return answer

    def list_tags_for_resource(self) -> str:
        arn = self._get_param("ResourceARN")
        if arn not in kept(self.backend, "tags"):
            raise NotFoundException(f"There is no {arn}.")
        return json.dumps({"ResourceTags": kept(self.backend, "tags")[arn]})

    def describe_subscribers_for_notification(self) -> str:
        budgets = self.backend.budgets[self._get_param("AccountId")]
        name, asked = self._get_param("BudgetName"), self._get_param("Notification")
        if name not in budgets:
            raise NotFoundException(f"There is no budget {name}.")
        for one in budgets[name].notifications:
            if _notice(one.details) == _notice(asked):
                return json.dumps({"Subscribers": one.subscribers})
        raise NotFoundException(f"The budget {name} has no such notification.")


def _notice(details: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes a notification of a budget one of its own."""
    kind = details.get("ThresholdType", "PERCENTAGE")
    return details["NotificationType"], details["ComparisonOperator"], float(details["Threshold"]), kind


class DynamoDb(DynamoHandler):
    """Caps of a table that is paid by request."""

    def create_table(self) -> ActionResult:
        super().create_table()
        return self._capped()

    def update_table(self) -> ActionResult:
        super().update_table()
        return self._capped()

    def _capped(self) -> ActionResult:
        table: Any = self.dynamodb_backend.get_table(self.body["TableName"])
        if "OnDemandThroughput" in self.body:
            table.kept_caps = self.body["OnDemandThroughput"]
        return DynamoResult(table.describe())


class Ecs(EC2ContainerServiceResponse):
    """Tags that ECS adds, and whether it moves tasks between zones."""

    def create_service(self) -> ActionResult:
        answer: Any = super().create_service()
        service = answer.result["service"]
        service.enable_ecs_managed_tags = self._get_bool_param("enableECSManagedTags", False)
        service.availability_zone_rebalancing = self._get_param("availabilityZoneRebalancing", "DISABLED")
        return ActionResult({"service": service})


class Kinesis(KinesisResponse):
    """Tags of a new stream."""

    def create_stream(self) -> ActionResult:
        answer = super().create_stream()
        name = self._get_param("StreamName")
        self.kinesis_backend.streams[name].tags.update(self._get_param("Tags", {}))
        return answer


class Lambda(LambdaResponse):
    """The queue for what failed, and where the log goes."""

    def create_function(self) -> TYPE_RESPONSE:
        super().create_function()
        function: Any = self.backend.get_function(self.json_body["FunctionName"], None)
        function.kept_settings = {
            name: self.json_body[name]
            for name in ("DeadLetterConfig", "LoggingConfig")
            if self.json_body.get(name)
        }
        return 201, {"status": 201}, json.dumps(function.get_configuration(on_create=True))


_MODULES: Final = backends.list_of_moto_modules
_METHODS: Final[Any] = utils.method_names_from_class


def install() -> None:
    """Have moto's server answer with these, for as long as the process lives."""
    for ours in (
        Budgets, CloudWatch, DynamoDb, Ec2, Ecs, Kinesis, Lambda, Rds, Redshift, S3, StepFunctions,
    ):  # fmt: skip
        theirs: Any = ours.__mro__[1]
        package = theirs.__module__.split(".responses")[0]
        urls: Any = importlib.import_module(f"{package}.urls")
        # Of S3 the paths are read again at every look, by the class's name.
        setattr(importlib.import_module(f"{package}.responses"), theirs.__name__, ours)
        urls.url_paths = {
            path: getattr(ours, handler.__name__) if handler.__self__ is theirs else handler
            for path, handler in urls.url_paths.items()
        }
    buckets: Any = FakeBucket
    buckets._log_permissions_enabled_policy = staticmethod(_may_log)  # noqa: SLF001  (there is no other way in)
    rules: Any = SecurityGroupRule
    rules.description = property(_rule_description)
    # AWS leaves it away where there is no public address; moto says an empty one, which the provider takes for one.
    interfaces: Any = NetworkInterface
    association = interfaces.association
    interfaces.association = property(lambda self: association.fget(self) or None)
    # At every request it asks the disk for each of its 160 services, twice, and the class for its members: a third of
    # its time.
    backends.list_of_moto_modules = cache(lambda: frozenset(_MODULES()))
    responses.method_names_from_class = cache(_METHODS)  # type: ignore[attr-defined]
    _adds(Table, "describe", _caps)
    _adds(LambdaFunction, "get_configuration", _settings)


def _adds(owner: Any, method: str, more: Any) -> None:
    """Give what a method answers, a mapping, to `more`, which adds to it."""
    original = getattr(owner, method)

    def answer(self: Any, *given: Any, **named: Any) -> Any:
        return more(self, original(self, *given, **named))

    setattr(owner, method, answer)


def _caps(table: Any, described: dict[str, Any]) -> dict[str, Any]:
    for inner in described.values():
        if hasattr(table, "kept_caps"):
            inner["OnDemandThroughput"] = table.kept_caps
    return described


def _settings(function: Any, configuration: dict[str, Any]) -> dict[str, Any]:
    return configuration | getattr(function, "kept_settings", {})
