"""Who may do what: identities, roles, policies of resources, keys, and secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from infra.graph import Resource
from infra.rules.documents import ATTACHED, FILTERS, IDENTITY, TRUST, Clause, clauses
from infra.rules.kit import GIVEN, NOT_TRUE, TRUE, UNKNOWN, Look, Rule, at_least, on, values, want

UNSCOPABLE: Final = frozenset(
    {
        "cloudwatch:GetMetricData", "cloudwatch:GetMetricStatistics", "cloudwatch:ListMetrics",
        "cloudwatch:PutMetricData", "dynamodb:ListTables", "ec2:DescribeAvailabilityZones",
        "ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets", "ec2:DescribeVpcs", "ec2messages:AcknowledgeMessage",
        "ec2messages:DeleteMessage", "ec2messages:FailMessage", "ec2messages:GetEndpoint",
        "ec2messages:GetMessages", "ec2messages:SendReply", "ecr:GetAuthorizationToken",
        "kinesis:ListStreams", "kms:ListAliases", "logs:CreateLogDelivery", "logs:DeleteLogDelivery",
        "logs:DescribeLogGroups", "logs:DescribeResourcePolicies", "logs:GetLogDelivery", "logs:ListLogDeliveries",
        "logs:PutResourcePolicy", "logs:UpdateLogDelivery", "redshift-data:CancelStatement",
        "redshift-data:DescribeStatement", "redshift-data:GetStatementResult",
        "redshift-data:ListStatements", "s3:ListAllMyBuckets", "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
        "sts:GetCallerIdentity", "xray:GetSamplingRules", "xray:GetSamplingStatisticSummaries",
        "xray:GetSamplingTargets", "xray:PutTelemetryRecords", "xray:PutTraceSegments",
    }
)  # fmt: skip
"""Actions that have no narrower resource than `*` (Service Authorization Reference)."""

WIDE_FOR_AWS: Final = {
    "ec2:AssignPrivateIpAddresses": "Lambda refuses the role of a function in a VPC that may do it to less than any",
    "ec2:CreateNetworkInterface": "Lambda makes the interface, so it has no name yet; its subnets and group have",
    "ec2:DeleteNetworkInterface": "Lambda refuses the role of a function in a VPC that may do it to less than any",
    "ec2:UnassignPrivateIpAddresses": "Lambda refuses the role of a function in a VPC that may do it to less than any",
    "ssm:UpdateInstanceInformation": "an instance has its role before it has its identifier",
}
"""Actions that could be narrower, and why a role that AWS uses for us cannot have them so. An exception would be for a
whole policy, and hide what else is in it."""

SEND_SOURCE: Final = frozenset(
    {
        "backup", "budgets", "ecs-tasks", "events", "export.rds", "firehose", "logs", "monitoring.rds", "pipes",
        "s3", "scheduler", "sns", "sqs", "states", "vpc-flow-logs",
    }
)  # fmt: skip
"""Services that say for whom they take a role, by aws:SourceAccount or aws:SourceArn (their own documentation)."""

NO_SOURCE: Final = {
    "ec2": "an instance profile is bound to the instance, and EC2 sends neither key",
    "rds": "the proxy's guide has no condition; its role may log in as three users of this account's databases",
    "redshift": "sends sts:ExternalId, the cluster and user, where it is asked for",
    "redshift-serverless": "as redshift",
    "scheduler.redshift": "the guide has no condition",
    "ssm": "an instance role is bound to the instance",
}
"""Services that are not documented to say so, and why their roles may be without the condition."""

ESCALATION: Final = (
    "iam:AddUserToGroup", "iam:AttachGroupPolicy", "iam:AttachRolePolicy", "iam:AttachUserPolicy",
    "iam:CreateAccessKey", "iam:CreateLoginProfile", "iam:CreatePolicyVersion", "iam:DeleteRolePermissionsBoundary",
    "iam:PutGroupPolicy", "iam:PutRolePolicy", "iam:PutUserPolicy", "iam:SetDefaultPolicyVersion",
    "iam:UpdateAssumeRolePolicy", "iam:UpdateLoginProfile", "sts:AssumeRoleWithSAML",
)  # fmt: skip
"""By any of these an identity gives itself more than it has."""

_BOUND: Final = frozenset(
    {
        "aws:principalaccount", "aws:principalarn", "aws:principalorgid", "aws:sourceaccount", "aws:sourcearn",
        "aws:sourceorgid", "aws:sourceowner", "aws:sourcevpc", "aws:sourcevpce", "kms:calleraccount",
        "kms:encryptioncontext:aws:ecs:clusteraccount", "kms:encryptioncontext:aws:logs:arn", "sts:externalid",
    }
)  # fmt: skip
"""Condition keys that say whose request it is."""

_WIDE: Final = re.compile(r"^\*$|^[A-Za-z0-9-]+[:/]\*$")
"""What an ARN ends in when it names all of a kind: `*`, `table/*`, `secret:*`."""


# -- looking at clauses ------------------------------------------------------------------------------------


def each(where: Any, look: Callable[[Resource, Clause], Iterator[str]], *, denies: bool = False) -> Look:
    """A look at each clause of a resource's document: what it allows, or with `denies` whatever it says."""

    def over(resource: Resource) -> Iterator[str]:
        try:
            found = clauses(resource, where)
        except ValueError:
            return  # policy-document says so
        for clause in found or ():
            if clause.allow or denies:
                yield from look(resource, clause)

    return over


def _readable(resource: Resource) -> Iterator[str]:
    for where in (IDENTITY, TRUST, ATTACHED, FILTERS):
        try:
            clauses(resource, where)
        except ValueError as error:
            yield f"{where[resource.kind]} is no policy document: {error}"


def _star_action(_: Resource, clause: Clause) -> Iterator[str]:
    for action in clause.actions:
        if action == "*" or action.endswith(":*"):
            yield f"{clause.named()} allows {action}"


def _wildcard_action(_: Resource, clause: Clause) -> Iterator[str]:
    for action in clause.actions:
        if "*" in action and action != "*" and not action.endswith(":*"):
            yield f"{clause.named()} allows {action}: name the actions"


def _star_resource(_: Resource, clause: Clause) -> Iterator[str]:
    scopable = sorted(set(clause.actions) - UNSCOPABLE - WIDE_FOR_AWS.keys())
    if "*" in clause.resources and scopable:
        yield f"{clause.named()} allows {', '.join(scopable)} on *"


def _wide_resource(_: Resource, clause: Clause) -> Iterator[str]:
    if clause.conditions or set(clause.actions) <= UNSCOPABLE | WIDE_FOR_AWS.keys():
        return
    for arn in clause.resources:
        parts = arn.split(":", 5)
        if len(parts) == 6 and _WIDE.match(parts[5]):
            yield f"{clause.named()} is for all of a kind: {arn}"


def _negated(_: Resource, clause: Clause) -> Iterator[str]:
    for word, found in (("NotAction", clause.not_actions), ("NotResource", clause.not_resources)):
        if found:
            yield f"{clause.named()} allows all but {', '.join(found)} ({word})"
    if clause.not_principals:
        yield f"{clause.named()} allows all but some (NotPrincipal)"


def _escalates(_: Resource, clause: Clause) -> Iterator[str]:
    for action in clause.actions:
        if any(_matches(action, one) for one in ESCALATION):
            yield f"{clause.named()} allows {action}, by which a role gives itself more"


def _matches(pattern: str, action: str) -> bool:
    return re.fullmatch(re.escape(pattern.lower()).replace(r"\*", ".*"), action.lower()) is not None


def _pass_role(_: Resource, clause: Clause) -> Iterator[str]:
    if any(_matches(action, "iam:PassRole") for action in clause.actions) and (
        "iam:passedtoservice" not in clause.asked()
    ):
        yield f"{clause.named()} may pass a role to any service: it lacks iam:PassedToService"


def _namespace(_: Resource, clause: Clause) -> Iterator[str]:
    if "cloudwatch:PutMetricData" in clause.actions and "cloudwatch:namespace" not in clause.asked():
        yield f"{clause.named()} may write any metric, AWS's own too: it lacks cloudwatch:namespace"


def _trusts_anybody(_: Resource, clause: Clause) -> Iterator[str]:
    if clause.everybody and not clause.asked() & _BOUND:
        yield f"{clause.named()} lets anybody take the role"


def _deputy(_: Resource, clause: Clause) -> Iterator[str]:
    for kind, name in clause.principals:
        service = name.removesuffix(".amazonaws.com")
        if kind == "Service" and service not in NO_SOURCE and not clause.asked() & _BOUND:
            known = (
                ""
                if service in SEND_SOURCE
                else " (if it sends neither key, infra/rules/access.py must say so)"
            )
            yield f"{name} may take the role for any account: it lacks aws:SourceAccount or aws:SourceArn{known}"


def _public(_: Resource, clause: Clause) -> Iterator[str]:
    if clause.everybody and not clause.asked() & _BOUND:
        yield f"{clause.named()} is for anybody"


def _service_bound(_: Resource, clause: Clause) -> Iterator[str]:
    services = [name for kind, name in clause.principals if kind == "Service"]
    if services and not clause.asked() & _BOUND:
        yield f"{clause.named()} lets {', '.join(services)} act for any account: no aws:SourceAccount or aws:SourceArn"


def _filter(_: Resource, clause: Clause) -> Iterator[str]:
    if clause.everybody and "*" in clause.resources and not clause.asked() & _BOUND:
        yield f"{clause.named()} lets anybody reach any resource through the endpoint"


def _managed(resource: Resource) -> Iterator[str]:
    for arn in (*values(resource.inputs, "policyArn"), *values(resource.inputs, "managedPolicyArns")):
        name = str(arn).rpartition("/")[2]
        if re.search(r"FullAccess$|^AdministratorAccess|^PowerUserAccess$|FullAccess_v\d$", name):
            yield f"{name} is more than anything here needs"


def _permission(resource: Resource) -> Iterator[str]:
    principal = resource.inputs.get("principal")
    if principal == "*" and not resource.inputs.get("principalOrgId"):
        yield "anybody may call the function"
    if not resource.inputs.get("sourceArn") and str(principal).endswith(".amazonaws.com"):
        yield f"{principal} may call the function for anything: sourceArn is absent"


def _user(resource: Resource) -> Iterator[str]:
    yield f"{resource.kind} has credentials that last: use a role"


# -- secrets -----------------------------------------------------------------------------------------------

_SECRET_NAME: Final = re.compile(
    r"(?i)(^|[_-]|(?<=[a-z])(?=[A-Z]))(password|passwd|passphrase|secret|token|api_?key|private_?key|access_?key)"
    r"[_-]?(wo|string|string_?wo|binary|value|\d+)?$"
)
"""What holds a secret by its name; `…SecretArn`, `password_encryption` and the like do not match."""

_SECRET_VALUE: Final = re.compile(
    r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|[a-z][a-z0-9+]*://[^/\s:@\"]+:[^/\s:@\"]+@"
)
"""An access key of AWS, a private key, or a URL with a password."""

_HARMLESS: Final = re.compile(r"^(arn:|\{\{resolve:|alias/)|^(true|false|\d+)?$")
"""What may stand under such a name: a reference to where the secret is, or a switch."""


def secrets(value: Any, path: str = "") -> Iterator[str]:
    """Where a value, or JSON within it, holds what looks like a secret; never the secret itself."""
    if isinstance(value, dict):
        named = value.get("name")
        for key, one in value.items():
            deeper = f"{path}.{key}" if path else str(key)
            # {"name": "DB_PASSWORD", "value": "…"}: environment of a container, parameters of a group.
            owner = named if key == "value" and isinstance(named, str) else str(key)
            if (
                isinstance(one, str)
                and _SECRET_NAME.search(owner)
                and not _HARMLESS.match(one)
                and one != UNKNOWN
            ):
                yield f"{deeper} ({owner}) holds a secret"
            else:
                yield from secrets(one, deeper)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from secrets(one, f"{path}.{index}")
    elif isinstance(value, str):
        if _SECRET_VALUE.search(value):
            yield f"{path} holds a credential"
        elif value[:1] in "{[" and value:
            try:
                inner = json.loads(value)
            except ValueError:
                return
            yield from secrets(inner, path)


def _no_secret(resource: Resource) -> Iterator[str]:
    yield from secrets(dict(resource.inputs))


RULES: Final[tuple[Rule, ...]] = (
    on(
        (), "policy-document", "Every policy is a policy document",
        "AWS refuses another one only while the stack is being made, and the other rules cannot read it", "",
        _readable,
    ),
    on(
        tuple(IDENTITY), "iam-star-action", "No identity may do everything, or everything of a service",
        "a right that nobody needed is what an intruder uses", "CKV_AWS_62 CKV_AWS_63 CKV_AWS_289 IAM.1 IAM.21",
        each(IDENTITY, _star_action),
    ),
    on(
        tuple(IDENTITY), "iam-wildcard-action", "Actions are named one by one",
        "a pattern takes in what AWS adds later", "CKV_AWS_290", each(IDENTITY, _wildcard_action),
        severity="advisory",
    ),
    on(
        tuple(IDENTITY), "iam-star-resource", "A right is for named resources wherever AWS can name them",
        "rights to one table must not be rights to all", "CKV_AWS_355 CKV_AWS_288 CKV_AWS_290 CKV_AWS_356",
        each(IDENTITY, _star_resource),
    ),
    on(
        tuple(IDENTITY), "iam-wide-resource", "A right is not for all resources of a kind",
        "every table of the account is no narrower than a star, unless a condition says which", "CKV_AWS_355",
        each(IDENTITY, _wide_resource),
    ),
    on(
        (*IDENTITY, *ATTACHED), "iam-negated", "No right is given by NotAction, NotResource or NotPrincipal",
        "all but some is everything that AWS adds later", "IAM.21",
        lambda resource: (
            text
            for where in (IDENTITY, TRUST, ATTACHED)
            if resource.kind in where
            for text in each(where, _negated)(resource)
        ),
    ),
    on(
        tuple(IDENTITY), "iam-escalation", "No role may widen its own rights",
        "then all other limits are void", "CKV_AWS_286 CKV_AWS_287", each(IDENTITY, _escalates),
    ),
    on(
        tuple(IDENTITY), "iam-pass-role", "A role is passed to named services only",
        "who may pass a role to any service has its rights", "CKV_AWS_286", each(IDENTITY, _pass_role),
    ),
    on(
        tuple(IDENTITY), "iam-metric-namespace", "Metrics are written to a named namespace only",
        "PutMetricData has no resource, and a false metric silences an alarm", "", each(IDENTITY, _namespace),
    ),
    on(
        ("iam.RolePolicyAttachment", "iam.PolicyAttachment", "iam.Role"), "iam-managed-policy",
        "No managed policy of full access is attached", "it gives everything of a service", "CKV_AWS_274 IAM.1 IAM.27",
        _managed,
    ),
    on(
        ("iam.User", "iam.AccessKey", "iam.UserLoginProfile"), "iam-user", "There are roles, and no users",
        "an access key lasts until somebody notices that it was stolen", "CKV_AWS_273 CKV_AWS_40 IAM.2 IAM.3", _user,
    ),
    on(
        "iam.Role", "iam-trust-anybody", "No role may be taken by anybody", "it would belong to the internet",
        "CKV_AWS_60 CKV_AWS_61", each(TRUST, _trusts_anybody),
    ),
    on(
        "iam.Role", "iam-confused-deputy", "A service takes a role for this account only",
        "another customer could have the service act with it: the confused deputy", "", each(TRUST, _deputy),
    ),
    on(
        tuple(ATTACHED), "policy-public", "No policy of a resource is for anybody",
        "topics, queues, buckets, keys and tables are for this account",
        "CKV_AWS_33 CKV_AWS_70 CKV_AWS_168 CKV_AWS_169 CKV_AWS_32 S3.2 S3.3 SNS.4 SQS.3 KMS.5", each(ATTACHED, _public),
    ),
    on(
        tuple(ATTACHED), "policy-service-bound", "A service uses a resource for this account only",
        "another customer could have the service write to it: the confused deputy", "",
        each(ATTACHED, _service_bound),
    ),
    on(
        tuple(FILTERS), "endpoint-policy", "An endpoint lets through requests of this account, or to named resources",
        "otherwise data leaves through it with credentials of another account", "",
        lambda endpoint: (*want("policy", GIVEN)(endpoint), *each(FILTERS, _filter)(endpoint)),
    ),
    on(
        "lambda.Permission", "lambda-permission", "A function is called by named sources only",
        "a service's principal is the same for every customer", "CKV_AWS_301 CKV_AWS_364 Lambda.1", _permission,
    ),
    on(
        "kms.Key", "kms-rotation", "Keys rotate", "what one key version encrypted is bounded by time",
        "CKV_AWS_7 KMS.4", want("enableKeyRotation", TRUE),
        unless=lambda key: key.inputs.get("keyUsage") not in (None, "ENCRYPT_DECRYPT"),
    ),
    on(
        "kms.Key", "kms-waiting", "A key that is scheduled for deletion waits 30 days",
        "what it encrypted is lost with it", "KMS.3",
        lambda key: want("deletionWindowInDays", at_least(30))(key) if "deletionWindowInDays" in key.inputs else (),
    ),
    on(
        "kms.Key", "kms-policy", "A key says who may use it",
        "the default leaves it to whoever may write a policy of IAM", "CKV2_AWS_64", want("policy", GIVEN),
    ),
    on(
        "kms.Key", "kms-lockout-check", "AWS's check against a key that nobody can change stays on",
        "such a key costs until the account is closed", "", want("bypassPolicyLockoutSafetyCheck", NOT_TRUE),
    ),
    on(
        (), "secret-in-inputs", "No secret is in what is declared",
        "inputs end in the state, the plan and the logs", "CKV_AWS_41 CKV_AWS_45 CKV_AWS_46 CKV_SECRET_2 ECS.8",
        _no_secret,
    ),
)  # fmt: skip
