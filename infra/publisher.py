"""The scheduled Lambda that publishes the database's own figures."""

from __future__ import annotations

from typing import Final

import pulumi
import pulumi_aws as aws

from infra import bundle
from infra.component import Component, Context
from infra.failures import failures_queue
from infra.iam import Statement, Text, environment_statement, role_policy, service_role
from infra.keys import Keys
from infra.network import POSTGRES_PORT, Network
from infra.postgres import Postgres
from infra.settings import Cost, Settings, minutes

USER: Final = "eav_monitor"
"""It looks and changes nothing: migrations/versions/0012_monitor.py."""
CERTIFICATES: Final = "/var/task/certificates/rds-ca.pem"
"""In its archive: who may say to be a server of RDS."""
MEMORY_MB: Final = 256
TIMEOUT: Final = 60
"""Seconds; the next one begins by then."""


def schedule(settings: Settings) -> tuple[str, str]:
    """When it runs, as EventBridge Scheduler writes it, and in which time zone.

    In a stack that rests only in the hours in which the database is up from beginning to end, on the days on which it
    was started: what is left of such a day after midnight is not looked at.
    """
    often = settings.monitoring.publish_minutes
    if not settings.cost.rest:
        return f"rate({often} minute{'s' if often > 1 else ''})", "UTC"
    first, last = waking_hours(settings.cost)
    return f"cron(0/{often} {first}-{last} ? * MON-FRI *)", settings.cost.rest_zone


def waking_hours(cost: Cost) -> tuple[int, int]:
    """The first and the last whole hour in which the database is up, of the day on which it is started.

    RDS takes some ten minutes to start: it may not be up in the first quarter of an hour after `rest_to`. A database
    that is started in the last hours of a day is looked at in the last one alone.
    """
    up, down = minutes(cost.rest_to), minutes(cost.rest_from)
    first = -(-(up + 15) // 60)
    last = 23 if down <= up else down // 60 - 1
    return min(first, last), last


class Publisher(Component):
    """The scheduled Lambda that publishes the database's own figures.

    Attributes: `function` (aws.lambda_.Function), `schedule` (aws.scheduler.Schedule), `failures` (aws.sqs.Queue).
    """

    KIND = "publisher"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        network: Network,
        postgres: Postgres,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        settings = context.settings
        self._keys, self._network = keys, network
        name = self.names.of("publisher", "function")
        # Made first, or Lambda makes one without retention or key.
        self.logs = self.log_group(
            "publisher", f"/aws/lambda/{name}", settings.monitoring.log_days, keys.arn("logs")
        )
        self.failures = failures_queue(self, "publisher", keys.arn("notices"))
        role = service_role(self, "publisher", "lambda.amazonaws.com")
        rights = role_policy(self, "publisher", role, *self._statements(postgres, name))
        address = postgres.primary.address
        self.function = aws.lambda_.Function(
            "publisher",
            name=name,
            description="Publishes the figures of the database that alarms watch",
            role=role.arn,
            package_type="Zip",
            code=bundle.FIGURES.archive,
            handler=bundle.FIGURES.handler,
            runtime=bundle.RUNTIME,
            architectures=[bundle.ARCHITECTURE],
            memory_size=MEMORY_MB,
            timeout=TIMEOUT,
            # Two at once would count the same twice, and a third wait behind a server that hangs.
            reserved_concurrent_executions=1,
            kms_key_arn=self._keys.arn("compute"),
            environment=aws.lambda_.FunctionEnvironmentArgs(
                variables={
                    "DATABASE_URL": pulumi.Output.concat(
                        f"postgresql://{USER}@", address, f":{POSTGRES_PORT}/{settings.postgres.database}",
                        f"?sslmode=verify-full&sslrootcert={CERTIFICATES}",
                    ),
                    "DATABASE_IAM_AUTH": "true",
                    "EAV_STACK": settings.stack,
                    "TZ": "UTC",
                }
            ),
            vpc_config=aws.lambda_.FunctionVpcConfigArgs(
                subnet_ids=network.subnet_ids("private"), security_group_ids=[network.group_id("jobs")]
            ),
            # Text: the lines of figures must come out as they are, and CloudWatch finds them.
            logging_config=aws.lambda_.FunctionLoggingConfigArgs(log_format="Text", log_group=self.logs.name),
            tracing_config=aws.lambda_.FunctionTracingConfigArgs(mode="Active"),
            dead_letter_config=aws.lambda_.FunctionDeadLetterConfigArgs(target_arn=self.failures.arn),
            # Lambda makes no function whose role may not enter the VPC and send to its dead-letter queue.
            opts=self.options(depends_on=[rights, self.logs]),
        )  # fmt: skip
        # The next minute is the retry.
        aws.lambda_.FunctionEventInvokeConfig(
            "publisher",
            function_name=self.function.name,
            maximum_retry_attempts=0,
            maximum_event_age_in_seconds=60,
            opts=self.options(),
        )
        self.schedule = self._schedule(settings)
        self.register_outputs({"function": self.function.name})

    def _statements(self, postgres: Postgres, function: str) -> tuple[Statement, ...]:
        here = self.context
        own = here.arn("lambda", f"function:{function}")
        doors: list[Text] = [postgres.primary.resource_id, *here.settings.postgres.also_connect]
        subnets = [subnet.arn for subnet in self._network.subnets["private"]]
        group = pulumi.Output.concat(here.arn("ec2", "security-group/"), self._network.group_id("jobs"))
        interfaces = here.arn("ec2", "network-interface/*")
        return (
            # The primary alone, where others may log in to replicas and the proxy too.
            Statement(
                "LogInToThePrimary",
                ["rds-db:connect"],
                [pulumi.Output.concat(here.arn("rds-db", "dbuser"), ":", door, "/", USER) for door in doors],
            ),
            Statement(
                "WriteThisGroup",
                ["logs:CreateLogStream", "logs:PutLogEvents"],
                [pulumi.Output.concat(self.logs.arn, ":*")],
            ),
            # X-Ray knows no resources to narrow these to (Service Authorization Reference).
            Statement("SendTraces", ["xray:PutTraceSegments", "xray:PutTelemetryRecords"], ["*"]),
            # What Lambda does to put the function into the VPC, by this role.
            Statement(
                "EnterTheseSubnets",
                ["ec2:CreateNetworkInterface"],
                [*subnets, group, interfaces],
            ),
            # Looking is not narrowed by EC2 at all, and Lambda refuses a role that may delete, or assign addresses to,
            # less than any interface (terraform-provider-aws issue 20698).
            Statement(
                "LeaveThem",
                [
                    "ec2:AssignPrivateIpAddresses",
                    "ec2:DeleteNetworkInterface",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeSubnets",
                    "ec2:UnassignPrivateIpAddresses",
                ],
                ["*"],
            ),
            # Lambda needs them, the function's own code does not: a role as wide as this is used from outside alone.
            Statement(
                "NotByItsOwnCode",
                [
                    "ec2:AssignPrivateIpAddresses",
                    "ec2:CreateNetworkInterface",
                    "ec2:DeleteNetworkInterface",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeSubnets",
                    "ec2:UnassignPrivateIpAddresses",
                ],
                ["*"],
                conditions={"ArnEquals": {"lambda:SourceFunctionArn": own}},
                effect="Deny",
            ),
            *self._keep_failures(),
            environment_statement(self.context, self._keys.arn("compute")),
        )

    def _keep_failures(self) -> tuple[Statement, ...]:
        return (
            Statement("KeepWhatFailed", ["sqs:SendMessage"], [self.failures.arn]),
            Statement(
                "KeyOfTheQueue",
                ["kms:Decrypt", "kms:GenerateDataKey"],
                [self._keys.arn("notices")],
                conditions={"StringEquals": self.context.via("sqs")},
            ),
        )

    def _schedule(self, settings: Settings) -> aws.scheduler.Schedule:
        expression, zone = schedule(settings)
        role = service_role(
            self,
            "publisher-schedule",
            "scheduler.amazonaws.com",
            Statement("StartThisFunction", ["lambda:InvokeFunction"], [self.function.arn]),
            *self._keep_failures(),
        )
        return aws.scheduler.Schedule(
            "publisher",
            name=self.names.of("publisher", "schedule"),
            description="The figures of the database",
            schedule_expression=expression,
            schedule_expression_timezone=zone,
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(
                arn=self.function.arn,
                role_arn=role.arn,
                input="{}",
                retry_policy=aws.scheduler.ScheduleTargetRetryPolicyArgs(
                    maximum_retry_attempts=0, maximum_event_age_in_seconds=60
                ),
                dead_letter_config=aws.scheduler.ScheduleTargetDeadLetterConfigArgs(arn=self.failures.arn),
            ),
            opts=self.options(),
        )
