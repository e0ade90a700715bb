"""What is written down and who is told: log groups, alarms, topics, queues."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from infra.graph import Graph, Resource
from infra.rules.compute import containers
from infra.rules.data import denied_without_tls
from infra.rules.documents import ATTACHED, clauses
from infra.rules.kit import (
    GIVEN,
    KEY,
    NOT_FALSE,
    PROD,
    UNKNOWN,
    Rule,
    Want,
    at_least,
    none_of,
    on,
    one_of,
    over,
    targets,
    values,
    want,
)  # fmt: skip

LOG_NAMES: Final = re.compile(r"/(eav/[a-z0-9]+|aws/[a-zA-Z-]+)(/[A-Za-z0-9_.#-]+)+")
"""A log group is `/eav/<stack>/…`, or what AWS demands of a service."""


def _log_name(group: Resource) -> Iterator[str]:
    name = group.inputs.get("name")
    if name != UNKNOWN and not LOG_NAMES.fullmatch(str(name or "")):
        yield f"{name} is neither /eav/<stack>/… nor /aws/<service>/…"


def written(graph: Graph) -> Iterator[tuple[Resource, str]]:
    """Each resource that writes logs, with the name of the group that it writes to or would make by itself."""
    for one in graph:
        for name in _WRITERS[one.kind](one) if one.kind in _WRITERS else ():
            yield one, name


def _of_cluster(cluster: Resource) -> list[str]:
    given = values(cluster.inputs, "settings")
    found = {one.get("name"): one.get("value") for one in given if isinstance(one, Mapping)}
    if found.get("containerInsights", "disabled") == "disabled":
        return []
    return [f"/aws/ecs/containerinsights/{cluster.inputs.get('name', UNKNOWN)}/performance"]


def _of_task(task: Resource) -> list[str]:
    options = [(one.get("logConfiguration") or {}).get("options") or {} for one in containers(task)]
    return [one["awslogs-group"] for one in options if one.get("awslogs-group")]


def _of_function(function: Resource) -> list[str]:
    made = f"/aws/lambda/{function.inputs.get('name', UNKNOWN)}"
    return values(function.inputs, "loggingConfig.logGroup") or [made]


def _of_proxy(proxy: Resource) -> list[str]:
    return [f"/aws/rds/proxy/{proxy.inputs.get('name', UNKNOWN)}"]


def _exported(prefix: str, name: str, logs: str) -> Callable[[Resource], list[str]]:
    return lambda one: [
        f"{prefix}/{one.inputs.get(name, UNKNOWN)}/{log}"
        for log in values(one.inputs, logs)
        # Redshift logs to a bucket or to CloudWatch.
        if one.inputs.get("logDestinationType") != "s3"
    ]


_WRITERS: Final[dict[str, Callable[[Resource], list[str]]]] = {
    "ecs.Cluster": _of_cluster,
    "ecs.TaskDefinition": _of_task,
    "lambda.Function": _of_function,
    "rds.Instance": _exported("/aws/rds/instance", "identifier", "enabledCloudwatchLogsExports"),
    "rds.Proxy": _of_proxy,
    "redshift.Logging": _exported("/aws/redshift/cluster", "clusterIdentifier", "logExports"),
    "redshiftserverless.Namespace": _exported("/aws/redshift", "namespaceName", "logExports"),
}
"""Kind → the names of its log groups (the guides of the services)."""


def _groups_first(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    groups = {one.inputs.get("name"): one for one in graph.of_kind("cloudwatch.LogGroup")}
    for writer, name in written(graph):
        if UNKNOWN in name:
            continue
        group = groups.get(name)
        if group is None:
            yield (
                writer,
                f"log group {name} is not declared: AWS makes it, without a key, and keeps it for ever",
            )
        elif group.urn not in writer.depends_on:
            yield (
                writer,
                f"it does not wait for log group {name}: AWS may make it first, and the stack then fails",
            )


# -- alarms ------------------------------------------------------------------------------------------------


def _in_composites(graph: Graph) -> frozenset[str]:
    """URNs of alarms that a composite alarm speaks for, or that only keep one quiet."""
    composites = graph.of_kind("cloudwatch.CompositeAlarm")
    return frozenset(
        alarm.urn
        for alarm in graph.of_kind("cloudwatch.MetricAlarm", "cloudwatch.CompositeAlarm")
        for composite in composites
        if any(alarm.urn in composite.references.get(prop, ()) for prop in ("alarmRule", "actionsSuppressor"))
        or _name(alarm) in re.findall(r"ALARM\(\"?([^\")]+)\"?\)", str(composite.inputs.get("alarmRule", "")))
    )


def _name(alarm: Resource) -> Any:
    return alarm.inputs.get("name") or alarm.inputs.get("alarmName")


def _acts(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    spoken_for = _in_composites(graph)
    for alarm in graph.of_kind("cloudwatch.MetricAlarm", "cloudwatch.CompositeAlarm"):
        if alarm.urn not in spoken_for:
            for prop in ("alarmActions", "okActions"):
                for text in want(prop, GIVEN)(alarm):
                    yield alarm, text


def _runbook(alarm: Resource) -> Iterator[str]:
    text = str(alarm.inputs.get("alarmDescription") or "")
    if text != UNKNOWN and not re.search(r"(?i)\brunbooks?\b.*[a-z]", text):
        yield "alarmDescription names no runbook"


# -- topics, queues ----------------------------------------------------------------------------------------


def _topic_tls(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for topic in graph.of_kind("sns.Topic"):
        if denied_without_tls(graph, topic, "sns.TopicPolicy", "arn", "sns:Publish") is False:
            yield topic, "no policy denies requests without TLS"


TELLS: Final = {
    "budgets.Budget": ("notifications", "budgets.amazonaws.com"),
    "cloudwatch.CompositeAlarm": ("alarmActions", "cloudwatch.amazonaws.com"),
    "cloudwatch.MetricAlarm": ("alarmActions", "cloudwatch.amazonaws.com"),
    "rds.EventSubscription": ("snsTopic", "events.rds.amazonaws.com"),
    "redshift.EventSubscription": ("snsTopicArn", "redshift.amazonaws.com"),
}
"""Kind → the input that names the topics it tells, and the service that publishes for it."""


def _heard(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    """Each service that publishes to a topic needs a right to the topic, and one to its key: KMS asks for it apart."""
    for topic in graph.of_kind("sns.Topic"):
        services = {
            service
            for kind, (prop, service) in TELLS.items()
            if any(topic.urn in one.references.get(prop, ()) for one in graph.of_kind(kind))
        }
        policies = [
            one for one in graph.of_kind("sns.TopicPolicy") if topic.urn in one.references.get("arn", ())
        ]
        keys = targets(graph, topic, "kmsMasterKeyId", "kms.Key")
        for service in sorted(services):
            if not _allowed(policies, service, "sns:Publish"):
                yield topic, f"{service} publishes to it, and no policy of the topic lets it"
            if keys and not _allowed(keys, service, "kms:GenerateDataKey*"):
                yield (
                    topic,
                    f"{service} publishes to it, and its key's policy does not let it: nothing is ever heard",
                )


def _allowed(resources: list[Resource], service: str, action: str) -> bool:
    """Whether one of these policies lets a service do something; what is not known yet may."""
    for resource in resources:
        try:
            found = clauses(resource, ATTACHED)
        except ValueError:
            continue
        if found is None or any(
            one.allow and ("Service", service) in one.principals and action in one.actions for one in found
        ):
            return True
    return False


def _queue_tls(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for queue in graph.of_kind("sqs.Queue"):
        if denied_without_tls(graph, queue, "sqs.QueuePolicy", "queueUrl", "sqs:*") is False:
            yield queue, "no policy denies requests without TLS"


_SECURE: Final = Want("must not be http", lambda value: value != "http")

RULES: Final[tuple[Rule, ...]] = (
    on("cloudwatch.LogGroup", "log-retention", "Log groups say how long they keep",
       "for ever costs, and holds too much", "CKV_AWS_66 CloudWatch.16", want("retentionInDays", at_least(1))),
    on("cloudwatch.LogGroup", "log-retention-prod", "Log groups keep a year in prod",
       "an intruder is found after 200 days on average", "CKV_AWS_338 CloudWatch.16",
       want("retentionInDays", at_least(365)), stacks=PROD),
    on("cloudwatch.LogGroup", "log-key", "Log groups are encrypted with a customer managed key",
       "logs hold statements and names", "CKV_AWS_158", want("kmsKeyId", KEY)),
    on("cloudwatch.LogGroup", "log-name", "Log groups are named after their stack", "rights are given by that prefix",
       "", _log_name),
    over("log-group-first", "A log group is made before what writes to it",
         "AWS makes one that is missing, without a key, and keeps it for ever", "CKV_AWS_66 CKV_AWS_158",
         _groups_first),
    over("alarm-actions", "An alarm tells somebody when it begins and when it is over, itself or by a composite alarm",
         "an alarm that nobody hears is none", "CKV_AWS_319 CloudWatch.15", _acts),
    on(("cloudwatch.MetricAlarm", "cloudwatch.CompositeAlarm"), "alarm-enabled", "Alarms are on", "as above",
       "CKV_AWS_319 CloudWatch.17", want("actionsEnabled", NOT_FALSE)),
    on(("cloudwatch.MetricAlarm", "cloudwatch.CompositeAlarm"), "alarm-runbook", "An alarm names its runbook",
       "at 3 a.m. nobody searches", "", _runbook),
    on("cloudwatch.MetricAlarm", "alarm-missing-data", "An alarm says what missing data means",
       "the default hides that nothing is measured any more", "",
       want("treatMissingData", one_of("breaching", "notBreaching", "ignore", "missing"))),
    on("sns.Topic", "sns-key", "Topics are encrypted with a customer managed key",
       "AWS's own key lets no service publish", "CKV_AWS_26 SNS.1", want("kmsMasterKeyId", KEY)),
    over("sns-tls", "Topics refuse requests without TLS", "names and numbers would cross the internet in the clear", "",
         _topic_tls),
    over("sns-heard", "Who publishes to a topic may, by the topic and by its key",
         "an alarm that may not is in ALARM, and nobody is told", "", _heard),
    on("sns.TopicSubscription", "sns-subscription", "Nobody is told by plain HTTP", "anybody on the way reads it", "",
       want("protocol", _SECURE)),
    on("sqs.Queue", "sqs-key", "Queues are encrypted with a customer managed key",
       "dead letters hold what failed: data", "CKV_AWS_27 SQS.1", want("kmsMasterKeyId", none_of("alias/aws/sqs"))),
    over("sqs-tls", "Queues refuse requests without TLS", "dead letters would cross the internet in the clear", "",
         _queue_tls),
)  # fmt: skip
