"""A major version of PostgreSQL by RDS's blue/green: green is made beside blue, follows it, and takes its place.

Blue serves until the switch, which takes about a minute. What green follows by is logical replication: rows, no DDL. So
partitions are made ahead and then held, and no migration runs, until the switch or --abort. It stops before the switch
until --switch says that somebody has looked at green.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg import conninfo, sql

from infra import hold
from infra.errors import InfraError
from infra.naming import Names
from infra.operation import (
    Found,
    Instance,
    Site,
    Step,
    arguments,
    by_hand,
    carry_out,
    done,
    refused,
    server_major,
    todo,
    unready,
    waits,
)

SWITCH_SECONDS: Final = 300
LAG_BYTES: Final = 16 * 2**20
"""Of WAL that green has not confirmed, when the switch may begin: a segment, a second or two of the design load."""
FREE_SHARE: Final = 0.25
"""Of the disk: the slots that green reads from may hold a fifth (max_slot_wal_keep_size), the rest is to work with."""
SNAPSHOT_SERVES: Final = timedelta(days=1)
"""How old the snapshot may be that is made before green."""
AHEAD: Final = timedelta(days=1)
"""That partitions must be made ahead when green is begun with, and at least until the switch."""

MAKING: Final = """
    SELECT r.job
    FROM ops.job_runs AS r
    INNER JOIN pg_stat_activity AS a ON r.pid = a.pid AND a.backend_start <= r.started_at
    WHERE r.status = 'running'
        AND r.job IN ('archive-partitions', 'compact', 'expire-partitions', 'maintain-partitions')
    ORDER BY r.job
"""
"""Runs of jobs that do DDL, of backends that live."""

# pg_cron can be upgraded along without its library being loaded, but not updated: that is for when its group is back.
OUTDATED: Final = """
    SELECT name::text
    FROM pg_available_extensions
    WHERE installed_version <> default_version
        AND (name <> 'pg_cron' OR current_setting('shared_preload_libraries') LIKE '%pg_cron%')
"""
UNGRANTED: Final = """
    SELECT c.oid::regclass::text
    FROM pg_class AS c
    WHERE c.relnamespace = 'partman'::regnamespace AND c.relkind IN ('r', 'p')
        AND NOT has_table_privilege('eav_owner', c.oid, 'SELECT, INSERT, UPDATE, DELETE')
    UNION ALL
    SELECT p.oid::regprocedure::text
    FROM pg_proc AS p
    WHERE p.pronamespace = 'partman'::regnamespace AND NOT has_function_privilege('eav_owner', p.oid, 'EXECUTE')
"""
GRANTS: Final = (
    "GRANT USAGE, CREATE ON SCHEMA partman TO eav_owner",
    "GRANT ALL ON ALL TABLES IN SCHEMA partman TO eav_owner",
    "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partman TO eav_owner",
)
"""Of the first revision. The update of pg_partman from 4.7 to 5 makes its tables anew, without them: then maintenance
is refused, and no partition is made any more."""

HINDRANCES: Final = {
    "logical slots, whose readers begin anew afterwards (stop the reader, pg_drop_replication_slot)": (
        "SELECT slot_name::text FROM pg_replication_slots WHERE slot_type = 'logical'"
    ),
    "prepared transactions (COMMIT PREPARED or ROLLBACK PREPARED)": "SELECT gid FROM pg_prepared_xacts",
    "invalid databases (drop them)": "SELECT datname::text FROM pg_database WHERE datconnlimit = -2",
    "columns of types that pg_upgrade refuses (ALTER them to text)": (
        "SELECT format('%s.%I %s', c.oid::regclass, a.attname, a.atttypid::regtype) FROM pg_attribute AS a"
        " INNER JOIN pg_class AS c ON a.attrelid = c.oid INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid"
        " WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm')"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'"
        " AND a.atttypid IN ('regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype,"
        " 'regoperator'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype, 'regnamespace'::regtype,"
        " 'regcollation'::regtype)"
    ),
    # With a publication of all tables PostgreSQL refuses each UPDATE and DELETE of such a table, on blue. Slots of
    # staging are emptied by TRUNCATE, but for eav.adopt_staging().
    "tables that are changed and have neither a primary key nor REPLICA IDENTITY": (
        "SELECT c.oid::regclass::text FROM pg_class AS c INNER JOIN pg_stat_user_tables AS s ON c.oid = s.relid"
        " WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident = 'd' AND s.n_tup_upd + s.n_tup_del > 0"
        " AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)"
        " AND NOT (s.schemaname = 'eav' AND s.relname LIKE 'staging\\_%')"
    ),
    "transactions that are open for longer than 10 minutes (pid)": (
        "SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'client backend'"
        " AND xact_start < now() - interval '10 minutes'"
    ),
    "compactions that were begun (python -m jobs run compact)": (
        "SELECT partition FROM ops.compactions WHERE status IN ('copying', 'copied')"
    ),
    "settings: wal_level must be logical (rds.logical_replication)": (
        "SELECT current_setting('wal_level') WHERE current_setting('wal_level') <> 'logical'"
    ),
    "settings: max_replication_slots must leave one for each database": (
        "SELECT current_setting('max_replication_slots') WHERE current_setting('max_replication_slots')::int"
        " < (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_database WHERE datallowconn)"
    ),
}
"""What → a query whose rows name it."""


class Upgrade:
    """The upgrade of one stack's database to `to`, such as 18.1."""

    def __init__(self, site: Site, to: str) -> None:
        self.site, self.to = site, to
        self.major = int(to.split(".")[0])
        self.name = site.primary
        self.deployment = f"{self.name}-{self.major}"
        self.group = Names(site.stack).of(f"postgres-{self.major}")
        self.green_group = f"{self.group}-green"

    def steps(self, *, switch: bool) -> list[Step]:
        """In the order in which they need each other. switch: somebody has looked at green."""
        managed = self.site.settings.managed_master
        before = [
            Step(f"there is a way to {self.to}", self._checked(self._way)),
            Step("RDS can copy it", self._checked(self._copyable)),
            Step(f"the group of version {self.major}", self._checked(self._prepared)),
            Step("green's group, without pg_cron", self._checked(self._grouped), self._make_group),
            Step("extensions are up to date", self._checked(self._extended), self._extend),
            Step("nothing in the database hinders", self._checked(self._unhindered)),
            *(
                [
                    Step(
                        "a password for the time being",
                        self._checked(self._unmanaged),
                        self._unmanage,
                        after_waiting=True,
                    )
                ]
                if managed
                else []
            ),
            Step(
                "partitions are made ahead, and held", self._checked(self._held), lambda: hold.hold(self.site)
            ),
            Step("a snapshot", self._checked(self._snapshot), self._make_snapshot),
            Step("green", self._before(self._green), self._make_green),
            Step("green is protected as blue is", self._before(self._protected), self._protect),
            Step("roles may log in at green", self._before(self._lets_in)),
            Step("green is looked at", self._before(lambda: self._looked_at(switch=switch))),
            Step("what writes is stopped", self._before(lambda: self.site.writers(wanted="stopped"))),
            Step("nothing is staged", self._before(self._staged), self._flush),
            Step("green has caught up", self._before(self._following)),
            Step("the switch", self._switched_over, self._switch),
        ]
        after = [
            Step(
                "staging is adopted",
                lambda: self.site.adopted(self.site.existing(self.name), major=self.major),
                self.site.adopt,
            ),
            Step("extensions are up to date", self._extended, self._extend),
            Step("statistics", self._analyzed, self._analyze),
            self._released(),
            Step(
                "the archive is taken over",
                lambda: self.site.archive_adopted(self.site.existing(self.name)),
            ),
            # No step after it asks the database, whose password then is another; the program reads its secret.
            *([self._managed_again()] if managed else []),
            Step("the stack knows the instances", self._known),
            Step(f"the group of version {self.major} is in use", self._regrouped),
            Step("what writes runs again", lambda: self.site.writers(wanted="running")),
        ]
        return before + after

    def undo(self) -> list[Step]:
        """The way back before the switch."""
        return [
            Step("it has not switched", self._unswitched),
            Step("green is deleted", self._gone, self._delete, after_waiting=True),
            self._released(),
            *([self._managed_again()] if self.site.settings.managed_master else []),
            Step("green's group is deleted", self._ungrouped, self._delete_group, after_waiting=True),
            Step("the settings are as before", self._unset),
        ]

    def _released(self) -> Step:
        return Step(
            "partitions are made and leave again",
            lambda: hold.let_go(self.site),
            lambda: hold.release(self.site),
        )

    def _managed_again(self) -> Step:
        return Step("the password is AWS's again", self._managed, self._manage, after_waiting=True)

    # -- where it stands -------------------------------------------------------------------------------------

    def _deployment(self) -> dict[str, Any] | None:
        filters = [{"Name": "blue-green-deployment-name", "Values": [self.deployment]}]
        found = self.site.rds.describe_blue_green_deployments(Filters=filters)["BlueGreenDeployments"]
        return found[0] if found else None

    def _has_switched(self) -> bool:
        found = self._deployment()
        if found is not None and found["Status"] != "DELETING":
            return bool(found["Status"] == "SWITCHOVER_COMPLETED")
        # The deployment may be deleted afterwards. Without blue beside it, it may have been any other upgrade.
        old = self.site.instance(f"{self.name}-old1")
        return bool(old and _major(old) < self.major == _major(self.site.existing(self.name)))

    def _before(self, look: Callable[[], Found]) -> Callable[[], Found]:
        """A step that is over with the switch, and when it has begun."""

        def over() -> Found:
            found = self._deployment()
            if found and found["Status"] == "SWITCHOVER_IN_PROGRESS":
                return done("the switch is under way")
            return done("the switch is over") if self._has_switched() else look()

        return over

    def _checked(self, look: Callable[[], Found]) -> Callable[[], Found]:
        """A step that is over when green is there."""
        return self._before(lambda: done("green is there") if self._deployment() else look())

    def _pairs(self) -> list[tuple[Instance, Instance]]:
        """Blue and green instances."""
        found = self._deployment()
        pairs = []
        for one in found.get("SwitchoverDetails") or () if found else ():
            # ARNs, both optional: the target has none until it is made.
            members = [one.get(f"{which}Member") for which in ("Source", "Target")]
            blue, green = (self.site.instance(member) if member else None for member in members)
            if blue and green:
                pairs.append((blue, green))
        return pairs

    # -- before green ----------------------------------------------------------------------------------------

    def _way(self) -> Found:
        running = self.site.existing(self.name)["EngineVersion"]
        if self.major <= int(running.split(".")[0]):
            return refused(f"{self.name} runs {running} already: {self.to} is no newer major version")
        shown = self.site.rds.describe_db_engine_versions(Engine="postgres", EngineVersion=running)
        targets = [
            one["EngineVersion"]
            for each in shown["DBEngineVersions"]
            for one in each.get("ValidUpgradeTarget") or ()
        ]
        if self.to not in targets:
            newer = [one for one in targets if int(one.split(".")[0]) > int(running.split(".")[0])]
            return refused(
                f"from {running} there is no way to {self.to}, but to {', '.join(newer) or 'none'}"
            )
        return done(f"from {running}")

    def _copyable(self) -> Found:
        base = self.site.existing(self.name)
        for one in (base, *map(self.site.existing, self.site.replicas)):
            if found := unready(one):
                return found
        if base.get("PendingModifiedValues"):
            return refused(f"{self.name} has pending changes: {', '.join(base['PendingModifiedValues'])}")
        if not base.get("BackupRetentionPeriod"):
            return refused(f"{self.name} has no backups (backup_days)")
        if self.site.instance(f"{self.name}-old1"):
            return refused(
                f"{self.name}-old1 is there from before: give it another name, or delete it, first"
            )
        states = [one["ParameterApplyStatus"] for one in base["DBParameterGroups"]]
        if states != ["in-sync"]:
            return refused(f"{self.name}: its parameters are {', '.join(states)}: restart it first")
        if other := self.site.deployments(base):
            return refused(f"there is a blue/green deployment already: {other[0]}")
        return self._space(base)

    def _space(self, base: Instance) -> Found:
        now = datetime.now(UTC)
        points = self.site.aws("cloudwatch").get_metric_statistics(
            Namespace="AWS/RDS",
            MetricName="FreeStorageSpace",
            Dimensions=[{"Name": "DBInstanceIdentifier", "Value": self.name}],
            StartTime=now - timedelta(minutes=15),
            EndTime=now,
            Period=60,
            Statistics=["Minimum"],
        )["Datapoints"]
        if not points:
            return waits(f"CloudWatch has said nothing of the disk of {self.name} for 15 minutes")
        share = min(point["Minimum"] for point in points) / (base["AllocatedStorage"] * 2**30)
        if share < FREE_SHARE:
            return refused(
                f"{share:.0%} of the disk is free, and must be {FREE_SHARE:.0%}: log that green has not read yet stays"
                " on blue (raise storage_gb)"
            )
        return done(f"{share:.0%} of {base['AllocatedStorage']} GiB is free")

    def _parameters(self, group: str) -> dict[str, str] | None:
        """Of a parameter group; None if there is no such group."""
        rds = self.site.rds
        try:
            pages = rds.get_paginator("describe_db_parameters").paginate(DBParameterGroupName=group)
            return {
                one["ParameterName"]: one.get("ParameterValue", "")
                for page in pages
                for one in page["Parameters"]
            }
        except rds.exceptions.DBParameterGroupNotFoundFault:
            return None

    def _prepared(self) -> Found:
        if self._parameters(self.group) is None:
            return by_hand(f"{self.site.file}: postgres.next_major: {self.major}, pulumi up")
        return done(self.group)

    def _grouped(self) -> Found:
        found = self._parameters(self.green_group)
        if found is None or "pg_cron" in _listed(found.get("shared_preload_libraries", "")):
            return todo(
                f"{self.green_group}, a copy of {self.group}: green must not run the schedule as well"
            )
        return done(self.green_group)

    def _make_group(self) -> None:
        rds, wanted = self.site.rds, self._parameters(self.group) or {}
        if self._parameters(self.green_group) is None:
            rds.copy_db_parameter_group(
                SourceDBParameterGroupIdentifier=self.group,
                TargetDBParameterGroupIdentifier=self.green_group,
                TargetDBParameterGroupDescription="Of green, for the time of a blue/green deployment",
            )
        kept = [one for one in _listed(wanted.get("shared_preload_libraries", "")) if one != "pg_cron"]
        rds.modify_db_parameter_group(
            DBParameterGroupName=self.green_group,
            Parameters=[
                {
                    "ParameterName": "shared_preload_libraries",
                    "ParameterValue": ",".join(kept),
                    "ApplyMethod": "pending-reboot",
                }
            ],
        )

    def _extended(self) -> Found:
        outdated = [name for (name,) in self.site.ask(OUTDATED)]
        ungranted = self.site.ask(UNGRANTED)
        if outdated or ungranted:
            return todo(
                "; ".join(
                    [f"ALTER EXTENSION {name} UPDATE" for name in outdated]
                    + ["the rights of eav_owner in partman"]
                )
            )
        return done("all of them")

    def _extend(self) -> None:
        with self.site.database() as connection, connection.transaction():
            for (name,) in connection.execute(OUTDATED.encode()).fetchall():
                connection.execute(sql.SQL("ALTER EXTENSION {} UPDATE").format(sql.Identifier(name)))
            for statement in GRANTS:
                connection.execute(statement.encode())

    def _unhindered(self) -> Found:
        problems = []
        with self.site.database() as connection:
            version, running = server_major(connection), _major(self.site.existing(self.name))
            if version != running:
                raise InfraError(f"DATABASE_URL leads to PostgreSQL {version}, {self.name} is {running}")
            for what, query in HINDRANCES.items():
                if names := [str(name) for (name,) in connection.execute(query.encode())]:
                    problems.append(f"{what}: {', '.join(sorted(names))}")
            used = {name for (name,) in connection.execute("SELECT extname::text FROM pg_extension")}
        offered = _listed((self._parameters(self.group) or {}).get("rds.extensions", ""))
        if missing := used - set(offered) - {"plpgsql"}:
            problems.append(
                f"extensions that {self.group} (rds.extensions) does not name: {', '.join(sorted(missing))}"
            )
        return refused("; ".join(problems)) if problems else done(f"{len(HINDRANCES) + 1} checks")

    def _unmanaged(self) -> Found:
        base = self.site.existing(self.name)
        if found := unready(base):
            return found
        if base.get("MasterUserSecret"):
            return todo(
                "RDS makes no green of an instance whose password it keeps: it gets the one of DATABASE_URL for good,"
                " and its secret goes"
            )
        return done("RDS keeps no secret of it")

    def _unmanage(self) -> None:
        parts = conninfo.conninfo_to_dict(self.site.database_url or "")
        if parts.get("user") != self.site.existing(self.name)["MasterUsername"] or not parts.get("password"):
            raise InfraError(
                "DATABASE_URL must have the master and its password, which stays the same by this"
            )
        self.site.rds.modify_db_instance(
            DBInstanceIdentifier=self.name,
            ManageMasterUserPassword=False,
            MasterUserPassword=parts["password"],
            ApplyImmediately=True,
        )

    def _held(self) -> Found:
        found = hold.counts(self.site)
        if found.held < found.all:
            return todo(
                "make partitions, and then none, compact none, let none leave: no DDL until the switch or --abort. No"
                " migration, no restore-partition, no turn of an attribute's type meanwhile"
            )
        if running := [job for (job,) in self.site.ask(MAKING)]:
            return waits(f"{', '.join(running)} began before and is not over")
        if found.ahead < AHEAD:
            return refused(f"partitions are ahead for {_hours(found.ahead)} only: --abort, then begin again")
        return done(
            f"{found.held} tables, ahead for {_hours(found.ahead)}: so long is there until the switch"
        )

    def _snapshot(self) -> Found:
        pages = self.site.rds.get_paginator("describe_db_snapshots").paginate(
            DBInstanceIdentifier=self.name, SnapshotType="manual"
        )
        for found in (one for page in pages for one in page["DBSnapshots"]):
            name, began = found["DBSnapshotIdentifier"], found.get("SnapshotCreateTime")
            # That of an attempt that was given up is of another day.
            old = bool(began) and datetime.now(UTC) - began > SNAPSHOT_SERVES
            if not name.startswith(f"{self.name}-before-{self.major}-") or (
                old and found["Status"] != "creating"
            ):
                continue
            if found["Status"] == "failed":
                return refused(f"{name} failed: delete it, then run this again")
            if found["Status"] != "available":
                return waits(f"{name} is {found['Status']}, {found.get('PercentProgress', 0)} %")
            return done(f"{name} of {began:%F %T}" if began else name)
        return todo(
            f"{self.name}-before-{self.major}-…; hours for terabytes the first time, minutes after a backup"
        )

    def _make_snapshot(self) -> None:
        self.site.rds.create_db_snapshot(
            DBInstanceIdentifier=self.name,
            DBSnapshotIdentifier=f"{self.name}-before-{self.major}-{datetime.now(UTC):%Y%m%d%H%M}",
        )

    # -- green -----------------------------------------------------------------------------------------------

    def _green(self) -> Found:
        found = self._deployment()
        if found is None:
            return todo(
                f"{self.deployment}: a copy of each instance, upgraded to {self.to}; hours for terabytes"
            )
        status, details = found["Status"], found.get("StatusDetails") or ""
        if status in ("INVALID_CONFIGURATION", "PROVISIONING_FAILED") or "degraded" in details.lower():
            return refused(
                f"green is {status} ({details}): look for DDL that ran, then --abort and begin again"
            )
        if status not in ("AVAILABLE", "SWITCHOVER_IN_PROGRESS", "SWITCHOVER_FAILED"):
            tasks = [one["Name"] for one in found.get("Tasks") or () if one.get("Status") == "IN_PROGRESS"]
            return waits(f"{self.deployment} is {status}: {', '.join(tasks) or details}")
        pairs = self._pairs()
        blue = {one["DBInstanceIdentifier"] for one, _ in pairs}
        if missing := {self.name, *self.site.replicas} - blue:
            return refused(
                f"green of {', '.join(sorted(missing))} is not there: if it stays so, --abort and begin again"
            )
        if lost := [one for _, green in pairs if (one := unready(green)) and one.state == "refused"]:
            return refused(f"{lost[0].detail}; --abort and begin again")
        held = hold.counts(self.site)
        if held.held < held.all:
            return refused("partitions are held no longer, and green gets no DDL: --abort and begin again")
        if held.ahead <= timedelta(0):
            return refused("the partitions that were made ahead are used up: --abort and begin again")
        names = [green["DBInstanceIdentifier"] for _, green in pairs]
        return done(f"{', '.join(names)}; {_hours(held.ahead)} until the switch")

    def _make_green(self) -> None:
        self.site.rds.create_blue_green_deployment(
            BlueGreenDeploymentName=self.deployment,
            Source=self.site.existing(self.name)["DBInstanceArn"],
            TargetEngineVersion=self.to,
            TargetDBParameterGroupName=self.green_group,
        )

    def _unprotected(self) -> list[str]:
        return [
            green["DBInstanceIdentifier"]
            for blue, green in self._pairs()
            if blue["DeletionProtection"] and not green["DeletionProtection"]
        ]

    def _protected(self) -> Found:
        """An --abort that was killed takes it off."""
        found = self._unprotected()
        return todo(f"{', '.join(found)} against being deleted") if found else done("it is")

    def _protect(self) -> None:
        for name in self._unprotected():
            self.site.protect(name, on=True)

    def _lets_in(self) -> Found:
        return self.site.lets_in(
            {green["DbiResourceId"]: green["DBInstanceIdentifier"] for _, green in self._pairs()}
        )

    def _looked_at(self, *, switch: bool) -> Found:
        if switch:
            return done("--switch")
        greens = {blue["DBInstanceIdentifier"]: green for blue, green in self._pairs()}
        if (green := greens.get(self.name)) is None:
            return refused(f"green of {self.name} is not there any more")
        return by_hand(
            f"{green['Endpoint']['Address']}, read-only: ANALYZE, your slowest queries, alembic current; then --switch"
        )

    def _staged(self) -> Found:
        ((staged,),) = self.site.ask("SELECT count(*) FROM eav.entity_values_ingest")
        return todo(f"flush {staged} staged values: staging does not go along") if staged else done("none")

    def _flush(self) -> None:
        with self.site.database() as connection:
            while connection.execute("SELECT eav.stage_flush(50000)").fetchall() != [(0,)]:
                pass

    def _following(self) -> Found:
        """One that is degraded meanwhile never catches up."""
        green = self._green()
        return green if green.state != "done" else self._caught_up()

    def _caught_up(self) -> Found:
        slots = self.site.ask(
            "SELECT slot_name::text, active, wal_status,"
            " pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint"
            " FROM pg_replication_slots WHERE slot_type = 'logical'"
        )
        if not slots:
            return refused("blue has no logical slot: green does not follow it; --abort and begin again")
        if lost := [name for name, _, status, _ in slots if status == "lost"]:
            return refused(f"{', '.join(lost)} lost what it had not read: --abort and begin again")
        if idle := [name for name, active, _, lag in slots if not active or lag is None]:
            return waits(f"nobody reads {', '.join(idle)}")
        lag = max(lag for *_, lag in slots)
        if lag > LAG_BYTES:
            return waits(f"green is {lag / 2**20:.0f} MiB behind")
        return done(f"{lag / 2**20:.1f} MiB behind")

    def _switched_over(self) -> Found:
        if self._has_switched():
            return done("the switch is over")
        found = self._deployment()
        if found is None:
            return refused(f"there is no {self.deployment}")
        if found["Status"] == "SWITCHOVER_IN_PROGRESS":
            return waits(found["Status"])
        failed = " (the last try was undone by RDS)" if found["Status"] == "SWITCHOVER_FAILED" else ""
        return todo(f"about a minute; nothing changes if it cannot in {SWITCH_SECONDS} s{failed}")

    def _switch(self) -> None:
        # What came between the last looks and now: staged values would be lost to sources that cannot be replayed.
        for look in (self._staged, self._caught_up):
            if (found := look()).state != "done":
                raise InfraError(f"not now: {found.detail}: run this again")
        self.site.rds.switchover_blue_green_deployment(
            BlueGreenDeploymentIdentifier=self._identifier(), SwitchoverTimeout=SWITCH_SECONDS
        )

    def _identifier(self) -> str:
        found = self._deployment()
        if found is None:
            raise InfraError(f"there is no {self.deployment}")
        return str(found["BlueGreenDeploymentIdentifier"])

    # -- after the switch ------------------------------------------------------------------------------------

    def _unanalyzed(self) -> list[str]:
        return [
            str(name)
            for (name,) in self.site.ask(
                "SELECT relid::regclass::text FROM pg_stat_user_tables WHERE last_analyze IS NULL"
                " AND last_autoanalyze IS NULL AND pg_relation_size(relid) > 0"
            )
        ]

    def _analyzed(self) -> Found:
        missing = self._unanalyzed()
        return (
            todo(f"ANALYZE of {len(missing)} tables: they do not come along")
            if missing
            else done("there are")
        )

    def _analyze(self) -> None:
        with self.site.database() as connection:
            for name in self._unanalyzed():
                connection.execute(
                    f"ANALYZE {name}".encode()
                )  # as regclass prints it, quoted where it must be

    def _known(self) -> Found:
        pairs = {blue["DbiResourceId"]: green["DbiResourceId"] for blue, green in self._pairs()}
        if not pairs:
            return done(f"{self.deployment} is gone: nobody can ask for it")
        found = self.site.knows(pairs)
        if found.state == "by hand":
            return by_hand(
                f'{found.detail}; {self.site.file}: postgres.engine_version: "{self.major}", no next_major'
            )
        return found

    def _regrouped(self) -> Found:
        groups = [
            (name, one["DBParameterGroupName"], one["ParameterApplyStatus"])
            for name in (self.name, *self.site.replicas)
            for one in self.site.existing(name)["DBParameterGroups"]
        ]
        wrong = [
            f"{name}: {group}, {status}"
            for name, group, status in groups
            if group == self.green_group or status != "in-sync"
        ]
        if wrong:
            return by_hand(f"pulumi up, then restart each (replicas first): {'; '.join(wrong)}")
        return done(self.group)

    def _managed(self) -> Found:
        base = self.site.existing(self.name)
        if found := unready(base):
            return found
        if base.get("MasterUserSecret"):
            return done(str(base["MasterUserSecret"].get("SecretArn", "")))
        return todo("AWS makes, keeps and rotates it")

    def _manage(self) -> None:
        base = self.site.existing(self.name)
        self.site.rds.modify_db_instance(
            DBInstanceIdentifier=self.name,
            ManageMasterUserPassword=True,
            MasterUserSecretKmsKeyId=base["KmsKeyId"],
            ApplyImmediately=True,
        )

    # -- the way back ----------------------------------------------------------------------------------------

    def _unswitched(self) -> Found:
        found = self._deployment()
        if self._has_switched() or (found and found["Status"] == "SWITCHOVER_IN_PROGRESS"):
            return refused("it has: the way back is to -old1 (docs/database-operations.md)")
        # What is held is held for whichever green there is.
        there = self.site.deployments(self.site.existing(self.name))
        if other := [name for name in there if name != self.deployment]:
            major = other[0].removeprefix(f"{self.name}-")
            return refused(
                f"the green that is there is {other[0]}: --to {major}.…"
                if major.isdigit()
                else f"{other[0]} is no green of this kind: delete it first (aws rds delete-blue-green-deployment)"
            )
        return done(f"{self.name} is blue")

    def _gone(self) -> Found:
        found = self._deployment()
        if found is None:
            return done(f"there is no {self.deployment}")
        if found["Status"] in ("DELETING", "PROVISIONING"):
            return waits(f"{self.deployment} is {found['Status']}")
        names = [green["DBInstanceIdentifier"] for _, green in self._pairs()]
        return todo(f"delete {self.deployment} and {', '.join(names) or 'what was made for it'}")

    def _delete(self) -> None:
        for _, green in self._pairs():
            if green["DeletionProtection"]:
                self.site.protect(green["DBInstanceIdentifier"], on=False)
        self.site.rds.delete_blue_green_deployment(
            BlueGreenDeploymentIdentifier=self._identifier(), DeleteTarget=True
        )

    def _ungrouped(self) -> Found:
        if self._parameters(self.green_group) is None:
            return done(f"there is no {self.green_group}")
        using = {
            one["DBInstanceIdentifier"]: one["DBInstanceStatus"]
            for page in self.site.rds.get_paginator("describe_db_instances").paginate()
            for one in page["DBInstances"]
            if any(each["DBParameterGroupName"] == self.green_group for each in one["DBParameterGroups"])
        }
        if used := [name for name, status in using.items() if status != "deleting"]:
            return by_hand(f"{', '.join(used)} uses {self.green_group}: give it another, or delete it")
        return waits(f"{', '.join(using)} is being deleted") if using else todo(self.green_group)

    def _delete_group(self) -> None:
        self.site.rds.delete_db_parameter_group(DBParameterGroupName=self.green_group)

    def _unset(self) -> Found:
        wanted = self.site.settings
        left = [f"next_major: {wanted.next_major}"] if wanted.next_major else []
        left += [f"also_connect: [{', '.join(wanted.also_connect)}]"] if wanted.also_connect else []
        if left:
            return by_hand(f"{self.site.file}: remove postgres.{', postgres.'.join(left)}, pulumi up")
        return done(self.site.file)


def _major(instance: Instance) -> int:
    return int(str(instance["EngineVersion"]).split(".")[0])


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _hours(length: timedelta) -> str:
    return f"{length.total_seconds() / 3600:.0f} h"


def _version(text: str) -> str:
    if not re.fullmatch(r"1[6-9]\.\d{1,2}", text):
        raise argparse.ArgumentTypeError(f"must be major and minor such as 18.1, got {text}")
    return text


def main(argv: Sequence[str] | None = None, *, site: Site | None = None) -> int:
    """`python -m infra upgrade`; returns the exit code. Raises InfraError."""
    parser = argparse.ArgumentParser(prog="python -m infra upgrade", description=(__doc__ or "").strip())
    arguments(parser)
    parser.add_argument("--to", type=_version, required=True, metavar="MAJOR.MINOR", help="such as 18.1")
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--switch", action="store_true", help="green was looked at: go on to the switch and beyond"
    )
    way.add_argument("--abort", action="store_true", help="delete green, and have blue be as it was")
    options = parser.parse_args(argv)

    def plan(found: Site) -> list[Step]:
        upgrade = Upgrade(found, options.to)
        return upgrade.undo() if options.abort else upgrade.steps(switch=options.switch)

    return carry_out(options, f"{options.stack}, to PostgreSQL {options.to}", plan, site=site)
