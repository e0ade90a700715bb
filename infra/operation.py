"""An operation of many steps, where some are a person's and some take hours: a restore, an upgrade.

Nothing is kept between runs. Each step tells by reading (AWS, the database, the stack's state) whether it is done, and
what it would do; so a run that was killed anywhere is run again and goes on. Nothing is done unasked.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import InfraError
from infra.graph import Graph, load_graph
from jobs import db
from jobs.errors import JobsError

State = Literal["done", "next", "waits", "by hand", "refused", "later"]
EXIT: Final[Mapping[State, int]] = {"done": 0, "refused": 1, "next": 3, "waits": 3, "by hand": 4}
EXIT_CODES: Final = (
    "exit codes: 0 all of it is done; 1 refused, or it cannot go on; 2 wrong usage; 3 the next step is one for"
    " --execute, or is under way; 4 the next step is a person's"
)
SETTLE_SECONDS: Final = 300
"""For what AWS was asked for and has accepted to be seen in what it says."""
TAG: Final = "eav:"
"""Of the names of tags that operations leave on instances."""

SETTLED: Final = (
    "available",
    "backing-up",
    "configuring-enhanced-monitoring",
    "configuring-iam-database-auth",
    "configuring-log-exports",
    "storage-config-upgrade",
    "storage-initialization",
    "storage-optimization",
)
"""States in which an instance works and a change of name is over; the last ones may last for days."""
LOST: Final = (
    "failed",
    "inaccessible-encryption-credentials",
    "inaccessible-encryption-credentials-recoverable",
    "incompatible-credentials",
    "incompatible-network",
    "incompatible-option-group",
    "incompatible-parameters",
    "incompatible-restore",
    "insufficient-capacity",
    "restore-error",
    "stopped",
    "storage-full",
)
"""States that an instance does not come out of by itself."""

Row = tuple[Any, ...]
Instance = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What a look at a step gave: how it is, and what to know or to do."""

    state: State
    detail: str


def done(detail: str) -> Found:
    """Nothing is left to do."""
    return Found("done", detail)


def todo(detail: str) -> Found:
    """`Step.do` would do it."""
    return Found("next", detail)


def waits(detail: str) -> Found:
    """It is under way, or needs something that comes by itself."""
    return Found("waits", detail)


def by_hand(detail: str) -> Found:
    """A person has to do it."""
    return Found("by hand", detail)


def refused(detail: str) -> Found:
    """It must not go on."""
    return Found("refused", detail)


@dataclass(frozen=True)
class Step:
    """`look` reads only; `do` may be run again after it was killed halfway. Both may raise InfraError."""

    title: str
    look: Callable[[], Found]
    do: Callable[[], object] | None = None
    after_waiting: bool = False
    """Whether it is to be done only once something else is over. Of all others the first look says whether they are:
    one that was under way and then is not was undone by somebody.
    """


@dataclass(frozen=True)
class Line:
    """A step in the table."""

    number: int
    title: str
    state: State
    detail: str


@dataclass(frozen=True)
class Patience:
    """How waiting is done."""

    every: float = 15.0
    """Seconds between two looks."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def run(
    steps: Iterable[Step], *, execute: bool, say: Callable[[str], None], patience: Patience
) -> list[Line]:
    """Look at each step in turn, up to the first that is not done; with `execute` do it, wait for it, and go on."""
    lines: list[Line] = []
    looked_at: list[Step] = []
    for number, step in enumerate(steps, start=1):
        if lines and lines[-1].state != "done":
            lines.append(Line(number, step.title, "later", ""))
            continue
        try:
            found = step.look()
            if execute and found.state in ("next", "waits"):
                found = _carry_out(step, found, looked_at, say, patience)
        except InfraError as error:
            found = refused(str(error))
        looked_at.append(step)
        lines.append(Line(number, step.title, found.state, found.detail))
    return lines


def _carry_out(
    step: Step, found: Found, earlier: Sequence[Step], say: Callable[[str], None], patience: Patience
) -> Found:
    """Do it if it is to be done, and wait until it is no longer under way.

    Raises InfraError if AWS shows nothing of it, and where somebody has undone it, or what it rests on, meanwhile.
    """
    began, asked, told, waited = patience.clock(), None, "", False
    while found.state in ("next", "waits"):
        now = patience.clock()
        if (line := f"{found.detail} ({(now - began) / 60:.0f} min)") != told:
            told = line
            say(f"{step.title}: {line}")
        if found.state == "waits":
            waited = True
            patience.sleep(patience.every)
        elif waited and not step.after_waiting:
            raise InfraError(
                f"it was under way and is no longer, undone by somebody or by AWS: run this again ({found.detail})"
            )
        elif asked is None:
            # Hours may lie between their looks and this one, and others may run an --abort.
            undone = _first_undone(earlier)
            if undone is None:
                assert step.do is not None, step.title
                step.do()
                asked = patience.clock()
            elif undone.state == "waits":  # for what was done last, mostly
                say(undone.detail)
                patience.sleep(patience.every)
            else:
                raise InfraError(f"{undone.detail}: it was done before, run this again")
        elif now - asked > SETTLE_SECONDS:
            raise InfraError(f"asked for and not seen after {SETTLE_SECONDS} s: run this again")
        else:
            patience.sleep(patience.every)
        found = step.look()
    return found


def _first_undone(steps: Iterable[Step]) -> Found | None:
    """What the first that is not done any more says, behind its title."""
    for one in steps:
        if (found := one.look()).state != "done":
            return replace(found, detail=f"{one.title}: {found.detail}")
    return None


class Site:
    """A stack as it runs: what it declares, AWS, the database, and the state that Pulumi has of it."""

    def __init__(
        self,
        graph: Graph,
        session: Any,
        database_url: str | None,
        exported: Callable[[str], Mapping[str, Any] | None] | None = None,
        resolve: Callable[[str], Collection[str]] | None = None,
    ) -> None:
        """`exported`: a stack's name → what `pulumi stack export` prints, None where pulumi is not to be had.
        `resolve`: a host's name → its addresses.
        """
        self.graph, self.session, self.database_url = graph, session, database_url
        self.stack, self.settings = graph.settings.stack, graph.settings.postgres
        self.file = f"Pulumi.{self.stack}.yaml"
        self.exported, self.resolve = exported or export, resolve or addresses
        self._clients: dict[str, Any] = {}

    def aws(self, name: str) -> Any:
        """A client in the stack's region, made once."""
        if name not in self._clients:
            self._clients[name] = self.session.client(name, region_name=self.graph.settings.region)
        return self._clients[name]

    @property
    def rds(self) -> Any:
        """RDS."""
        return self.aws("rds")

    # -- instances -------------------------------------------------------------------------------------------

    @cached_property
    def primary(self) -> str:
        """The identifier of the primary."""
        (found,) = (
            one for one in self.graph.of_kind("rds.Instance") if "replicateSourceDb" not in one.inputs
        )
        return str(found.inputs["identifier"])

    @cached_property
    def replicas(self) -> tuple[str, ...]:
        """The identifiers of its replicas."""
        found = (one for one in self.graph.of_kind("rds.Instance") if "replicateSourceDb" in one.inputs)
        return tuple(str(one.inputs["identifier"]) for one in found)

    def instance(self, name: str) -> Instance | None:
        """An instance by its identifier; None if there is none."""
        try:
            found: Instance = self.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
        except self.rds.exceptions.DBInstanceNotFoundFault:
            return None
        return found

    def by_resource(self, resource: str) -> Instance | None:
        """An instance by its DbiResourceId, which stays when it gets another name."""
        filters = [{"Name": "dbi-resource-id", "Values": [resource]}]
        found = self.rds.describe_db_instances(Filters=filters)["DBInstances"]
        return found[0] if found else None

    def existing(self, name: str) -> Instance:
        """The instance of this name. Raises InfraError."""
        found = self.instance(name)
        if found is None:
            raise InfraError(f"there is no instance {name} in {self.graph.settings.region}")
        return found

    def protect(self, name: str, *, on: bool) -> None:
        """Have RDS refuse to delete an instance, or not."""
        self.rds.modify_db_instance(DBInstanceIdentifier=name, DeletionProtection=on, ApplyImmediately=True)

    def deployments(self, blue: Instance) -> list[str]:
        """The names of all blue/green deployments of an instance."""
        filters = [{"Name": "source", "Values": [blue["DBInstanceArn"]]}]
        found = self.rds.describe_blue_green_deployments(Filters=filters)["BlueGreenDeployments"]
        return [str(one["BlueGreenDeploymentName"]) for one in found]

    # -- what is a person's ----------------------------------------------------------------------------------

    def lets_in(self, resources: Mapping[str, str]) -> Found:
        """Whether every role that may log in to the database may do so at these instances: DbiResourceId → name."""
        missing: set[str] = set()
        for one in self.graph.of_kind("iam.RolePolicy"):
            if "rds-db:connect" not in str(one.inputs["policy"]):
                continue
            role, name = str(one.inputs["role"]), str(one.inputs["name"])
            try:
                policy = self.aws("iam").get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            except self.aws("iam").exceptions.NoSuchEntityException:
                missing |= {role}
                continue
            if any(f":{resource}/" not in json.dumps(policy) for resource in resources):
                missing |= {role}
        if missing:
            also = dict.fromkeys([*self.settings.also_connect, *resources])
            return by_hand(
                f"{self.file}: postgres.also_connect: [{', '.join(also)}], pulumi up"
                f" (not yet in the rights of {', '.join(sorted(missing))})"
            )
        return done(f"roles may log in at {', '.join(resources.values())}")

    def writers(self, *, wanted: Literal["stopped", "running"]) -> Found:
        """Whether the tasks that write are all stopped, or run again."""
        counts: dict[str, tuple[int, int]] = {}
        for one in self.graph.of_kind("ecs.Service"):
            cluster, name = str(one.inputs["cluster"]).rsplit("/", 1)[-1], str(one.inputs["name"])
            try:
                found = self.aws("ecs").describe_services(cluster=cluster, services=[name])["services"]
            except self.aws("ecs").exceptions.ClusterNotFoundException:
                found = []
            counts |= {each["serviceName"]: (each["desiredCount"], each["runningCount"]) for each in found}
        if wanted == "stopped":
            if up := [name for name, (desired, _) in counts.items() if desired]:
                return by_hand(
                    f"{self.file}: workers.workers: 0 and workers.ingesters: 0, pulumi up ({', '.join(up)})"
                )
            if ending := [name for name, (_, running) in counts.items() if running]:
                return waits(f"{', '.join(ending)} is stopping")
            return done("no task writes")
        idle = [name for name, (desired, _) in counts.items() if not desired]
        if idle or self.settings.also_connect:
            why = (
                f"not yet, unless 0 is what it was: {', '.join(idle)}"
                if idle
                else "also_connect is still set"
            )
            return by_hand(
                f"{self.file}: workers.workers and workers.ingesters as they were, without also_connect,"
                f" pulumi up ({why})"
            )
        if short := [name for name, (desired, running) in counts.items() if running < desired]:
            return waits(f"{', '.join(short)} is starting")
        return done("tasks run as many as wanted")

    def knows(self, taken: Mapping[str, str]) -> Found:
        """Whether the stack's state has the new instances: old DbiResourceId → new."""
        pairs = " ".join(f"{old}={new}" for old, new in taken.items())
        how = (
            f"before any other pulumi up: pulumi stack export -s {self.stack} --file before.json; python -m infra"
            f" adopt-instances before.json {pairs} > after.json; pulumi stack import -s {self.stack} --file"
            " after.json; pulumi preview --refresh"
        )
        state = self.exported(self.stack)
        if state is None:
            return by_hand(f"{how} (whether it is done cannot be seen: pulumi is not on PATH)")
        known = {
            str(one.get("id"))
            for one in (state.get("deployment") or {}).get("resources", ())
            if one.get("type") == "aws:rds/instance:Instance" and not one.get("delete")
        }
        missing = set(taken.values()) - known
        return by_hand(how) if missing else done(", ".join(taken.values()))

    # -- the database ----------------------------------------------------------------------------------------

    @contextmanager
    def database(self) -> Iterator[db.Connection]:
        """A connection as the master to the writer of this stack. Raises InfraError where there is no way, it leads to
        another server, or the server refuses.
        """
        if not self.database_url:
            raise InfraError(
                "DATABASE_URL is not set: eav_admin's, through the bastion (docs/deploy.md), to the writer"
            )
        try:
            with (
                db.translated(self.database_url),
                db.connect(self.database_url, None, "python -m infra") as connection,
            ):
                self._check_server(connection)
                yield connection
        except JobsError as error:
            raise InfraError(f"database: {error}") from None

    def _check_server(self, connection: db.Connection) -> None:
        """Of a tunnel only the near end has a name: what counts is the address that the server has itself."""
        ((own,),) = connection.execute("SELECT host(inet_server_addr())").fetchall()
        host = str((self.existing(self.primary).get("Endpoint") or {}).get("Address", ""))
        if not host:
            raise InfraError(f"{self.primary} has no address yet")
        if own not in self.resolve(host):
            raise InfraError(
                f"DATABASE_URL leads to a server at {own or 'a local socket'}, which is not {host}: a tunnel to another"
                " instance?"
            )

    def ask(self, query: str, *parameters: Any) -> list[Row]:
        """Rows of a query. Raises InfraError."""
        with self.database() as connection:
            return connection.execute(query.encode(), parameters or None).fetchall()

    def adopted(self, instance: Instance, *, major: int | None = None) -> Found:
        """Whether `eav.adopt_staging()` has run on this instance, by ops.job_runs."""
        since = instance["InstanceCreateTime"]
        with self.database() as connection:
            version = server_major(connection)
            ((started, last),) = connection.execute(
                "SELECT pg_postmaster_start_time(), (SELECT max(r.finished_at) FROM ops.job_runs AS r"
                " WHERE r.job = 'adopt-staging' AND r.status = 'ok' AND r.started_at >= %s)",
                [since],
            ).fetchall()
        if (major is not None and version != major) or started < since:
            return by_hand(
                f"DATABASE_URL must lead to {instance['DBInstanceIdentifier']} ({instance['DbiResourceId']}):"
                f" the server there is PostgreSQL {version}, started {started:%F %T}"
            )
        if last is None:
            return todo(
                "SELECT eav.adopt_staging(): staging as after a crash, producers go back to their position"
            )
        return done(f"{last:%F %T} UTC")

    def archive_adopted(self, instance: Instance) -> Found:
        """Whether the folder of archived partitions was taken over by this database, by ops.archive_stores."""
        ((stores, stale),) = self.ask(
            "SELECT count(*), count(*) FILTER (WHERE s.claimed_at < %s OR s.adopting_at IS NOT NULL"
            " OR s.identity <> ops.archive_identity()) FROM ops.archive_stores AS s",
            instance["InstanceCreateTime"],
        )
        if stale:
            return by_hand(
                "python -m jobs archive-partitions --adopt, with ARCHIVE_BUCKET: until then no partition is archived"
            )
        return done("it is" if stores else "nothing was archived")

    def adopt(self) -> None:
        """`eav.adopt_staging()`, and the record of it, both or neither."""
        with self.database() as connection, connection.transaction():
            ((number,),) = connection.execute("SELECT ops.job_begin('adopt-staging', 'cli')").fetchall()
            if number < 0:
                raise InfraError("another adopt-staging is going on")
            ((rows,),) = connection.execute("SELECT eav.adopt_staging()").fetchall()
            connection.execute("SELECT ops.job_end(%s, %s)", [number, rows])


def busy(instance: Instance) -> Found | None:
    """What to say of an instance in a state that ends by itself; None of one that works or is lost."""
    name, status = instance["DBInstanceIdentifier"], instance["DBInstanceStatus"]
    return None if status in (*SETTLED, *LOST) else waits(f"{name} is {status}")


def unready(instance: Instance) -> Found | None:
    """What to say of an instance that can be asked for nothing, now or for good; None of one that works."""
    name, status = instance["DBInstanceIdentifier"], instance["DBInstanceStatus"]
    if status in LOST:
        return refused(f"{name} is {status}: its events say why (aws rds describe-events)")
    return busy(instance)


def server_major(connection: db.Connection) -> int:
    """The major version of the server."""
    return connection.info.server_version // 10000


def addresses(host: str) -> Collection[str]:
    """Of a host, by the resolver of this machine. Raises InfraError."""
    try:
        return {str(one[4][0]) for one in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise InfraError(f"{host}: {error.strerror or error}") from None


def tags_of(instance: Instance) -> dict[str, str]:
    """Of an instance, by name."""
    return {one["Key"]: one["Value"] for one in instance.get("TagList") or ()}


def export(stack: str) -> Mapping[str, Any] | None:
    """What `pulumi stack export` prints (secrets stay encrypted); None without pulumi. Raises InfraError."""
    try:
        shown = subprocess.run(
            ["pulumi", "stack", "export", "--stack", stack], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    if shown.returncode:
        raise InfraError(f"pulumi stack export: {' '.join(shown.stderr.split())[:300]}")
    found: Mapping[str, Any] = json.loads(shown.stdout)
    return found


def arguments(parser: argparse.ArgumentParser) -> None:
    """What every operation takes."""
    parser.epilog = EXIT_CODES
    parser.add_argument("stack", help="dev, staging, prod")
    parser.add_argument(
        "--execute", action="store_true", help="do what is next, wait, and go on (default: say what is)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON array of the steps on standard output")


def carry_out(
    options: argparse.Namespace,
    heading: str,
    plan: Callable[[Site], Sequence[Step]],
    *,
    site: Site | None = None,
) -> int:
    """Run the steps as `options` say and print them; the exit code. Raises InfraError."""

    def say(line: str) -> None:
        print(f"==> {line}", file=sys.stderr, flush=True)

    try:
        site = site or Site(load_graph(options.stack), boto3.Session(), os.environ.get("DATABASE_URL"))
        lines = run(plan(site), execute=options.execute, say=say, patience=Patience())
    except (BotoCoreError, ClientError) as error:
        raise InfraError(f"AWS: {error}") from None
    if options.json:
        print(json.dumps([asdict(line) for line in lines]))
    else:
        print(heading)
        for line in lines:
            print(f"  {line.number:2} {line.state:8} {line.title}{': ' if line.detail else ''}{line.detail}")
    last = next((line for line in lines if line.state != "done"), lines[-1])
    if last.state == "next" and not options.json:
        print("nothing was changed: --execute does it, and goes on to the next step that is a person's")
    return EXIT[last.state]
