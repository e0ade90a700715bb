from __future__ import annotations

import ast
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver import state
from archiver.run import Result, Stats
from archiver.settings import DESCRIBED, MOST_BYTES, from_environment
from infra import archiver, bundle
from infra.graph import ROOT
from tests.infra.conftest import graph_of
from tests.infra.test_archive import operations

if TYPE_CHECKING:
    from infra.graph import Graph, Resource

FUNCTION = "arn:aws:lambda:eu-central-1:123456789012:function:eav-test-archiver"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:eav-test-notice"
MACHINE = archiver.definition(FUNCTION, TOPIC, subject="eav-test-archiver", timeout=900, rounds=3)
STATES = MACHINE["States"]
TELLING = {name for name, state in STATES.items() if state.get("Resource", "").endswith(":sns:publish")}


def function(graph: Graph) -> Resource:
    return graph.one("lambda.Function", "archiver")


def statements(graph: Graph, policy: str) -> dict[str, dict[str, Any]]:
    found = json.loads(graph.one("iam.RolePolicy", policy).inputs["policy"])["Statement"]
    return {one["Sid"]: one for one in found}


# -- the function --------------------------------------------------------------------------------------------


def test_the_function_runs_alone_as_long_and_as_large_as_the_stack_says(graph: Graph) -> None:
    settings, inputs = graph.settings.archive, function(graph).inputs
    assert inputs["reservedConcurrentExecutions"] == 1
    assert (inputs["timeout"], inputs["memorySize"]) == (settings.timeout_seconds, settings.memory_mb)
    assert (inputs["runtime"], inputs["architectures"]) == (bundle.RUNTIME, [bundle.ARCHITECTURE])
    assert inputs["tracingConfig"] == {"mode": "Active"}
    assert "vpcConfig" not in inputs


def test_in_prod_it_is_as_the_issue_asks(prod: Graph) -> None:
    inputs = function(prod).inputs
    assert (inputs["timeout"], inputs["memorySize"]) == (900, 1024)
    schedule = prod.one("scheduler.Schedule", "archiver").inputs
    assert schedule["scheduleExpression"] == "cron(0 2 * * ? *)"
    assert schedule["scheduleExpressionTimezone"] == "UTC"
    assert schedule["flexibleTimeWindow"] == {"mode": "OFF"}


def test_its_code_is_the_bundle_of_the_archiver(graph: Graph) -> None:
    inputs = function(graph).inputs
    assert ROOT / inputs["code"] == bundle.ARCHIVER.path
    module, _, name = inputs["handler"].rpartition(".")
    source = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    assert name in {node.name for node in source.body if isinstance(node, ast.FunctionDef)}


def test_its_log_group_was_there_before_it(graph: Graph) -> None:
    own = function(graph)
    logs = graph.one("cloudwatch.LogGroup", "archiver-logs")
    assert logs.inputs["name"] == f"/aws/lambda/{own.inputs['name']}"
    assert logs.inputs["retentionInDays"] == graph.settings.archive.log_days
    assert logs.inputs["kmsKeyId"] == graph.one("kms.Key", "key-logs").outputs["arn"]
    assert own.inputs["loggingConfig"]["logGroup"] == logs.inputs["name"]
    assert own.inputs["loggingConfig"]["logFormat"] == "JSON"
    assert logs.urn in own.depends_on


def test_the_archiver_takes_its_environment_and_means_the_same(graph: Graph) -> None:
    found = function(graph).inputs["environment"]["variables"]
    assert found.keys() <= DESCRIBED.keys()
    settings = from_environment({**found, "AWS_REGION": graph.settings.region})
    stack = graph.settings
    assert settings.source_tables == (graph.one("dynamodb.Table", "items").inputs["name"],)
    assert settings.state_table == graph.one("dynamodb.Table", "archiver-state").inputs["name"]
    assert settings.archive_bucket == graph.one("s3.Bucket", "archive-items").inputs["bucket"]
    assert settings.kms_key_id == graph.one("kms.Key", "key-archive").outputs["arn"]
    assert settings.region == stack.region
    assert (settings.archive_days, settings.batch_size) == (
        stack.archive.archive_days,
        stack.archive.batch_size,
    )
    assert (settings.time_attribute, settings.time_format) == (
        stack.items.time_attribute,
        stack.items.time_format,
    )
    assert settings.time_reserve < stack.archive.timeout_seconds / 2
    assert settings.dry_run is False


@given(memory=st.integers(512, 10240))
def test_the_segments_fit_into_memory_and_into_what_the_archiver_takes(memory: int) -> None:
    count = archiver.segments(memory)
    assert 1 <= count <= 64
    assert count == 1 or archiver.BASE_MB + count * archiver.SEGMENT_MB <= memory
    assert count * 4 * 2**20 <= MOST_BYTES


def test_four_segments_in_a_gibibyte() -> None:
    assert archiver.segments(1024) == 4


def test_what_fails_is_kept_for_two_weeks_and_told(graph: Graph) -> None:
    queue = graph.one("sqs.Queue", "archiver-failures")
    assert queue.inputs["messageRetentionSeconds"] == 14 * 24 * 3600
    assert queue.inputs["kmsMasterKeyId"] == graph.one("kms.Key", "key-notices").outputs["arn"]
    assert function(graph).inputs["deadLetterConfig"] == {"targetArn": queue.outputs["arn"]}
    on_failure = graph.one("lambda.FunctionEventInvokeConfig", "archiver").inputs
    assert on_failure["destinationConfig"] == {
        "onFailure": {"destination": graph.one("sns.Topic", "topic-notice").outputs["arn"]}
    }
    assert on_failure["maximumRetryAttempts"] == 0
    target = graph.one("scheduler.Schedule", "archiver").inputs["target"]
    assert target["deadLetterConfig"] == {"arn": queue.outputs["arn"]}
    (policy,) = json.loads(graph.one("sqs.QueuePolicy", "archiver-failures").inputs["policy"])["Statement"]
    assert (policy["Effect"], policy["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_what_is_made_only_with_its_rights_waits_for_them(graph: Graph) -> None:
    """Lambda wants to know that the role may send to the queue, Step Functions that it may deliver the log."""
    for resource, policy in (
        (function(graph), "archiver-policy"),
        (graph.one("sfn.StateMachine", "archiver"), "archiver-machine-policy"),
    ):
        assert graph.one("iam.RolePolicy", policy).urn in resource.depends_on


# -- rights --------------------------------------------------------------------------------------------------

TRANSACTION = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"}
S3 = {"GetObject": "s3:GetObject", "HeadObject": "s3:GetObject", "PutObject": "s3:PutObject"}


class Recorder:
    """What the archiver asks AWS for, as rights: action and resource."""

    def __init__(self, graph: Graph, tables: Mapping[str, str]) -> None:
        self.asked: set[tuple[str, str]] = set()
        self.tables = {
            name: graph.one("dynamodb.Table", logical).outputs["arn"] for name, logical in tables.items()
        }
        self.bucket = graph.one("s3.Bucket", "archive-items").outputs["arn"]

    def __call__(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        if "Bucket" in params:
            self.asked.add((S3[model.name], f"{self.bucket}/{params['Key']}"))
        elif "TransactItems" in params:
            for one in params["TransactItems"]:
                ((kind, write),) = one.items()
                self.asked.add((f"dynamodb:{TRANSACTION[kind]}", self.tables[write["TableName"]]))
        else:
            self.asked.add((f"dynamodb:{model.name}", self.tables[params["TableName"]]))


@contextmanager
def recorded(aws: Any, recorder: Recorder) -> Iterator[None]:
    events = [client.meta.events for client in (aws.dynamodb, aws.s3)]
    for one in events:
        one.register("provide-client-params", recorder)
    try:
        yield
    finally:
        for one in events:
            one.unregister("provide-client-params", recorder)


def test_its_rights_to_data_are_those_of_what_it_asks_for_and_no_more(prod: Graph) -> None:
    """A run that is killed in the middle of its deletes, and the ones that finish and follow it, are recorded."""
    from tests.archiver.world import STATE, TABLE, Fault, item, world

    recorder = Recorder(prod, {TABLE: "items", STATE: "archiver-state"})
    with world(page_bytes=200) as here, recorded(here.aws, recorder):
        here.put(*[item(number) for number in range(8)])
        sent = iter(range(100))

        def plan(number: int, operation: str) -> Fault | None:
            return "kill after" if operation == "TransactWriteItems" and next(sent) == 1 else None

        here.line.plan = plan
        assert here.try_run() is None
        here.calm()
        assert here.run().finished
        assert here.table() == []
        here.put(item(9))
        assert here.run().finished
        # Somebody else is at it.
        until = here.now + timedelta(hours=1, seconds=30)
        state.State(here.dynamodb, STATE, TABLE).lock("somebody", here.now, until)
        assert not here.run().finished

    found = statements(prod, "archiver-policy")
    granted = {
        (action, resource)
        for one in found.values()
        for action in one["Action"]
        if action.startswith(("dynamodb:", "s3:"))
        for resource in one["Resource"]
    }
    assert not any("Condition" in found[sid] for sid in ("ReadAndDeleteItems", "WriteAndReadBackArchives"))

    def covers(right: tuple[str, str], asked: tuple[str, str]) -> bool:
        return right[0] == asked[0] and fnmatchcase(asked[1], right[1])

    assert {asked for asked in recorder.asked if not any(covers(right, asked) for right in granted)} == set()
    # Asked for by no operation of its own: it is what makes S3 say that an object is not there.
    granted -= {("s3:ListBucket", recorder.bucket)}
    assert {right for right in granted if not any(covers(right, one) for one in recorder.asked)} == set()


def test_no_operation_of_its_modules_is_without_a_right(prod: Graph) -> None:
    """Also those that the recorded runs did not come to."""
    granted = {
        action.partition(":")[2]
        for one in statements(prod, "archiver-policy").values()
        for action in one["Action"]
    }
    # What commands of a person call alone (docs/archiver.md): setup, and restore of what is in Glacier.
    by_hand = {"create_table", "get_waiter", "restore_object"}
    called = set().union(
        *(
            operations(ROOT / f"archiver/{name}.py")
            for name in ("aws", "deletes", "run", "state", "store", "handler")
        )
    )
    assert {"scan", "put_object", "describe_table", "transact_write_items"} <= called
    rights = {
        "head_object": "GetObject",
        "list_objects_v2": "ListBucket",
        "transact_write_items": "DeleteItem",
    }
    for name in called - by_hand:
        assert rights.get(name, "".join(part.title() for part in name.split("_"))) in granted


def test_keys_are_used_by_way_of_one_service_each(graph: Graph) -> None:
    region = graph.settings.region
    for policy in ("archiver-policy", "archiver-machine-policy", "archiver-schedule-policy"):
        for one in statements(graph, policy).values():
            if not any(action.startswith("kms:") for action in one["Action"]):
                continue
            services = one["Condition"]["StringEquals"]["kms:ViaService"]
            for service in [services] if isinstance(services, str) else services:
                assert service.split(".")[1:] == [region, "amazonaws", "com"]
            (key,) = one["Resource"]
            assert key in {found.outputs["arn"] for found in graph.of_kind("kms.Key")}


def test_only_tracing_and_the_delivery_of_logs_have_every_resource(graph: Graph) -> None:
    wide = {
        (policy, sid)
        for policy in ("archiver-policy", "archiver-machine-policy", "archiver-schedule-policy")
        for sid, one in statements(graph, policy).items()
        if "*" in one["Resource"]
    }
    assert wide == {
        ("archiver-policy", "Trace"),
        ("archiver-machine-policy", "Trace"),
        ("archiver-machine-policy", "DeliverItsLog"),
    }


def test_roles_are_taken_by_their_service_for_this_account_only(graph: Graph) -> None:
    for name, service in (
        ("archiver", "lambda"),
        ("archiver-machine", "states"),
        ("archiver-schedule", "scheduler"),
    ):
        (trust,) = json.loads(graph.one("iam.Role", f"{name}-role").inputs["assumeRolePolicy"])["Statement"]
        assert trust["Principal"] == {"Service": f"{service}.amazonaws.com"}
        assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_the_schedule_may_start_the_machine_and_the_machine_may_run_the_function(graph: Graph) -> None:
    machine = graph.one("sfn.StateMachine", "archiver")
    start = statements(graph, "archiver-schedule-policy")["StartTheMachine"]
    assert start["Resource"] == [machine.outputs["arn"]]
    target = graph.one("scheduler.Schedule", "archiver").inputs["target"]
    assert target["arn"] == machine.outputs["arn"]
    run = statements(graph, "archiver-machine-policy")["RunTheArchiver"]
    assert run["Resource"] == [function(graph).outputs["arn"]]


# -- the machine ---------------------------------------------------------------------------------------------


def followers(state: Mapping[str, Any]) -> list[str]:
    found = [state[name] for name in ("Next", "Default") if name in state]
    return found + [one["Next"] for name in ("Choices", "Catch") for one in state.get(name, ())]


def test_every_state_leads_to_one_that_there_is_and_is_led_to() -> None:
    led_to = {name for state in STATES.values() for name in followers(state)} | {MACHINE["StartAt"]}
    assert led_to == set(STATES)


def test_the_only_way_to_an_end_is_by_a_notice() -> None:
    ends = {name for name, state in STATES.items() if not followers(state)}
    assert {STATES[name]["Type"] for name in ends} == {"Succeed", "Fail"}
    before = {
        name for name, state in STATES.items() if any(follower in ends for follower in followers(state))
    }
    assert before == TELLING
    # What can fail besides a notice itself is caught.
    tasks = {name for name, state in STATES.items() if state["Type"] == "Task"} - TELLING
    assert all(
        any(one["ErrorEquals"] == ["States.ALL"] for one in STATES[name]["Catch"]) and tasks for name in tasks
    )
    # A time limit of the whole would end it without one.
    assert "TimeoutSeconds" not in MACHINE


def test_the_retries_outlast_another_run_and_leave_errors_of_the_archiver_alone() -> None:
    throttled, broken = STATES["Archive"]["Retry"]
    assert throttled["IntervalSeconds"] * throttled["MaxAttempts"] > 900
    assert throttled["BackoffRate"] == 1.0
    caught = {*throttled["ErrorEquals"], *broken["ErrorEquals"]}
    assert not caught & {"States.ALL", "States.TaskFailed", "ArchiverError"}


def test_what_it_reads_of_the_answer_is_what_the_handler_gives() -> None:
    def read(paths: Mapping[str, str], of: Mapping[str, Any]) -> dict[str, Any]:
        return {name.removesuffix(".$"): jmespath.search(path[2:], of) for name, path in paths.items()}

    answer = {"Payload": {"finished": True, "tables": [Result("t", Stats(archived=7, deleted=5)).facts()]}}
    selected = {"run": read(STATES["Archive"]["ResultSelector"], answer)}
    counted = STATES["Count"]["Parameters"]
    added = {
        name: path.partition(", ")[2].removesuffix(")")
        for name, path in counted.items()
        if "$.run." in path and path.startswith("States.MathAdd(")
    }
    plain = {name: path for name, path in counted.items() if path.startswith("$.run.")}
    assert read(added | plain, selected) == {"archived": 7, "deleted": 5, "finished": True, "reason": ""}


@given(timeout=st.integers(180, 900), pause=st.integers(0, 600))
def test_all_its_runs_end_before_the_next_day_begins_its_own(timeout: int, pause: int) -> None:
    count = archiver.rounds(timeout, pause)
    assert count >= 1
    assert count * (timeout + pause) + timeout <= 24 * 3600 < (count + 1) * (timeout + pause) + timeout


def test_the_deployed_machine_is_that_definition(graph: Graph) -> None:
    machine = graph.one("sfn.StateMachine", "archiver")
    timeout = graph.settings.archive.timeout_seconds
    assert json.loads(machine.inputs["definition"]) == archiver.definition(
        function(graph).outputs["arn"],
        graph.one("sns.Topic", "topic-notice").outputs["arn"],
        subject=machine.inputs["name"],
        timeout=timeout,
        rounds=archiver.rounds(timeout),
    )
    assert machine.inputs["type"] == "STANDARD"
    assert machine.inputs["tracingConfiguration"] == {"enabled": True}
    logs = graph.one("cloudwatch.LogGroup", "archiver-machine-logs")
    assert machine.inputs["loggingConfiguration"]["logDestination"] == f"{logs.outputs['arn']}:*"
    assert logs.inputs["retentionInDays"] == graph.settings.archive.log_days


def test_a_subject_is_one_that_sns_takes() -> None:
    longest = archiver.definition(FUNCTION, TOPIC, subject="n" * 80, timeout=900, rounds=3)["States"]
    for name in TELLING:
        assert len(longest[name]["Parameters"]["Subject"]) <= 100


def answered(*, finished: bool, archived: int) -> str:
    result = Result(
        "t", Stats(archived=archived, deleted=archived), finished, "" if finished else "time limit"
    )
    return json.dumps({"finished": finished, "durationSeconds": 1.0, "tables": [result.facts()]})


class Emulated:
    """The machine in an emulator that executes it, with three rounds and no pause; the function is made up."""

    ACCOUNT, REGION = "123456789012", "eu-central-1"

    def __init__(self) -> None:
        import boto3

        def client(service: str) -> Any:
            session: Any = boto3
            return session.client(service, region_name=self.REGION)

        role = client("iam").create_role(RoleName="any", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        client("lambda").create_function(
            FunctionName=FUNCTION.rpartition(":")[2],
            Role=role,
            PackageType="Image",
            Code={"ImageUri": f"{self.ACCOUNT}.dkr.ecr.{self.REGION}.amazonaws.com/any:1"},
        )
        client("sns").create_topic(Name=TOPIC.rpartition(":")[2])
        self.states = client("stepfunctions")
        machine = archiver.definition(FUNCTION, TOPIC, subject="eav", timeout=900, rounds=3, pause=0)
        self.machine = self.states.create_state_machine(
            name="any", definition=json.dumps(machine), roleArn=role
        )["stateMachineArn"]
        self.executions = 0

    def execute(self, *answers: str) -> tuple[str, str, str]:
        """Status of the execution, and subject and text of the one notice, for these answers of the function."""
        from moto.awslambda_simple.models import lambda_simple_backends
        from moto.sns.models import sns_backends

        queue = lambda_simple_backends[self.ACCOUNT][self.REGION].lambda_simple_results_queue
        queue[:] = answers
        self.executions += 1
        execution = self.states.start_execution(
            stateMachineArn=self.machine, name=f"execution-{self.executions}", input='{"dry_run": false}'
        )["executionArn"]
        deadline = time.monotonic() + 60
        while (status := self.states.describe_execution(executionArn=execution)["status"]) == "RUNNING":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        sent = sns_backends[self.ACCOUNT][self.REGION].topics[TOPIC].sent_notifications
        ((_, message, subject, *_),) = sent
        sent.clear()
        assert message.endswith(execution)
        return status, str(subject), message


def test_an_emulator_runs_it_until_it_is_finished_and_each_way_ends_in_a_notice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One test of all ways: to read the machine takes the emulator two seconds, to execute it a quarter of one."""
    from moto import mock_aws
    from moto.awslambda.exceptions import UnknownFunctionException
    from moto.awslambda_simple.models import LambdaSimpleBackend

    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    config: Any = {"lambda": {"use_docker": False}, "stepfunctions": {"execute_state_machine": True}}
    with mock_aws(config=config):
        machine = Emulated()
        status, subject, message = machine.execute(
            answered(finished=False, archived=400),
            answered(finished=False, archived=30),
            answered(finished=True, archived=7),
        )
        assert (status, subject) == ("SUCCEEDED", "eav: finished")
        assert message.startswith("Nothing old is left: 437 items archived, 437 of them deleted, in 3 runs.")

        status, subject, message = machine.execute(*[answered(finished=False, archived=1)] * 4)
        assert (status, subject) == ("FAILED", "eav: not finished")
        assert "not finished after 3 runs (time limit), 3 items archived" in message

        def refuse(*_: Any) -> None:
            raise UnknownFunctionException(FUNCTION)

        monkeypatch.setattr(LambdaSimpleBackend, "invoke", refuse)
        status, subject, message = machine.execute()
        assert (status, subject) == ("FAILED", "eav: failed")
        assert "failed after 0 runs" in message
        assert "ResourceNotFoundException" in message


def test_every_stack_has_the_same_machine_but_for_names() -> None:
    kinds = {
        stack: sorted(one.kind for one in graph_of(stack) if graph_of(stack).component(one) == "archiver")
        for stack in ("dev", "prod")
    }
    assert kinds["dev"] == kinds["prod"]
