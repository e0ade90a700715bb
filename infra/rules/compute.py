"""What runs: functions, containers, instances, state machines, and what starts them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from infra.graph import Graph, Resource
from infra.rules.kit import (
    ABSENT,
    GIVEN,
    KEY,
    NOT_TRUE,
    TRUE,
    UNKNOWN,
    Look,
    Rule,
    Want,
    at_least,
    on,
    one_of,
    over,
    pointing,
    told,
    values,
    want,
)  # fmt: skip

RUNTIMES: Final = ("python3.11", "python3.12", "python3.13", "python3.14", "provided.al2023")
"""Of Lambda, those of ours that AWS supports."""

DLQ_SECONDS: Final = 1_209_600
"""14 days, the most that SQS keeps: a failure of Friday night is still there after the holidays."""


def _network_places(resource: Resource) -> list[dict[str, Any]]:
    """The network configurations of tasks that a resource starts."""
    return [
        one
        for path in (
            "networkConfiguration",
            "target.ecsParameters.networkConfiguration",
            "ecsTarget.networkConfiguration",
        )
        for one in values(resource.inputs, path)
        if isinstance(one, dict)
    ]


# -- Lambda ------------------------------------------------------------------------------------------------


def _environment_key(function: Resource) -> Iterator[str]:
    if values(function.inputs, "environment.variables"):
        yield from want("kmsKeyArn", KEY)(function)


def _failures(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for function in graph.of_kind("lambda.Function"):
        handled = any(
            values(one.inputs, "destinationConfig.onFailure.destination")
            for one in pointing(graph, function, "lambda.FunctionEventInvokeConfig", "functionName")
        )
        if not handled and not values(function.inputs, "deadLetterConfig.targetArn"):
            yield (
                function,
                "an event that it fails on is lost: neither deadLetterConfig nor an on-failure destination",
            )


# -- containers --------------------------------------------------------------------------------------------


def containers(task: Resource) -> list[dict[str, Any]]:
    """Those of a task definition; none while they cannot be known."""
    text = task.inputs.get("containerDefinitions")
    if not isinstance(text, str) or text == UNKNOWN:
        return []
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def container(prop: str, wanted: Want) -> Look:
    """A look at one property of each container."""

    def look(task: Resource) -> Iterator[str]:
        for one in containers(task):
            if not wanted.test(one.get(prop)):
                yield f"container {one.get('name')}: {prop} {wanted.text}, {told(one.get(prop))}"

    return look


def _user(task: Resource) -> Iterator[str]:
    for one in containers(task):
        user = str(one.get("user", "")).partition(":")[0]
        if user in ("", "0", "root"):
            yield f"container {one.get('name')} runs as root: user {told(one.get('user'))}"


def _host(task: Resource) -> Iterator[str]:
    yield from want("networkMode", one_of("awsvpc"))(task)
    yield from want("pidMode", one_of(None, "task"))(task)
    yield from want("ipcMode", one_of(None, "task", "none"))(task)


def _pinned(task: Resource) -> Iterator[str]:
    for one in containers(task):
        if not re.search(r"@sha256:[0-9a-f]{64}$", str(one.get("image", ""))):
            yield f"container {one.get('name')}: {one.get('image')} may be another image tomorrow; name its digest"


def _logged(task: Resource) -> Iterator[str]:
    for one in containers(task):
        driver = (one.get("logConfiguration") or {}).get("logDriver")
        if driver not in ("awslogs", "awsfirelens"):
            yield f"container {one.get('name')} has no logConfiguration"


def _capabilities(task: Resource) -> Iterator[str]:
    for one in containers(task):
        added = ((one.get("linuxParameters") or {}).get("capabilities") or {}).get("add")
        if added:
            yield f"container {one.get('name')} gets capabilities of the kernel: {', '.join(added)}"


def _no_public_address(resource: Resource) -> Iterator[str]:
    for place in _network_places(resource):
        if place.get("assignPublicIp") in (True, "true", "ENABLED"):
            yield "assignPublicIp is true: its tasks have public addresses"


def _insights(cluster: Resource) -> Iterator[str]:
    found = {
        one.get("name"): one.get("value")
        for one in values(cluster.inputs, "settings")
        if isinstance(one, dict)
    }
    if found.get("containerInsights") not in ("enabled", "enhanced", UNKNOWN):
        yield f"settings: containerInsights must be enabled or enhanced, {told(found.get('containerInsights'))}"


def _exec_logged(cluster: Resource) -> Iterator[str]:
    yield from want("configuration.executeCommandConfiguration.logging", one_of("OVERRIDE"))(cluster)
    yield from want("configuration.executeCommandConfiguration.kmsKeyId", KEY)(cluster)


def _images_kept(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for registry in graph.of_kind("ecr.Repository"):
        if not pointing(graph, registry, "ecr.LifecyclePolicy", "repository"):
            yield registry, "old images stay for ever: it has no ecr.LifecyclePolicy"


def _image_key(registry: Resource) -> Iterator[str]:
    yield from want("encryptionConfigurations.encryptionType", one_of("KMS", "KMS_DSSE"))(registry)
    yield from want("encryptionConfigurations.kmsKey", KEY)(registry)


# -- instances ---------------------------------------------------------------------------------------------


def _volumes(instance: Resource) -> Iterator[str]:
    root = "rootBlockDevice" if instance.kind == "ec2.Instance" else "blockDeviceMappings.ebs"
    yield from want(f"{root}.encrypted", TRUE)(instance)
    yield from want(f"{root}.kmsKeyId", KEY)(instance)
    for name in ("encrypted", "kmsKeyId"):
        if values(instance.inputs, "ebsBlockDevices"):
            yield from want(f"ebsBlockDevices.{name}", TRUE if name == "encrypted" else KEY)(instance)


def _metadata(instance: Resource) -> Iterator[str]:
    yield from want("metadataOptions.httpTokens", one_of("required"))(instance)
    if values(instance.inputs, "metadataOptions.httpPutResponseHopLimit"):
        yield from want("metadataOptions.httpPutResponseHopLimit", one_of(1))(instance)


def _no_address(instance: Resource) -> Iterator[str]:
    yield from want("associatePublicIpAddress", NOT_TRUE)(instance)
    yield from want("networkInterfaces.associatePublicIpAddress", NOT_TRUE)(instance)


# -- state machines, schedules, events ---------------------------------------------------------------------


def _machine_logs(machine: Resource) -> Iterator[str]:
    yield from want("loggingConfiguration.level", one_of("ALL", "ERROR", "FATAL"))(machine)
    yield from want("loggingConfiguration.logDestination", GIVEN)(machine)


_DLQ_OF: Final = (
    ("lambda.Function", "deadLetterConfig"),
    ("lambda.FunctionEventInvokeConfig", "destinationConfig"),
    ("scheduler.Schedule", "target"),
    ("cloudwatch.EventTarget", "deadLetterConfig"),
    ("sns.TopicSubscription", "redrivePolicy"),
    ("sqs.Queue", "redrivePolicy"),
)


def _dlq_keeps(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    urns = {
        urn
        for kind, prop in _DLQ_OF
        for one in graph.of_kind(kind)
        if kind != "scheduler.Schedule" or values(one.inputs, "target.deadLetterConfig")
        for urn in one.references.get(prop, ())
    }
    for queue in graph.of_kind("sqs.Queue"):
        if queue.urn in urns:
            for text in want("messageRetentionSeconds", one_of(DLQ_SECONDS))(queue):
                yield queue, text


_tasks: Final[tuple[str, ...]] = ("ecs.Service", "scheduler.Schedule", "cloudwatch.EventTarget")
_zip: Callable[[Resource], bool] = lambda one: one.inputs.get("packageType") == "Image"  # noqa: E731

RULES: Final[tuple[Rule, ...]] = (
    # Lambda
    over("lambda-dlq", "An event that a function fails on is kept", "a failure that leaves nothing is not repaired",
         "CKV_AWS_116", _failures),
    on("lambda.Function", "lambda-concurrency", "Functions have a reserved concurrency",
       "one cannot take all of the account's, and twice at once is decided", "CKV_AWS_115",
       want("reservedConcurrentExecutions", at_least(0))),
    on("lambda.Function", "lambda-tracing", "Functions are traced", "where the time went is known",
       "CKV_AWS_50 Lambda.7",
       want("tracingConfig.mode", one_of("Active"))),
    on("lambda.Function", "lambda-runtime", "Functions run on a runtime that AWS supports",
       "others get no security fixes", "CKV_AWS_363 Lambda.2", want("runtime", one_of(*RUNTIMES)), unless=_zip),
    on("lambda.Function", "lambda-environment-key", "Variables of functions are encrypted with our key",
       "they tell the names of what the function uses", "CKV_AWS_173", _environment_key, severity="advisory"),
    on("lambda.FunctionUrl", "lambda-url", "A function has no URL without IAM", "it would be a door to the internet",
       "CKV_AWS_258", want("authorizationType", one_of("AWS_IAM"))),
    # Containers
    on("ecs.TaskDefinition", "ecs-privileged", "No container is privileged", "it would own the machine",
       "CKV_AWS_334 ECS.4", container("privileged", NOT_TRUE)),
    on("ecs.TaskDefinition", "ecs-read-only", "Containers cannot write to their root file system",
       "what breaks in leaves nothing behind", "CKV_AWS_336 ECS.5", container("readonlyRootFilesystem", TRUE)),
    on("ecs.TaskDefinition", "ecs-user", "Containers do not run as root", "a way out of one is then no way to all",
       "ECS.20", _user),
    on("ecs.TaskDefinition", "ecs-host", "Tasks share neither network nor processes with their host",
       "they would see what is not theirs", "CKV_AWS_335 ECS.3 ECS.17", _host),
    on("ecs.TaskDefinition", "ecs-capabilities", "Containers get no capabilities of the kernel", "none is needed", "",
       _capabilities),
    on("ecs.TaskDefinition", "ecs-image", "Images are named by their digest", "what was tested is what runs", "",
       _pinned),
    on("ecs.TaskDefinition", "ecs-logs", "Containers log to CloudWatch", "their own disk is gone with them", "ECS.9",
       _logged),
    on(_tasks, "ecs-public-address", "Tasks have no public address", "they need none to reach out",
       "CKV_AWS_333 ECS.2 ECS.16", _no_public_address),
    on("ecs.Service", "ecs-platform", "Tasks run on the latest platform", "older ones get no security fixes",
       "CKV_AWS_332 ECS.10", want("platformVersion", one_of(None, "LATEST"))),
    on("ecs.Service", "ecs-circuit-breaker", "A deployment that fails is taken back", "at night nobody looks", "",
       lambda one: (*want("deploymentCircuitBreaker.enable", TRUE)(one),
                    *want("deploymentCircuitBreaker.rollback", TRUE)(one)), severity="advisory"),
    on("ecs.Cluster", "ecs-insights", "Container Insights is on", "a task that was killed for memory shows there only",
       "CKV_AWS_65 ECS.12", _insights),
    on("ecs.Cluster", "ecs-exec", "Commands run in a container are logged, under our key", "it is a shell in the VPC",
       "CKV_AWS_223 CKV_AWS_224", _exec_logged, severity="advisory"),
    on("ecr.Repository", "ecr-scan", "Images are scanned", "what is known to be broken is not run",
       "CKV_AWS_163 ECR.1", want("imageScanningConfiguration.scanOnPush", TRUE)),
    on("ecr.Repository", "ecr-immutable", "A tag stays what it was", "what was tested is what runs",
       "CKV_AWS_51 ECR.2", want("imageTagMutability", one_of("IMMUTABLE"))),
    on("ecr.Repository", "ecr-key", "Images are encrypted with a customer managed key", "they hold our code",
       "CKV_AWS_136 ECR.5", _image_key),
    over("ecr-lifecycle", "Old images go", "each costs, and each holds old holes", "ECR.3", _images_kept),
    # Instances
    on(("ec2.Instance", "ec2.LaunchTemplate"), "ec2-metadata", "Instances give their credentials to sessions only",
       "a program that fetches any URL would hand them out (IMDSv1)", "CKV_AWS_79 CKV_AWS_341 EC2.8 EC2.170",
       _metadata),
    on(("ec2.Instance", "ec2.LaunchTemplate"), "ec2-volumes", "Volumes are encrypted with a customer managed key",
       "what a session left on them is data", "CKV_AWS_3 CKV_AWS_8 CKV_AWS_189 EC2.3", _volumes),
    on(("ec2.Instance", "ec2.LaunchTemplate"), "ec2-public-address", "Instances have no public address",
       "they are reached by Session Manager", "CKV_AWS_88 EC2.9 EC2.25", _no_address),
    on(("ec2.Instance", "ec2.LaunchTemplate"), "ec2-key-pair", "Instances have no key pair",
       "nobody logs in by SSH, and a key that leaked would last", "EC2.24", want("keyName", ABSENT)),
    on("ec2.Instance", "ec2-profile", "Instances have a role", "credentials would be copied to them otherwise",
       "CKV2_AWS_41 SSM.1", want("iamInstanceProfile", GIVEN)),
    # State machines, schedules, events
    on("sfn.StateMachine", "sfn-logs", "State machines log", "why one stopped is known afterwards",
       "CKV_AWS_285 StepFunctions.1", _machine_logs),
    on("sfn.StateMachine", "sfn-tracing", "State machines are traced", "where the time went is known", "CKV_AWS_284",
       want("tracingConfiguration.enabled", TRUE)),
    on("sfn.StateMachine", "sfn-key", "State machines are encrypted with our key", "their input and output is data", "",
       want("encryptionConfiguration.kmsKeyId", KEY), severity="advisory"),
    on("scheduler.Schedule", "schedule-dlq", "A schedule that could not start its target says so",
       "a job that never ran is not seen otherwise", "", want("target.deadLetterConfig.arn", GIVEN)),
    on("cloudwatch.EventTarget", "event-dlq", "An event that could not be delivered is kept",
       "a job that never ran is not seen otherwise", "", want("deadLetterConfig.arn", GIVEN), severity="advisory"),
    over("dlq-keeps", "Dead letters stay 14 days", "the default is 4: less than a holiday", "", _dlq_keeps),
)  # fmt: skip
