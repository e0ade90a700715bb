"""What holds for every resource: names and tags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from infra.graph import Graph, Resource
from infra.naming import PROJECT
from infra.rules.kit import UNKNOWN, Rule, on, one_of, over, want
from infra.settings import REQUIRED_TAGS

NAMES: Final[dict[str, tuple[str, str]]] = {
    "backup.Vault": ("name", r"[A-Za-z0-9_-]{2,50}"),
    "budgets.Budget": ("name", r"[^:\\]{1,100}"),
    "cloudwatch.CompositeAlarm": ("alarmName", r".{1,255}"),
    "cloudwatch.Dashboard": ("dashboardName", r"[A-Za-z0-9_-]{1,255}"),
    "cloudwatch.EventRule": ("name", r"[.\-_A-Za-z0-9]{1,64}"),
    "cloudwatch.LogGroup": ("name", r"[.\-_/#A-Za-z0-9]{1,512}"),
    "cloudwatch.MetricAlarm": ("name", r".{1,255}"),
    "dynamodb.Table": ("name", r"[a-zA-Z0-9_.-]{3,255}"),
    "ec2.SecurityGroup": ("name", r"(?!sg-)[A-Za-z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}"),
    "ecr.Repository": ("name", r"(?=.{2,256}$)[a-z0-9]+([._/-][a-z0-9]+)*"),
    "ecs.Cluster": ("name", r"[A-Za-z0-9_-]{1,255}"),
    "ecs.Service": ("name", r"[A-Za-z0-9_-]{1,255}"),
    "ecs.TaskDefinition": ("family", r"[A-Za-z0-9_-]{1,255}"),
    "glue.CatalogDatabase": ("name", r"[a-z0-9_]{1,255}"),
    "iam.InstanceProfile": ("name", r"[\w+=,.@-]{1,128}"),
    "iam.Policy": ("name", r"[\w+=,.@-]{1,128}"),
    "iam.Role": ("name", r"[\w+=,.@-]{1,64}"),
    "iam.RolePolicy": ("name", r"[\w+=,.@-]{1,128}"),
    "kinesis.Stream": ("name", r"[a-zA-Z0-9_.-]{1,128}"),
    "kms.Alias": ("name", r"alias/(?!aws/)[a-zA-Z0-9/_-]{1,250}"),
    "lambda.Function": ("name", r"[a-zA-Z0-9-_]{1,64}"),
    "rds.EventSubscription": ("name", r"(?=.{1,255}$)[a-zA-Z](-?[a-zA-Z0-9])*"),
    "rds.Instance": ("identifier", r"(?=.{1,63}$)[a-z](-?[a-z0-9])*"),
    "rds.ParameterGroup": ("name", r"(?=.{1,255}$)[a-z](-?[a-z0-9])*"),
    "rds.Proxy": ("name", r"(?=.{1,60}$)[a-z](-?[a-z0-9])*"),
    "rds.SubnetGroup": ("name", r"(?!default$)[a-z0-9 ._-]{1,255}"),
    "redshift.Cluster": ("clusterIdentifier", r"(?=.{1,63}$)[a-z](-?[a-z0-9])*"),
    "redshift.EventSubscription": ("name", r"(?=.{1,255}$)[a-zA-Z](-?[a-zA-Z0-9])*"),
    "redshift.ParameterGroup": ("name", r"(?=.{1,255}$)[a-z](-?[a-z0-9])*"),
    "redshift.ScheduledAction": ("name", r"[a-zA-Z0-9_.-]{1,255}"),
    "redshift.SnapshotCopyGrant": ("snapshotCopyGrantName", r"(?=.{1,63}$)[a-z](-?[a-z0-9])*"),
    "redshift.SnapshotSchedule": ("identifier", r"[a-z](-?[a-z0-9])*"),
    "redshift.SubnetGroup": ("name", r"(?!default$)[a-z0-9._-]{1,255}"),
    "redshiftserverless.Namespace": ("namespaceName", r"[a-z0-9-]{3,64}"),
    "redshiftserverless.Workgroup": ("workgroupName", r"[a-z0-9-]{3,64}"),
    "s3.Bucket": ("bucket", r"(?!xn--|sthree-)[a-z0-9][a-z0-9-]{1,61}[a-z0-9](?<!-s3alias)"),
    "scheduler.Schedule": ("name", r"[0-9a-zA-Z-_.]{1,64}"),
    "scheduler.ScheduleGroup": ("name", r"[0-9a-zA-Z-_.]{1,64}"),
    "secretsmanager.Secret": ("name", r"(?!.*-[A-Za-z0-9]{6}$)[A-Za-z0-9/_+=.@-]{1,512}"),
    "sfn.StateMachine": ("name", r"[A-Za-z0-9_-]{1,80}"),
    "sns.Topic": ("name", r"[A-Za-z0-9_-]{1,256}"),
    "ssm.Document": ("name", r"(?!aws|amazon|amzn)[a-zA-Z0-9_.-]{3,128}"),
    "sqs.Queue": ("name", r"[A-Za-z0-9_-]{1,80}"),
}
"""Kind → the input that names it, and what AWS allows there (the API references of the services)."""

_SHARED: Final = {"cloudwatch.MetricAlarm": "alarm", "cloudwatch.CompositeAlarm": "alarm"}
"""Kinds that share their names with another."""


def physical(resource: Resource) -> str | None:
    """The name that a resource has in AWS; None for a kind without one, or while it cannot be known."""
    prop = NAMES.get(resource.kind, ("",))[0]
    name = resource.inputs.get(prop)
    return None if name in (None, UNKNOWN) else str(name)


def _valid(resource: Resource) -> Iterator[str]:
    prop, pattern = NAMES[resource.kind]
    name = resource.inputs.get(prop)
    if name is None:
        yield f"{prop} is absent: Pulumi would make one up, another in each stack"
    elif name != UNKNOWN and not re.fullmatch(pattern, str(name)):
        yield f"{prop} {name} ({len(str(name))} characters) is none that AWS takes"


def _unique(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    seen: dict[tuple[str, ...], Resource] = {}
    for one in graph:
        name = physical(one)
        if name is None:
            continue
        # An inline policy belongs to its role, a security group's name to its VPC.
        owner = (
            one.references.get("role", ())
            if one.kind == "iam.RolePolicy"
            else one.references.get("vpcId", ())
        )
        region = str(one.inputs.get("region") or "")
        other = seen.setdefault((_SHARED.get(one.kind, one.kind), region, name, *owner), one)
        if other is not one:
            yield one, f"{other.name} is called {name} too"


def _of_stack(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    stack = graph.settings.stack
    prefixes = tuple(f"{start}{PROJECT}{middle}{stack}{end}" for start, middle, end in (
        ("", "-", "-"), ("/", "/", "/"), ("alias/", "-", "-"), ("", "_", "_"),
    ))  # fmt: skip
    for one in graph:
        name = physical(one)
        if name is not None and not name.startswith(prefixes) and not _named_by_aws(name, stack):
            yield one, f"{name} does not begin with {prefixes[0]} or {prefixes[1]}"


def _named_by_aws(name: str, stack: str) -> bool:
    """A log group whose name AWS prescribes has ours further on."""
    return name.startswith("/aws/") and f"/{PROJECT}-{stack}-" in name


def _default_tags(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for tag in REQUIRED_TAGS:
        if not graph.settings.tags.get(tag):
            yield None, f"aws:defaultTags lacks {tag}"


def _tags_kept(resource: Resource) -> Iterator[str]:
    tags = resource.inputs.get("tags")
    for tag in sorted(set(REQUIRED_TAGS) & set(tags if isinstance(tags, dict) else ())):
        yield f"its own tag {tag} hides the stack's"


RULES: Final[tuple[Rule, ...]] = (
    on(tuple(NAMES), "name-valid", "Every resource has a name, and AWS takes it",
       "it would be found out half-way through a deployment", "", _valid),
    over("name-unique", "No two resources of a kind have one name", "the second would not be made, or be the first", "",
         _unique),
    over("name-of-stack", "Names begin with the project and the stack",
         "rights are given by that prefix, and two stacks share an account", "", _of_stack),
    over("tags-default", "The stack has its default tags", "whose it is, and what it costs, is known",
         "", _default_tags),
    on((), "tags-kept", "No resource hides a default tag", "it would be billed to somebody else", "", _tags_kept),
    on("ecs.Service", "tags-tasks", "Tasks carry the tags of their service", "default tags do not reach them", "",
       want("propagateTags", one_of("SERVICE", "TASK_DEFINITION")), severity="advisory"),
)  # fmt: skip
