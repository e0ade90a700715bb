"""A budget, and a stack that rests at night and at weekends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import pulumi
import pulumi_aws as aws

from infra.component import Component, Context
from infra.iam import Statement, service_role
from infra.notices import Notices
from infra.postgres import Postgres
from infra.settings import Cost as Settings
from infra.settings import minutes
from infra.workers import Workers, counts

DAY: Final = 24 * 60
STOP_AFTER: Final = 10
"""Minutes from the tasks' stop to the database's: they have one to end."""
START_AFTER: Final = 20
"""Minutes from the database's start to the tasks'. RDS takes 5 to 15; tasks that come too early end, and ECS starts
them again."""
TRY_SECONDS: Final = 3600
"""How long a call that fails is made again."""


def weekly(clock: str, later: int = 0, *, after_midnight: bool = False) -> str:
    """The cron expression of a time of day, and some minutes, on working days.

    `after_midnight`: a working day ends on the next date. The days move on where the minutes pass midnight, so that
    Friday's are never left out and Sunday's never in.

    >>> weekly("20:00", 10)
    'cron(10 20 ? * MON-FRI *)'
    >>> weekly("23:55", 10)
    'cron(5 0 ? * TUE-SAT *)'
    """
    days, minute = divmod(minutes(clock) + later, DAY)
    names = ("MON-FRI", "TUE-SAT", "WED-SUN")[days + after_midnight]
    return f"cron({minute % 60} {minute // 60} ? * {names} *)"


def schedules(cost: Settings) -> dict[str, str]:
    """When each is stopped and started: tasks before the database, and the database before tasks."""
    # Up from 13:00 to 01:00, say: what begins on a Friday ends on a Saturday.
    overnight = minutes(cost.rest_from) < minutes(cost.rest_to)
    return {
        "tasks-stop": weekly(cost.rest_from, after_midnight=overnight),
        "postgres-stop": weekly(cost.rest_from, STOP_AFTER, after_midnight=overnight),
        "postgres-start": weekly(cost.rest_to),
        "tasks-start": weekly(cost.rest_to, START_AFTER),
    }


class Cost(Component):
    """A budget, and a stack that rests at night and at weekends.

    Attributes: `budget` (aws.budgets.Budget), `schedules` (name → aws.scheduler.Schedule).

    RDS starts by itself what was stopped for seven days; here nothing is stopped for longer than from Friday to Monday.
    """

    KIND = "cost"

    def __init__(
        self,
        context: Context,
        notices: Notices,
        postgres: Postgres,
        workers: Workers,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.settings = context.settings.cost
        self.budget = self._budget(notices)
        self.schedules = self._rest(postgres, workers) if self.settings.rest else {}
        self.register_outputs({"budget": self.budget.name})

    def _budget(self, notices: Notices) -> aws.budgets.Budget:
        wanted = [("ACTUAL", percent) for percent in sorted(self.settings.alert_percent)] + [
            ("FORECASTED", 100)
        ]
        return aws.budgets.Budget(
            "budget",
            name=self.names.of("month"),
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(self.settings.budget_usd),
            limit_unit="USD",
            # What has the tag of the stack. A tag counts from the day on that somebody with the payer's rights has
            # made it a cost allocation tag; before, this budget sees nothing.
            cost_filters=[
                aws.budgets.BudgetCostFilterArgs(
                    name="TagKeyValue", values=[f"user:Environment${self.context.settings.stack}"]
                )
            ],
            notifications=[
                aws.budgets.BudgetNotificationArgs(
                    notification_type=kind,
                    comparison_operator="GREATER_THAN",
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                    subscriber_sns_topic_arns=[notices.arn("notice")],
                )
                for kind, percent in wanted
            ],
            opts=self.options(depends_on=[notices.policies["notice"]]),
        )

    # -- rest ------------------------------------------------------------------------------------------------

    def _rest(self, postgres: Postgres, workers: Workers) -> dict[str, aws.scheduler.Schedule]:
        group = aws.scheduler.ScheduleGroup("rest", name=self.names.of("rest"), opts=self.options())
        services: dict[Literal["worker", "ingest"], aws.ecs.Service] = {
            "worker": workers.worker,
            "ingest": workers.ingest,
        }
        here = self.context
        role = service_role(
            self,
            "rest",
            "scheduler.amazonaws.com",
            Statement(
                "StopAndStartPostgres", ["rds:StartDBInstance", "rds:StopDBInstance"], [postgres.primary.arn]
            ),
            Statement(
                "SetTheCountOfTasks",
                ["ecs:UpdateService"],
                [service.arn for service in services.values()],
            ),
            trust={
                "StringEquals": {"aws:SourceAccount": here.account},
                "ArnEquals": {"aws:SourceArn": group.arn},
            },
        )
        when = schedules(self.settings)
        made = {
            f"postgres-{step}": self._schedule(
                f"postgres-{step}",
                when[f"postgres-{step}"],
                f"rds:{step}DBInstance",
                {"DbInstanceIdentifier": postgres.primary.identifier},
                group,
                role,
            )
            for step in ("stop", "start")
        }
        running = counts(here.settings.workers)
        for name, service in services.items():
            for step, count in (("stop", 0), ("start", running[name])):
                made[f"{name}-{step}"] = self._schedule(
                    f"{name}-{step}",
                    when[f"tasks-{step}"],
                    "ecs:updateService",
                    {"Cluster": workers.cluster.name, "Service": service.name, "DesiredCount": count},
                    group,
                    role,
                )
        return made

    def _schedule(
        self,
        thing: str,
        cron: str,
        call: str,
        parameters: Mapping[str, Any],
        group: aws.scheduler.ScheduleGroup,
        role: aws.iam.Role,
    ) -> aws.scheduler.Schedule:
        return aws.scheduler.Schedule(
            f"rest-{thing}",
            name=self.names.of(f"rest-{thing}", "schedule"),
            group_name=group.name,
            schedule_expression=cron,
            schedule_expression_timezone=self.settings.rest_zone,
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(
                # The Scheduler makes the call itself; parameters are named as by AWS's SDK for Java.
                arn=f"arn:{self.context.partition}:scheduler:::aws-sdk:{call}",
                role_arn=role.arn,
                input=pulumi.Output.from_input(dict(parameters)).apply(
                    lambda known: json.dumps(known, sort_keys=True)
                ),
                # No dead letters: nobody would send one again, since the next night's call does the same. A stop that
                # fails costs a night, which the budget tells; a start that fails is what people meet in the morning.
                retry_policy=aws.scheduler.ScheduleTargetRetryPolicyArgs(
                    maximum_event_age_in_seconds=TRY_SECONDS, maximum_retry_attempts=20
                ),
            ),
            opts=self.options(),
        )
