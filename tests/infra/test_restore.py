"""A restore to a point in time, in the emulator: step by step, killed at each, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.rds import models

from infra import hold, restore
from infra.errors import InfraError
from infra.operation import Found, Line, Site, Step
from infra.restore import Restore, moment
from tests.conftest import Database
from tests.infra.conftest import graph_of
from tests.infra.running import KilledError, Running, left, running

TO = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
NAME = "eav-prod-postgres"


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[Running]:
    """prod, with a database behind it."""
    with running(graph_of("prod"), monkeypatch, database.url) as found:
        yield found


@pytest.fixture
def aws_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """prod, with no database that could be asked."""
    with running(graph_of("prod"), monkeypatch) as found:
        yield found


def beside(site: Site) -> Sequence[Step]:
    return Restore(site, TO).steps(take_over=False)


def taking_over(site: Site) -> Sequence[Step]:
    return Restore(site, TO).steps(take_over=True)


def undone(site: Site) -> Sequence[Step]:
    return Restore(site, TO).undo()


def killed(*_: object) -> None:
    raise KilledError


ARCHIVED = """
    INSERT INTO ops.archive_stores (bucket, prefix, mark, mark_before, identity, claimed_at)
    VALUES (
        'bucket', 'partitions', gen_random_uuid(), gen_random_uuid(), ops.archive_identity(),
        now() - interval '3 years'
    )
    RETURNING 1
"""


def to_the_end(stack: Running, database: Database) -> None:
    """With a person who does what it says."""
    database.all(ARCHIVED)

    def person(line: Line) -> None:
        match line.title:
            case "roles may log in there":
                stack.let_in(stack.instances()[f"{NAME}-restored"])
            case "what writes is stopped":
                stack.scale(0)
            case "the archive is taken over":
                stack.take_archive_over(database)
            case "the stack knows the instance":
                stack.import_adopted(line.detail)
            case "replicas are of it":
                stack.replace_replicas()
            case "what writes runs again":
                stack.scale(2)
            case other:
                raise AssertionError(other)

    stack.to_the_end(taking_over, person)


def test_nothing_is_done_unasked_and_each_step_says_what_it_would_do(aws_only: Running) -> None:
    before = aws_only.instances()
    first, second, third = aws_only.run(beside, execute=False)
    assert (first.state, second.state, third.state) == ("done", "next", "later")
    assert f"{NAME}-restored" in second.detail
    assert (aws_only.instances(), aws_only.changes) == (before, [])


def test_a_restored_instance_is_like_the_one_that_runs_and_goes_again(aws_only: Running) -> None:
    before = aws_only.instances()
    found = left(aws_only.run(beside))
    assert found
    assert (found.title, found.state) == ("look at it", "by hand")
    old, new = (
        aws_only.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
        for name in (NAME, f"{NAME}-restored")
    )
    same = (
        "DBInstanceClass", "MultiAZ", "PubliclyAccessible", "VpcSecurityGroups", "DeletionProtection",
        "MaxAllocatedStorage", "StorageType", "Iops", "StorageThroughput",
        "IAMDatabaseAuthenticationEnabled", "EnabledCloudwatchLogsExports",
    )  # fmt: skip
    assert {key: new.get(key) for key in same} == {key: old.get(key) for key in same}
    assert new["DBSubnetGroup"]["DBSubnetGroupName"] == old["DBSubnetGroup"]["DBSubnetGroupName"]
    assert new["DBParameterGroups"][0]["DBParameterGroupName"] == f"{NAME}-17"
    assert {"Key": "Project", "Value": "eav-platform"} in new["TagList"]
    assert left(aws_only.run(undone, execute=False)).state == "next"  # type: ignore[union-attr]
    assert left(aws_only.run(undone)) is None
    assert aws_only.instances() == before


def test_the_restored_instance_takes_over(stack: Running, database: Database) -> None:
    before = stack.instances()
    to_the_end(stack, database)
    after = stack.instances()
    assert after[f"{NAME}-old1"] == before[NAME]
    assert f"{NAME}-restored" not in after
    assert after[NAME] not in before.values()
    assert (
        database.one("SELECT count(*) FROM ops.job_runs WHERE job = 'adopt-staging' AND status = 'ok'") == 1
    )
    assert left(stack.run(taking_over)) is None
    # The next `pulumi up` takes away tags that it does not know.
    arn = stack.rds.describe_db_instances(DBInstanceIdentifier=NAME)["DBInstances"][0]["DBInstanceArn"]
    stack.rds.remove_tags_from_resource(ResourceName=arn, TagKeys=[restore.TO])
    assert left(stack.run(taking_over)) is None
    assert left(stack.run(undone)).state == "refused"  # type: ignore[union-attr]


def test_killed_at_every_step_it_goes_on(stack: Running, database: Database) -> None:
    """Before each step and change, and when it was done and nobody knows."""
    before = stack.instances()
    stack.mortal = True
    to_the_end(stack, database)
    after = stack.instances()
    assert after[f"{NAME}-old1"] == before[NAME]
    assert set(after) == {*before, f"{NAME}-old1"}
    assert after[NAME] != before[NAME]
    # Before four steps, before and after four changes that AWS is asked for, and after the one in the database.
    assert len(stack.deaths) == 13
    assert stack.changes.count("RestoreDBInstanceToPointInTime") == 1
    assert stack.changes.count("ModifyDBInstance") == 2


def test_it_waits_while_aws_is_at_work(aws_only: Running) -> None:
    made = models.DBInstance.__init__

    def creating(self: Any, *arguments: Any, **settings: Any) -> None:
        made(self, *arguments, **settings)
        self.status = "creating"

    def a_minute_later() -> None:
        if aws_only.minutes > 30:
            aws_only.backend.databases[f"{NAME}-restored"].status = "available"

    aws_only.slept = a_minute_later
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.DBInstance, "__init__", creating)
        assert left(aws_only.run(beside)).title == "look at it"  # type: ignore[union-attr]
    assert aws_only.minutes > 30


def test_a_change_of_names_that_is_under_way_is_not_asked_for_again(aws_only: Running) -> None:
    aws_only.run(beside)
    found = aws_only.backend.databases[NAME]
    (aside,) = (step for step in taking_over(aws_only.site()) if step.title == f"{NAME} becomes {NAME}-old1")
    assert aside.look().state == "next"
    found.status = "renaming"
    assert aside.look() == Found("waits", f"{NAME} is renaming")


@pytest.mark.parametrize(
    ("at", "state"),
    [
        ("tagged", "by hand"),
        ("accepted", "refused"),
        ("renaming", "waits"),
        ("upgrading", "waits"),
        ("between the names", "refused"),
    ],
)
def test_what_is_taking_over_is_not_deleted(
    aws_only: Running, monkeypatch: pytest.MonkeyPatch, at: str, state: str
) -> None:
    # For a minute after the change of names was asked for, nothing bears the new one.
    aws_only.run(beside)
    base = aws_only.backend.databases[NAME]
    if at == "tagged":
        monkeypatch.setattr(Restore, "_rename", killed)
        with pytest.raises(KilledError):
            Restore(aws_only.site(), TO)._set_aside()
    elif at == "accepted":
        pending = {"DBInstanceIdentifier": f"{NAME}-old1"}
        monkeypatch.setattr(base, "pending_modified_values", pending, raising=False)
    elif at == "between the names":
        del aws_only.backend.databases[NAME]
    else:
        base.status = at
    found = left(aws_only.run(undone, execute=False))
    assert found
    assert (found.title, found.state) == ("it has not taken over", state)
    assert f"{NAME}-restored" in aws_only.backend.databases
    if at == "tagged":  # by one that was killed there, as a person finds out
        assert f"--tag-keys {restore.REPLACED}" in found.detail
        # The one that runs is not taken for a restored one then.
        base.tags = [one for one in base.tags if one["Key"] != restore.REPLACED]
        assert left(aws_only.run(taking_over)).title == "roles may log in there"  # type: ignore[union-attr]
        assert left(aws_only.run(undone)) is None
        assert left(aws_only.run(beside, execute=False)).state == "next"  # type: ignore[union-attr]


def test_one_that_was_put_back_by_names_can_be_restored_beside_again(
    stack: Running, database: Database
) -> None:
    """It keeps the mark of having been replaced, by another."""
    before = stack.instances()
    to_the_end(stack, database)
    databases = stack.backend.databases
    for name, to in ((NAME, "newer"), (f"{NAME}-old1", NAME)):
        databases[to] = databases.pop(name)
        databases[to].db_instance_identifier = to
    stack.backend.database_snapshots.clear()  # the emulator names those of a restored one by the minute
    assert left(stack.run(beside)).title == "look at it"  # type: ignore[union-attr]
    assert left(stack.run(undone)) is None
    assert stack.instances() == {**before, "newer": databases["newer"].dbi_resource_id}


def test_both_at_once_leave_each_other_alone(aws_only: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """One takes over between the last look of an --abort and what it does, and the other way round."""
    before = aws_only.instances()
    aws_only.run(beside)
    one, other = (Restore(aws_only.site(), TO) for _ in range(2))

    def meanwhile(name: str, to: str) -> None:
        with pytest.raises(InfraError, match=r"not now: .* is marked to be set aside"):
            other._delete()
        monkeypatch.undo()
        one._rename(name, to)

    monkeypatch.setattr(one, "_rename", meanwhile)
    one._set_aside()
    assert aws_only.instances()[f"{NAME}-old1"] == before[NAME]
    assert aws_only.backend.databases[f"{NAME}-restored"].deletion_protection
    other._rename(f"{NAME}-old1", NAME)
    aws_only.backend.databases[NAME].tags.clear()
    aws_only.backend.databases[f"{NAME}-restored"].deletion_protection = False
    with pytest.raises(InfraError, match=r"not now: .* against being deleted"):
        one._set_aside()
    assert aws_only.backend.databases[NAME].tags == []
    assert set(aws_only.instances()) == {*before, f"{NAME}-restored"}


def test_the_mark_of_another_run_stays(aws_only: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have asked for the name, which RDS then refuses to others."""
    aws_only.run(beside)
    base = aws_only.backend.databases[NAME]
    take_over = Restore(aws_only.site(), TO)

    def refused(self: Restore, name: str, to: str) -> None:
        raise ClientError({"Error": {"Code": "InvalidDBInstanceState"}}, "ModifyDBInstance")

    def marked() -> bool:
        return restore.REPLACED in {one["Key"] for one in base.tags}

    with monkeypatch.context() as patch:
        patch.setattr(Restore, "_rename", refused)
        with pytest.raises(ClientError):
            take_over._set_aside()
    assert marked()
    aws_only.backend.databases[f"{NAME}-restored"].status = "modifying"
    with pytest.raises(InfraError, match="not now"):
        take_over._set_aside()
    assert marked()
    pending = {"DBInstanceIdentifier": f"{NAME}-old1"}
    monkeypatch.setattr(base, "pending_modified_values", pending, raising=False)
    assert take_over._aside() == Found("waits", f"{NAME} is being set aside")


def test_one_that_has_neither_name_nor_mark_gets_its_name_back(stack: Running) -> None:
    stack.run(beside)
    stack.let_in(stack.instances()[f"{NAME}-restored"])
    stack.scale(0)
    Restore(stack.site(), TO)._rename(NAME, f"{NAME}-old1")
    before = stack.instances()
    for steps in (beside, taking_over, undone):
        found = left(stack.run(steps))
        assert found
        assert found.state == "refused"
        assert f"--new-db-instance-identifier {NAME} " in found.detail
    assert stack.instances() == before


def test_a_restore_that_is_over_lets_nothing_of_a_later_upgrade_go(
    stack: Running, database: Database
) -> None:
    to_the_end(stack, database)
    del stack.backend.databases[f"{NAME}-old1"]
    hold.hold(stack.site())
    (base,) = stack.rds.describe_db_instances(DBInstanceIdentifier=NAME)["DBInstances"]
    stack.rds.create_blue_green_deployment(
        BlueGreenDeploymentName=f"{NAME}-18", Source=base["DBInstanceArn"], TargetEngineVersion="18.1"
    )
    stack.scale(0)
    stack.run(taking_over)
    assert hold.counts(stack.site()).held == 2


def test_an_abort_that_was_killed_leaves_none_unprotected_in_its_place(
    stack: Running, database: Database
) -> None:
    stack.run(beside)
    stack.backend.databases[f"{NAME}-restored"].deletion_protection = False
    to_the_end(stack, database)
    assert stack.backend.databases[NAME].deletion_protection


def test_the_only_copy_is_not_in_the_way(aws_only: Running) -> None:
    aws_only.run(beside)
    Restore(aws_only.site(), TO)._set_aside()
    found = left(aws_only.run(beside, execute=False))
    assert found
    assert (found.state, "go on with --take-over" in found.detail) == ("refused", True)
    del aws_only.backend.databases[f"{NAME}-restored"]
    for steps in (beside, taking_over):
        found = left(aws_only.run(steps))
        assert found
        assert found.state == "refused"
        assert "give the old one its name back" in found.detail
        assert "delete" not in found.detail


def test_what_was_held_at_that_moment_goes_on(stack: Running, database: Database) -> None:
    hold.hold(stack.site())
    assert hold.counts(stack.site()).in_part == 2
    to_the_end(stack, database)
    assert hold.counts(stack.site()).in_part == 0


def test_one_that_is_lost_between_the_names_is_not_waited_for(aws_only: Running) -> None:
    aws_only.run(beside)
    restore_ = Restore(aws_only.site(), TO)
    restore_._set_aside()
    aws_only.backend.databases[f"{NAME}-restored"].status = "failed"
    for found in (restore_._in_place(), restore_._restored(take_over=True)):
        assert found.state == "refused"
        assert "the way back is by names" in found.detail
    aws_only.backend.databases[f"{NAME}-restored"].status = "backing-up"
    assert restore_._in_place().state == "next"


def test_a_replica_that_is_lost_is_not_waited_for(aws_only: Running) -> None:
    replicas = Restore(aws_only.site(), TO)._replicas
    assert replicas().state == "done"
    replica = aws_only.backend.databases[f"{NAME}-replica-1"]
    replica.status = "creating"
    assert replicas() == Found("waits", f"{NAME}-replica-1 is creating")
    replica.status = "incompatible-network"
    assert replicas().state == "refused"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("storage-optimization", "done"),
        ("creating", "waits"),
        ("incompatible-restore", "refused"),
        ("failed", "refused"),
    ],
)
def test_what_the_restored_instance_is_in(aws_only: Running, status: str, state: str) -> None:
    aws_only.run(beside)
    aws_only.backend.databases[f"{NAME}-restored"].status = status
    assert beside(aws_only.site())[1].look().state == state
    gone = undone(aws_only.site())[1].look()
    assert gone.state == ("waits" if status == "creating" else "next")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("storage-full", "next"),
        ("failed", "next"),
        ("inaccessible-encryption-credentials-recoverable", "next"),
        ("stopped", "refused"),  # RDS changes nothing of it
    ],
)
def test_one_that_is_unwell_is_replaced_all_the_same(aws_only: Running, status: str, state: str) -> None:
    aws_only.run(beside)
    aws_only.backend.databases[NAME].status = status
    (aside,) = (step for step in taking_over(aws_only.site()) if step.title == f"{NAME} becomes {NAME}-old1")
    assert aside.look().state == state
    assert undone(aws_only.site())[0].look() == Found("done", f"{NAME} is {status}")


def test_what_somebody_undoes_meanwhile_is_not_done_again(aws_only: Running) -> None:
    aws_only.run(beside)
    restored = aws_only.backend.databases[f"{NAME}-restored"]
    restored.status = "creating"

    def somebody_else() -> None:
        aws_only.backend.databases.pop(f"{NAME}-restored", None)

    aws_only.slept = somebody_else
    found = left(aws_only.run(beside))
    assert found
    assert (found.state, "undone by somebody" in found.detail) == ("refused", True)
    assert aws_only.changes.count("RestoreDBInstanceToPointInTime") == 1


def test_one_that_took_over_is_no_copy_to_look_at(stack: Running, database: Database) -> None:
    to_the_end(stack, database)
    del stack.backend.databases[f"{NAME}-old1"]
    found = left(stack.run(beside))
    assert found
    assert (found.title, found.state) == ("the restored instance", "refused")
    assert "took over" in found.detail
    arn = stack.rds.describe_db_instances(DBInstanceIdentifier=NAME)["DBInstances"][0]["DBInstanceArn"]
    stack.rds.remove_tags_from_resource(ResourceName=arn, TagKeys=[restore.TO])
    stack.backend.database_snapshots.clear()  # the emulator names those of a restored one by the minute
    assert left(stack.run(beside)).title == "look at it"  # type: ignore[union-attr]


def test_one_that_is_being_made_can_be_given_up(aws_only: Running) -> None:
    aws_only.run(beside)
    restored = aws_only.backend.databases[f"{NAME}-restored"]
    restored.status = "creating"

    def made() -> None:
        restored.status = "available"

    aws_only.slept = made
    assert left(aws_only.run(undone)) is None
    assert f"{NAME}-restored" not in aws_only.instances()


def test_what_is_not_adopted_here_is_not_taken_for_adopted(stack: Running, database: Database) -> None:
    """A run of the job from before the restored instance is of the old one; a server from before it is the old one."""
    (instance,) = stack.rds.describe_db_instances(DBInstanceIdentifier=NAME)["DBInstances"]
    site = stack.site()
    assert site.adopted(instance).state == "next"
    site.adopt()
    assert site.adopted(instance).state == "done"
    database.all("UPDATE ops.job_runs SET started_at = started_at - interval '3 years' RETURNING 1")
    assert site.adopted(instance).state == "next"
    stack.backend.databases[NAME].instance_create_time = datetime.now(UTC) + timedelta(hours=1)
    (instance,) = stack.rds.describe_db_instances(DBInstanceIdentifier=NAME)["DBInstances"]
    assert site.adopted(instance).state == "by hand"


def test_a_time_that_backups_do_not_reach(aws_only: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    window = {"EarliestTime": now - timedelta(days=35), "LatestTime": now - timedelta(minutes=5)}
    other = {"EarliestTime": now - timedelta(days=99), "LatestTime": now}
    site = aws_only.site()
    backups = [
        {"DbiResourceId": "db-OFTHENAMEBEFORE", "RestoreWindow": other},
        {"DbiResourceId": aws_only.instances()[NAME], "RestoreWindow": window},
    ]
    # The emulator has the backups and not their window.
    monkeypatch.setattr(
        site.rds,
        "describe_db_instance_automated_backups",
        lambda **_: {"DBInstanceAutomatedBackups": backups},
    )

    def look(ago: timedelta) -> tuple[str, str]:
        found = Restore(site, now - ago).steps(take_over=False)[0].look()
        return found.state, found.detail

    state, detail = look(timedelta(days=-1))
    assert (state, "in the future" in detail) == ("refused", True)
    state, detail = look(timedelta(days=40))
    assert (state, "the first that backups reach" in detail) == ("refused", True)
    state, detail = look(timedelta(minutes=4))
    assert (state, "every five minutes" in detail) == ("waits", True)
    assert look(timedelta(days=34))[0] == "done"
    aws_only.backend.databases[NAME].status = "failed"
    state, detail = look(timedelta(minutes=4))
    assert (state, "and no further" in detail) == ("refused", True)
    del backups[:]
    aws_only.backend.databases[NAME].backup_retention_period = 0
    assert look(timedelta(days=34)) == ("refused", f"{NAME} has no backup (backup_days)")


def test_another_restore_or_an_old_instance_is_in_the_way(aws_only: Running) -> None:
    aws_only.run(beside)
    other = lambda site: Restore(site, TO - timedelta(hours=2)).steps(take_over=True)  # noqa: E731
    assert "restored to" in left(aws_only.run(other)).detail  # type: ignore[union-attr]
    other_undone = lambda site: Restore(site, TO - timedelta(hours=2)).undo()  # noqa: E731
    assert left(aws_only.run(other_undone)).state == "refused"  # type: ignore[union-attr]
    assert left(aws_only.run(undone)) is None
    aws_only.rds.create_db_instance(
        DBInstanceIdentifier=f"{NAME}-old1",
        DBInstanceClass="db.t4g.large",
        Engine="postgres",
        AllocatedStorage=100,
    )
    found = left(aws_only.run(beside))
    assert found
    assert found.state == "refused"
    assert f"{NAME}-old1" in found.detail
    unknown = aws_only.backend.databases.pop(f"{NAME}-old1")
    unknown.db_instance_identifier = f"{NAME}-restored"
    aws_only.backend.databases[f"{NAME}-restored"] = unknown
    found = left(aws_only.run(beside))
    assert found
    assert (found.state, "of no restore of this kind" in found.detail) == ("refused", True)


def test_it_says_what_scripts_and_people_need(aws_only: Running, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prod", "--to", TO.isoformat()]
    assert restore.main(command, site=aws_only.site()) == 3
    assert "--execute" in capsys.readouterr().out
    assert restore.main([*command, "--json", "--execute"], site=aws_only.site()) == 4
    assert [one["state"] for one in json.loads(capsys.readouterr().out)] == ["done", "done", "by hand"]


@pytest.mark.parametrize("text", ["yesterday", "2026-11-22", "2026-11-22T09:41:00", "2026-11-22T09:41:00.5Z"])
def test_a_time_must_be_exact(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        restore.main(["prod", "--to", text])
    assert ended.value.code == 2
    assert "argument --to: must " in capsys.readouterr().err


def test_a_time_is_taken_in_utc() -> None:
    assert moment("2026-11-22T10:41:00+01:00") == datetime(2026, 11, 22, 9, 41, tzinfo=UTC)
