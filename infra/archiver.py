"""The archiver Lambda, what runs it until it is finished, and who is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import pulumi
import pulumi_aws as aws

from infra import bundle
from infra.archive import ARCHIVES, MANIFESTS, Archive, key_use
from infra.component import Component, Context
from infra.failures import failures_queue
from infra.iam import Statement, environment_statement, role_policy, service_role
from infra.items import Items
from infra.keys import Keys
from infra.notices import Notices

RESERVE_SECONDS: Final = 60
"""Of its time limit the archiver keeps so many for stopping (TIME_RESERVE): the last object, deletes, manifest."""
SEGMENT_MB: Final = 160
"""A segment holds an object of 4 MiB (OBJECT_BYTES) in memory, where it takes about forty times its size."""
BASE_MB: Final = 384
"""Python, boto3 and its connections, and what the collector of garbage has not come to yet."""
MOST_SEGMENTS: Final = 16
"""The archiver takes at most 64 MiB of objects that are being filled."""

PAUSE_SECONDS: Final = 60
"""Between two runs: the lock of a run that was killed lasts so long."""
DAY_SECONDS: Final = 24 * 3600
EVENT_AGE_SECONDS: Final = 3600


class Archiver(Component):
    """The archiver Lambda, what runs it until it is finished, and who is told.

    Attributes: `function` (aws.lambda_.Function), `machine` (aws.sfn.StateMachine), `failures` (aws.sqs.Queue).

    The function is outside the VPC: it talks to DynamoDB and S3 alone, by TLS and with rights to two tables and one
    bucket; inside it would need the endpoints for both, and for KMS, X-Ray and logs besides, and could reach databases
    that it has no business with.

    It has no code signing. Only whom IAM lets deploy can change the code, and a signature that the same deployment
    makes would say nothing more; what comes from elsewhere is held by the hashes of the lock (infra/bundle.py).
    """

    KIND = "archiver"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        notices: Notices,
        items: Items,
        archive: Archive,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self._keys = keys
        # What is told of a run is a notice: an item that is not archived today is where it was, and tomorrow's run
        # takes it. That no run has come to its end for days is an alarm of the monitoring.
        self._told = notices.arn("notice")
        self.failures = failures_queue(self, "archiver", self._keys.arn("notices"))
        self.function = self._function(items, archive)
        self.machine = self._machine()
        self._schedule()
        self.register_outputs({"function": self.function.name, "machine": self.machine.arn})

    # -- rights that several have ----------------------------------------------------------------------------

    def _tell(self) -> Statement:
        return Statement("TellPeople", ["sns:Publish"], [self._told])

    def _notice_key(self, *services: str) -> Statement:
        """Topics and queues are encrypted: who sends to one needs its key, by way of that service alone."""
        return Statement(
            "KeyOfNotices",
            ["kms:Decrypt", "kms:GenerateDataKey"],
            [self._keys.arn("notices")],
            conditions={"StringEquals": self.context.via(*services)},
        )

    def _keep_failures(self) -> Statement:
        return Statement("KeepWhatFailed", ["sqs:SendMessage"], [self.failures.arn])

    # -- the function ----------------------------------------------------------------------------------------

    def _function(self, items: Items, archive: Archive) -> aws.lambda_.Function:
        settings = self.context.settings.archive
        name = self.names.of("archiver", "function")
        logs = self._log_group("archiver", f"/aws/lambda/{name}")
        role = service_role(self, "archiver", "lambda.amazonaws.com")
        rights = role_policy(
            self,
            "archiver",
            role,
            *data_statements(self.context, self._keys, items, archive),
            Statement(
                "WriteItsOwnLog",
                ["logs:CreateLogStream", "logs:PutLogEvents"],
                [pulumi.Output.concat(logs.arn, ":*")],
            ),
            environment_statement(self.context, self._keys.arn("archive")),
            trace_statement("xray:PutTraceSegments", "xray:PutTelemetryRecords"),
            self._keep_failures(),
            self._tell(),
            self._notice_key("sqs", "sns"),
        )
        function = aws.lambda_.Function(
            "archiver",
            name=name,
            description="Old items of DynamoDB to S3: archived, proven, deleted (docs/archiver.md)",
            package_type="Zip",
            code=bundle.ARCHIVER.archive,
            handler=bundle.ARCHIVER.handler,
            runtime=bundle.RUNTIME,
            architectures=[bundle.ARCHITECTURE],
            memory_size=settings.memory_mb,
            timeout=settings.timeout_seconds,
            # One at a time: two would keep each other out by the lock in the state table, and be paid for.
            reserved_concurrent_executions=1,
            role=role.arn,
            kms_key_arn=self._keys.arn("archive"),
            environment=aws.lambda_.FunctionEnvironmentArgs(variables=self._environment(items, archive)),
            tracing_config=aws.lambda_.FunctionTracingConfigArgs(mode="Active"),
            logging_config=aws.lambda_.FunctionLoggingConfigArgs(
                log_format="JSON", application_log_level="INFO", system_log_level="INFO", log_group=logs.name
            ),
            dead_letter_config=aws.lambda_.FunctionDeadLetterConfigArgs(target_arn=self.failures.arn),
            # Lambda makes no function whose role may not send to its dead-letter queue.
            opts=self.options(depends_on=[rights, logs]),
        )
        aws.lambda_.FunctionEventInvokeConfig(
            "archiver",
            function_name=function.name,
            # The archiver waits and tries again itself, for minutes; what it then raises two more runs will not mend.
            maximum_retry_attempts=0,
            # Whoever invoked it by hand while it was at work waits for so long.
            maximum_event_age_in_seconds=EVENT_AGE_SECONDS,
            # The event is kept in the queue, and people are told.
            destination_config=aws.lambda_.FunctionEventInvokeConfigDestinationConfigArgs(
                on_failure=aws.lambda_.FunctionEventInvokeConfigDestinationConfigOnFailureArgs(
                    destination=self._told
                )
            ),
            opts=self.options(depends_on=[rights]),
        )
        return function

    def _environment(self, items: Items, archive: Archive) -> dict[str, pulumi.Input[str]]:
        """What archiver/settings.py reads. The region is Lambda's own AWS_REGION."""
        stack = self.context.settings
        return {
            "SOURCE_TABLE": items.table.name,
            "STATE_TABLE": items.state.name,
            "TIME_ATTRIBUTE": stack.items.time_attribute,
            "TIME_FORMAT": stack.items.time_format,
            "ARCHIVE_BUCKET": archive.items.bucket,
            "ARCHIVE_PREFIX": ARCHIVES,
            "MANIFEST_PREFIX": MANIFESTS,
            "ARCHIVE_DAYS": str(stack.archive.archive_days),
            "BATCH_SIZE": str(stack.archive.batch_size),
            "SEGMENTS": str(segments(stack.archive.memory_mb)),
            "TIME_RESERVE": str(RESERVE_SECONDS),
            "KMS_KEY_ID": self._keys.arn("archive"),
        }

    def _log_group(self, thing: str, name: str) -> aws.cloudwatch.LogGroup:
        """Made before what writes to it, so that its days and its key hold from the first line."""
        days = self.context.settings.archive.log_days
        return self.log_group(f"{thing}-logs", name, days, self._keys.arn("logs"))

    # -- until it is finished --------------------------------------------------------------------------------

    def _machine(self) -> aws.sfn.StateMachine:
        timeout = self.context.settings.archive.timeout_seconds
        name = self.names.of("archiver", "state_machine")
        # CloudWatch keeps who may deliver to a group in one policy of 5120 characters, and needs no entry for groups
        # under this name.
        logs = self._log_group("archiver-machine", f"/aws/vendedlogs/states/{name}")
        role = service_role(self, "archiver-machine", "states.amazonaws.com")
        rights = role_policy(
            self,
            "archiver-machine",
            role,
            Statement("RunTheArchiver", ["lambda:InvokeFunction"], [self.function.arn]),
            self._tell(),
            self._notice_key("sns"),
            trace_statement(
                "xray:PutTraceSegments",
                "xray:PutTelemetryRecords",
                "xray:GetSamplingRules",
                "xray:GetSamplingTargets",
            ),
            # The delivery of logs by AWS knows no resource: these actions can be given with * only.
            Statement(
                "DeliverItsLog",
                [
                    "logs:CreateLogDelivery",
                    "logs:GetLogDelivery",
                    "logs:UpdateLogDelivery",
                    "logs:DeleteLogDelivery",
                    "logs:ListLogDeliveries",
                    "logs:PutResourcePolicy",
                    "logs:DescribeResourcePolicies",
                    "logs:DescribeLogGroups",
                ],
                ["*"],
            ),
        )
        return aws.sfn.StateMachine(
            "archiver",
            name=name,
            # Standard: an execution lasts hours, and each of its steps is done once.
            type="STANDARD",
            role_arn=role.arn,
            definition=pulumi.Output.all(function=self.function.arn, topic=self._told).apply(
                lambda known: json.dumps(
                    definition(
                        known["function"],
                        known["topic"],
                        subject=name,
                        timeout=timeout,
                        rounds=rounds(timeout),
                    ),
                    separators=(",", ":"),
                )
            ),
            # What passes through is numbers, and the messages of errors.
            logging_configuration=aws.sfn.StateMachineLoggingConfigurationArgs(
                level="ALL",
                include_execution_data=True,
                log_destination=pulumi.Output.concat(logs.arn, ":*"),
            ),
            tracing_configuration=aws.sfn.StateMachineTracingConfigurationArgs(enabled=True),
            # Step Functions makes no machine whose role may not deliver its log.
            opts=self.options(depends_on=[rights]),
        )

    def _schedule(self) -> None:
        role = service_role(
            self,
            "archiver-schedule",
            "scheduler.amazonaws.com",
            Statement("StartTheMachine", ["states:StartExecution"], [self.machine.arn]),
            self._keep_failures(),
            self._notice_key("sqs"),
        )
        aws.scheduler.Schedule(
            "archiver",
            name=self.names.of("archiver", "schedule"),
            description="Archives old items of DynamoDB",
            schedule_expression=self.context.settings.archive.schedule,
            schedule_expression_timezone="UTC",
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(
                arn=self.machine.arn,
                role_arn=role.arn,
                input="{}",
                retry_policy=aws.scheduler.ScheduleTargetRetryPolicyArgs(
                    maximum_event_age_in_seconds=EVENT_AGE_SECONDS, maximum_retry_attempts=10
                ),
                dead_letter_config=aws.scheduler.ScheduleTargetDeadLetterConfigArgs(arn=self.failures.arn),
            ),
            opts=self.options(),
        )


# -- what the archiver may do --------------------------------------------------------------------------------


def data_statements(context: Context, keys: Keys, items: Items, archive: Archive) -> tuple[Statement, ...]:
    """Its rights to data (docs/archiver.md, "As a Lambda function"). It never deletes from the bucket."""
    bucket = archive.items
    return (
        # A transaction is allowed by the rights to what is in it.
        Statement(
            "ReadAndDeleteItems",
            ["dynamodb:DescribeTable", "dynamodb:Scan", "dynamodb:DeleteItem"],
            [items.table.arn],
        ),
        Statement(
            "KeepItsPlace",
            [
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:UpdateItem",
                "dynamodb:DeleteItem",
                "dynamodb:Query",
            ],
            [items.state.arn],
        ),
        # DynamoDB decrypts the key of a table in the name of whoever reads or writes there.
        Statement(
            "KeyOfTheTables",
            ["kms:Decrypt", "kms:DescribeKey"],
            [keys.arn("items")],
            conditions={"StringEquals": context.via("dynamodb")},
        ),
        Statement(
            "WriteAndReadBackArchives",
            ["s3:GetObject", "s3:PutObject"],
            [pulumi.Output.concat(bucket.arn, f"/{folder}/*") for folder in (ARCHIVES, MANIFESTS)],
        ),
        # With it S3 says of an object that it is not there, without it that it may not be read. It must be without a
        # condition on s3:prefix, which a request for an object does not have.
        Statement("KnowWhatIsNotThere", ["s3:ListBucket"], [bucket.arn]),
        key_use(context, keys, bucket),
    )


def trace_statement(*actions: str) -> Statement:
    """X-Ray has no resources: its actions can be given with * only."""
    return Statement("Trace", actions, ["*"])


# -- planning ------------------------------------------------------------------------------------------------


def segments(memory_mb: int) -> int:
    """Segments of the scan, a thread each, that fit into the memory of the function: four in 1024 MB."""
    return max(1, min(MOST_SEGMENTS, (memory_mb - BASE_MB) // SEGMENT_MB))


def rounds(timeout: int, pause: int = PAUSE_SECONDS) -> int:
    """How many runs of `timeout` seconds, and a pause after each, end before the next day's first."""
    return (DAY_SECONDS - timeout) // (timeout + pause)


def definition(
    function: str, topic: str, *, subject: str, timeout: int, rounds: int, pause: int = PAUSE_SECONDS
) -> dict[str, Any]:
    """The state machine in Amazon States Language: runs of the function till one says `finished`, then a notice.

    `function`, `topic`: ARNs; `subject`: what notices begin with; `timeout`: of a run, in seconds; `rounds`: runs at
    most; `pause`: seconds between two. What goes from state to state: `runs`, `archived` and `deleted` of all runs,
    `finished` and `reason` of the last, `error` of one that failed. The input of the execution is the event of each
    run, `{"dry_run": true}` for one that only counts.
    """
    services = f"arn:{function.split(':')[1]}:states:::"
    told = _Telling(f"{services}sns:publish", topic, subject)
    return {
        "Comment": "Runs the archiver until it is finished, and tells how it went.",
        "StartAt": "Begin",
        "States": {
            "Begin": {
                "Type": "Pass",
                "Result": {"runs": 0, "archived": 0, "deleted": 0},
                "Next": "Archive",
            },
            "Archive": {
                "Type": "Task",
                "Resource": f"{services}lambda:invoke",
                "Parameters": {"FunctionName": function, "Payload.$": "$$.Execution.Input"},
                "ResultSelector": {
                    "finished.$": "$.Payload.finished",
                    # There is one table.
                    "table.$": "$.Payload.tables[0]",
                },
                "ResultPath": "$.run",
                # Lambda ends it at the time limit; this is for a run of which nothing is heard any more.
                "TimeoutSeconds": timeout + PAUSE_SECONDS,
                "Retry": [
                    {
                        # Another run is at work, which somebody else began: it ends within the time limit.
                        "ErrorEquals": ["Lambda.TooManyRequestsException"],
                        "IntervalSeconds": PAUSE_SECONDS,
                        "BackoffRate": 1.0,
                        "MaxAttempts": timeout // PAUSE_SECONDS + 5,
                    },
                    {
                        # Lambda's own errors, and runs that were killed. What the archiver itself raises is not
                        # tried again: it has tried for minutes.
                        "ErrorEquals": [
                            "Lambda.ServiceException",
                            "Lambda.AWSLambdaException",
                            "Lambda.SdkClientException",
                            "Lambda.ClientExecutionTimeoutException",
                            "Lambda.Unknown",
                            "Sandbox.Timedout",
                            "States.Timeout",
                        ],
                        "IntervalSeconds": PAUSE_SECONDS,
                        "BackoffRate": 2.0,
                        "MaxAttempts": 3,
                    },
                ],
                "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "TellFailure"}],
                "Next": "Count",
            },
            "Count": {
                "Type": "Pass",
                "Parameters": {
                    "runs.$": "States.MathAdd($.runs, 1)",
                    "archived.$": "States.MathAdd($.archived, $.run.table.stats.archived)",
                    "deleted.$": "States.MathAdd($.deleted, $.run.table.stats.deleted)",
                    "finished.$": "$.run.finished",
                    "reason.$": "$.run.table.reason",
                },
                "Next": "Finished",
            },
            "Finished": {
                "Type": "Choice",
                "Choices": [
                    {"Variable": "$.finished", "BooleanEquals": True, "Next": "TellSuccess"},
                    {"Variable": "$.runs", "NumericGreaterThanEquals": rounds, "Next": "TellUnfinished"},
                ],
                "Default": "Pause",
            },
            "Pause": {"Type": "Wait", "Seconds": pause, "Next": "Archive"},
            "TellSuccess": told.state(
                "finished",
                "States.Format('Nothing old is left: {} items archived, {} of them deleted, in {} runs. {}',"
                " $.archived, $.deleted, $.runs, $$.Execution.Id)",
                "Succeeded",
            ),
            "TellFailure": told.state(
                "failed",
                "States.Format('The archiver failed after {} runs, {} items archived, {} of them deleted: {}. {}',"
                " $.runs, $.archived, $.deleted, States.JsonToString($.error), $$.Execution.Id)",
                "Failed",
            ),
            "TellUnfinished": told.state(
                "not finished",
                "States.Format('The archiver was not finished after {} runs ({}), {} items archived, {} of them"
                " deleted; the next schedule goes on. {}',"
                " $.runs, $.reason, $.archived, $.deleted, $$.Execution.Id)",
                "Unfinished",
            ),
            "Succeeded": {"Type": "Succeed"},
            "Failed": {"Type": "Fail", "Error": "ArchiverFailed", "Cause": "A run failed: see its notice."},
            "Unfinished": {
                "Type": "Fail",
                "Error": "ArchiverUnfinished",
                "Cause": f"Not finished after {rounds} runs.",
            },
        },
    }


class _Telling:
    """States that publish a notice."""

    def __init__(self, resource: str, topic: str, subject: str) -> None:
        self.resource = resource
        self.topic = topic
        self.subject = subject

    def state(self, how: str, message: str, then: str) -> Mapping[str, Any]:
        """One that says how it went, and goes on to `then`. Where it cannot, the execution fails, which is seen too."""
        return {
            "Type": "Task",
            "Resource": self.resource,
            "Parameters": {
                "TopicArn": self.topic,
                "Subject": f"{self.subject}: {how}",
                "Message.$": message,
            },
            "ResultPath": None,
            "TimeoutSeconds": PAUSE_SECONDS,
            "Retry": [
                {
                    "ErrorEquals": ["States.ALL"],
                    "IntervalSeconds": 5,
                    "BackoffRate": 2.0,
                    "MaxAttempts": 5,
                }
            ],
            "Next": then,
        }
