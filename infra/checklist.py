"""The checklist of a deployment, that checks itself: `before` it and `after` it.

Each line is looked up where the answer is: in the stack's graph, in git, in AWS, in the database. What nobody but a
person can know is said to be for hand and counts for nothing: so is a notice that was up an hour ago, which a
deployment may be what mends. Everything is read, nothing is changed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from statistics import fmean
from typing import Any, Final, Literal

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.graph import ROOT, Graph, Resource, load_graph
from infra.image import BEFORE

State = Literal["ok", "failed", "by hand", "unknown"]
RESTORABLE: Final = timedelta(minutes=15)
"""RDS writes its log away every five minutes: a latest restorable time older than three of them is no backup."""
REPLICA_LAG_SECONDS: Final = 3.0
"""Of the source document's checklist; the same as the objective of the replicas' read path."""
LOOK_BACK: Final = timedelta(minutes=10)
FRESH: Final = timedelta(hours=1)
"""An alarm that began within it may be of what was just done."""
KEY_FIGURES: Final = (
    "alarm-staged-age",
    "alarm-stream-age",
    "alarm-database-read-latency",
    "alarm-database-write-latency",
)
"""Alarms whose figure is looked at beforehand: how soon a value is durable, and how fast the disk is."""
OVER: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {"Maximum": max, "Average": fmean, "Sum": sum}
"""Statistic → what several minutes of it come to."""


@dataclass(frozen=True)
class Line:
    """One line of the list, looked up."""

    title: str
    state: State
    detail: str


Answer = tuple[State, str]
Look = Callable[[], Answer]


class Checklist:
    """The lines for one stack. session: boto3's, of the account of the stack."""

    def __init__(self, graph: Graph, session: Any, database_url: str | None = None) -> None:
        self.graph, self.session, self.database_url = graph, session, database_url
        self.stack = graph.settings.stack
        self.clients: dict[str, Any] = {}

    def aws(self, name: str) -> Any:
        """A client in the stack's region, made once."""
        if name not in self.clients:
            self.clients[name] = self.session.client(name, region_name=self.graph.settings.region)
        return self.clients[name]

    def run(self, when: Literal["before", "after"]) -> Iterator[Line]:
        """Look at each line in turn. A line that cannot be looked up is unknown, and the rest go on."""
        for title, look in (self._before() if when == "before" else self._after()).items():
            try:
                state, detail = look()
            except (BotoCoreError, ClientError, OSError, subprocess.SubprocessError) as error:
                state, detail = "unknown", " ".join(str(error).split())
            yield Line(title, state, detail)

    def _before(self) -> dict[str, Look]:
        return {
            "settings are complete and agree": lambda: ("ok", f"Pulumi.{self.stack}.yaml"),
            "no policy is broken": self._policies,
            "what is deployed is committed": self._committed,
            "what changes was read": lambda: (
                "by hand",
                f"pulumi preview -s {self.stack} --diff: each replacement and deletion is meant",
            ),
            "the stack before this one is like it": self._against_earlier(self._alike),
            "the image was in the stack before this one": self._against_earlier(self._promoted),
            "the image runs in that stack, on its schema": self._against_earlier(self._ran),
            "the database can be restored to now": self._restorable,
            "no alarm is up": self._alarms,
            "the schema has one head": self._heads,
            "people know": lambda: (
                "by hand",
                "say in the team's channel what changes, when, and who watches",
            ),
        }

    def _after(self) -> dict[str, Look]:
        return {
            "no alarm is up": self._alarms,
            "the database is available, with nothing pending": self._databases,
            f"replicas are less than {REPLICA_LAG_SECONDS:g} s behind": self._replicas,
            "tasks run as many as wanted": self._services,
            "the archiver's last run did not fail": self._archiver,
            "the schema is at its head": self._schema,
            "values come in, are durable soon, and the disk is fast": self._figures,
            "what users do works": lambda: (
                "by hand",
                "send a value of a tenant of yours, and read it by the proxy and by a replica",
            ),
            "it stays so for an hour": lambda: ("by hand", "--watch 60 looks at all of this each minute"),
            "lessons are written down": lambda: ("by hand", "what was not as this list says belongs into it"),
        }

    # -- what is to be deployed --------------------------------------------------------------------------------

    def _policies(self) -> Answer:
        from infra.policies import check

        found = [one for one in check(self.graph) if one.severity == "mandatory" and one.excepted is None]
        if found:
            return "failed", f"{len(found)}: {found[0].rule}: {found[0].resource}: {found[0].text}"
        return "ok", f"{sum(one.custom for one in self.graph)} resources"

    def _committed(self) -> Answer:
        if changed := _git("status", "--porcelain").splitlines():
            return "failed", f"{len(changed)} files are changed and not committed, such as {changed[0][3:]}"
        commit = _git("rev-parse", "--short", "HEAD")
        try:
            ahead = _git("rev-list", "--count", "@{upstream}..HEAD")
        except subprocess.CalledProcessError:
            return "unknown", f"{commit} is on a branch that follows none"
        return ("ok", commit) if ahead == "0" else ("failed", f"{ahead} commits are not pushed")

    @cached_property
    def _earlier(self) -> Graph | None:
        """Of the stack before this one."""
        earlier = BEFORE.get(self.stack)
        return None if earlier is None else load_graph(earlier)

    def _against_earlier(self, look: Callable[[Graph], Answer]) -> Look:
        def looked() -> Answer:
            earlier = self._earlier
            if earlier is None:
                return "ok", f"nothing comes before {self.stack}"
            return look(earlier)

        return looked

    def _promoted(self, earlier: Graph) -> Answer:
        mine, theirs = (one.settings.workers.image_digest for one in (self.graph, earlier))
        if mine is None:
            return "ok", "no image is set"
        return (
            ("ok", mine)
            if mine == theirs
            else ("failed", f"{BEFORE[self.stack]} has {theirs}, {self.stack} is to have {mine}")
        )

    def _alike(self, earlier: Graph) -> Answer:
        before = BEFORE[self.stack]
        mine, theirs = (one.settings.postgres.major for one in (self.graph, earlier))
        if theirs < mine:
            return "failed", f"{before} has PostgreSQL {theirs}, {self.stack} is to have {mine}"
        here, there = ({one.kind for one in graph if one.custom} for graph in (self.graph, earlier))
        if untried := here - there:
            return (
                "by hand",
                f"{before} has no {', '.join(sorted(untried))}; settings that differ: python -m infra plan"
                f" {self.stack} --diff {before}",
            )
        return "ok", f"{before} has all that {self.stack} has"

    def _ran(self, earlier: Graph) -> Answer:
        before, digest = BEFORE[self.stack], self.graph.settings.workers.image_digest
        if digest is None:
            return "ok", "no image is set"
        ecs = self.session.client("ecs", region_name=earlier.settings.region)
        wrong, count = [], 0
        for found in _services(ecs, earlier):
            count += 1
            task = ecs.describe_task_definition(taskDefinition=found["taskDefinition"])["taskDefinition"]
            if any(not each["image"].endswith(f"@{digest}") for each in task["containerDefinitions"]):
                wrong.append(found["serviceName"])
        if not count:
            return "failed", f"{before} has no service that runs it: deploy it there"
        if wrong:
            return "failed", f"{', '.join(wrong)} of {before} runs another: deploy it there"
        return "ok", f"{count} services of {before}"

    def _heads(self) -> Answer:
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        heads = ScriptDirectory.from_config(Config(str(ROOT / "alembic.ini"))).get_heads()
        return (
            ("ok", heads[0])
            if len(heads) == 1
            else ("failed", f"{len(heads)}: {', '.join(heads)}: merge them")
        )

    # -- what is deployed --------------------------------------------------------------------------------------

    def _instances(self) -> list[dict[str, Any]]:
        names = [str(one.inputs["identifier"]) for one in self.graph.of_kind("rds.Instance")]
        found = []
        for name in names:
            found += self.aws("rds").describe_db_instances(DBInstanceIdentifier=name)["DBInstances"]
        return found

    def _restorable(self) -> Answer:
        primary = next(
            (one for one in self._instances() if not one.get("ReadReplicaSourceDBInstanceIdentifier")), None
        )
        if primary is None:
            return "failed", "there is no primary"
        latest = primary.get("LatestRestorableTime")
        if latest is None:
            return "failed", f"{primary['DBInstanceIdentifier']} has no backup yet"
        age = datetime.now(UTC) - latest
        return (
            "ok" if age < RESTORABLE else "failed",
            f"to {latest:%F %T} UTC, {age.total_seconds() / 60:.0f} min ago",
        )

    def _databases(self) -> Answer:
        wrong = [
            f"{one['DBInstanceIdentifier']} is {one['DBInstanceStatus']}"
            + (
                f", pending {', '.join(one['PendingModifiedValues'])}"
                if one.get("PendingModifiedValues")
                else ""
            )
            for one in self._instances()
            if one["DBInstanceStatus"] != "available" or one.get("PendingModifiedValues")
        ]
        return ("failed", "; ".join(wrong)) if wrong else ("ok", "available")

    def _replicas(self) -> Answer:
        names = [
            str(one.inputs["identifier"])
            for one in self.graph.of_kind("rds.Instance")
            if "replicateSourceDb" in one.inputs
        ]
        worst: dict[str, float] = {}
        for name in names:
            lag = self._figure("AWS/RDS", "ReplicaLag", {"DBInstanceIdentifier": name}, "Maximum")
            if lag is None:
                return "unknown", f"{name} has not said in {LOOK_BACK.total_seconds() / 60:.0f} min"
            worst[name] = lag
        if not names:
            return "ok", "there are none"
        name = max(worst, key=lambda one: worst[one])
        return "ok" if worst[
            name
        ] < REPLICA_LAG_SECONDS else "failed", f"at most {worst[name]:.1f} s ({name})"

    def _figure(
        self, namespace: str, metric: str, dimensions: Mapping[str, str], statistic: str
    ) -> float | None:
        """Of the last minutes; None where CloudWatch has nothing of them."""
        now = datetime.now(UTC)
        points = self.aws("cloudwatch").get_metric_statistics(
            Namespace=namespace,
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=now - LOOK_BACK,
            EndTime=now,
            Period=60,
            Statistics=[statistic],
        )["Datapoints"]
        return OVER[statistic]([point[statistic] for point in points]) if points else None

    def _figures(self) -> Answer:
        """Against the thresholds of the alarms, which take longer to make up their mind."""
        stream = str(self.graph.one("kinesis.Stream").inputs["name"])
        incoming = self._figure("AWS/Kinesis", "IncomingRecords", {"StreamName": stream}, "Sum")
        said, silent, bad = [f"IncomingRecords {incoming or 0:,.0f}"], [], []
        for one in self.graph.of_kind("cloudwatch.MetricAlarm"):
            if one.name not in KEY_FIGURES:
                continue
            inputs = one.inputs
            metric, limit = inputs["metricName"], float(inputs["threshold"])
            found = self._figure(
                inputs["namespace"], metric, inputs.get("dimensions") or {}, inputs["statistic"]
            )
            if found is None:
                silent.append(metric)
                continue
            above = inputs["comparisonOperator"] == "GreaterThanThreshold"
            said.append(f"{metric} {found:,.4g}")
            if found > limit if above else found < limit:
                bad.append(
                    f"{metric} {found:,.4g}, should be {'at most' if above else 'at least'} {limit:,g}"
                )
        if bad:
            return "failed", "; ".join(bad)
        if not incoming:
            return (
                "unknown",
                f"nothing came in for {LOOK_BACK.total_seconds() / 60:.0f} min: the rest shows nothing",
            )
        if silent:
            return (
                "unknown",
                f"nothing said of {', '.join(silent)} in {LOOK_BACK.total_seconds() / 60:.0f} min",
            )
        return "ok", ", ".join(said)

    def _alarms(self) -> Answer:
        """One that pages, or has just begun, is in the way. A notice can wait: a deployment may be what mends it."""
        declared = [
            *self.graph.of_kind("cloudwatch.MetricAlarm"),
            *self.graph.of_kind("cloudwatch.CompositeAlarm"),
        ]
        page = str(self.graph.one("sns.Topic", "topic-page").outputs["arn"])
        pages = {_alarm_name(one): page in (one.inputs.get("alarmActions") or ()) for one in declared}
        names, now = list(pages), datetime.now(UTC)
        serious: list[str] = []
        others: list[str] = []
        for first in range(0, len(names), 100):
            shown = (
                self.aws("cloudwatch")
                .get_paginator("describe_alarms")
                .paginate(
                    AlarmNames=names[first : first + 100],
                    AlarmTypes=["MetricAlarm", "CompositeAlarm"],
                    StateValue="ALARM",
                )
            )
            for one in (one for each in shown for one in [*each["MetricAlarms"], *each["CompositeAlarms"]]):
                if one["StateValue"] != "ALARM":
                    continue
                since = one.get("StateTransitionedTimestamp") or one["StateUpdatedTimestamp"]
                bad = pages[one["AlarmName"]] or now - since < FRESH
                (serious if bad else others).append(f"{one['AlarmName']} since {since:%F %H:%M}")
        if serious:
            return "failed", ", ".join(sorted(serious))
        if others:
            return "by hand", f"notices, not new: {', '.join(sorted(others))}: none is about what changes"
        return "ok", f"{len(names)} looked at"

    def _services(self) -> Answer:
        wrong, count = [], 0
        for found in _services(self.aws("ecs"), self.graph):
            count += 1
            if found["runningCount"] != found["desiredCount"]:
                wrong.append(f"{found['serviceName']}: {found['runningCount']} of {found['desiredCount']}")
        return ("failed", "; ".join(wrong)) if wrong else ("ok", f"{count} services")

    def _archiver(self) -> Answer:
        machine = self.graph.of_kind("sfn.StateMachine")
        if not machine:
            return "ok", "there is none"
        newest = self.aws("stepfunctions").list_executions(
            stateMachineArn=machine[0].outputs["arn"], maxResults=1
        )
        if not newest["executions"]:
            return "unknown", "it has not run yet"
        found = newest["executions"][0]
        state: State = "ok" if found["status"] in ("SUCCEEDED", "RUNNING") else "failed"
        return state, f"{found['status']}, {found['startDate']:%F %T}"

    def _schema(self) -> Answer:
        if not self.database_url:
            return "unknown", "DATABASE_URL is not set: through the bastion, as in docs/deploy.md"
        done = subprocess.run(
            ["alembic", "current", "--check-heads"],
            cwd=ROOT, env=os.environ | {"DATABASE_URL": self.database_url},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        last = (done.stdout + done.stderr).strip().splitlines()[-1:] or [""]
        return "ok" if done.returncode == 0 else "failed", last[0]


def _services(ecs: Any, graph: Graph) -> Iterator[dict[str, Any]]:
    """What ECS says of each service of a stack that is there."""
    for one in graph.of_kind("ecs.Service"):
        cluster = str(one.inputs["cluster"]).rsplit("/", 1)[-1]
        yield from ecs.describe_services(cluster=cluster, services=[one.inputs["name"]])["services"]


def _alarm_name(declared: Resource) -> str:
    return str(declared.inputs.get("name") or declared.inputs["alarmName"])


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m infra checklist`; returns the exit code. Raises InfraError."""
    parser = argparse.ArgumentParser(
        prog="python -m infra checklist",
        description=(__doc__ or "").strip(),
        epilog="exit codes: 0 nothing failed; 1 something did, or with --strict was unknown, or all of it was unknown;"
        " 2 wrong usage",
    )
    parser.add_argument("stack", help="dev, staging, prod")
    parser.add_argument("when", choices=("before", "after"), metavar="before|after", help="the deployment")
    parser.add_argument("--strict", action="store_true", help="what could not be looked up counts as failed")
    parser.add_argument(
        "--watch", type=int, default=0, metavar="MINUTES", help="look again each minute for so long"
    )
    parser.add_argument("--json", action="store_true", help="one JSON array on standard output")
    options = parser.parse_args(argv)
    if options.watch < 0:
        parser.error(f"argument --watch: minutes must be 0 or more, got {options.watch}")
    if options.watch and options.json:
        parser.error("argument --watch: is for people, leave out --json")
    graph = load_graph(options.stack)
    checklist = Checklist(graph, boto3.Session(), os.environ.get("DATABASE_URL"))
    end = time.monotonic() + options.watch * 60
    bad = ("failed", "unknown") if options.strict else ("failed",)
    while True:
        lines = list(checklist.run(options.when))
        if options.json:
            print(json.dumps([asdict(line) for line in lines]))
        else:
            print(f"{options.stack}, {options.when} the deployment, {datetime.now(UTC):%F %T} UTC")
            for line in lines:
                print(f"  {line.state:8} {line.title}: {line.detail}", flush=True)
            if unknown := sum(line.state == "unknown" for line in lines):
                print(
                    f"{unknown} could not be looked up{'' if options.strict else ': --strict counts them as failed'}"
                )
        # Without credentials nothing fails, since nothing is seen.
        blind = {line.state for line in lines} <= {"unknown", "by hand"}
        failed = blind or any(line.state in bad for line in lines)
        # A list that fails while it is watched is for now, not for the end.
        if failed or time.monotonic() >= end:
            return int(failed)
        time.sleep(60)
