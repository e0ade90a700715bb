"""A major version by blue/green, in the emulator with a real database: step by step, killed at each, and refused.

What green does with the rows is in tests/sql/test_blue_green.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto.rds import models

from infra import blue_green, hold, operation
from infra.blue_green import HINDRANCES, Upgrade
from infra.errors import InfraError
from infra.operation import Found, Line, Patience, Site, Step, run
from tests.conftest import Connection, Database
from tests.infra.changed import graph as changed_graph
from tests.infra.conftest import graph_of
from tests.infra.running import Running, left, running
from tests.jobs.waiting import until as until_it_is
from tests.sql.staging import Row, copy, make_tenant, stored

NAME = "eav-prod-postgres"
TO = "18.1"
HELD = "SELECT count(*) FROM ops.partition_policies WHERE retention > interval '900 years'"
POLICIES = "SELECT parent_table, retention, compact_after FROM ops.partition_policies ORDER BY 1"


def say_space(stack: Running, share: float) -> None:
    """What CloudWatch has of the disk."""
    stack.session.client("cloudwatch").put_metric_data(
        Namespace="AWS/RDS",
        MetricData=[
            {
                "MetricName": "FreeStorageSpace",
                "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": NAME}],
                "Timestamp": datetime.now(UTC) - timedelta(minutes=1),
                "Value": share * 4000 * 2**30,
            }
        ],
    )


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[Running]:
    """prod, with a database behind it. Its version is what the emulator says: the server's cannot change here."""
    with running(graph_of("prod"), monkeypatch, database.url) as found:
        say_space(found, 0.5)
        (primary,) = (one for one in found.backend.databases.values() if one.replicas)

        def version(connection: Connection) -> int:
            name = primary.db_instance_identifier if NAME not in found.backend.databases else NAME
            return int(found.backend.databases[name].engine_version.split(".")[0])

        for module in (operation, blue_green):
            monkeypatch.setattr(module, "server_major", version)
        # Nothing follows this database. tests/sql/test_blue_green.py has one that is followed.
        monkeypatch.setattr(Upgrade, "_caught_up", lambda self: Found("done", ""))
        if database.one("SHOW wal_level") != "logical":  # of a server that somebody lent
            monkeypatch.delitem(HINDRANCES, next(what for what in HINDRANCES if "wal_level" in what))
        # Other tests drop databases of this server, and one that is being dropped is invalid.
        monkeypatch.delitem(HINDRANCES, next(what for what in HINDRANCES if what.startswith("invalid")))
        yield found


def looking(site: Site) -> Sequence[Step]:
    return Upgrade(site, TO).steps(switch=False)


def switching(site: Site) -> Sequence[Step]:
    return Upgrade(site, TO).steps(switch=True)


def undone(site: Site) -> Sequence[Step]:
    return Upgrade(site, TO).undo()


def act(stack: Running, line: Line) -> None:
    """As a person, who does what a line says."""
    match line.title:
        case "the group of version 18":
            stack.make_group(f"{NAME}-18", "postgres18")
        case "roles may log in at green":
            stack.let_in(*(one for name, one in stack.instances().items() if "-green-" in name))
        case "what writes is stopped":
            stack.scale(0)
        case "the stack knows the instances":
            stack.import_adopted(line.detail)
        case "the group of version 18 is in use":
            for name in (NAME, f"{NAME}-replica-1", f"{NAME}-replica-2"):
                stack.backend.databases[name].db_parameter_group_name = f"{NAME}-18"
        case "what writes runs again":
            stack.scale(2)
        case other:
            raise AssertionError(f"{other}: {line.detail}")


def until(stack: Running, title: str) -> Line:
    """Go on until a person's step of this title is next."""
    for _ in range(20):
        line = left(stack.run(looking))
        assert line
        if line.title == title:
            return line
        act(stack, line)
    raise AssertionError(title)


def test_nothing_is_done_unasked(stack: Running, database: Database) -> None:
    before = stack.instances()
    line = left(stack.run(looking, execute=False))
    assert line
    assert (line.title, line.state) == ("the group of version 18", "by hand")
    assert "next_major: 18" in line.detail
    act(stack, line)
    stack.changes.clear()
    line = left(stack.run(looking, execute=False))
    assert line
    assert (line.title, line.state) == ("green's group, without pg_cron", "next")
    assert (stack.instances(), stack.changes, database.one(HELD)) == (before, [], 0)


def test_killed_at_every_step_it_comes_to_the_same_end(stack: Running, database: Database) -> None:
    tenant = make_tenant(database)
    with closing(database.connect()) as connection:
        copy(connection, [Row(None, None, tenant.tenant_id, 1, tenant.attributes["load"], value_number=7)])
    before, policies = stack.instances(), database.all(POLICIES)
    database.all(
        "INSERT INTO ops.archive_stores (bucket, prefix, mark, mark_before, identity, claimed_at) VALUES"
        " ('bucket', 'partitions', gen_random_uuid(), gen_random_uuid(), '{1,2,3}', now()) RETURNING 1"
    )
    line = until(stack, "green is looked at")
    assert "-green-" in line.detail
    # As an update of pg_partman leaves it.
    with database.session() as connection:
        connection.execute("REVOKE ALL ON ALL TABLES IN SCHEMA partman FROM eav_owner")
    greens = {one for name, one in stack.instances().items() if "-green-" in name}
    assert len(greens) == 3
    (preload,) = (
        one["ParameterValue"]
        for one in stack.rds.describe_db_parameters(DBParameterGroupName=f"{NAME}-18-green")["Parameters"]
        if one["ParameterName"] == "shared_preload_libraries"
    )
    assert preload == "pg_stat_statements,pgaudit"
    assert database.one(HELD) == 2
    stack.mortal = True

    def person(line: Line) -> None:
        if line.title == "the archive is taken over":  # pg_upgrade gives the server another identity
            stack.take_archive_over(database)
        else:
            act(stack, line)

    stack.to_the_end(switching, person)
    after = stack.instances()
    for name in (NAME, f"{NAME}-replica-1", f"{NAME}-replica-2"):
        assert after[f"{name}-old1"] == before[name]
        assert after[name] in greens
    assert database.all(POLICIES) == policies
    assert database.one("SELECT count(*) FROM partman.part_config WHERE undo_in_progress") == 0
    assert stored(database) == [7]
    assert database.one("SELECT count(*) FROM ops.job_runs WHERE job = 'adopt-staging'") == 1
    assert {one[1] for one in stack.deaths if len(one) == 2} == {
        "nothing is staged", "the switch", "staging is adopted", "extensions are up to date", "statistics",
        "partitions are made and leave again",
    }  # fmt: skip
    # The deployment is deleted, after a week: it is still over.
    (deployment,) = stack.rds.describe_blue_green_deployments()["BlueGreenDeployments"]
    stack.mortal = False
    stack.rds.delete_blue_green_deployment(
        BlueGreenDeploymentIdentifier=deployment["BlueGreenDeploymentIdentifier"]
    )
    assert left(stack.run(switching)) is None
    assert left(stack.run(undone)).state == "refused"  # type: ignore[union-attr]


def test_killed_before_green_is_made_or_after_it_is_given_up_again(
    stack: Running, database: Database
) -> None:
    before, policies = stack.instances(), database.all(POLICIES)
    stack.mortal = True

    class LookedAtError(Exception):
        pass

    def person(line: Line) -> None:
        if line.title == "green is looked at":
            raise LookedAtError
        stack.mortal = False  # what a person does is not killed
        act(stack, line)
        stack.mortal = True

    with pytest.raises(LookedAtError):
        stack.to_the_end(looking, person)
    assert stack.changes.count("CreateBlueGreenDeployment") == 1
    stack.to_the_end(undone, person)
    assert stack.instances() == before
    assert database.all(POLICIES) == policies
    groups = {
        one["DBParameterGroupName"] for one in stack.rds.describe_db_parameter_groups()["DBParameterGroups"]
    }
    assert f"{NAME}-18-green" not in groups
    assert stack.rds.describe_blue_green_deployments()["BlueGreenDeployments"] == []


def test_a_switch_that_is_under_way_is_waited_for(stack: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody was killed while RDS switched: neither is looked at databases that come and go, nor switched again."""
    until(stack, "green is looked at")
    stack.database_url = None
    (deployment,) = stack.backend.blue_green_deployments.values()
    deployment.set_status(deployment.SupportedStates.SWITCHOVER_IN_PROGRESS)

    def later() -> None:
        deployment.set_status(deployment.SupportedStates.AVAILABLE)
        deployment.switchover()

    stack.slept = later
    stack.changes.clear()
    lines = stack.run(switching)
    line = left(lines)
    assert line
    assert (line.title, line.state) == ("staging is adopted", "refused")
    assert "DATABASE_URL is not set" in line.detail
    assert stack.changes == []


def test_a_switch_that_rds_gave_up_is_not_asked_for_again_unasked(stack: Running) -> None:
    until(stack, "green is looked at")
    act(stack, left(stack.run(switching)))  # type: ignore[arg-type]
    (deployment,) = stack.backend.blue_green_deployments.values()
    states = deployment.SupportedStates

    def begun() -> None:
        deployment.set_status(states.SWITCHOVER_IN_PROGRESS)

    def given_up() -> None:
        deployment.set_status(states.SWITCHOVER_FAILED)

    deployment.switchover, stack.slept = begun, given_up
    stack.changes.clear()
    line = left(stack.run(switching))
    assert line
    assert (line.title, line.state) == ("the switch", "refused")
    assert "the last try was undone by RDS" in line.detail
    assert stack.changes == ["SwitchoverBlueGreenDeployment"]


def test_a_green_that_somebody_deleted_is_not_looked_at(stack: Running) -> None:
    until(stack, "green is looked at")
    for name in [one for one in stack.instances() if "-green-" in one]:
        del stack.backend.databases[name]
        line = left(stack.run(switching))
        assert line
        assert (line.title, line.state) == ("green", "refused")
        assert "is not there" in line.detail
    assert Upgrade(stack.site(), TO)._looked_at(switch=False).state == "refused"


def test_an_abort_of_another_version_lets_nothing_go(stack: Running, database: Database) -> None:
    until(stack, "green is looked at")
    line = left(stack.run(lambda site: Upgrade(site, "19.1").undo()))
    assert line
    assert (line.title, line.state) == ("it has not switched", "refused")
    assert f"{NAME}-18: --to 18." in line.detail
    (deployment,) = stack.backend.blue_green_deployments.values()
    deployment.blue_green_deployment_name = "by-hand"
    line = left(stack.run(undone))
    assert line
    assert line.detail.startswith("by-hand is no green of this kind")
    assert database.one(HELD) == 2


def test_nothing_is_switched_to_a_green_without_the_hold(
    stack: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever let it go, and whenever: DDL does not reach green."""
    until(stack, "green is looked at")
    act(stack, left(stack.run(switching)))  # type: ignore[arg-type]
    stack.changes.clear()
    now = hold.counts(stack.site())
    for counts, says in (
        (replace(now, held=0), "held no longer"),
        (replace(now, ahead=timedelta(hours=-5)), "used up"),
    ):
        monkeypatch.setattr(hold, "counts", lambda site, counts=counts: counts)
        line = left(stack.run(switching))
        assert line
        assert (line.title, line.state) == ("green", "refused")
        assert says in line.detail
    monkeypatch.undo()
    hold.release(stack.site())
    assert left(stack.run(switching)).title == "green"  # type: ignore[union-attr]
    assert stack.changes == []


def test_a_green_that_is_lost_is_not_waited_for(stack: Running) -> None:
    until(stack, "green is looked at")
    (green, *_) = [one for name, one in stack.backend.databases.items() if "-green-" in name]
    green.status = "storage-full"
    line = left(stack.run(switching))
    assert line
    assert (line.title, line.state) == ("green", "refused")
    assert "storage-full" in line.detail


def test_a_green_whose_protection_an_abort_took_off_gets_it_back(stack: Running) -> None:
    until(stack, "green is looked at")
    greens = [one for name, one in stack.backend.databases.items() if "-green-" in name]
    for one in greens:
        one.deletion_protection = False
    assert left(stack.run(looking)).title == "green is looked at"  # type: ignore[union-attr]
    assert all(one.deletion_protection for one in greens)


@pytest.mark.parametrize(
    ("slots", "state"),
    [
        ([("a", True, "reserved", 100)], "done"),
        ([("a", True, "reserved", 2**30)], "waits"),
        ([("a", True, "reserved", 0), ("b", False, "reserved", 0)], "waits"),
        ([("a", True, "reserved", None), ("b", True, "reserved", 3)], "waits"),
        ([("a", False, "lost", 5 * 2**30)], "refused"),
        ([], "refused"),
    ],
)
def test_what_green_has_read(
    monkeypatch: pytest.MonkeyPatch, slots: list[tuple[object, ...]], state: str
) -> None:
    """A slot that is lost is never read again, and one that is being made has no position."""
    with running(graph_of("prod"), monkeypatch) as found:
        upgrade = Upgrade(found.site(), TO)
        monkeypatch.setattr(upgrade.site, "ask", lambda query: slots)
        assert upgrade._caught_up().state == state


def test_a_green_that_breaks_while_it_is_waited_for_is_not_waited_for(
    stack: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    until(stack, "green is looked at")
    act(stack, left(stack.run(switching)))  # type: ignore[arg-type]
    monkeypatch.setattr(Upgrade, "_caught_up", lambda self: Found("waits", "green is 99 MiB behind"))
    (deployment,) = stack.backend.blue_green_deployments.values()

    def broken() -> None:
        deployment.status = "INVALID_CONFIGURATION"

    stack.slept = broken
    line = left(stack.run(switching))
    assert line
    assert (line.title, line.state) == ("green has caught up", "refused")
    assert "INVALID_CONFIGURATION" in line.detail


def test_a_group_that_is_in_use_stays(stack: Running) -> None:
    upgrade = Upgrade(stack.site(), TO)
    stack.make_group(f"{NAME}-18", "postgres18")
    upgrade._make_group()
    assert upgrade._ungrouped().state == "next"
    newer = stack.backend.databases[f"{NAME}-replica-1"]
    newer.db_parameter_group_name = f"{NAME}-18-green"
    assert upgrade._ungrouped().state == "by hand"
    newer.status = "deleting"
    assert upgrade._ungrouped() == Found("waits", f"{NAME}-replica-1 is being deleted")


def test_a_deployment_that_is_being_deleted_after_the_switch_is_over(stack: Running) -> None:
    until(stack, "green is looked at")
    act(stack, left(stack.run(switching)))  # type: ignore[arg-type]
    stack.run(switching)
    (deployment,) = stack.backend.blue_green_deployments.values()
    deployment.status = "DELETING"
    assert left(stack.run(undone, execute=False)).state == "refused"  # type: ignore[union-attr]
    assert left(stack.run(switching, execute=False)).title != "green"  # type: ignore[union-attr]


def test_what_was_done_last_is_waited_for(stack: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that has just got another password is at work for a while: that is nobody's doing but ours."""
    stack.make_group(f"{NAME}-18", "postgres18")
    make = Upgrade._make_group

    def busy(self: Upgrade) -> None:
        make(self)
        stack.backend.databases[NAME].status = "resetting-master-credentials"

    def later() -> None:
        stack.backend.databases[NAME].status = "available"

    monkeypatch.setattr(Upgrade, "_make_group", busy)
    stack.slept = later
    assert left(stack.run(looking)).title == "roles may log in at green"  # type: ignore[union-attr]


def test_nothing_is_switched_while_something_is_staged(stack: Running, database: Database) -> None:
    """Also what was staged since the last look."""
    until(stack, "green is looked at")
    stack.changes.clear()
    tenant = make_tenant(database)
    with closing(database.connect()) as connection:
        copy(connection, [Row(None, None, tenant.tenant_id, 1, tenant.attributes["load"], value_number=7)])
    with pytest.raises(InfraError, match="not now: flush 1 staged values"):
        Upgrade(stack.site(), TO)._switch()
    assert stack.changes == []


def test_partitions_that_are_held_are_neither_made_nor_compacted_nor_let_go(
    stack: Running, database: Database
) -> None:
    last = "SELECT max(partition::text) FROM ops.partition_bounds('eav.entity_values_ts'::regclass)"
    upgrade = Upgrade(stack.site(), TO)
    hold.hold(upgrade.site)
    hold.hold(upgrade.site)
    assert upgrade._held().state == "done"
    with database.session() as connection:
        # Begun before, and not over: it may still detach or swap one.
        connection.execute("SELECT ops.job_begin('compact', 'worker')")
        assert upgrade._held() == Found("waits", "compact began before and is not over")
    until_it_is(lambda: upgrade._held().state == "done")
    name = database.one(last)
    with database.session() as connection:
        connection.execute(f"DROP TABLE {name}".encode())
    assert database.one("SELECT ops.maintain_partitions()") == 0
    assert database.one("SELECT count(*) FROM ops.compactable()") == 0
    hold.release(upgrade.site)
    hold.release(upgrade.site)
    assert database.one(last) == name
    assert hold.let_go(upgrade.site).state == "done"


def test_the_password_of_a_managed_master_stays_the_same_meanwhile(
    monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    graph = changed_graph("prod", postgres={"managed_master": True, "replicas": 0})
    url = "postgresql://eav_admin:kept@localhost/eav"
    with running(graph, monkeypatch, url, managed=True) as stack:
        upgrade = Upgrade(stack.site(), TO)
        titles = [step.title for step in upgrade.steps(switch=False)]
        assert {"a password for the time being", "the password is AWS's again"} <= set(titles)
        for status, state in (("modifying", "waits"), ("stopped", "refused"), ("available", "next")):
            stack.backend.databases[NAME].status = status
            assert upgrade._unmanaged().state == state
        upgrade._unmanage()
        assert upgrade._unmanaged().state == "done"
        assert stack.backend.databases[NAME]._master_user_password == "kept"
        for status, state in (("modifying", "waits"), ("stopped", "refused"), ("available", "next")):
            stack.backend.databases[NAME].status = status
            assert upgrade._managed().state == state
        upgrade._manage()
        assert upgrade._managed().state == "done"
        other = Upgrade(Site(graph, stack.session, "postgresql://eav_jobs:x@localhost/eav"), TO)
        with pytest.raises(InfraError, match="DATABASE_URL must have the master"):
            other._unmanage()


def test_what_would_stop_it_is_said_before(stack: Running, database: Database) -> None:
    """A logical slot is every database's: tests/sql/test_blue_green.py has one on a server of its own."""
    stack.make_group(f"{NAME}-18", "postgres18")
    upgrade = Upgrade(stack.site(), TO)
    assert upgrade._unhindered().state == "done"
    cases = {
        "columns of types": "CREATE TABLE public.kept (name text, check_by regprocedure)",
        "extensions that": "CREATE EXTENSION pg_trgm",
        "tables that are changed": (
            "CREATE TABLE public.bare (n int); INSERT INTO public.bare VALUES (1); UPDATE public.bare SET n = 2"
        ),
        "compactions": (
            "INSERT INTO ops.compactions (started_at, status, partition, bytes_before, index_bytes_before)"
            " VALUES (now(), 'copying', 'eav.p', 0, 0)"
        ),
    }
    for number, (what, make) in enumerate(cases.items(), start=1):
        with database.session() as connection:
            connection.execute(make.encode())
            connection.execute("SELECT pg_stat_force_next_flush()")
        found = upgrade._unhindered()
        assert found.state == "refused"
        assert what in found.detail
        assert len(found.detail.split("; ")) == number


def test_rights_that_an_update_of_pg_partman_takes_are_given_back(stack: Running, database: Database) -> None:
    """From 4.7 to 5 it makes its tables anew. No version of it is installed here that could be updated."""
    upgrade = Upgrade(stack.site(), TO)
    assert upgrade._extended().state == "done"
    errors = "SELECT count(*) FROM ops.partition_policies WHERE last_error LIKE 'permission denied%%'"
    with database.session() as connection:
        connection.execute("REVOKE ALL ON ALL TABLES IN SCHEMA partman FROM eav_owner")
    database.one("SELECT ops.maintain_partitions()")
    assert database.one(errors) == 2
    assert upgrade._extended().state == "next"
    upgrade._extend()
    assert upgrade._extended().state == "done"
    database.one("SELECT ops.maintain_partitions()")
    assert database.one(errors) == 0


def test_every_hindrance_is_a_query_that_runs(database: Database) -> None:
    # Another test's database is one while it is being dropped.
    (invalid,) = (query for what, query in HINDRANCES.items() if what.startswith("invalid"))
    until_it_is(lambda: database.all(invalid) == [])
    for what, query in HINDRANCES.items():
        if query == invalid:
            continue
        logical = "wal_level" not in what or database.one("SHOW wal_level") == "logical"
        assert (database.all(query) == []) is logical


def test_a_version_that_rds_cannot_upgrade_to(stack: Running) -> None:
    stack.offered = "18.2"
    line = left(stack.run(looking))
    assert line
    assert (line.state, line.detail) == ("refused", "from 17.4 there is no way to 18.1, but to 18.2")
    line = left(stack.run(lambda site: Upgrade(site, "17.6").steps(switch=False)))
    assert line
    assert (line.state, line.detail) == (
        "refused",
        f"{NAME} runs 17.4 already: 17.6 is no newer major version",
    )


def test_what_rds_cannot_copy(stack: Running) -> None:
    (instance,) = stack.rds.describe_db_instances(DBInstanceIdentifier=NAME)["DBInstances"]
    upgrade = Upgrade(stack.site(), TO)

    def refused(says: str) -> None:
        found = upgrade._copyable()
        assert found.state == "refused"
        assert says in found.detail

    assert upgrade._copyable().state == "done"
    say_space(stack, 0.1)
    refused("10% of the disk is free")
    stack.rds.create_blue_green_deployment(
        BlueGreenDeploymentName="of-somebody", Source=instance["DBInstanceArn"]
    )
    refused("already: of-somebody")
    stack.rds.create_db_instance(
        DBInstanceIdentifier=f"{NAME}-old1",
        DBInstanceClass="db.t4g.large",
        Engine="postgres",
        AllocatedStorage=100,
    )
    refused(f"{NAME}-old1 is there")
    stack.backend.databases[NAME].backup_retention_period = 0
    refused("no backups")
    for name in (f"{NAME}-replica-1", NAME):
        stack.backend.databases[name].status = "modifying"
        assert upgrade._copyable() == Found("waits", f"{name} is modifying")
        stack.backend.databases[name].status = "storage-full"
        refused(f"{name} is storage-full")


def test_it_says_what_scripts_need(stack: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert blue_green.main(["prod", "--to", TO, "--json"], site=stack.site()) == 4
    states = [one["state"] for one in json.loads(capsys.readouterr().out)]
    assert states[:3] == ["done", "done", "by hand"]
    assert set(states[3:]) == {"later"}
    assert blue_green.main(["prod", "--to", TO, "--abort"], site=stack.site()) == 0
    with pytest.raises(SystemExit) as ended:
        blue_green.main(["prod", "--to", "18"])
    assert ended.value.code == 2
    assert "argument --to: must be major and minor" in capsys.readouterr().err


@pytest.mark.parametrize("all_of_it", [True, False])
def test_green_is_not_made_of_what_somebody_has_let_go_meanwhile(
    stack: Running, monkeypatch: pytest.MonkeyPatch, all_of_it: bool
) -> None:
    """One waits for the snapshot, another gives up: the first finds its snapshot, and would make green unheld."""
    stack.make_group(f"{NAME}-18", "postgres18")
    create = models.DBSnapshot.__init__

    def creating(self: Any, *arguments: Any, **settings: Any) -> None:
        create(self, *arguments, **settings)
        self.status = "creating"

    def another() -> None:
        undo = Upgrade(stack.site(), TO).undo()
        upto = next(n for n, step in enumerate(undo) if step.title.startswith("partitions")) + 1
        run(undo if all_of_it else undo[:upto], execute=True, say=lambda line: None, patience=Patience())
        for one in stack.backend.database_snapshots.values():
            one.status = "available"

    monkeypatch.setattr(models.DBSnapshot, "__init__", creating)
    stack.slept = another
    line = left(stack.run(looking))
    assert line
    assert (line.title, line.state) == ("green", "refused")
    assert "it was done before, run this again" in line.detail
    assert "CreateBlueGreenDeployment" not in stack.changes


@pytest.mark.parametrize("status", ["PROVISIONING", "INVALID_CONFIGURATION"])
def test_a_green_that_was_never_made_can_be_given_up(
    stack: Running, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """The member of a deployment that does not exist yet, or never will, has no ARN."""
    upgrade = Upgrade(stack.site(), TO)
    (base,) = stack.rds.describe_db_instances(DBInstanceIdentifier=NAME)["DBInstances"]
    deployment = {
        "BlueGreenDeploymentIdentifier": "bgd-1",
        "Status": status,
        "SwitchoverDetails": [{"SourceMember": base["DBInstanceArn"], "Status": status}],
    }
    monkeypatch.setattr(upgrade, "_deployment", lambda: deployment)
    assert upgrade._pairs() == []
    assert upgrade._unswitched().state == "done"
    assert upgrade._gone().state == ("waits" if status == "PROVISIONING" else "next")


def test_a_snapshot_of_an_attempt_that_was_given_up_is_no_snapshot_of_this_one(stack: Running) -> None:
    upgrade = Upgrade(stack.site(), TO)
    assert upgrade._snapshot().state == "next"
    upgrade._make_snapshot()
    assert upgrade._snapshot().state == "done"
    (made,) = (
        one
        for one in stack.backend.database_snapshots.values()
        if one.db_snapshot_identifier.startswith(f"{NAME}-before-18-")
    )
    made.status = "failed"
    assert upgrade._snapshot().state == "refused"
    made.status = "available"
    made.created -= timedelta(days=2)
    assert upgrade._snapshot().state == "next"
