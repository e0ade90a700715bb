"""For each rule a resource that keeps it and one that breaks it, declared for real: property names are the SDK's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_aws as aws

Declare = Callable[[str], object]
KEY: Final = "arn:aws:kms:eu-central-1:123456789012:key/0"
ARN: Final = "arn:aws:sns:eu-central-1:123456789012:eav-prod-page"
ACCOUNT: Final = {"StringEquals": {"aws:SourceAccount": "123456789012"}}


@dataclass(frozen=True)
class Pair:
    """Two programs; each is given the rule's id and begins the names of its resources with it."""

    good: Declare
    bad: Declare


REQUIRED: Final[Mapping[Any, Mapping[str, Any]]] = {
    aws.budgets.Budget: {"budget_type": "COST", "time_unit": "MONTHLY"},
    aws.cloudwatch.CompositeAlarm: {"alarm_name": "eav-prod-all", "alarm_rule": "TRUE"},
    aws.cloudwatch.EventTarget: {"arn": ARN, "rule": "r"},
    aws.cloudwatch.MetricAlarm: {"comparison_operator": "GreaterThanThreshold", "evaluation_periods": 1},
    aws.ec2.Instance: {"instance_type": "t4g.nano", "ami": "ami-0"},
    aws.ec2.Subnet: {"vpc_id": "vpc-0"},
    aws.ec2.VpcEndpoint: {"vpc_id": "vpc-0", "service_name": "com.amazonaws.eu-central-1.logs"},
    aws.ecs.TaskDefinition: {"family": "eav-prod-worker"},
    aws.iam.Role: {"assume_role_policy": "{}"},
    aws.iam.RolePolicy: {"role": "r"},
    aws.lambda_.Function: {"role": ARN},
    aws.lambda_.FunctionUrl: {"function_name": "f"},
    aws.lambda_.Permission: {"action": "lambda:InvokeFunction", "function": "f"},
    aws.rds.Instance: {"instance_class": "db.t4g.large"},
    aws.rds.ParameterGroup: {"family": "postgres17"},
    aws.rds.Proxy: {"engine_family": "POSTGRESQL", "role_arn": ARN, "vpc_subnet_ids": []},
    aws.redshift.Cluster: {"cluster_identifier": "eav-prod-warehouse", "node_type": "ra3.xlplus"},
    aws.redshift.ParameterGroup: {"family": "redshift-2.0"},
    aws.redshift.SnapshotCopy: {"cluster_identifier": "c", "destination_region": "eu-west-1"},
    aws.redshiftserverless.Namespace: {"namespace_name": "eav-prod"},
    aws.redshiftserverless.Workgroup: {"namespace_name": "eav-prod", "workgroup_name": "eav-prod"},
    aws.s3.BucketAcl: {"bucket": "b"},
    aws.scheduler.Schedule: {
        "flexible_time_window": {"mode": "OFF"},
        "schedule_expression": "rate(1 day)",
    },
    aws.sfn.StateMachine: {"definition": "{}", "role_arn": ARN},
    aws.sns.TopicSubscription: {"endpoint": "e", "topic": ARN},
    aws.vpc.SecurityGroupEgressRule: {"security_group_id": "sg-0", "ip_protocol": "tcp"},
    aws.vpc.SecurityGroupIngressRule: {"security_group_id": "sg-0", "ip_protocol": "tcp"},
}


def one(kind: Any, /, **given: Any) -> Declare:
    """Declares one resource with these properties and those that it must have."""
    return lambda name: kind(name, **{**REQUIRED.get(kind, {}), **given})


def pair(kind: Any, good: Mapping[str, Any], bad: Mapping[str, Any], **both: Any) -> Pair:
    """Two resources of one kind that differ in this."""
    return Pair(one(kind, **{**both, **good}), one(kind, **{**both, **bad}))


def document(*statements: Mapping[str, Any]) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **one} for one in statements]}
    )


def right(actions: Any, resources: Any = ARN, **more: Any) -> dict[str, Any]:
    """An inline policy with one statement."""
    return {"policy": document({"Action": actions, "Resource": resources, **more})}


def trust(**more: Any) -> dict[str, Any]:
    return {"assume_role_policy": document({"Action": "sts:AssumeRole", **more})}


def container(**more: Any) -> dict[str, Any]:
    return {"container_definitions": json.dumps([{"name": "worker", **more}])}


def parameters(**given: str) -> dict[str, Any]:
    return {
        "parameters": [
            {"name": name.replace("__", "."), "value": value, "apply_method": "immediate"}
            for name, value in given.items()
        ]
    }


def warehouse_parameters(**given: str) -> dict[str, Any]:
    return {"parameters": [{"name": name, "value": value} for name, value in given.items()]}


# -- rules over the whole stack ----------------------------------------------------------------------------


def bucket(*more: Callable[[str, aws.s3.Bucket], object], **given: Any) -> Declare:
    """A bucket and what belongs to it."""

    def declare(name: str) -> None:
        made = aws.s3.Bucket(name, **given)
        for part in more:
            part(name, made)

    return declare


def blocked(**switches: bool) -> Callable[[str, aws.s3.Bucket], object]:
    on: Any = {"block_public_acls": True, "block_public_policy": True, "ignore_public_acls": True}
    on |= {"restrict_public_buckets": True} | switches
    return lambda name, made: aws.s3.BucketPublicAccessBlock(f"{name}-block", bucket=made.id, **on)


def locked(name: str, made: aws.s3.Bucket) -> object:
    """Each object for a week, whoever writes it."""
    return aws.s3.BucketObjectLockConfiguration(
        f"{name}-lock", bucket=made.id, rule={"default_retention": {"mode": "GOVERNANCE", "days": 7}}
    )


def encrypted(algorithm: str, key: str | None, bucket_key: bool = True) -> Callable[..., object]:
    return lambda name, made: aws.s3.BucketServerSideEncryptionConfiguration(
        f"{name}-key",
        bucket=made.id,
        rules=[
            {
                "apply_server_side_encryption_by_default": {
                    "sse_algorithm": algorithm,
                    "kms_master_key_id": key,
                },
                "bucket_key_enabled": bucket_key,
            }
        ],
    )


def lifecycle(**rule: Any) -> Callable[..., object]:
    rules: Any = [{"id": "all", "status": "Enabled", **rule}]
    return lambda name, made: aws.s3.BucketLifecycleConfiguration(
        f"{name}-lifecycle", bucket=made.id, rules=rules
    )


def policy(*statements: Mapping[str, Any]) -> Callable[..., object]:
    return lambda name, made: aws.s3.BucketPolicy(
        f"{name}-policy", bucket=made.id, policy=document(*statements)
    )


def plain_denied(action: str, **more: Any) -> dict[str, Any]:
    return {
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        **more,
    }


def logging(name: str, made: aws.s3.Bucket) -> None:
    target = aws.s3.Bucket(f"{name}-logs")
    aws.s3.BucketLogging(f"{name}-logging", bucket=made.id, target_bucket=target.id, target_prefix="x")


def database(*more: Callable[[str, aws.rds.Instance], object], **given: Any) -> Declare:
    def declare(name: str) -> None:
        made = aws.rds.Instance(name, instance_class="db.t4g.large", **given)
        for part in more:
            part(name, made)

    return declare


def cluster(*more: Callable[[str, aws.redshift.Cluster], object], **given: Any) -> Declare:
    def declare(name: str) -> None:
        made = aws.redshift.Cluster(name, cluster_identifier=name, node_type="ra3.xlplus", **given)
        for part in more:
            part(name, made)

    return declare


def parameter_group(name: str) -> None:
    group = aws.rds.ParameterGroup(f"{name}-group", family="postgres17")
    aws.rds.Instance(name, instance_class="db.t4g.large", parameter_group_name=group.name)


def secret(rotated: bool) -> Declare:
    def declare(name: str) -> None:
        made = aws.secretsmanager.Secret(name)
        if rotated:
            rules: Any = {"automatically_after_days": 30}
            aws.secretsmanager.SecretRotation(f"{name}-rotation", secret_id=made.id, rotation_rules=rules)

    return declare


def vpc(*more: Callable[[str, aws.ec2.Vpc], object]) -> Declare:
    def declare(name: str) -> None:
        made = aws.ec2.Vpc(name, cidr_block="10.0.0.0/16")
        for part in more:
            part(name, made)

    return declare


def default_group(**given: Any) -> Callable[[str, aws.ec2.Vpc], object]:
    return lambda name, made: aws.ec2.DefaultSecurityGroup(f"{name}-default", vpc_id=made.id, **given)


def flow_log(traffic: str) -> Callable[[str, aws.ec2.Vpc], object]:
    return lambda name, made: aws.ec2.FlowLog(f"{name}-log", vpc_id=made.id, traffic_type=traffic)


def group(used: bool) -> Declare:
    def declare(name: str) -> None:
        made = aws.ec2.SecurityGroup(name)
        aws.vpc.SecurityGroupIngressRule(f"{name}-in", security_group_id=made.id, ip_protocol="tcp")
        if used:
            aws.rds.Instance(f"{name}-db", instance_class="db.t4g.large", vpc_security_group_ids=[made.id])

    return declare


def address(used: bool) -> Declare:
    def declare(name: str) -> None:
        made = aws.ec2.Eip(name)
        if used:
            aws.ec2.NatGateway(f"{name}-nat", allocation_id=made.id, subnet_id="subnet-0")

    return declare


def placed(public: bool) -> Declare:
    """An instance in a subnet whose table leads to NAT, or to the internet."""

    def declare(name: str) -> None:
        net = aws.ec2.Vpc(f"{name}-vpc", cidr_block="10.0.0.0/16")
        subnet = aws.ec2.Subnet(f"{name}-subnet", vpc_id=net.id, cidr_block="10.0.0.0/24")
        table = aws.ec2.RouteTable(f"{name}-table", vpc_id=net.id)
        aws.ec2.RouteTableAssociation(f"{name}-table", subnet_id=subnet.id, route_table_id=table.id)
        way: Any = {"gateway_id": "igw-0"} if public else {"nat_gateway_id": "nat-0"}
        aws.ec2.Route(f"{name}-out", route_table_id=table.id, destination_cidr_block="0.0.0.0/0", **way)
        aws.ec2.Instance(name, ami="ami-0", instance_type="t4g.nano", subnet_id=subnet.id)

    return declare


def function(destination: bool) -> Declare:
    def declare(name: str) -> None:
        made = aws.lambda_.Function(name, role=ARN)
        if destination:
            on_failure: Any = {"on_failure": {"destination": ARN}}
            aws.lambda_.FunctionEventInvokeConfig(
                f"{name}-failure", function_name=made.name, destination_config=on_failure
            )

    return declare


def images(kept: bool) -> Declare:
    def declare(name: str) -> None:
        made = aws.ecr.Repository(name)
        if not kept:
            aws.ecr.LifecyclePolicy(f"{name}-old", repository=made.name, policy="{}")

    return declare


def dead_letters(seconds: int) -> Declare:
    def declare(name: str) -> None:
        queue = aws.sqs.Queue(name, message_retention_seconds=seconds)
        config: Any = {"target_arn": queue.arn}
        aws.lambda_.Function(f"{name}-function", role=ARN, dead_letter_config=config)

    return declare


def log_group(waits: bool) -> Declare:
    def declare(name: str) -> None:
        made = aws.cloudwatch.LogGroup(name, name=f"/aws/lambda/{name}")
        options = pulumi.ResourceOptions(depends_on=[made] if waits else [])
        aws.lambda_.Function(f"{name}-function", name=name, role=ARN, opts=options)

    return declare


def alarms(**given: Any) -> Declare:
    """One that speaks for itself, and one that a composite alarm speaks for."""

    def declare(name: str) -> None:
        common: Any = REQUIRED[aws.cloudwatch.MetricAlarm]
        aws.cloudwatch.MetricAlarm(name, **common, **given)
        cause = aws.cloudwatch.MetricAlarm(f"{name}-cause", name=f"{name}-cause", **common)
        aws.cloudwatch.CompositeAlarm(
            f"{name}-all",
            alarm_name=f"{name}-all",
            alarm_rule=pulumi.Output.concat('ALARM("', cause.name, '")'),
            alarm_actions=[ARN],
            ok_actions=[ARN],
        )

    return declare


def topic(*statements: Mapping[str, Any]) -> Declare:
    def declare(name: str) -> None:
        made = aws.sns.Topic(name)
        aws.sns.TopicPolicy(f"{name}-policy", arn=made.arn, policy=document(*statements))

    return declare


def heard(*services: str) -> Declare:
    """An alarm of a topic under a key that lets these services use it."""

    def declare(name: str) -> None:
        use = {"Action": ["kms:Decrypt", "kms:GenerateDataKey*"], "Resource": "*"}
        key = aws.kms.Key(name, policy=document({**use, "Principal": {"Service": list(services)}}))
        made = aws.sns.Topic(name, kms_master_key_id=key.arn)
        right = {
            "Action": "sns:Publish",
            "Resource": "*",
            "Principal": {"Service": "cloudwatch.amazonaws.com"},
        }
        aws.sns.TopicPolicy(f"{name}-policy", arn=made.arn, policy=document(right))
        common: Any = REQUIRED[aws.cloudwatch.MetricAlarm]
        aws.cloudwatch.MetricAlarm(f"{name}-alarm", alarm_actions=[made.arn], **common)

    return declare


def queue(*statements: Mapping[str, Any]) -> Declare:
    def declare(name: str) -> None:
        made = aws.sqs.Queue(name)
        aws.sqs.QueuePolicy(f"{name}-policy", queue_url=made.url, policy=document(*statements))

    return declare


def named(*names: str) -> Declare:
    return lambda rule: [aws.sqs.Queue(f"{rule}-{index}", name=name) for index, name in enumerate(names)]


def subscribed(name: str) -> None:
    aws.rds.Instance(name, instance_class="db.t4g.large")
    aws.rds.EventSubscription(f"{name}-events", sns_topic=ARN, source_type="db-instance")


def logged_bucket_policy(action: str) -> dict[str, Any]:
    condition = {"StringNotEquals": {"s3:x-amz-server-side-encryption-aws-kms-key-id": KEY}}
    return plain_denied(action, Condition=condition)


_DB: Final = aws.rds.Instance
_RS: Final = aws.redshift.Cluster
_NS: Final = aws.redshiftserverless.Namespace
_WG: Final = aws.redshiftserverless.Workgroup
_FN: Final = aws.lambda_.Function
_TASK: Final = aws.ecs.TaskDefinition
_SERVICE: Final = aws.ecs.Service
_EC2: Final = aws.ec2.Instance
_POLICY: Final = aws.iam.RolePolicy
_LOGS: Final = aws.cloudwatch.LogGroup
_ALARM: Final = aws.cloudwatch.MetricAlarm
_KEPT: Final = pulumi.ResourceOptions(protect=True, retain_on_delete=True)
_EVENTS: Final = {"Principal": {"Service": "events.amazonaws.com"}, "Action": "sns:Publish", "Resource": ARN}

PAIRS: Final[dict[str, Pair]] = {
    # access
    "policy-document": pair(_POLICY, right("s3:GetObject"), {"policy": "{"}),
    "iam-star-action": pair(_POLICY, right("s3:GetObject"), right(["s3:GetObject", "s3:*"])),
    "iam-wildcard-action": pair(_POLICY, right("s3:GetObject"), right("s3:Get*")),
    "iam-star-resource": pair(_POLICY, right("xray:PutTraceSegments", "*"), right("s3:GetObject", "*")),
    "iam-wide-resource": pair(
        _POLICY,
        right("dynamodb:GetItem", "arn:aws:dynamodb:eu-central-1:1:table/eav-prod-*"),
        right("dynamodb:GetItem", "arn:aws:dynamodb:eu-central-1:1:table/*"),
    ),
    "iam-negated": pair(
        _POLICY, right("s3:GetObject"), {"policy": document({"NotAction": "iam:*", "Resource": ARN})}
    ),
    "iam-escalation": pair(_POLICY, right("s3:GetObject"), right("iam:PutRole*")),
    "iam-pass-role": pair(
        _POLICY,
        right("iam:PassRole", Condition={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}),
        right("iam:PassRole"),
    ),
    "iam-metric-namespace": pair(
        _POLICY,
        right("cloudwatch:PutMetricData", "*", Condition={"StringEquals": {"cloudwatch:namespace": "EAV"}}),
        right("cloudwatch:PutMetricData", "*"),
    ),
    "iam-managed-policy": pair(
        aws.iam.RolePolicyAttachment,
        {"policy_arn": "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"},
        {"policy_arn": "arn:aws:iam::aws:policy/AmazonS3FullAccess"},
        role="r",
    ),
    "iam-user": Pair(one(aws.iam.Role), one(aws.iam.User)),
    "iam-trust-anybody": pair(
        aws.iam.Role,
        trust(Principal={"AWS": "*"}, Condition={"StringEquals": {"aws:PrincipalOrgID": "o-1"}}),
        trust(Principal={"AWS": "*"}),
    ),
    "iam-confused-deputy": pair(
        aws.iam.Role,
        trust(Principal={"Service": "scheduler.amazonaws.com"}, Condition=ACCOUNT),
        trust(Principal={"Service": "scheduler.amazonaws.com"}),
    ),
    "policy-public": pair(
        aws.sns.TopicPolicy,
        {"policy": document({**_EVENTS, "Principal": "*", "Condition": ACCOUNT})},
        {"policy": document({**_EVENTS, "Principal": {"AWS": "*"}})},
        arn=ARN,
    ),
    "policy-service-bound": pair(
        aws.sns.TopicPolicy,
        {"policy": document({**_EVENTS, "Condition": ACCOUNT})},
        {"policy": document(_EVENTS)},
        arn=ARN,
    ),
    "endpoint-policy": pair(
        aws.ec2.VpcEndpoint,
        {"policy": document({"Principal": "*", "Action": "*", "Resource": "*", "Condition": ACCOUNT})},
        {},
    ),
    "lambda-permission": pair(
        aws.lambda_.Permission, {"source_arn": ARN}, {}, principal="events.amazonaws.com"
    ),
    "kms-rotation": pair(aws.kms.Key, {"enable_key_rotation": True}, {}),
    "kms-waiting": pair(aws.kms.Key, {"deletion_window_in_days": 30}, {"deletion_window_in_days": 7}),
    "kms-policy": pair(aws.kms.Key, {"policy": document(_EVENTS)}, {}),
    "kms-lockout-check": pair(aws.kms.Key, {}, {"bypass_policy_lockout_safety_check": True}),
    "secret-in-inputs": pair(
        _DB, {"manage_master_user_password": True}, {"password": "correct horse"}, username="eav_master"
    ),
    # data
    "rds-encrypted": pair(_DB, {"storage_encrypted": True}, {}),
    "rds-key": pair(_DB, {"kms_key_id": KEY}, {"kms_key_id": "alias/aws/rds"}),
    "rds-private": pair(_DB, {}, {"publicly_accessible": True}),
    "rds-multi-az": pair(_DB, {"multi_az": True}, {}),
    "rds-backups": pair(_DB, {"backup_retention_period": 1}, {"backup_retention_period": 0}),
    "rds-backups-prod": pair(_DB, {"backup_retention_period": 14}, {"backup_retention_period": 13}),
    "rds-backup-copy": Pair(
        database(
            lambda name, db: aws.rds.InstanceAutomatedBackupsReplication(
                f"{name}-copy", source_db_instance_arn=db.arn, kms_key_id=KEY
            )
        ),
        database(),
    ),
    "rds-deletion-protection": pair(_DB, {"deletion_protection": True}, {}),
    "rds-final-snapshot": pair(_DB, {"final_snapshot_identifier": "last"}, {"skip_final_snapshot": True}),
    "rds-backups-outlive": pair(_DB, {"delete_automated_backups": False}, {}),
    "rds-minor-upgrades": pair(_DB, {}, {"auto_minor_version_upgrade": False}),
    "rds-iam-auth": pair(_DB, {"iam_database_authentication_enabled": True}, {}),
    "rds-enhanced-monitoring": pair(
        _DB, {"monitoring_interval": 60, "monitoring_role_arn": ARN}, {"monitoring_role_arn": ARN}
    ),
    "rds-insights": pair(_DB, {"performance_insights_enabled": True}, {}),
    "rds-insights-key": pair(_DB, {"performance_insights_kms_key_id": KEY}, {}),
    "rds-log-exports": pair(
        _DB,
        {"enabled_cloudwatch_logs_exports": ["postgresql", "upgrade"]},
        {"enabled_cloudwatch_logs_exports": ["postgresql"]},
    ),
    "rds-managed-password": pair(
        _DB, {"master_user_secret_kms_key_id": KEY}, {}, manage_master_user_password=True
    ),
    "rds-username": pair(_DB, {"username": "eav_master"}, {"username": "postgres"}),
    "rds-tags-on-snapshots": pair(_DB, {"copy_tags_to_snapshot": True}, {}),
    "rds-force-tls": pair(aws.rds.ParameterGroup, parameters(rds__force_ssl="1"), parameters()),
    "rds-statements-logged": pair(
        aws.rds.ParameterGroup,
        parameters(pgaudit__log="ddl,role", log_min_duration_statement="1000"),
        parameters(log_statement="none", log_min_duration_statement="1000"),
    ),
    "own-parameter-group": Pair(parameter_group, database(parameter_group_name="default.postgres17")),
    "rds-events": Pair(subscribed, database()),
    "proxy-tls": pair(aws.rds.Proxy, {"require_tls": True}, {}),
    "proxy-debug": pair(aws.rds.Proxy, {}, {"debug_logging": True}),
    "proxy-iam": pair(aws.rds.Proxy, {"auths": [{"iam_auth": "REQUIRED"}]}, {"auths": [{"secret_arn": ARN}]}),
    "redshift-encrypted": pair(_RS, {"encrypted": True, "kms_key_id": KEY}, {"encrypted": True}),
    "redshift-private": pair(_RS, {"publicly_accessible": False}, {"publicly_accessible": True}),
    "redshift-routing": pair(_RS, {"enhanced_vpc_routing": True}, {}),
    "redshift-in-vpc": pair(_RS, {"cluster_subnet_group_name": "g"}, {}),
    "redshift-snapshots": pair(_RS, {"automated_snapshot_retention_period": 1}, {}),
    "redshift-snapshots-prod": pair(
        _RS, {"automated_snapshot_retention_period": 7}, {"automated_snapshot_retention_period": 1}
    ),
    "redshift-snapshot-copy": Pair(
        cluster(
            lambda name, made: aws.redshift.SnapshotCopy(
                f"{name}-copy", cluster_identifier=made.id, destination_region="eu-west-1"
            )
        ),
        cluster(),
    ),
    "redshift-copy-key": pair(aws.redshift.SnapshotCopy, {"snapshot_copy_grant_name": "g"}, {}),
    "redshift-final-snapshot": pair(
        _RS, {"final_snapshot_identifier": "last"}, {"skip_final_snapshot": True}
    ),
    "redshift-upgrades": pair(_RS, {}, {"allow_version_upgrade": False}),
    "redshift-managed-password": pair(
        _RS, {"master_password_secret_kms_key_id": KEY}, {}, manage_master_password=True
    ),
    "redshift-names": pair(
        _RS, {"database_name": "eav"}, {"database_name": "dev"}, master_username="eav_master"
    ),
    "redshift-audit": Pair(
        cluster(
            lambda name, made: aws.redshift.Logging(
                f"{name}-logging", cluster_identifier=made.id, log_destination_type="cloudwatch"
            )
        ),
        cluster(),
    ),
    "redshift-require-tls": pair(
        aws.redshift.ParameterGroup, warehouse_parameters(require_ssl="true"), warehouse_parameters()
    ),
    "redshift-activity": pair(
        aws.redshift.ParameterGroup,
        warehouse_parameters(enable_user_activity_logging="true"),
        warehouse_parameters(enable_user_activity_logging="false"),
    ),
    "serverless-key": pair(_NS, {"kms_key_id": KEY}, {}),
    "serverless-audit": pair(
        _NS, {"log_exports": ["connectionlog", "userlog", "useractivitylog"]}, {"log_exports": ["userlog"]}
    ),
    "serverless-password": pair(
        _NS,
        {"manage_admin_password": True, "admin_password_secret_kms_key_id": KEY, "admin_username": "eav"},
        {"manage_admin_password": True, "admin_password_secret_kms_key_id": KEY, "admin_username": "admin"},
    ),
    "serverless-private": pair(_WG, {}, {"publicly_accessible": True}),
    "serverless-routing": pair(_WG, {"enhanced_vpc_routing": True}, {}),
    "serverless-require-tls": pair(
        _WG, {"config_parameters": [{"parameter_key": "require_ssl", "parameter_value": "true"}]}, {}
    ),
    "s3-public-access": Pair(bucket(blocked()), bucket(blocked(block_public_policy=False))),
    "s3-key": Pair(bucket(encrypted("aws:kms", KEY)), bucket(encrypted("AES256", None))),
    "s3-versioning": Pair(
        bucket(
            lambda name, made: aws.s3.BucketVersioning(
                f"{name}-versions", bucket=made.id, versioning_configuration={"status": "Enabled"}
            )
        ),
        bucket(
            lambda name, made: aws.s3.BucketVersioning(
                f"{name}-versions", bucket=made.id, versioning_configuration={"status": "Suspended"}
            )
        ),
    ),
    "s3-logging": Pair(bucket(logging), bucket()),
    "s3-tls": Pair(bucket(policy(plain_denied("s3:*"))), bucket(policy(plain_denied("s3:PutObject")))),
    "s3-right-key": Pair(
        bucket(policy(logged_bucket_policy("s3:PutObject"))), bucket(policy(plain_denied("s3:PutObject")))
    ),
    "s3-owner": Pair(
        bucket(
            lambda name, made: aws.s3.BucketOwnershipControls(
                f"{name}-owner", bucket=made.id, rule={"object_ownership": "BucketOwnerEnforced"}
            )
        ),
        bucket(
            lambda name, made: aws.s3.BucketOwnershipControls(
                f"{name}-owner", bucket=made.id, rule={"object_ownership": "ObjectWriter"}
            )
        ),
    ),
    "s3-no-acl": Pair(one(aws.s3.Bucket), one(aws.s3.BucketAcl, acl="private")),
    "s3-no-website": Pair(one(aws.s3.Bucket), one(aws.s3.Bucket, website={"index_document": "index.html"})),
    "s3-lifecycle": Pair(
        bucket(lifecycle(abort_incomplete_multipart_upload={"days_after_initiation": 7})),
        bucket(lifecycle(expiration={"days": 1})),
    ),
    "s3-lock": Pair(bucket(locked, object_lock_enabled=True), bucket(object_lock_enabled=True)),
    "dynamodb-pitr": pair(
        aws.dynamodb.Table, {"point_in_time_recovery": {"enabled": True}}, {"hash_key": "id"}
    ),
    "dynamodb-key": pair(
        aws.dynamodb.Table,
        {"server_side_encryption": {"enabled": True, "kms_key_arn": KEY}},
        {"server_side_encryption": {"enabled": True}},
    ),
    "dynamodb-deletion-protection": pair(aws.dynamodb.Table, {"deletion_protection_enabled": True}, {}),
    "dynamodb-capacity": pair(
        aws.dynamodb.Table,
        {"on_demand_throughput": {"max_read_request_units": 10, "max_write_request_units": 10}},
        {"on_demand_throughput": {"max_read_request_units": 10}},
        billing_mode="PAY_PER_REQUEST",
    ),
    "kinesis-key": pair(aws.kinesis.Stream, {"kms_key_id": KEY}, {}, encryption_type="KMS"),
    "kinesis-retention": pair(aws.kinesis.Stream, {"retention_period": 168}, {"retention_period": 24}),
    "secret-key": pair(aws.secretsmanager.Secret, {"kms_key_id": KEY}, {}),
    "secret-rotation": Pair(secret(rotated=True), secret(rotated=False)),
    "data-protected": pair(aws.kinesis.Stream, {"opts": _KEPT}, {}),
    "data-retained": pair(
        aws.kinesis.Stream, {"opts": _KEPT}, {"opts": pulumi.ResourceOptions(protect=True)}
    ),
    "data-no-force": pair(aws.s3.Bucket, {}, {"force_destroy": True}),
    # network
    "group-open-in": pair(
        aws.vpc.SecurityGroupIngressRule, {"cidr_ipv4": "10.0.0.0/8"}, {"cidr_ipv4": "0.0.0.0/0"}
    ),
    "group-open-out": pair(
        aws.vpc.SecurityGroupEgressRule,
        {"from_port": 443, "to_port": 443},
        {"from_port": 0, "to_port": 65535},
        cidr_ipv6="::/0",
    ),
    "group-narrow": pair(
        aws.vpc.SecurityGroupIngressRule,
        {"referenced_security_group_id": "sg-1"},
        {"cidr_ipv4": "10.0.0.0/8"},
        from_port=5432,
        to_port=5432,
    ),
    "group-described": pair(aws.vpc.SecurityGroupIngressRule, {"description": "jobs"}, {}),
    "group-rules-apart": pair(
        aws.ec2.SecurityGroup, {}, {"egress": [{"from_port": 1, "to_port": 1, "protocol": "tcp"}]}
    ),
    "group-default-closed": Pair(
        vpc(default_group(ingress=[], egress=[])),
        vpc(default_group(ingress=[{"from_port": 0, "to_port": 0, "protocol": "-1", "self": True}])),
    ),
    "group-unused": Pair(group(used=True), group(used=False)),
    "vpc-flow-logs": Pair(vpc(flow_log("ALL")), vpc(flow_log("ACCEPT"))),
    "vpc-names": pair(aws.ec2.Vpc, {"enable_dns_hostnames": True}, {"enable_dns_support": False}),
    "subnet-public-addresses": pair(aws.ec2.Subnet, {}, {"map_public_ip_on_launch": True}),
    "address-used": Pair(address(used=True), address(used=False)),
    "reach-internet": Pair(placed(public=False), placed(public=True)),
    "endpoint-private-names": pair(
        aws.ec2.VpcEndpoint, {"private_dns_enabled": True}, {}, vpc_endpoint_type="Interface"
    ),
    # compute
    "lambda-dlq": Pair(function(destination=True), function(destination=False)),
    "lambda-concurrency": pair(_FN, {"reserved_concurrent_executions": 1}, {}),
    "lambda-tracing": pair(
        _FN, {"tracing_config": {"mode": "Active"}}, {"tracing_config": {"mode": "PassThrough"}}
    ),
    "lambda-runtime": pair(_FN, {"runtime": "python3.13"}, {"runtime": "python3.8"}),
    "lambda-environment-key": pair(_FN, {"kms_key_arn": KEY}, {}, environment={"variables": {"TABLE": "t"}}),
    "lambda-url": pair(
        aws.lambda_.FunctionUrl, {"authorization_type": "AWS_IAM"}, {"authorization_type": "NONE"}
    ),
    "ecs-privileged": pair(_TASK, container(), container(privileged=True)),
    "ecs-read-only": pair(_TASK, container(readonlyRootFilesystem=True), container()),
    "ecs-user": pair(_TASK, container(user="10001:10001"), container(user="0:0")),
    "ecs-host": pair(_TASK, {"network_mode": "awsvpc"}, {"network_mode": "host"}, **container()),
    "ecs-capabilities": pair(
        _TASK, container(), container(linuxParameters={"capabilities": {"add": ["SYS_PTRACE"]}})
    ),
    "ecs-image": pair(_TASK, container(image=f"r@sha256:{'0' * 64}"), container(image="r:latest")),
    "ecs-logs": pair(_TASK, container(logConfiguration={"logDriver": "awslogs"}), container()),
    "ecs-public-address": pair(
        _SERVICE,
        {"network_configuration": {"subnets": [], "assign_public_ip": False}},
        {"network_configuration": {"subnets": [], "assign_public_ip": True}},
    ),
    "ecs-platform": pair(_SERVICE, {"platform_version": "LATEST"}, {"platform_version": "1.3.0"}),
    "ecs-circuit-breaker": pair(
        _SERVICE, {"deployment_circuit_breaker": {"enable": True, "rollback": True}}, {}
    ),
    "ecs-insights": pair(
        aws.ecs.Cluster, {"settings": [{"name": "containerInsights", "value": "enhanced"}]}, {}
    ),
    "ecs-exec": pair(
        aws.ecs.Cluster,
        {"configuration": {"execute_command_configuration": {"kms_key_id": KEY, "logging": "OVERRIDE"}}},
        {"configuration": {"execute_command_configuration": {"logging": "NONE"}}},
    ),
    "ecr-scan": pair(aws.ecr.Repository, {"image_scanning_configuration": {"scan_on_push": True}}, {}),
    "ecr-immutable": pair(aws.ecr.Repository, {"image_tag_mutability": "IMMUTABLE"}, {}),
    "ecr-key": pair(
        aws.ecr.Repository,
        {"encryption_configurations": [{"encryption_type": "KMS", "kms_key": KEY}]},
        {"encryption_configurations": [{"encryption_type": "AES256"}]},
    ),
    "ecr-lifecycle": Pair(images(kept=False), images(kept=True)),
    "ec2-metadata": pair(
        _EC2,
        {"metadata_options": {"http_tokens": "required"}},
        {"metadata_options": {"http_tokens": "optional"}},
    ),
    "ec2-volumes": pair(
        _EC2, {"root_block_device": {"encrypted": True, "kms_key_id": KEY}}, {"root_block_device": {}}
    ),
    "ec2-public-address": pair(_EC2, {}, {"associate_public_ip_address": True}),
    "ec2-key-pair": pair(_EC2, {}, {"key_name": "me"}),
    "ec2-profile": pair(_EC2, {"iam_instance_profile": "p"}, {}),
    "sfn-logs": pair(
        aws.sfn.StateMachine,
        {"logging_configuration": {"level": "ALL", "log_destination": f"{ARN}:*"}},
        {"logging_configuration": {"level": "OFF"}},
    ),
    "sfn-tracing": pair(aws.sfn.StateMachine, {"tracing_configuration": {"enabled": True}}, {}),
    "sfn-key": pair(
        aws.sfn.StateMachine,
        {"encryption_configuration": {"type": "CUSTOMER_MANAGED_KMS_KEY", "kms_key_id": KEY}},
        {},
    ),
    "schedule-dlq": pair(
        aws.scheduler.Schedule,
        {"target": {"arn": ARN, "role_arn": ARN, "dead_letter_config": {"arn": ARN}}},
        {"target": {"arn": ARN, "role_arn": ARN}},
    ),
    "event-dlq": pair(aws.cloudwatch.EventTarget, {"dead_letter_config": {"arn": ARN}}, {}),
    "dlq-keeps": Pair(dead_letters(1_209_600), dead_letters(345_600)),
    # watch
    "log-retention": pair(_LOGS, {"retention_in_days": 30}, {}),
    "log-retention-prod": pair(_LOGS, {"retention_in_days": 365}, {"retention_in_days": 30}),
    "log-key": pair(_LOGS, {"kms_key_id": KEY}, {}),
    "log-name": pair(_LOGS, {"name": "/eav/prod/postgres"}, {"name": "postgres"}),
    "log-group-first": Pair(log_group(waits=True), log_group(waits=False)),
    "alarm-actions": Pair(alarms(alarm_actions=[ARN], ok_actions=[ARN]), alarms(alarm_actions=[ARN])),
    "alarm-enabled": pair(_ALARM, {}, {"actions_enabled": False}),
    "alarm-runbook": pair(
        _ALARM, {"alarm_description": "Replicas lag. Runbook: replica-lag"}, {"alarm_description": "Lag"}
    ),
    "alarm-missing-data": pair(_ALARM, {"treat_missing_data": "breaching"}, {}),
    "sns-key": pair(aws.sns.Topic, {"kms_master_key_id": KEY}, {"kms_master_key_id": "alias/aws/sns"}),
    "sns-tls": Pair(topic(plain_denied("sns:Publish")), topic(plain_denied("sns:Publish", Effect="Allow"))),
    "sns-heard": Pair(
        heard("cloudwatch.amazonaws.com", "events.rds.amazonaws.com"), heard("events.rds.amazonaws.com")
    ),
    "sns-subscription": pair(aws.sns.TopicSubscription, {"protocol": "email"}, {"protocol": "http"}),
    "sqs-key": pair(aws.sqs.Queue, {"kms_master_key_id": KEY}, {"sqs_managed_sse_enabled": True}),
    "sqs-tls": Pair(queue(plain_denied("sqs:*")), queue()),
    # general
    "name-valid": pair(aws.sqs.Queue, {"name": "eav-prod-dead"}, {"name": "eav prod dead"}),
    "name-unique": Pair(named("eav-prod-a", "eav-prod-b"), named("eav-prod-a", "eav-prod-a")),
    "name-of-stack": Pair(named("eav-prod-c"), named("eav-dev-c")),
    "tags-kept": pair(aws.sqs.Queue, {"tags": {"Name": "q"}}, {"tags": {"Environment": "dev"}}),
    "tags-tasks": pair(_SERVICE, {"propagate_tags": "SERVICE"}, {}),
}
"""Rule → its pair. `tags-default` is about the settings of a stack and has a test of its own."""
