"""The budget, and the rest of a stack: when, in which order, and by which calls."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import botocore.session
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from infra.cost import schedules, weekly
from infra.errors import SettingsError
from infra.graph import Graph, Resource
from infra.settings import AWAKE_LEAST, minutes
from infra.settings import Cost as Settings
from tests.infra import changed
from tests.infra.changed import with_an_image
from tests.infra.policies import statements

DAY, DAYS = 24 * 60, ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
WEEK = 7 * DAY
CLOCKS = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))


def times(cron: str) -> list[int]:
    """When in a week it fires, in minutes since Monday's midnight."""
    found = re.fullmatch(r"cron\((\d+) (\d+) \? \* (\w+)-(\w+) \*\)", cron)
    assert found, cron
    minute, hour, first, last = int(found[1]), int(found[2]), DAYS.index(found[3]), DAYS.index(found[4])
    assert 0 <= minute < 60
    assert 0 <= hour < 24
    return [day * DAY + hour * 60 + minute for day in range(first, last + 1)]


def resting(graph: Graph, *kinds: str) -> list[Resource]:
    """Schedules of the rest, or what else of this component."""
    return [
        one for one in graph.of_kind(*(kinds or ("scheduler.Schedule",))) if graph.component(one) == "cost"
    ]


def settings(rest_from: str, rest_to: str) -> Settings:
    return Settings(budget_usd=1, rest=True, rest_from=rest_from, rest_to=rest_to)


class TestWhen:
    def test_as_it_stands_in_the_settings(self) -> None:
        assert schedules(settings("20:00", "07:00")) == {
            "tasks-stop": "cron(0 20 ? * MON-FRI *)",
            "postgres-stop": "cron(10 20 ? * MON-FRI *)",
            "postgres-start": "cron(0 7 ? * MON-FRI *)",
            "tasks-start": "cron(20 7 ? * MON-FRI *)",
        }

    @given(clock=CLOCKS, later=st.integers(0, DAY - 1), after_midnight=st.booleans())
    def test_minutes_that_pass_midnight_move_the_days(
        self, clock: str, later: int, after_midnight: bool
    ) -> None:
        first = minutes(clock) + later + DAY * after_midnight
        assert times(weekly(clock, later, after_midnight=after_midnight)) == [
            first + day * DAY for day in range(5)
        ]

    @given(rest_from=CLOCKS, rest_to=CLOCKS)
    def test_tasks_run_only_while_the_database_does_and_weekends_are_quiet(
        self, rest_from: str, rest_to: str
    ) -> None:
        awake = (minutes(rest_from) - minutes(rest_to)) % DAY
        assume(AWAKE_LEAST <= awake <= DAY - AWAKE_LEAST)
        steps = sorted(
            (when, name)
            for name, cron in schedules(settings(rest_from, rest_to)).items()
            for when in times(cron)
        )
        first = next(index for index, (_, name) in enumerate(steps) if name == "postgres-start")
        turn = [name for _, name in steps[first:] + steps[:first]]
        assert turn == ["postgres-start", "tasks-start", "tasks-stop", "postgres-stop"] * 5
        starts = [when for when, name in steps if name == "postgres-start"]
        assert starts == [day * DAY + minutes(rest_to) for day in range(5)]
        # The last one of the week is followed by the first one of the next: the pause holds all of Sunday.
        stops = [when for when, name in steps if name == "postgres-stop"]
        assert max(stops) <= 6 * DAY
        assert sum(stops) - sum(starts) == 5 * (awake + 10)


class TestSchedules:
    def test_only_a_stack_that_rests_has_them(self, graph: Graph) -> None:
        assert bool(resting(graph)) is graph.settings.cost.rest

    def test_prod_never_rests(self, prod: Graph) -> None:
        assert resting(prod, "scheduler.Schedule", "scheduler.ScheduleGroup", "iam.Role") == []

    def calls(self, graph: Graph) -> dict[str, tuple[str, dict[str, Any]]]:
        found = {}
        for one in resting(graph):
            target = one.inputs["target"]
            prefix, _, call = target["arn"].partition(":aws-sdk:")
            assert prefix == "arn:aws:scheduler::"
            found[one.name] = (call, json.loads(target["input"]))
        return found

    def test_they_stop_and_start_this_stack_s_database_and_services(self) -> None:
        found = with_an_image()
        database = {"DbInstanceIdentifier": found.one("rds.Instance", "primary").inputs["identifier"]}
        cluster = found.one("ecs.Cluster").inputs["name"]
        expected: dict[str, tuple[str, dict[str, Any]]] = {
            "rest-postgres-stop": ("rds:stopDBInstance", database),
            "rest-postgres-start": ("rds:startDBInstance", database),
        }
        for service, count in (("worker", 3), ("ingest", 1)):
            name = found.one("ecs.Service", service).inputs["name"]
            for step, number in (("stop", 0), ("start", count)):
                expected[f"rest-{service}-{step}"] = (
                    "ecs:updateService",
                    {"Cluster": cluster, "Service": name, "DesiredCount": number},
                )
        assert self.calls(found) == expected

    def test_the_calls_and_their_parameters_are_those_of_the_services(self) -> None:
        for call, parameters in self.calls(with_an_image()).values():
            service, _, operation = call.partition(":")
            model = model_of(service).operation_model(operation[0].upper() + operation[1:])
            shape = model.input_shape
            assert shape is not None
            # The Scheduler spells as the SDK for Java does: DbInstanceIdentifier for DBInstanceIdentifier.
            members = {name.lower() for name in shape.members}
            given = {name.lower() for name in parameters}
            assert given <= members
            assert {name.lower() for name in shape.required_members} <= given
            assert all(name[0].isupper() and not name[:2].isupper() for name in parameters)

    def test_they_are_in_the_people_s_own_time_to_the_minute(self) -> None:
        found = with_an_image()
        for one in resting(found):
            assert one.inputs["scheduleExpressionTimezone"] == found.settings.cost.rest_zone
            assert one.inputs["flexibleTimeWindow"] == {"mode": "OFF"}
            step = one.name.removeprefix("rest-").replace("worker", "tasks").replace("ingest", "tasks")
            assert one.inputs["scheduleExpression"] == schedules(found.settings.cost)[step]

    def test_their_role_may_make_these_calls_on_these_and_is_taken_by_this_group_alone(self) -> None:
        found = with_an_image()
        rights = {
            (action, resource)
            for one in statements(found, "rest-policy").values()
            for action in one["Action"]
            for resource in one["Resource"]
        }
        database = found.one("rds.Instance", "primary").outputs["arn"]
        services = [one.outputs["arn"] for one in found.of_kind("ecs.Service")]
        assert rights == {
            ("rds:StopDBInstance", database),
            ("rds:StartDBInstance", database),
            *(("ecs:UpdateService", arn) for arn in services),
        }
        (trust,) = json.loads(found.one("iam.Role", "rest-role").inputs["assumeRolePolicy"])["Statement"]
        (group,) = resting(found, "scheduler.ScheduleGroup")
        assert trust["Condition"]["ArnEquals"] == {"aws:SourceArn": group.outputs["arn"]}
        assert {one.inputs["groupName"] for one in resting(found)} == {group.inputs["name"]}


@cache
def model_of(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


class TestBudget:
    def test_it_counts_what_has_the_stack_s_tag(self, graph: Graph) -> None:
        assert (
            graph.one("sns.TopicPolicy", "topic-notice-policy").urn in graph.one("budgets.Budget").depends_on
        )
        found = graph.one("budgets.Budget").inputs
        assert found["costFilters"] == [
            {"name": "TagKeyValue", "values": [f"user:Environment${graph.settings.tags['Environment']}"]}
        ]
        assert (found["limitAmount"], found["limitUnit"], found["timeUnit"]) == (
            str(graph.settings.cost.budget_usd),
            "USD",
            "MONTHLY",
        )

    def test_people_are_told_at_each_step_and_of_the_forecast(self, graph: Graph) -> None:
        notices = graph.one("budgets.Budget").inputs["notifications"]
        assert sorted((one["notificationType"], one["threshold"]) for one in notices) == [
            *(("ACTUAL", percent) for percent in sorted(graph.settings.cost.alert_percent)),
            ("FORECASTED", 100),
        ]
        topic = graph.one("sns.Topic", "topic-notice").outputs["arn"]
        assert all(one["subscriberSnsTopicArns"] == [topic] for one in notices)


FIVE = (
    "alert_percent must be 1 to 4 numbers, each once: a budget has 5 notices, and one is the forecast's, got"
)
APART = (
    "rest_from and rest_to must be at least 2 hours apart, both ways round: stopping and starting a database takes half"
    " an hour, got"
)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"alert_percent": [10, 20, 30, 40, 50]}, f"{FIVE} 10, 20, 30, 40, 50"),
        ({"alert_percent": [50, 50]}, f"{FIVE} 50, 50"),
        ({"alert_percent": []}, f"{FIVE} none"),
        ({"rest_from": "08:00"}, f"{APART} 08:00 and 07:00"),
        ({"rest_to": "20:00"}, f"{APART} 20:00 and 20:00"),
    ],
)
def test_wrong_settings_are_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        changed.settings("dev", cost=values)
    assert str(error.value) == f"Pulumi.dev.yaml: cost: {said}"
