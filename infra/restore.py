"""Go back to a point in time: a second instance is restored beside the one that runs, and takes its place if asked.

Without --take-over it ends with the restored instance, to look at or to copy rows from. The instance that runs is
changed by nothing but its name; --abort deletes the restored one as long as it has not taken over.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from infra import hold
from infra.errors import InfraError
from infra.operation import (
    LOST,
    TAG,
    Found,
    Instance,
    Site,
    Step,
    arguments,
    busy,
    by_hand,
    carry_out,
    done,
    refused,
    tags_of,
    todo,
    unready,
    waits,
)

TO: Final = f"{TAG}restored-to"
REPLACED: Final = f"{TAG}replaced-by"
RATED_GB: Final = 400
"""From here on gp3 has a rate that can be asked for."""
MOVING: Final = ("modifying", "rebooting", "renaming")
"""States of an instance whose name may be changing."""


class Restore:
    """The restore of one stack's database to one moment (UTC)."""

    def __init__(self, site: Site, to: datetime) -> None:
        self.site, self.to = site, to
        self.name = site.primary
        self.made_name, self.old_name = f"{self.name}-restored", f"{self.name}-old1"
        self.moment = to.strftime("%Y-%m-%dT%H:%M:%SZ")

    def steps(self, *, take_over: bool) -> list[Step]:
        """In the order in which they need each other."""
        found = [
            Step("backups reach that time", self._reachable),
            Step("the restored instance", lambda: self._restored(take_over=take_over), self._restore),
        ]
        if not take_over:
            return [*found, Step("look at it", self._looked_at)]
        return [
            *found,
            Step("roles may log in there", self._lets_in),
            Step("what writes is stopped", self._stopped),
            Step("it is protected as the other is", self._protected, self._protect),
            Step(f"{self.name} becomes {self.old_name}", self._aside, self._set_aside, after_waiting=True),
            Step(
                f"{self.made_name} becomes {self.name}",
                self._in_place,
                self._put_in_place,
                after_waiting=True,
            ),
            Step("staging is adopted", lambda: self.site.adopted(self._made()), self.site.adopt),
            Step("partitions are made and leave again", self._released, lambda: hold.release(self.site)),
            Step("the archive is taken over", lambda: self.site.archive_adopted(self._made())),
            Step("the stack knows the instance", self._known),
            Step("replicas are of it", self._replicas),
            Step("the proxy leads to it", self._proxy),
            Step("what writes runs again", lambda: self.site.writers(wanted="running")),
        ]

    def undo(self) -> list[Step]:
        """The way back before the restored instance has taken over."""
        return [
            Step("it has not taken over", self._still_beside),
            Step("the restored instance is deleted", self._gone, self._delete, after_waiting=True),
        ]

    # -- which is which --------------------------------------------------------------------------------------

    def _old(self) -> Instance | None:
        """The instance that was replaced by one of this moment."""
        found = self.site.instance(self.old_name)
        return found if found and _replaced(found)[1] == self.moment else None

    def _made(self) -> Instance:
        """The restored instance, whatever its name is now. Raises InfraError."""
        found = self._find_made()
        if found is None:
            raise InfraError(f"there is no instance that was restored to {self.moment}")
        return found

    def _find_made(self) -> Instance | None:
        old = self._old()
        if old is not None:
            return self.site.by_resource(_replaced(old)[0])
        # One that took over keeps its tag for a while, and a second copy of that moment may be made.
        both = (self.site.instance(self.made_name), self.site.instance(self.name))
        return next((one for one in both if one and tags_of(one).get(TO) == self.moment), None)

    # -- beside the one that runs ----------------------------------------------------------------------------

    def _reachable(self) -> Found:
        if self._find_made() is not None:
            return done(self.moment)
        if other := self.site.instance(self.made_name):
            to = tags_of(other).get(TO)
            return refused(
                f"{self.made_name} is there, restored to {to}: go on with that time, or --abort with it first"
                if to
                else f"{self.made_name} is there, and of no restore of this kind: give it another name first"
            )
        base = self.site.instance(self.name)
        if base is None:
            return refused(self._nameless())
        if self.site.instance(self.old_name):
            return refused(f"{self.old_name} is there from before: give it another name, or delete it, first")
        if self.to > datetime.now(UTC):
            return refused(f"{self.moment} is in the future")
        earliest, latest = self._window(base)
        if latest is None or not base.get("BackupRetentionPeriod"):
            return refused(f"{self.name} has no backup (backup_days)")
        if earliest and self.to < earliest:
            return refused(f"{self.moment} is before {earliest:%FT%TZ}, the first that backups reach")
        if self.to > latest and base["DBInstanceStatus"] in LOST:
            return refused(
                f"{self.name} is {base['DBInstanceStatus']}, and backups reach {latest:%FT%TZ} and no further"
            )
        if self.to > latest:
            return waits(f"backups reach {latest:%FT%TZ}, and go on every five minutes")
        return done(f"from {earliest:%FT%TZ} to {latest:%FT%TZ}" if earliest else f"to {latest:%FT%TZ}")

    def _window(self, base: Instance) -> tuple[datetime | None, datetime | None]:
        shown = self.site.rds.describe_db_instance_automated_backups(DBInstanceIdentifier=self.name)
        for one in shown["DBInstanceAutomatedBackups"]:
            window = one.get("RestoreWindow") or {}
            # A name that was an other instance's before has backups of both.
            if one.get("DbiResourceId", base["DbiResourceId"]) == base["DbiResourceId"] and window:
                return window.get("EarliestTime"), window.get("LatestTime")
        return None, base.get("LatestRestorableTime")

    def _restored(self, *, take_over: bool) -> Found:
        made = self._find_made()
        if made is None:
            return todo(f"restore {self.name} to {self.moment} as {self.made_name}; hours for terabytes")
        if not take_over and self.site.instance(self.name) is None:
            return refused(
                f"{self.made_name} is taking over: go on with --take-over"
                if self._old()
                else self._nameless()
            )
        if made["DBInstanceIdentifier"] == self.name and not take_over:
            return refused(
                f"{self.name} itself was restored to {self.moment} and took over: there is no copy (for one, take its"
                f" tag {TO} off)"
            )
        return self._ready(made)

    def _ready(self, made: Instance) -> Found:
        if found := unready(made):
            if found.state != "refused":
                return found
            if self._old() is not None:
                return refused(f"{found.detail}; the way back is by names (docs/database-operations.md)")
            # Without the old one there is no way back from one that took over.
            beside = made["DBInstanceIdentifier"] == self.made_name
            return refused(f"{found.detail}; --abort and begin again") if beside else found
        host = (made.get("Endpoint") or {}).get("Address", "")
        return done(f"{made['DBInstanceIdentifier']}, {made['DbiResourceId']}, {host}")

    def _restore(self) -> None:
        self.site.rds.restore_db_instance_to_point_in_time(**self._as(self.site.existing(self.name)))

    def _as(self, base: Instance) -> dict[str, Any]:
        """What to ask for: an instance like this one. What a restore takes no setting for, `pulumi up` sets later."""
        wanted: dict[str, Any] = {
            "SourceDBInstanceIdentifier": self.name,
            "TargetDBInstanceIdentifier": self.made_name,
            "RestoreTime": self.to,
            "DBInstanceClass": base["DBInstanceClass"],
            "MultiAZ": base["MultiAZ"],
            "PubliclyAccessible": False,
            "DBSubnetGroupName": base["DBSubnetGroup"]["DBSubnetGroupName"],
            "VpcSecurityGroupIds": [one["VpcSecurityGroupId"] for one in base["VpcSecurityGroups"]],
            "DBParameterGroupName": base["DBParameterGroups"][0]["DBParameterGroupName"],
            "DeletionProtection": base["DeletionProtection"],
            "EnableIAMDatabaseAuthentication": base["IAMDatabaseAuthenticationEnabled"],
            "EnableCloudwatchLogsExports": base.get("EnabledCloudwatchLogsExports") or [],
            "CopyTagsToSnapshot": base["CopyTagsToSnapshot"],
            "StorageType": base["StorageType"],
            "AutoMinorVersionUpgrade": base["AutoMinorVersionUpgrade"],
            "Tags": [
                *(one for one in base.get("TagList") or () if not one["Key"].startswith((TAG, "aws:"))),
                {"Key": TO, "Value": self.moment},
            ],
        }
        optional = ["MaxAllocatedStorage", "CACertificateIdentifier"]
        if base["AllocatedStorage"] >= RATED_GB:
            optional += ["Iops", "StorageThroughput"]
        return wanted | {name: base[name] for name in optional if base.get(name)}

    def _looked_at(self) -> Found:
        host = self._made()["Endpoint"]["Address"]
        return by_hand(
            f"{host}, with the master's password of {self.moment}: copy rows from there (pg_dump --table, \\copy);"
            " then --abort deletes it, or --take-over puts it in the place of the one that runs"
        )

    # -- in its place ----------------------------------------------------------------------------------------

    def _protected(self) -> Found:
        """An --abort that was killed takes it off."""
        base, made = self._old() or self.site.instance(self.name), self._made()
        if base and base["DeletionProtection"] and not made["DeletionProtection"]:
            return todo(f"{made['DBInstanceIdentifier']} against being deleted")
        return done("it is")

    def _protect(self) -> None:
        self.site.protect(self._made()["DBInstanceIdentifier"], on=True)

    def _lets_in(self) -> Found:
        if self._old() is not None:
            return done("they did before the change of names")
        made = self._made()
        return self.site.lets_in({made["DbiResourceId"]: made["DBInstanceIdentifier"]})

    def _stopped(self) -> Found:
        made = self._made()
        if self._old() is not None and made["DBInstanceIdentifier"] == self.name:
            return done("it was before the change of names")
        return self.site.writers(wanted="stopped")

    def _aside(self) -> Found:
        old = self._old()
        if old is not None and old["DBInstanceStatus"] in MOVING:
            return waits(f"{self.old_name} is {old['DBInstanceStatus']}")
        if old is not None:
            return done(f"{old['DbiResourceId']}, with all that came after {self.moment}")
        if self._made()["DBInstanceIdentifier"] == self.name:
            return done("it was, and is gone")
        base = self.site.instance(self.name)
        if base is None:
            return todo(self._nameless())
        if base["DBInstanceStatus"] == "stopped":
            return refused(f"{self.name} is stopped, and RDS changes nothing of it so: start it first")
        # An instance that is unwell is why somebody restores one.
        if found := busy(base):
            return found
        if _renaming(base):
            return waits(f"{self.name} is being set aside")
        return todo(
            f"rename; {self.name} answers to nobody from here to the end of the next step, some minutes"
        )

    def _set_aside(self) -> None:
        base, made = self.site.instance(self.name), self._made()
        if base is None:
            raise InfraError(self._nameless())
        mark = (made["DbiResourceId"], self.moment)
        # One that is there already is another run's, which may have asked for the name.
        marked = _replaced(base) == mark
        # Before the name: by it the next run knows which is which, and an --abort keeps its hands off.
        self.site.rds.add_tags_to_resource(
            ResourceName=base["DBInstanceArn"], Tags=[{"Key": REPLACED, "Value": " ".join(mark)}]
        )
        # An --abort that had looked before takes off the protection first, and looks again before it deletes.
        if (found := self._protected()).state != "done" or (
            found := self._ready(self._made())
        ).state != "done":
            if not marked:
                self.site.rds.remove_tags_from_resource(
                    ResourceName=base["DBInstanceArn"], TagKeys=[REPLACED]
                )
            raise InfraError(f"not now: {found.detail}")
        self._rename(self.name, self.old_name)

    def _nameless(self) -> str:
        return (
            f"there is no {self.name}: while names change that is so for a minute; else give the old one its name back"
            f" (aws rds modify-db-instance --db-instance-identifier {self.old_name} --new-db-instance-identifier"
            f" {self.name} --apply-immediately)"
        )

    def _in_place(self) -> Found:
        made = self._made()
        found = self._ready(made)
        return (
            todo("rename") if found.state == "done" and made["DBInstanceIdentifier"] != self.name else found
        )

    def _put_in_place(self) -> None:
        self._rename(self.made_name, self.name)

    def _rename(self, name: str, to: str) -> None:
        self.site.rds.modify_db_instance(
            DBInstanceIdentifier=name, NewDBInstanceIdentifier=to, ApplyImmediately=True
        )

    def _released(self) -> Found:
        """That moment may have been one of an upgrade; a restored instance has no green, but may get one later."""
        if found := self.site.deployments(self._made()):
            return done(f"they are held for {found[0]}, which came later")
        return hold.let_go(self.site)

    def _known(self) -> Found:
        old = self._old()
        if old is None:
            return done(f"{self.old_name} is gone: nobody can ask for it")
        return self.site.knows({old["DbiResourceId"]: self._made()["DbiResourceId"]})

    def _replicas(self) -> Found:
        of_others = []
        for name in self.site.replicas:
            found = self.site.instance(name)
            if found is None or found.get("ReadReplicaSourceDBInstanceIdentifier") != self.name:
                of_others.append(name)
            elif not_yet := unready(found):
                return not_yet
        if of_others:
            return by_hand(
                f"one by one, {', '.join(of_others)}: aws rds modify-db-instance --db-instance-identifier"
                f" {of_others[0]} --no-deletion-protection --apply-immediately, then pulumi up --target-replace"
                " URN_OF_THE_REPLICA"
            )
        return done(", ".join(self.site.replicas) or "there are none")

    def _proxy(self) -> Found:
        for one in self.site.graph.of_kind("rds.ProxyTarget"):
            proxy = str(one.inputs["dbProxyName"])
            targets = self.site.rds.describe_db_proxy_targets(DBProxyName=proxy)["Targets"]
            mine = [each for each in targets if each.get("RdsResourceId") == self.name]
            state = (mine[0].get("TargetHealth") or {}).get("State") if mine else "gone"
            if state == "REGISTERING":
                return waits(f"its target {self.name} is {state}")
            if state not in ("AVAILABLE", None):
                return by_hand(
                    f"its target {self.name} is {state}: pulumi up --target-replace URN_OF_THE_PROXY_TARGET, then wait"
                    " for AVAILABLE"
                )
        return done("AVAILABLE")

    # -- the way back ----------------------------------------------------------------------------------------

    def _still_beside(self) -> Found:
        if self._old() is not None:
            return refused(
                f"{self.old_name} was replaced already: the way back is by names (docs/database-operations.md)"
            )
        # For a minute after the change of names was asked for nothing bears the new one.
        base = self.site.instance(self.name)
        if base is None:
            return refused(self._nameless())
        if _renaming(base):
            return refused(f"{self.name} is being set aside: go on with --take-over")
        made = self.site.instance(self.made_name)
        # That of another restore is of one that was set aside then, and put back by names.
        if made is not None and _replaced(base)[0] == made["DbiResourceId"]:
            return by_hand(
                f"{self.name} is marked to be set aside: go on with --take-over; or, if no run of it is going on, aws"
                f" rds remove-tags-from-resource --resource-name {base['DBInstanceArn']} --tag-keys {REPLACED}"
            )
        if found := busy(base):
            return found
        return done(f"{self.name} is {base['DBInstanceStatus']}")

    def _gone(self) -> Found:
        made = self.site.instance(self.made_name)
        if made is None:
            return done(f"there is no {self.made_name}")
        if tags_of(made).get(TO) != self.moment:
            return refused(f"{self.made_name} was restored to {tags_of(made).get(TO)}, not to {self.moment}")
        if found := busy(made):
            return found
        return todo(f"delete {self.made_name} ({made['DbiResourceId']}), with no last snapshot")

    def _delete(self) -> None:
        if before := self.site.existing(self.made_name)["DeletionProtection"]:
            self.site.protect(self.made_name, on=False)
        # One that is taking over marks the other first, and then looks for this.
        if (found := self._still_beside()).state != "done":
            if before:
                self.site.protect(self.made_name, on=True)
            raise InfraError(f"not now: {found.detail}")
        self.site.rds.delete_db_instance(DBInstanceIdentifier=self.made_name, SkipFinalSnapshot=True)


def _renaming(instance: Instance) -> bool:
    """Whether another name was asked for and accepted."""
    return bool(instance.get("PendingModifiedValues", {}).get("DBInstanceIdentifier"))


def _replaced(instance: Instance) -> tuple[str, str]:
    """By what an instance was replaced, or is about to be: its DbiResourceId, and the moment of that."""
    resource, _, to = tags_of(instance).get(REPLACED, "").partition(" ")
    return resource, to


def moment(text: str) -> datetime:
    """A time with its zone, in UTC. Raises argparse.ArgumentTypeError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a time such as 2026-11-22T09:41:00Z, got {text}") from None
    if found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"must say its zone, such as {text}Z or {text}+01:00")
    if found.microsecond:
        raise argparse.ArgumentTypeError(f"must be in whole seconds, got {text}")
    return found.astimezone(UTC)


def main(argv: Sequence[str] | None = None, *, site: Site | None = None) -> int:
    """`python -m infra restore`; returns the exit code. Raises InfraError."""
    parser = argparse.ArgumentParser(prog="python -m infra restore", description=(__doc__ or "").strip())
    arguments(parser)
    parser.add_argument(
        "--to", type=moment, required=True, metavar="TIME", help="such as 2026-11-22T09:41:00Z"
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--take-over", action="store_true", help="put the restored instance in the place of the one that runs"
    )
    way.add_argument("--abort", action="store_true", help="delete the restored instance")
    options = parser.parse_args(argv)

    def plan(found: Site) -> list[Step]:
        restore = Restore(found, options.to)
        return restore.undo() if options.abort else restore.steps(take_over=options.take_over)

    return carry_out(options, f"{options.stack}, back to {options.to:%F %T} UTC", plan, site=site)
