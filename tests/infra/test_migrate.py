"""Migrating a stack by its task: what is run, what is shown, and what decides; against moto's ECS."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ecs.models import ecs_backends
from moto.moto_api import state_manager

from infra import cli, migrate
from infra.errors import InfraError
from infra.graph import Graph
from infra.migrate import Migration
from tests.infra.account import empty_account
from tests.infra.changed import DIGEST, with_an_image

OTHER = f"sha256:{'cd' * 32}"
TURNS = 3
"""Looks at a task until it is in its next state."""


class Stack:
    """What `pulumi up` of dev has made, as far as a migration asks for it."""

    def __init__(self, image: str = DIGEST) -> None:
        self.graph: Graph = with_an_image()
        session = boto3.Session()
        region = self.graph.settings.region
        self.ecs, self.logs, ec2 = (session.client(name, region) for name in ("ecs", "logs", "ec2"))
        self.session, self.region = session, region
        self.said: list[str] = []
        self.ecs.create_cluster(clusterName=self.graph.one("ecs.Cluster").inputs["name"])
        wanted = self.graph.one("ecs.TaskDefinition", "migrate").inputs
        (container,) = json.loads(wanted["containerDefinitions"])
        container["image"] = container["image"].replace(DIGEST, image)
        container |= {"cpu": 256, "memory": 512}  # moto counts those of containers, Fargate those of tasks
        self.options = container["logConfiguration"]["options"]
        self.family = wanted["family"]
        self.role = wanted["taskRoleArn"]
        self.ecs.register_task_definition(
            family=self.family, networkMode="awsvpc", requiresCompatibilities=["FARGATE"], cpu="256", memory="512",
            taskRoleArn=self.role, containerDefinitions=[container], tags=[{"key": "Environment", "value": "dev"}],
        )  # fmt: skip
        self.logs.create_log_group(logGroupName=self.options["awslogs-group"])
        subnet = ec2.describe_subnets()["Subnets"][0]
        group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
        self.network = {"awsvpcConfiguration": {"subnets": [subnet["SubnetId"]], "securityGroups": [group]}}
        self.code: int | None = 0
        self.lines = ["INFO  Running upgrade 0001 -> 0002"]
        self.pauses = 0

    @property
    def tasks(self) -> list[Any]:
        found = ecs_backends[DEFAULT_ACCOUNT_ID][self.region].tasks
        return [task for of_cluster in found.values() for task in of_cluster.values()]

    def pause(self, seconds: float) -> None:
        """In place of waiting: the task says something, once, and gets its exit code."""
        self.pauses += 1
        (task,) = self.tasks
        task.containers[0].exitCode = self.code
        if self.lines:
            stream = f"migrate/migrate/{task.id}"
            where = {"logGroupName": self.options["awslogs-group"], "logStreamName": stream}
            if self.pauses == 1:
                self.logs.create_log_stream(**where)
            now = int(time.time() * 1000)
            self.logs.put_log_events(**where, logEvents=[{"timestamp": now, "message": self.lines.pop(0)}])

    def migrate(self, minutes: float = 60) -> int:
        return Migration(self.graph, self.session, self.said.append, self.pause).run(self.network, minutes)

    def active(self) -> list[str]:
        found = self.ecs.list_task_definitions(familyPrefix=self.family, status="ACTIVE")[
            "taskDefinitionArns"
        ]
        return [arn.rpartition(":")[2] for arn in found]


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with empty_account(monkeypatch):
        state_manager.set_transition("ecs::task", {"progression": "manual", "times": TURNS})
        yield
        state_manager.unset_transition("ecs::task")


def test_the_task_runs_in_the_network_it_was_told_and_its_log_is_shown_to_the_last_line() -> None:
    stack = Stack()
    # More lines than looks until the end: what comes late is shown too.
    stack.lines = [f"line {number}" for number in range(6 * TURNS)]
    assert stack.migrate() == 0
    (task,) = stack.tasks
    assert task.network_configuration == stack.network
    assert task.launch_type == "FARGATE"
    assert [one.strip() for one in stack.said if "line " in one] == [f"line {n}" for n in range(6 * TURNS)]
    assert stack.said[0].endswith(DIGEST)
    assert stack.said[-1] == "ended with exit code 0"
    assert stack.active() == ["1"], "what Pulumi made was what ran"


def test_a_task_that_ecs_does_not_know_at_once_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack()
    run = Migration(stack.graph, stack.session, stack.said.append, stack.pause)
    look, missing = run.ecs.describe_tasks, [1, 1]
    monkeypatch.setattr(
        run.ecs,
        "describe_tasks",
        lambda **given: {"tasks": []} if missing and missing.pop() else look(**given),
    )
    assert run.run(stack.network) == 0


def test_a_task_that_ecs_never_knows_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack()
    run = Migration(stack.graph, stack.session, stack.said.append, lambda seconds: None)
    monkeypatch.setattr(run.ecs, "describe_tasks", lambda **given: {"tasks": []})
    with pytest.raises(InfraError, match="ECS does not know it"):
        run.run(stack.network)


def test_the_exit_code_is_the_migration_s_whoever_is_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack()
    run = Migration(stack.graph, stack.session, stack.said.append, stack.pause)
    look = run.ecs.describe_tasks

    def beside(**given: Any) -> Any:
        found = look(**given)
        for task in found["tasks"]:
            task["containers"].insert(0, {"name": "aws-guardduty-agent", "exitCode": 1})
        return found

    monkeypatch.setattr(run.ecs, "describe_tasks", beside)
    assert run.run(stack.network) == 0


def test_who_started_it_is_a_name_that_ecs_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack()
    run = Migration(stack.graph, stack.session, stack.said.append, stack.pause)
    asked: list[str] = []
    start = run.ecs.run_task

    def noted(**given: Any) -> Any:
        asked.append(given["startedBy"])
        return start(**given)

    monkeypatch.setattr(run.ecs, "run_task", noted)
    assert run.run(stack.network) == 0
    assert re.fullmatch(r"[A-Za-z0-9/_-]{1,128}", asked[0])


def test_the_exit_code_of_the_container_decides() -> None:
    stack = Stack()
    stack.code = 255
    assert stack.migrate() == 255


def test_the_schema_comes_before_the_services_by_a_definition_that_goes_again() -> None:
    stack = Stack(image=OTHER)
    assert stack.migrate() == 0
    (task,) = stack.tasks
    assert task.containers[0].image.endswith(f"@{DIGEST}")
    ran = stack.ecs.describe_task_definition(taskDefinition=task.task_definition_arn, include=["TAGS"])
    assert ran["taskDefinition"]["taskRoleArn"] == stack.role
    assert ran["tags"] == [{"key": "Environment", "value": "dev"}]
    assert stack.active() == ["1"]


def test_a_task_that_never_began_says_why() -> None:
    stack = Stack(image=OTHER)
    stack.code, stack.lines = None, []
    pause = stack.pause

    def refused(seconds: float) -> None:
        pause(seconds)
        stack.tasks[0].stopped_reason = "CannotPullContainerError: not found"

    stack.pause = refused  # type: ignore[method-assign]
    with pytest.raises(
        InfraError, match=r"ended before its program began: CannotPullContainerError: not found$"
    ):
        stack.migrate()
    assert stack.active() == ["1"]


def test_one_that_does_not_end_is_left_and_said() -> None:
    stack = Stack()
    with pytest.raises(
        InfraError, match=r"still runs after 0\.1 min: it goes on, its log is /eav/dev/tasks/migrate"
    ):
        stack.migrate(0.1)


def test_a_stack_that_was_never_made_is_a_line() -> None:
    with pytest.raises(
        InfraError, match="there is no task definition eav-dev-migrate: `pulumi up -s dev` makes it"
    ):
        Migration(with_an_image(), boto3.Session()).run({})


def test_without_an_image_there_is_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["migrate", "dev"]) == 0
    assert capsys.readouterr().out == (
        "Pulumi.dev.yaml sets no workers.image_digest: there is nothing to migrate with yet\n"
    )


def test_the_command_asks_pulumi_for_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = Stack()
    stack.code = 1
    pulumi = tmp_path / "pulumi"
    pulumi.write_text(
        f"#!/bin/sh\ntest \"$3 $5\" = 'migrate_network dev' && echo '{json.dumps(stack.network)}'\n"
    )
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(migrate, "load_graph", lambda name: stack.graph)
    monkeypatch.setattr(migrate, "Migration", partial(Migration, pause=stack.pause))
    assert cli.main(["migrate", "dev"]) == migrate.FAILED
    assert "Running upgrade 0001 -> 0002" in capsys.readouterr().out
    assert stack.tasks[0].network_configuration == stack.network
    pulumi.write_text("#!/bin/sh\necho 'error: no stack named dev found' >&2; exit 255\n")
    assert cli.main(["migrate", "dev"]) == 1
    assert capsys.readouterr().err.endswith("--non-interactive: error: no stack named dev found\n")
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert cli.main(["migrate", "dev"]) == 1
    assert "no pulumi CLI here" in capsys.readouterr().err
