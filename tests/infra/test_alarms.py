"""The catalogue of alarms: each can ring, somebody knows what to do then, and thresholds follow sizes."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver import names as archiver_names
from infra import alarms, parameters
from infra.alarm_table import PAGE, page, stack_alarms
from infra.alarms import GIB, Alarm, Incident, Metric
from infra.aws_metrics import AWS, RECOMMENDED, published
from infra.graph import ROOT
from infra.settings import Settings
from jobs import names as figures
from runbooks.names import TRIGGERS

STACKS = ("dev", "staging", "prod")
ALARMS = {stack: stack_alarms(stack) for stack in STACKS}
EVERY = [(stack, one) for stack in STACKS for one in ALARMS[stack][1]]


def names(found: tuple[Alarm, ...] | tuple[Incident, ...]) -> list[str]:
    return [one.name for one in found]


def known(metric: Metric) -> bool:
    """Whether somebody publishes a metric, with these dimensions."""
    dimensions = frozenset(metric.dimensions)
    if metric.namespace == figures.NAMESPACE:
        return any(
            metric.name == one.name and dimensions == {figures.STACK} | ({one.by} if one.by else set())
            for one in figures.FIGURES
        )
    if metric.namespace == archiver_names.NAMESPACE:
        return metric.name in archiver_names.METRICS and dimensions == set(archiver_names.DIMENSIONS)
    return published(metric.namespace, metric.name, dimensions)


def changed(stack: str, **sections: dict[str, object]) -> Settings:
    settings = ALARMS[stack][0]
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=values) for name, values in sections.items()}
    )


# -- every alarm ---------------------------------------------------------------------------------------------


def test_every_alarm_watches_what_is_published() -> None:
    found = [(stack, alarm.name, one) for stack, alarm in EVERY for one in alarm.metrics if not known(one)]
    assert found == []


@pytest.mark.parametrize(
    "metric",
    [
        Metric("AWS/RDS", "ReplicaLags", {"DBInstanceIdentifier": "x"}, "Maximum"),
        Metric("AWS/RDS", "ReplicaLag", {"DBInstance": "x"}, "Maximum"),
        Metric("AWS/RDS", "ReplicaLag", {}, "Maximum"),
        Metric("AWS/Rds", "ReplicaLag", {"DBInstanceIdentifier": "x"}, "Maximum"),
        Metric(figures.NAMESPACE, "StagedRow", {"Stack": "x"}, "Maximum"),
        Metric(figures.NAMESPACE, "StagedRows", {}, "Maximum"),
        Metric(figures.NAMESPACE, "Freshness", {"Stack": "x"}, "Maximum"),
    ],
)
def test_what_nobody_publishes_is_found(metric: Metric) -> None:
    assert not known(metric)


def test_every_alarm_is_one_that_cloudwatch_takes() -> None:
    for stack, alarm in EVERY:
        where = f"{stack}: {alarm.name}"
        assert alarm.runbook in TRIGGERS, where
        assert alarm.description.endswith(f"runbook: {alarm.runbook}"), where
        assert len(alarm.description) <= 1024, where
        assert re.fullmatch("[a-z][a-z0-9-]{2,60}", alarm.name), where
        # Of several metrics CloudWatch compares values of the same time.
        (period,) = {metric.period for metric in alarm.metrics}
        assert period % 60 == 0, where
        # A day, or a week of periods of an hour or more (PutMetricAlarm).
        assert alarm.periods * period <= (7 * 86_400 if period >= 3600 else 86_400), where
        used = set(re.findall(r"\bm\d+\b", alarm.expression or "m0"))
        assert used == {f"m{number}" for number in range(len(alarm.metrics))}, where


def test_one_data_point_pages_nobody() -> None:
    assert [one.name for _, one in EVERY if one.severity == "page" and one.datapoints < 3] == []


@pytest.mark.parametrize("stack", STACKS)
def test_names_are_unique_and_each_page_goes_through_one_incident(stack: str) -> None:
    found = ALARMS[stack][1]
    incidents = alarms.incidents(found)
    everything = names(found) + names(incidents)
    assert len(set(everything)) == len(everything) > 80
    members = [member for one in incidents if one.severity != "none" for member in one.members]
    assert len(set(members)) == len(members)
    assert {one.name for one in found if one.severity == "page"} <= set(members)
    assert all(one.runbook in TRIGGERS for one in incidents)


@pytest.mark.parametrize("stack", STACKS)
def test_an_incident_comes_after_what_it_names(stack: str) -> None:
    there = set(names(ALARMS[stack][1]))
    for one in alarms.incidents(ALARMS[stack][1]):
        assert {*one.members, *([one.after] if one.after else [])} <= there
        assert one.members
        there.add(one.name)


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_a_database_that_is_gone_pages_once(stack: str) -> None:
    """All that fails with the database is silent while that is known, whoever else notices it."""
    incidents = {one.name: one for one in alarms.incidents(ALARMS[stack][1])}

    def explained(name: str) -> set[str]:
        """The incidents that keep this one quiet."""
        found = incidents[name].after
        if found is None or found not in incidents:
            return set()
        return {found, *incidents[found].members} | explained(found)

    for name in ("database-overloaded", "data-flow", "jobs", "replica-lag", "sessions", "proxy", "publisher"):
        assert "database-unavailable" in explained(name), name
    assert "workers-down" in explained("data-flow")
    # A disk that fills up, or records that expire, are told whatever else is known.
    for name in ("database-storage", "stream-expiring", "replication-slots", "transaction-wraparound"):
        assert explained(name) == set()


def test_every_runbook_has_an_alarm_and_every_figure_that_says_trouble_too() -> None:
    found = [one for stack in STACKS for one in ALARMS[stack][1]]
    assert {one.runbook for one in found} == set(TRIGGERS)
    assert all(TRIGGERS.values())
    watched = {
        metric.name for one in found for metric in one.metrics if metric.namespace == figures.NAMESPACE
    }
    # These explain others, and stand on the dashboard: no value of theirs by itself calls for anybody.
    explain = {
        figures.SINCE_FLUSH, figures.REJECTED_BY_REASON, figures.REPLICA_BEHIND, figures.PARTITIONS_AHEAD_BY_TABLE,
        figures.DEFAULT_ROWS, figures.CACHE_HITS,
    }  # fmt: skip
    assert watched == {one.name for one in set(figures.FIGURES) - explain}


def test_every_table_of_metrics_is_used() -> None:
    used = {metric.namespace for stack in STACKS for one in ALARMS[stack][1] for metric in one.metrics}
    assert used - {figures.NAMESPACE, archiver_names.NAMESPACE} == AWS.keys() - {"AWS/Billing"}


@pytest.mark.parametrize("namespace", RECOMMENDED)
def test_what_aws_recommends_is_watched_or_has_a_reason(namespace: str) -> None:
    watched = {
        metric.name
        for stack in STACKS
        for one in ALARMS[stack][1]
        for metric in one.metrics
        if metric.namespace == namespace
    }
    for name, why in RECOMMENDED[namespace].items():
        assert (name in watched) is (why is None), name


# -- what the source asks for --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "metric", "comparison", "threshold"),
    [
        ("replica-1-lag", "ReplicaLag", ">", 10),
        ("replica-1-slo", "ReplicaLag", ">", 3),
        ("database-slot-lag", "OldestReplicationSlotLag", ">", 10 * GIB),
        ("slot-retained", "SlotRetainedWal", ">", 10 * GIB),
        ("slot-unread", "LogicalSlotUnread", ">", GIB),
        ("staged-rows", "StagedRows", ">", 1_000_000),
        ("archiver-error-rate", "Errors", ">", 5),
        ("archiver-slow", "Duration", ">", 600_000),
        ("archiver-failed", "Errors", ">", 0),
    ],
)
def test_the_alarms_of_the_source(name: str, metric: str, comparison: str, threshold: float) -> None:
    (alarm,) = [one for one in ALARMS["prod"][1] if one.name == name]
    assert (alarm.metrics[0].name, alarm.comparison, alarm.threshold) == (metric, comparison, threshold)


# -- what a stack has, and when it rests ---------------------------------------------------------------------


def test_a_stack_that_rests_pages_nobody_and_takes_no_silence_for_failure() -> None:
    resting = ALARMS["dev"][1]
    assert {one.severity for one in resting} == {"notice"}
    assert {one.name for one in resting if one.missing.treat == "breaching"} == {"archiver-silent"}
    awake = alarms.catalogue(changed("dev", cost={"rest": False}), _watched("dev"))
    assert {"figures-missing", "worker-tasks", "stream-silent"} <= {
        one.name for one in awake if one.missing.treat == "breaching"
    }
    assert any(one.severity == "page" for one in awake)


def _watched(stack: str) -> alarms.Watched:
    from infra.component import Context
    from infra.graph import ACCOUNT
    from infra.monitoring import watched
    from infra.naming import Names

    settings = ALARMS[stack][0]
    return watched(Context(settings, Names(stack), ACCOUNT, "aws", settings.region, ("a", "b")), {})


def test_what_a_stack_does_not_have_is_not_watched() -> None:
    dev, prod = _watched("dev"), _watched("prod")
    assert (dev.proxy, dev.cluster, dev.replicas) == (None, None, ())
    assert (prod.workgroup, len(prod.replicas)) == (None, 2)
    found = names(ALARMS["dev"][1])
    assert [one for one in found if re.match("proxy|replica|warehouse-(cpu|health)", one)] == []
    assert "database-credits" in found
    assert "database-credits" not in names(ALARMS["prod"][1])
    none = replace(prod, services={}, nats={}, proxy=None, cluster=None, replicas=())
    left = names(alarms.catalogue(ALARMS["prod"][0], none))
    assert [one for one in left if re.match("proxy|replica|warehouse|nat|worker|ingest", one)] == []


def test_a_paused_warehouse_is_no_failure() -> None:
    for stack, treat in (("staging", "notBreaching"), ("prod", "breaching")):
        (health,) = [one for one in ALARMS[stack][1] if one.name == "warehouse-health"]
        assert health.missing.treat == treat


@given(st.integers(1, 60))
def test_figures_are_looked_at_as_often_as_they_come(minutes: int) -> None:
    settings = changed("prod", monitoring={"publish_minutes": minutes})
    for one in alarms.catalogue(settings, _watched("prod")):
        if one.metrics[0].namespace == figures.NAMESPACE:
            assert one.metrics[0].period == minutes * 60
            assert one.periods >= 3
            assert one.periods * one.metrics[0].period <= 86_400


# -- thresholds ----------------------------------------------------------------------------------------------

STORAGE = st.integers(20, 65_536)
CLASSES = st.sampled_from(sorted(parameters.SIZES))


@given(STORAGE)
def test_thresholds_of_the_disk_leave_room(storage: int) -> None:
    full, low = alarms.free_storage(storage, 5), alarms.free_storage(storage, 10)
    assert GIB <= full <= low < storage * GIB
    # Before the server gives a slot up, at a fifth of the disk.
    assert 0 < alarms.slot_wal(storage) <= min(10 * GIB, storage * GIB / 5 / 2)


@given(STORAGE, CLASSES, st.none() | st.integers(12_000, 64_000), st.none() | st.integers(500, 4000))
def test_every_threshold_can_be_reached(
    storage: int, instance_class: str, iops: int | None, throughput: int | None
) -> None:
    wanted: dict[str, object] = {"storage_gb": storage, "instance_class": instance_class, "iops": iops}
    settings = changed("prod", postgres=wanted | {"throughput": throughput, "replica_class": None})
    size = parameters.size_of(instance_class)
    found = {one.name: one for one in alarms.catalogue(settings, _watched("prod"))}
    assert found["database-load"].threshold == 2 * size.vcpus
    assert 0 < found["database-memory"].threshold < size.memory_gib * GIB / 10
    assert 0 < found["database-swap"].threshold < size.memory_gib * GIB / 2
    assert 0 < found["database-connections"].threshold < parameters.connections(size)
    assert found["database-disk-queue"].threshold >= 10
    least = 12_000 if storage >= 400 else 3_000
    assert found["database-iops"].threshold == 0.9 * (iops or least)
    assert 0.9 * 125 * 2**20 <= found["database-throughput"].threshold <= 4000 * 2**20
    assert ("database-credits" in found) == instance_class.startswith("db.t4g")
    assert ("database-ebs-io" in found) == (size.vcpus <= 16)


@given(st.integers(60, 900))
def test_a_run_is_long_before_it_is_ended(timeout: int) -> None:
    assert 40_000 <= alarms.long_run(timeout) <= min(600_000, 1000 * timeout)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"datapoints": 4}, "4 of 3 periods"),
        ({"expression": "m0"}, "several metrics need one"),
        ({"severity": "page"}, "through an incident"),
    ],
)
def test_an_alarm_that_contradicts_itself_is_refused(wrong: dict[str, object], said: str) -> None:
    metric = Metric("AWS/SQS", "x", {}, "Sum")
    alarm = Alarm("x", "items", "notice", "items-throttled", "x", (metric,), ">", 1, 3, 3, alarms.NO_EVENT)
    with pytest.raises(ValueError, match=said):
        replace(alarm, **wrong)  # type: ignore[arg-type]


def test_incidents_that_contradict_the_alarms_are_refused() -> None:
    found = ALARMS["prod"][1]
    first = found[0]
    for wrong, said in (
        (replace(first, incident="nothing"), "no such incident: nothing"),
        (replace(first, name="data-flow"), "both an alarm and an incident: data-flow"),
        (replace(found[2], severity="notice", incident="database-unavailable"), "would page with it"),
    ):
        with pytest.raises(ValueError, match=said):
            alarms.incidents((*found, wrong))


# -- the page ------------------------------------------------------------------------------------------------


def test_the_page_has_these_alarms() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert page(text) == text, f"{PAGE} is not as the catalogue is: run python -m infra.alarm_table"
    assert page(text.replace("replica-N-lag", "replica-N-late")) == text
