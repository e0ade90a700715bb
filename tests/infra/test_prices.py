"""The price table, and bills by it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from infra import prices
from infra.publisher import schedule
from infra.settings import Cost, Warehouse
from tests.infra.changed import DIGEST, graph
from tests.infra.conftest import STACKS, graph_of

if TYPE_CHECKING:
    from infra.bill import Estimate
    from infra.graph import Graph, Resource


def made(kind: str, name: str, inputs: dict[str, Any], **references: tuple[str, ...]) -> Resource:
    """A resource that no program declared: `made("rds.Instance", …)`."""
    from infra.graph import Resource

    module, cls = kind.split(".")
    token = f"aws:{module}/{cls[0].lower()}{cls[1:]}:{cls}"
    return Resource(
        urn=f"urn::{token}::{name}", type=token, name=name, parent="", inputs=inputs, outputs=inputs, depends_on=(),
        references=references, protect=False, retain_on_delete=False, custom=True,
    )  # fmt: skip


def graph_with(*resources: Resource, stack: str = "prod", **cost: Any) -> Graph:
    """These resources alone, with the settings of a stack."""
    from infra.graph import Graph

    settings = graph_of(stack).settings
    settings = settings.model_copy(update={"cost": settings.cost.model_copy(update=cost)})
    return Graph(settings, {one.urn: one for one in resources})


def bill_of(*resources: Resource, stack: str = "prod", **cost: Any) -> Estimate:
    from infra.bill import estimate

    return estimate(graph_with(*resources, stack=stack, **cost))


def amounts(bill: Estimate) -> dict[str, float]:
    return {line.what: line.usd for line in bill.lines}


# -- the table -----------------------------------------------------------------------------------------------


def test_the_table_has_a_date_and_a_price_for_all_that_settings_may_choose() -> None:
    found = prices.table()
    assert found.as_of.startswith("20")
    assert found.region == "eu-central-1"
    wanted = {f"rds.{family}" for family in ("t4g", "m6g", "m7g", "m8g", "r6g", "r7g", "r8g")}
    wanted |= {f"redshift.{node}" for node in get_args(Warehouse.model_fields["node_type"].annotation)}
    wanted |= {f"ec2.t4g.{size}" for size in ("nano", "micro", "small")}
    assert wanted <= set(found.prices)


@pytest.mark.parametrize(
    "change",
    [
        {"prices": {"kms.key": {"usd": 0, "unit": "key"}}},
        {"prices": {"kms.key": {"usd": 1}}},
        {"as_of": "November"},
        {"usage": {"line_bytes": {"all": 150, "unit": "bytes"}}},
    ],
)
def test_a_table_with_a_mistake_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(json.loads(prices.FILE.read_text()) | change))
    with pytest.raises(ValidationError):
        prices.table(file)


def test_usage_is_that_of_the_stack_else_of_others() -> None:
    usage = prices.Usage(values={"prod": 3, "other": 1}, unit="GB", why="")
    assert (usage.of("prod"), usage.of("dev")) == (3, 1)
    assert prices.Usage(values={"all": 2}, unit="GB", why="").of("prod") == 2


def test_no_assumption_stands_in_the_table_that_no_bill_rests_on() -> None:
    from infra.bill import estimate

    asked = {name for stack in STACKS for name in estimate(graph_of(stack)).assumed}
    assert asked == set(prices.table().usage)


# -- hours ---------------------------------------------------------------------------------------------------


def test_a_stack_that_rests_is_awake_on_five_days() -> None:
    assert prices.awake_hours(Cost(budget_usd=1)) == prices.MONTH_HOURS
    assert prices.awake_hours(Cost(budget_usd=1, rest=True)) == pytest.approx(5 * 13 / 168 * 730)


@given(st.integers(0, 16), st.integers(4, 23))
def test_a_later_evening_is_as_many_hours_more(morning: int, evening: int) -> None:
    if not 4 <= evening - morning <= 22:
        return
    awake = prices.awake_hours(
        Cost(budget_usd=1, rest=True, rest_from=f"{evening:02}:00", rest_to=f"{morning:02}:30")
    )
    assert awake == pytest.approx(5 * (evening - morning - 0.5) / 168 * 730)


def test_a_stack_that_is_up_past_midnight_is_awake_as_long_as_one_that_is_not() -> None:
    late = Cost(budget_usd=1, rest=True, rest_from="01:00", rest_to="13:00")
    early = Cost(budget_usd=1, rest=True, rest_from="19:00", rest_to="07:00")
    assert prices.awake_hours(late) == prices.awake_hours(early) > 0


def test_a_warehouse_that_pauses_is_billed_while_it_runs() -> None:
    hours = graph_of("staging").settings.warehouse.running_hours_a_week
    assert 0 < hours < 168
    cluster = made("redshift.Cluster", "cluster", {"nodeType": "ra3.large", "numberOfNodes": 2})
    nodes = [line for line in bill_of(cluster, stack="staging").lines if "ra3" in line.what]
    assert [line.quantity for line in nodes] == pytest.approx([2 * hours / 168 * 730])


# -- bills ---------------------------------------------------------------------------------------------------


def test_every_kind_of_a_stack_has_a_price_or_is_free(graph: Graph) -> None:
    from infra.bill import FREE, PRICED, estimate

    assert estimate(graph).unknown == ()
    assert not FREE & set(PRICED)


def test_a_kind_that_nobody_thought_of_is_named() -> None:
    assert bill_of(made("msk.Cluster", "kafka", {})).unknown == ("msk.Cluster",)


def test_sums_agree(graph: Graph) -> None:
    from infra.bill import estimate

    bill = estimate(graph)
    assert sum(bill.by_component().values()) == pytest.approx(bill.usd)
    assert sum(bill.by_resource().values()) == pytest.approx(bill.usd)
    assert all(line.usd == line.quantity * line.price > 0 for line in bill.lines)
    assert [line.usd for line in bill.lines] == sorted(
        (line.usd for line in bill.lines), key=lambda usd: -round(usd, 2)
    )


def test_larger_stacks_cost_more_and_each_keeps_to_its_budget() -> None:
    from infra.bill import estimate

    costs = [estimate(graph_of(stack)).usd for stack in STACKS]
    assert costs == sorted(costs)
    for stack, usd in zip(STACKS, costs, strict=True):
        assert usd <= graph_of(stack).settings.cost.budget_usd


def database(name: str = "primary", **more: Any) -> Resource:
    inputs = {
        "instanceClass": "db.r7g.4xlarge",
        "allocatedStorage": 1000,
        "iops": 15000,
        "storageThroughput": 700,
    }
    return made("rds.Instance", name, inputs | more)


def test_a_standby_doubles_instance_and_storage() -> None:
    one, two = (sum(amounts(bill_of(database(multiAz=multi))).values()) for multi in (False, True))
    assert two == pytest.approx(2 * one)


def test_the_storage_of_an_instance_is_billed_above_what_gp3_has_by_itself() -> None:
    found = prices.table().prices
    lines = amounts(bill_of(database()))
    assert lines["3000 IOPS above 12000"] == pytest.approx(3000 * found["rds.iops"].usd)
    assert lines["200 MiB/s above 500"] == pytest.approx(200 * found["rds.throughput"].usd)
    small = amounts(bill_of(database(allocatedStorage=100, iops=None, storageThroughput=None)))
    assert not any("above" in what for what in small)


def test_rest_saves_hours_and_no_storage() -> None:
    awake, resting = (
        amounts(bill_of(database(), rest=rest, rest_from="20:00", rest_to="07:00")) for rest in (False, True)
    )
    assert awake["db.r7g.4xlarge, 730 h"] * 65 / 168 == pytest.approx(resting["db.r7g.4xlarge, 282 h"])
    assert awake["1000 GB gp3"] == resting["1000 GB gp3"]


def quantities(bill: Estimate, function: str) -> dict[str, float]:
    """Of what a function is billed for."""
    return {
        line.what: line.quantity
        for line in bill.lines
        if (line.kind, line.name) == ("lambda.Function", function)
    }


@given(st.integers(1, 60))
def test_figures_of_a_stack_that_rests_are_billed_for_the_hours_of_its_schedule(often: int) -> None:
    from infra.bill import estimate
    from infra.graph import Graph

    dev = graph_of("dev")
    monitoring = dev.settings.monitoring.model_copy(update={"publish_minutes": often})
    changed = dev.settings.model_copy(update={"monitoring": monitoring})
    expression, _ = schedule(changed)
    found = re.fullmatch(r"cron\(0/(\d+) (\d+)-(\d+) \? \* MON-FRI \*\)", expression)
    assert found
    every, first, last = map(int, found.groups())
    runs = 5 * (last - first + 1) * len(range(0, 60, every)) / 168 * 730
    lines = quantities(estimate(Graph(changed, dev.resources)), "publisher")
    assert lines["requests"] * 1e6 == pytest.approx(runs)
    (metrics,) = (count for what, count in lines.items() if "custom metrics" in what)
    assert metrics == pytest.approx(60 * 5 * (last - first + 1) / 168)


def test_figures_of_a_stack_that_never_rests_are_billed_around_the_clock() -> None:
    from infra.bill import estimate

    lines = quantities(estimate(graph_of("prod")), "publisher")
    assert lines["requests"] * 1e6 == pytest.approx(730 * 60)
    assert lines["60 custom metrics, 730 h"] == pytest.approx(60)


def test_tasks_that_wait_for_an_image_are_priced_as_they_will_run_and_the_bill_says_so() -> None:
    from infra.bill import estimate

    waiting = estimate(graph_of("dev"))
    whats = [line.what for line in waiting.lines if line.kind == "ecs.Service"]
    assert len(whats) == 4
    assert all(what.endswith("282 h, once an image is set") for what in whats)
    assert "also while no image is set" in waiting.assumed["tasks_run"][1].why
    running = estimate(graph("dev", workers={"image_digest": DIGEST}))
    assert [line.usd for line in running.lines if line.kind == "ecs.Service"] == pytest.approx(
        [line.usd for line in waiting.lines if line.kind == "ecs.Service"]
    )
    assert not any("once an image" in line.what for line in running.lines)


def test_a_replica_has_the_storage_of_what_it_copies() -> None:
    primary = database()
    replica = made(
        "rds.Instance", "replica-1", {"instanceClass": "db.r7g.large"}, replicateSourceDb=(primary.urn,)
    )
    lines = {(line.name, line.what) for line in bill_of(primary, replica).lines}
    assert ("replica-1", "1000 GB gp3") in lines


@pytest.mark.parametrize(
    ("days", "advanced", "billed"), [(7, None, False), (731, None, True), (7, "advanced", True)]
)
def test_a_week_of_insights_is_free(days: int, advanced: str | None, billed: bool) -> None:
    bill = bill_of(database(performanceInsightsRetentionPeriod=days, databaseInsightsMode=advanced))
    assert any("insights" in line.what for line in bill.lines) == billed


@pytest.mark.parametrize(("days", "billed"), [(7, False), (35, True)])
def test_backups_are_free_up_to_the_size_of_the_storage(days: int, billed: bool) -> None:
    # 60 % full, 3 % of it new each day: 21 days fill what is free.
    lines = amounts(bill_of(database(backupRetentionPeriod=days)))
    assert any("backups" in what for what in lines) == billed


def test_objects_lie_in_the_class_of_their_age() -> None:
    bucket = made("s3.Bucket", "archive-items", {"bucket": "b"})
    rule = {"transitions": [{"days": 90, "storageClass": "GLACIER"}], "expiration": {"days": 2555}}
    rules = made("s3.BucketLifecycleConfiguration", "archive-items", {"bucket": "b", "rules": [rule]})
    quantities = {
        line.what.split(" ", 2)[2]: line.quantity
        for line in bill_of(bucket, rules).lines
        if "GB" in line.what
    }
    a_year = prices.table().usage["items_archived_gb"].of("prod") * 12
    assert quantities["standard"] == pytest.approx(a_year * 90 / 365)
    assert sum(quantities.values()) == pytest.approx(a_year)
    short = replace(rules, inputs={"bucket": "b", "rules": [rule | {"expiration": {"days": 180}}]})
    gone = [line.quantity for line in bill_of(bucket, short).lines if "GB" in line.what]
    assert sum(gone) == pytest.approx(a_year * 180 / 365)


def test_what_has_no_endpoint_passes_the_gateway() -> None:
    nat = made("ec2.NatGateway", "nat", {})
    stream = made(
        "ec2.VpcEndpoint", "kinesis", {"vpcEndpointType": "Interface", "serviceName": "com.amazonaws.x.kinesis-streams",
                                       "subnetIds": ["a", "b"]},
    )  # fmt: skip
    without, beside = bill_of(nat), bill_of(nat, stream)
    passes = next(
        line.quantity for line in beside.lines if line.name == "kinesis" and line.what == "what passes"
    )
    assert amounts(without)["what passes"] > 0
    through = [next(line.quantity for line in bill.lines if (line.name, line.what) == ("nat", "what passes"))
               for bill in (without, beside)]  # fmt: skip
    assert through[0] - through[1] == pytest.approx(passes)
    assert amounts(beside)["2 zones"] == pytest.approx(
        2 * 730 * prices.table().prices["vpc.endpoint.hour"].usd
    )


def test_a_gateway_endpoint_is_free() -> None:
    assert (
        bill_of(made("ec2.VpcEndpoint", "s3", {"vpcEndpointType": "Gateway", "serviceName": "x.s3"})).usd == 0
    )
