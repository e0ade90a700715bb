"""Migrate the database of a stack: `alembic upgrade head` as the stack's task `migrate`, in its VPC.

It runs the image of `workers.image_digest`, also where the stack still runs an older one: the schema comes before what
needs it. The log of the task is shown while it runs, and its exit code decides.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import InfraError
from infra.graph import ROOT, Graph, load_graph

TASK: Final = "migrate"
"""Logical name of the task definition, and name of its container and of the prefix of its log streams."""
FAILED: Final = 3
POLL_SECONDS: Final = 5.0
TIMEOUT_MINUTES: Final = 60
SEEN_AFTER: Final = 24
"""Looks, after which a task that was started is known."""
LOG_SECONDS: Final = 15.0
"""How long what a task said last may still be on its way to CloudWatch when the task has ended."""

KEPT: Final = (
    "family", "taskRoleArn", "executionRoleArn", "networkMode", "containerDefinitions", "volumes", "cpu", "memory",
    "requiresCompatibilities", "runtimePlatform", "ephemeralStorage",
)  # fmt: skip
"""What a task definition is registered with again, of what ECS says of it."""

EPILOG: Final = f"""\
The network is the stack's output migrate_network: the pulumi CLI, logged in, says it. Two at once wait for each other,
and a schema that is at its head stays as it is: it can be run again at any time.

exit codes: 0 migrated, or no image is set yet; 1 it could not be run, or is not known to have ended; 2 wrong usage;
{FAILED} the migration failed, as its log says"""


class Migration:
    """One run of the task. session: boto3's, of the account of the stack. `pause`: waits for so many seconds."""

    def __init__(
        self,
        graph: Graph,
        session: Any,
        say: Callable[[str], None] = print,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings, self.say, self.pause = graph.settings, say, pause
        self.ecs, self.logs = (session.client(name, graph.settings.region) for name in ("ecs", "logs"))
        self.cluster = str(graph.one("ecs.Cluster").inputs["name"])
        self.family = str(graph.one("ecs.TaskDefinition", TASK).inputs["family"])
        self._token: str | None = None

    def run(self, network: Any, timeout_minutes: float = TIMEOUT_MINUTES) -> int:
        """The exit code of the container. network: what ECS takes as networkConfiguration. Raises InfraError."""
        definition, own = self._definition()
        try:
            return self._run(definition, network, timeout_minutes * 60)
        finally:
            if own:
                self.ecs.deregister_task_definition(taskDefinition=definition)

    def _definition(self) -> tuple[str, bool]:
        """The task definition with the image of the settings, and whether it was made for this run."""
        try:
            answer = self.ecs.describe_task_definition(taskDefinition=self.family, include=["TAGS"])
        except self.ecs.exceptions.ClientException:
            raise InfraError(
                f"there is no task definition {self.family}: `pulumi up -s {self.settings.stack}` makes it"
            ) from None
        found = answer["taskDefinition"]
        (container,) = found["containerDefinitions"]
        repository = container["image"].partition("@")[0]
        image = f"{repository}@{self.settings.workers.image_digest}"
        if container["image"] == image:
            return str(found["taskDefinitionArn"]), False
        container["image"] = image
        kept = {key: found[key] for key in KEPT if found.get(key)}
        made = self.ecs.register_task_definition(**kept, tags=answer.get("tags") or [])
        return str(made["taskDefinition"]["taskDefinitionArn"]), True

    def _run(self, definition: str, network: Any, seconds: float) -> int:
        self.say(f"{definition.rpartition('/')[2]} in {self.cluster}: {self.settings.workers.image_digest}")
        answer = self.ecs.run_task(
            cluster=self.cluster, taskDefinition=definition, launchType="FARGATE", networkConfiguration=network,
            startedBy="infra-migrate", propagateTags="TASK_DEFINITION",
        )  # fmt: skip
        if not answer["tasks"]:
            reasons = ", ".join(one.get("reason", "") for one in answer["failures"])
            raise InfraError(f"ECS did not start the task: {reasons or 'no reason given'}")
        arn, stream = answer["tasks"][0]["taskArn"], self._stream(definition, answer["tasks"][0]["taskArn"])
        waited, shown = 0.0, ""
        while (task := self._look(arn))["lastStatus"] != "STOPPED":
            if task["lastStatus"] != shown:
                shown = task["lastStatus"]
                self.say(f"{shown.lower()} ({waited:.0f} s)")
            self._show(*stream)
            if waited >= seconds:
                raise InfraError(
                    f"{arn} still runs after {seconds / 60:g} min: it goes on, its log is {stream[0]}"
                )
            self.pause(POLL_SECONDS)
            waited += POLL_SECONDS
        return self._ended(task, stream)

    def _look(self, arn: str) -> Any:
        """What ECS says of the task; it may not know for a moment what it has just started."""
        for _ in range(SEEN_AFTER):
            if found := self.ecs.describe_tasks(cluster=self.cluster, tasks=[arn])["tasks"]:
                return found[0]
            self.pause(POLL_SECONDS)
        raise InfraError(f"{arn} was started, and ECS does not know it: look whether it runs before the next")

    def _ended(self, task: Any, stream: tuple[str, str]) -> int:
        # Others may be beside it: an account can have GuardDuty add its agent.
        container = next(one for one in task["containers"] if one["name"] == TASK)
        code = container.get("exitCode")
        if code is None:
            # It never ran: no image, no network, no secret. Nothing was logged.
            reason = container.get("reason") or task.get("stoppedReason") or "no reason given"
            raise InfraError(f"the task ended before its program began: {reason}")
        quiet = 0.0
        while quiet < LOG_SECONDS:
            quiet = 0.0 if self._show(*stream) else quiet + POLL_SECONDS
            if quiet < LOG_SECONDS:
                self.pause(POLL_SECONDS)
        self.say(f"ended with exit code {code}")
        return int(code)

    def _stream(self, definition: str, arn: str) -> tuple[str, str]:
        """The log group and the stream of a task."""
        found = self.ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]
        (container,) = found["containerDefinitions"]
        options = container["logConfiguration"]["options"]
        return (
            options["awslogs-group"],
            f"{options['awslogs-stream-prefix']}/{container['name']}/{arn.rpartition('/')[2]}",
        )

    def _show(self, group: str, stream: str) -> bool:
        """Say what is new in the log; whether there was anything."""
        more = {"nextToken": self._token} if self._token else {}
        try:
            found = self.logs.get_log_events(
                logGroupName=group, logStreamName=stream, startFromHead=True, **more
            )
        except self.logs.exceptions.ResourceNotFoundException:
            return False  # until its first line there is no stream
        self._token = found["nextForwardToken"]
        for event in found["events"]:
            self.say(f"  {event['message'].rstrip()}")
        return bool(found["events"])


def network_of(stack: str) -> Any:
    """The stack's output `migrate_network`. Raises InfraError where the pulumi CLI does not say it."""
    command = ["pulumi", "stack", "output", "migrate_network", "--stack", stack, "--non-interactive"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    except FileNotFoundError:
        raise InfraError("there is no pulumi CLI here, which says in which network to run the task") from None
    except subprocess.TimeoutExpired:
        raise InfraError(f"{' '.join(command)} did not answer in 5 min") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InfraError(f"{' '.join(command)}: {last}")
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise InfraError(
            f"the output migrate_network of {stack} is not JSON: `pulumi up` renews it"
        ) from None


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m infra migrate`; returns the exit code. Raises InfraError."""
    parser = argparse.ArgumentParser(
        prog="python -m infra migrate",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stack", help="dev, staging, prod")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT_MINUTES, metavar="MINUTES",
        help=f"how long to wait for the end (default {TIMEOUT_MINUTES}); the task goes on without us",
    )  # fmt: skip
    options = parser.parse_args(argv)
    if not options.timeout > 0:
        parser.error(f"argument --timeout: minutes must be above 0, got {options.timeout:g}")
    graph = load_graph(options.stack)
    if graph.settings.workers.image_digest is None:
        print(
            f"Pulumi.{options.stack}.yaml sets no workers.image_digest: there is nothing to migrate with yet"
        )
        return 0
    say = _said
    try:
        run = Migration(graph, boto3.Session(), say)
        return FAILED if run.run(network_of(options.stack), options.timeout) else 0
    except (BotoCoreError, ClientError) as error:
        raise InfraError(f"AWS: {error}") from None


def _said(text: str) -> None:
    print(text, flush=True)
