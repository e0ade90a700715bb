"""A recorded graph as a Terraform configuration, so that the AWS provider's own code checks it.

pulumi-aws is a bridge to terraform-provider-aws: the same resources, with names in another case. So the graph of a
stack, written back as Terraform JSON, is validated by that provider, planned, and applied to an emulator, where there
is a Terraform with the provider and no Pulumi engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from infra.errors import InfraError
from infra.graph import Graph, Resource

TYPES: Final[dict[str, str]] = {
    "appautoscaling.Policy": "aws_appautoscaling_policy",
    "appautoscaling.Target": "aws_appautoscaling_target",
    "budgets.Budget": "aws_budgets_budget",
    "cloudwatch.CompositeAlarm": "aws_cloudwatch_composite_alarm",
    "cloudwatch.Dashboard": "aws_cloudwatch_dashboard",
    "cloudwatch.EventRule": "aws_cloudwatch_event_rule",
    "cloudwatch.EventTarget": "aws_cloudwatch_event_target",
    "cloudwatch.LogGroup": "aws_cloudwatch_log_group",
    "cloudwatch.LogMetricFilter": "aws_cloudwatch_log_metric_filter",
    "cloudwatch.LogResourcePolicy": "aws_cloudwatch_log_resource_policy",
    "cloudwatch.MetricAlarm": "aws_cloudwatch_metric_alarm",
    "dynamodb.ContributorInsights": "aws_dynamodb_contributor_insights",
    "dynamodb.Table": "aws_dynamodb_table",
    "ec2.DefaultSecurityGroup": "aws_default_security_group",
    "ec2.Eip": "aws_eip",
    "ec2.FlowLog": "aws_flow_log",
    "ec2.Instance": "aws_instance",
    "ec2.InternetGateway": "aws_internet_gateway",
    "ec2.LaunchTemplate": "aws_launch_template",
    "ec2.NatGateway": "aws_nat_gateway",
    "ec2.Route": "aws_route",
    "ec2.RouteTable": "aws_route_table",
    "ec2.RouteTableAssociation": "aws_route_table_association",
    "ec2.SecurityGroup": "aws_security_group",
    "ec2.Subnet": "aws_subnet",
    "ec2.Vpc": "aws_vpc",
    "ec2.VpcEndpoint": "aws_vpc_endpoint",
    "ecr.LifecyclePolicy": "aws_ecr_lifecycle_policy",
    "ecr.Repository": "aws_ecr_repository",
    "ecr.RepositoryPolicy": "aws_ecr_repository_policy",
    "ecs.Cluster": "aws_ecs_cluster",
    "ecs.ClusterCapacityProviders": "aws_ecs_cluster_capacity_providers",
    "ecs.Service": "aws_ecs_service",
    "ecs.TaskDefinition": "aws_ecs_task_definition",
    "glue.CatalogDatabase": "aws_glue_catalog_database",
    "glue.CatalogTable": "aws_glue_catalog_table",
    "iam.InstanceProfile": "aws_iam_instance_profile",
    "iam.Policy": "aws_iam_policy",
    "iam.Role": "aws_iam_role",
    "iam.RolePolicy": "aws_iam_role_policy",
    "iam.RolePolicyAttachment": "aws_iam_role_policy_attachment",
    "kinesis.ResourcePolicy": "aws_kinesis_resource_policy",
    "kinesis.Stream": "aws_kinesis_stream",
    "kms.Alias": "aws_kms_alias",
    "kms.Key": "aws_kms_key",
    "lambda.Function": "aws_lambda_function",
    "lambda.FunctionEventInvokeConfig": "aws_lambda_function_event_invoke_config",
    "lambda.Permission": "aws_lambda_permission",
    "rds.EventSubscription": "aws_db_event_subscription",
    "rds.Instance": "aws_db_instance",
    "rds.InstanceAutomatedBackupsReplication": "aws_db_instance_automated_backups_replication",
    "rds.ParameterGroup": "aws_db_parameter_group",
    "rds.Proxy": "aws_db_proxy",
    "rds.ProxyDefaultTargetGroup": "aws_db_proxy_default_target_group",
    "rds.ProxyTarget": "aws_db_proxy_target",
    "rds.SubnetGroup": "aws_db_subnet_group",
    "redshift.Cluster": "aws_redshift_cluster",
    "redshift.ClusterIamRoles": "aws_redshift_cluster_iam_roles",
    "redshift.EventSubscription": "aws_redshift_event_subscription",
    "redshift.Logging": "aws_redshift_logging",
    "redshift.ParameterGroup": "aws_redshift_parameter_group",
    "redshift.ScheduledAction": "aws_redshift_scheduled_action",
    "redshift.SnapshotCopy": "aws_redshift_snapshot_copy",
    "redshift.SnapshotCopyGrant": "aws_redshift_snapshot_copy_grant",
    "redshift.SnapshotSchedule": "aws_redshift_snapshot_schedule",
    "redshift.SnapshotScheduleAssociation": "aws_redshift_snapshot_schedule_association",
    "redshift.SubnetGroup": "aws_redshift_subnet_group",
    "redshift.UsageLimit": "aws_redshift_usage_limit",
    "redshiftserverless.Namespace": "aws_redshiftserverless_namespace",
    "redshiftserverless.UsageLimit": "aws_redshiftserverless_usage_limit",
    "redshiftserverless.Workgroup": "aws_redshiftserverless_workgroup",
    "route53.Record": "aws_route53_record",
    "route53.Zone": "aws_route53_zone",
    "s3.Bucket": "aws_s3_bucket",
    "s3.BucketLifecycleConfiguration": "aws_s3_bucket_lifecycle_configuration",
    "s3.BucketLogging": "aws_s3_bucket_logging",
    "s3.BucketMetric": "aws_s3_bucket_metric",
    "s3.BucketNotification": "aws_s3_bucket_notification",
    "s3.BucketObjectLockConfiguration": "aws_s3_bucket_object_lock_configuration",
    "s3.BucketOwnershipControls": "aws_s3_bucket_ownership_controls",
    "s3.BucketPolicy": "aws_s3_bucket_policy",
    "s3.BucketPublicAccessBlock": "aws_s3_bucket_public_access_block",
    "s3.BucketServerSideEncryptionConfiguration": "aws_s3_bucket_server_side_encryption_configuration",
    "s3.BucketVersioning": "aws_s3_bucket_versioning",
    "scheduler.Schedule": "aws_scheduler_schedule",
    "scheduler.ScheduleGroup": "aws_scheduler_schedule_group",
    "secretsmanager.Secret": "aws_secretsmanager_secret",
    "secretsmanager.SecretVersion": "aws_secretsmanager_secret_version",
    "secretsmanager.SecretPolicy": "aws_secretsmanager_secret_policy",
    "secretsmanager.SecretRotation": "aws_secretsmanager_secret_rotation",
    "sfn.StateMachine": "aws_sfn_state_machine",
    "sns.Topic": "aws_sns_topic",
    "sns.TopicPolicy": "aws_sns_topic_policy",
    "sns.TopicSubscription": "aws_sns_topic_subscription",
    "sqs.Queue": "aws_sqs_queue",
    "sqs.QueuePolicy": "aws_sqs_queue_policy",
    "ssm.Document": "aws_ssm_document",
    "ssm.Parameter": "aws_ssm_parameter",
    "vpc.SecurityGroupEgressRule": "aws_vpc_security_group_egress_rule",
    "vpc.SecurityGroupIngressRule": "aws_vpc_security_group_ingress_rule",
}
"""Kind → Terraform's type."""

RENAMED: Final[dict[str, dict[str, str]]] = {
    "cloudwatch.CompositeAlarm": {},
    "cloudwatch.MetricAlarm": {"name": "alarm_name"},
    "lambda.Function": {"name": "function_name", "code": "filename"},
    "lambda.Permission": {"function": "function_name"},
    "sns.TopicSubscription": {"topic": "topic_arn"},
    "cloudwatch.EventRule": {"name": "name"},
}
"""Where Pulumi's name is another word, not another case."""

NEWER: Final[dict[str, dict[str, str]]] = {
    "rds.Proxy": {"defaultAuthScheme": "6.13"},
}
"""Inputs that came after provider 5, and with which version: an older provider is not shown them."""

STAND_INS: Final[dict[str, dict[str, Any]]] = {
    "rds.Proxy": {
        "auth": [
            {
                "auth_scheme": "SECRETS",
                "iam_auth": "REQUIRED",
                "secret_arn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:stand-in",
            }
        ]
    },
}
"""What an older provider wants where it does not know the newer input."""

Schema = Mapping[str, Any]


@dataclass
class Terraform:
    """A configuration and how its addresses map to the graph."""

    config: dict[str, Any]
    addresses: dict[str, str] = field(default_factory=dict)
    """URN → `aws_vpc.network_vpc`."""
    unseen: list[str] = field(default_factory=list)
    """Inputs that this provider is too old for."""


def convert(
    graph: Graph,
    schemas: Mapping[str, Schema],
    *,
    provider: Mapping[str, Any],
    code: str = "",
    without: frozenset[str] = frozenset(),
) -> Terraform:
    """The graph as Terraform JSON.

    schemas: resource type → schema, of `terraform providers schema -json`. provider: settings of the provider, such as
    endpoints. code: the path of a zip file to give to functions in place of their bundle. without: URNs to leave out.
    Raises InfraError for a kind or a property that the provider does not have.
    """
    return _Writer(graph, schemas, provider, code, without).write()


def snake(name: str) -> str:
    """`vpcSecurityGroupIds` → `vpc_security_group_ids`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _singulars(name: str) -> Iterator[str]:
    """What Pulumi may have made a plural of."""
    yield name
    if name.endswith("ies"):
        yield name[:-3] + "y"
    if name.endswith("es"):
        yield name[:-2]
    if name.endswith("s"):
        yield name[:-1]


class _Writer:
    def __init__(
        self,
        graph: Graph,
        schemas: Mapping[str, Schema],
        provider: Mapping[str, Any],
        code: str,
        without: frozenset[str],
    ) -> None:
        self.graph, self.schemas, self.provider, self.code = graph, schemas, provider, code
        self.kept = {one.urn: one for one in graph if one.custom and one.urn not in without}
        self.addresses = self._addresses()
        self.regions: set[str] = set()
        self.problems: list[str] = []
        self.unseen: list[str] = []

    def write(self) -> Terraform:
        resources: dict[str, dict[str, Any]] = {}
        for urn, one in self.kept.items():
            kind, name = self.addresses[urn].split(".")
            resources.setdefault(kind, {})[name] = self._resource(one)
        if self.problems:
            raise InfraError("\n".join(self.problems))
        first = {"region": self.graph.settings.region} | dict(self.provider)
        first["default_tags"] = [{"tags": self.graph.settings.tags}]
        providers = [first] + [first | {"region": region, "alias": region} for region in sorted(self.regions)]
        config = {
            "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws"}}},
            "provider": {"aws": providers},
            "resource": resources,
        }
        return Terraform(config, self.addresses, self.unseen)

    def _addresses(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for urn, one in self.kept.items():
            if one.kind not in TYPES:
                raise InfraError(f"{one.name}: infra/terraform.py does not know the kind {one.kind}")
            name = re.sub(r"[^a-z0-9_]+", "_", f"{self.graph.component(one)}_{one.name}".lower())
            found[urn] = f"{TYPES[one.kind]}.{name}"
        if len(set(found.values())) != len(found):
            raise InfraError("two resources have one Terraform address")
        return found

    # -- one resource ----------------------------------------------------------------------------------------

    def _resource(self, one: Resource) -> dict[str, Any]:
        block = self.schemas[TYPES[one.kind]]["block"]
        written: dict[str, Any] = {}
        for key, value in one.inputs.items():
            if value is None:
                continue
            if key == "region" and "region" not in block["attributes"]:
                # Provider 5 has a provider for each region where 6 has an argument.
                if value != self.graph.settings.region:
                    self.regions.add(value)
                    written["provider"] = f"aws.{value}"
                continue
            try:
                name, spec = self._find(one, block, key, RENAMED.get(one.kind, {}))
                given = self.code if name == "filename" and self.code else value
                written[name] = self._value(one, given, spec, self._known(one, key))
            except InfraError as error:
                if key in NEWER.get(one.kind, {}):
                    self.unseen.append(f"{one.name}: {key}")
                    written |= STAND_INS.get(one.kind, {})
                else:
                    self.problems.append(str(error))
        waits = sorted({self.addresses[urn] for urn in one.depends_on if urn in self.addresses})
        if waits:
            written["depends_on"] = waits
        if one.ignore_changes:
            written["lifecycle"] = [
                {"ignore_changes": [self._find(one, block, key, {})[0] for key in one.ignore_changes]}
            ]
        return written

    def _find(
        self, one: Resource, block: Mapping[str, Any], key: str, renamed: Mapping[str, str]
    ) -> tuple[str, tuple[str, Any]]:
        """The name in the provider's schema, and ("attribute", type) or ("block", schema)."""
        attributes, blocks = block.get("attributes", {}), block.get("block_types", {})
        for name in _singulars(renamed.get(key, snake(key))):
            if name in blocks:
                return name, ("block", blocks[name])
            if name in attributes:
                found = attributes[name]
                if found.get("computed") and not found.get("optional"):
                    raise InfraError(f"{one.name} ({one.kind}): {key} is set by AWS, not by us")
                if "nested_type" in found:
                    return name, ("block", {"block": found["nested_type"], **found["nested_type"]})
                return name, ("attribute", found["type"])
        raise InfraError(f"{one.name} ({one.kind}): the provider has no {key}")

    def _value(self, one: Resource, value: Any, spec: tuple[str, Any], known: list[tuple[str, str]]) -> Any:
        what, detail = spec
        if what == "block":
            many = value if isinstance(value, list) else [value]
            written = [self._block(one, item, detail["block"], known) for item in many]
            return written[0] if detail["nesting_mode"] == "single" else written
        return self._typed(value, detail, known)

    def _block(
        self, one: Resource, value: Any, block: Mapping[str, Any], known: list[tuple[str, str]]
    ) -> Any:
        if not isinstance(value, Mapping):
            raise InfraError(f"{one.name} ({one.kind}): {value!r} stands where the provider has a block")
        written: dict[str, Any] = {}
        for key, inner in value.items():
            if inner is not None:
                name, spec = self._find(one, block, key, {})
                written[name] = self._value(one, inner, spec, known)
        return written

    def _typed(self, value: Any, type_: Any, known: list[tuple[str, str]]) -> Any:
        if isinstance(type_, list):
            outer, inner = type_
            if outer in ("list", "set"):
                many = value if isinstance(value, list) else [value]
                return [self._typed(item, inner, known) for item in many]
            if outer == "map":
                return {key: self._typed(item, inner, known) for key, item in value.items()}
            if outer == "object":
                # Such an attribute wants all its members; those not given are null.
                given = {
                    name: item
                    for key, item in value.items()
                    for name in _singulars(snake(key))
                    if name in inner
                }
                return {
                    name: self._typed(given[name], kind, known) if given.get(name) is not None else None
                    for name, kind in inner.items()
                }
        if isinstance(value, str):
            return self._refer(value, known)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    # -- references ------------------------------------------------------------------------------------------

    def _known(self, one: Resource, key: str) -> list[tuple[str, str]]:
        """Made-up values that this input may hold → Terraform's expression; the longest first."""
        found: dict[str, str] = {}
        for urn in one.references.get(key, ()):
            other = self.kept.get(urn)
            if other is None:
                continue
            block = self.schemas[TYPES[other.kind]]["block"]
            given = {value for _, value in _strings(other.inputs)}
            for path, value in _strings(other.outputs):
                # A name that was given is the same text for both; the order is kept by depends_on.
                if path[0] in other.inputs or value in given:
                    continue
                # What stands for one resource only is never a mere word, which any text may hold: a status.
                if value.isalpha():
                    continue
                expression = self._path(other, block, path)
                if expression is not None:
                    found.setdefault(value, f"${{{self.addresses[urn]}.{expression}}}")
        return sorted(found.items(), key=lambda pair: -len(pair[0]))

    def _path(self, other: Resource, block: Mapping[str, Any], path: tuple[str | int, ...]) -> str | None:
        first = str(path[0])
        names = [*_singulars(RENAMED.get(other.kind, {}).get(first, snake(first)))]
        name = next((one for one in names if one in block["attributes"]), None)
        if name is None:
            return None
        rest = "".join(f"[{part}]" if isinstance(part, int) else f".{snake(part)}" for part in path[1:])
        return f"{name}{rest}"

    def _refer(self, text: str, known: list[tuple[str, str]]) -> str:
        """Text with references for made-up values; what looks like an expression otherwise is taken as it is."""
        marks: list[str] = []
        for value, expression in known:
            if value in text:
                text = text.replace(value, f"\0{len(marks)}\0")
                marks.append(expression)
        text = text.replace("${", "$${").replace("%{", "%%{")
        return re.sub(r"\0(\d+)\0", lambda found: marks[int(found[1])], text)


def _strings(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        if value:
            yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(inner, (*path, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(inner, (*path, index))
