"""What a graph says of who is where and who may talk to whom: the content of the architecture picture.

Nothing here is drawn by hand. A box is a resource (or several that act as one), its lane the tier of its subnets. An
arrow is a pair of security group rules, a statement of a role's policy, a schedule's target, an alarm's topic.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from infra.graph import Graph, Resource

Place = Literal["outside", "public", "private", "database", "warehouse", "region"]
Sort = Literal["network", "data", "event"]


@dataclass(frozen=True)
class Node:
    """A box."""

    key: str
    title: str
    detail: tuple[str, ...]
    kind: str
    """Of the resource, such as `rds.Instance`; of what is outside, its name."""
    place: Place
    zones: tuple[str, ...] = ()
    """Letters of the zones that its subnets are in; empty for what is of the region."""
    group: str = ""
    """Its security group, by name."""
    urns: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class Edge:
    """An arrow: the source may act on the target. Ends are keys of nodes, or `group:NAME` for all of a group."""

    source: str
    target: str
    sort: Sort
    label: str


@dataclass(frozen=True)
class Topology:
    """Everything in the picture."""

    stack: str
    region: str
    zones: tuple[str, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    subnets: Mapping[str, tuple[str, ...]]
    """Tier → address ranges, a zone each."""
    facts: tuple[str, ...]
    """What has no box: keys, log groups, secrets."""

    def groups(self) -> dict[str, tuple[Node, ...]]:
        """Security group → its nodes."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            if node.group:
                found[node.group].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}


def topology(graph: Graph) -> Topology:
    """The content of the picture of a stack."""
    return _Reader(graph).read()


# -- words ---------------------------------------------------------------------------------------------------


def _gigabytes(value: float) -> str:
    return f"{value / 1000:g} TB" if value >= 1000 and value % 100 == 0 else f"{value:g} GB"


def _primary(one: Resource, _: Graph) -> tuple[str, ...]:
    more = [_gigabytes(float(one.inputs["allocatedStorage"]))] if one.inputs.get("allocatedStorage") else []
    if one.inputs.get("multiAz"):
        more.append("standby")
    return f"PostgreSQL {one.inputs['instanceClass']}", " + ".join(more)


def _task(one: Resource, graph: Graph) -> tuple[str, ...]:
    task = next((found for found in _referred(graph, one) if found.kind == "ecs.TaskDefinition"), one)
    cpu, memory = int(task.inputs["cpu"]) / 1024, int(task.inputs["memory"]) / 1024
    return "Fargate task" + (" when asked" if task is one else ""), f"{cpu:g} vCPU, {memory:g} GB"


def _function(one: Resource, _: Graph) -> tuple[str, ...]:
    return "Lambda", f"{one.inputs.get('memorySize') or 128:g} MB"


def _retained(one: Resource, _: Graph) -> tuple[str, ...]:
    days = (one.inputs.get("retentionPeriod") or 24) / 24
    return "Kinesis on demand", f"kept {days:g} day{'s' if days != 1 else ''}"


def _capacity(one: Resource, _: Graph) -> tuple[str, ...]:
    return "Redshift serverless", f"{one.inputs.get('baseCapacity', 0):g} RPU"


TITLES: Final[dict[str, tuple[str, Callable[[Resource, Graph], tuple[str, ...]]]]] = {
    "ec2.NatGateway": ("NAT", lambda one, graph: ()),
    "ec2.Instance": ("{name}", lambda one, graph: (str(one.inputs.get("instanceType", "")), "no inbound rule")),
    "ecs.Service": ("{name}", _task),
    "ecs.TaskDefinition": ("{name}", _task),
    "lambda.Function": ("{name} function", _function),
    "rds.Proxy": ("{name}", lambda one, graph: ("RDS Proxy", "writer only")),
    "rds.Instance": ("{name}", _primary),
    "redshift.Cluster": (
        "warehouse",
        lambda one, graph: ("Redshift", f"{one.inputs.get('numberOfNodes') or 1:.0f} × {one.inputs['nodeType']}"),
    ),
    "redshiftserverless.Workgroup": ("warehouse", _capacity),
    "kinesis.Stream": ("{name}", _retained),
    "dynamodb.Table": ("{name}", lambda one, graph: ("DynamoDB",)),
    "s3.Bucket": ("{name}", lambda one, graph: ("S3 bucket",)),
    "sfn.StateMachine": ("{name} workflow", lambda one, graph: ("Step Functions",)),
    "sqs.Queue": ("{name}", lambda one, graph: ("SQS queue",)),
    "sns.Topic": ("{name}", lambda one, graph: ("SNS topic",)),
    "ecr.Repository": ("{name} registry", lambda one, graph: ("container images",)),
}  # fmt: skip
"""Kind → title and lines of its box. A kind that is not here has no box."""

READS: Final = (
    "Get",
    "List",
    "Describe",
    "Scan",
    "Query",
    "BatchGet",
    "Receive",
    "Subscribe",
    "ConditionCheck",
)
STARTS: Final = ("Invoke", "Start", "Stop", "Run", "Pause", "Resume", "Update", "Reboot")
TELLS: Final = ("Publish", "Send")


def verb(actions: Sequence[str]) -> str:
    """What a policy statement lets one do, in a word or two: `reads`, `reads, writes`, `starts`, `sends`."""
    found = set()
    for action in actions:
        service, _, name = action.partition(":")
        if name.startswith(READS):
            found.add("reads")
        elif service in ("lambda", "states", "rds", "redshift", "ecs") and name.startswith(STARTS):
            found.add("starts")
        elif name.startswith(TELLS):
            found.add("sends")
        else:
            found.add("writes")
    return ", ".join(sorted(found))


# -- reading the graph ---------------------------------------------------------------------------------------


def _referred(graph: Graph, one: Resource) -> Iterator[Resource]:
    """All that it refers to by a property, in a steady order."""
    for name in sorted(one.references):
        for urn in one.references[name]:
            if urn in graph.resources:
                yield graph.resources[urn]


def _letter(zone: str) -> str:
    return zone[-1:]


@dataclass
class _Reader:
    graph: Graph
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: set[tuple[str, str, Sort, str]] = field(default_factory=set)
    owner: dict[str, str] = field(default_factory=dict)
    """URN → key of its box."""

    def read(self) -> Topology:
        graph = self.graph
        self._boxes()
        self._endpoints()
        self._alarms()
        self._schedules()
        self._outside()
        self._network()
        self._rights()
        self._deliveries()
        subnets = defaultdict(list)
        for one in sorted(graph.of_kind("ec2.Subnet"), key=lambda one: str(one.inputs["availabilityZone"])):
            subnets[str(one.inputs["tags"]["Tier"])].append(str(one.inputs["cidrBlock"]))
        zones = sorted({str(one.inputs["availabilityZone"]) for one in graph.of_kind("ec2.Subnet")})
        return Topology(
            stack=graph.settings.stack,
            region=graph.settings.region,
            zones=tuple(zones),
            nodes=tuple(self.nodes[key] for key in sorted(self.nodes)),
            edges=self._merged(),
            subnets={tier: tuple(found) for tier, found in subnets.items()},
            facts=self._facts(),
        )

    def _merged(self) -> tuple[Edge, ...]:
        """One arrow for each pair and sort, with all its labels."""
        labels: dict[tuple[str, str, Sort], set[str]] = defaultdict(set)
        for source, target, sort, label in self.edges:
            labels[source, target, sort] |= {word for word in label.split(", ") if word}
        return tuple(
            Edge(source, target, sort, ", ".join(sorted(words)))
            for (source, target, sort), words in sorted(labels.items())
        )

    def _facts(self) -> tuple[str, ...]:
        kinds = (
            ("kms.Key", "customer managed keys", "customer managed key"),
            ("cloudwatch.LogGroup", "log groups", "log group"),
            ("cloudwatch.Dashboard", "dashboards", "dashboard"),
            ("iam.Role", "roles", "role"),
        )
        found = [(len(self.graph.of_kind(kind)), many, one) for kind, many, one in kinds]
        return tuple(f"{count} {one if count == 1 else many}" for count, many, one in found if count)

    # -- boxes -----------------------------------------------------------------------------------------------

    def _add(self, node: Node, *resources: Resource) -> None:
        self.nodes[node.key] = replace(node, urns=tuple(one.urn for one in resources))
        self.owner |= {one.urn: node.key for one in resources}

    def _boxes(self) -> None:
        served = {
            found.urn
            for one in self.graph.of_kind("ecs.Service")
            for found in _referred(self.graph, one)
            if found.kind == "ecs.TaskDefinition"
        }
        for one in sorted(self.graph, key=lambda one: (one.kind, one.name)):
            if one.kind not in TITLES or one.urn in served:
                continue
            title, lines = TITLES[one.kind]
            subnets = self._subnets(one)
            tiers = sorted({str(found.inputs["tags"]["Tier"]) for found in subnets})
            zones = sorted({_letter(str(found.inputs["availabilityZone"])) for found in subnets})
            if one.inputs.get("availabilityZone"):
                zones = [_letter(str(one.inputs["availabilityZone"]))]
            group = "nat" if one.kind == "ec2.NatGateway" else self._group(one)
            if one.kind == "ecs.TaskDefinition":
                # It runs where the services of its component run.
                tiers, zones, group = self._beside(one)
            place: Any = tiers[0] if tiers else "region"
            name = one.name.replace("topic-", "").replace("archive-", "archive ").replace("-", " ")
            node = Node(
                key=f"{one.kind}:{one.name}",
                title=title.format(name=name),
                detail=tuple(line for line in lines(one, self.graph) if line),
                kind=one.kind,
                place=place,
                zones=tuple(zones),
                group=group,
            )
            self._add(node, one)

    def _subnets(self, one: Resource) -> list[Resource]:
        """Its subnets: its own, those of its subnet group, or those of what it copies."""
        found = list(_referred(self.graph, one))
        groups = [other for other in found if other.kind.endswith(".SubnetGroup")]
        sources = [
            other for other in found if other.kind == "rds.Instance" and "replicateSourceDb" in one.references
        ]
        direct = [other for other in found if other.kind == "ec2.Subnet"]
        return direct or [subnet for other in groups or sources for subnet in self._subnets(other)]

    def _group(self, one: Resource) -> str:
        names = [
            other.name.removeprefix("group-")
            for other in _referred(self.graph, one)
            if other.kind == "ec2.SecurityGroup"
        ]
        return names[0] if names else ""

    def _beside(self, task: Resource) -> tuple[list[str], list[str], str]:
        component = self.graph.component(task)
        for node in self.nodes.values():
            if (
                node.kind == "ecs.Service"
                and self.graph.component(self.graph.resources[node.urns[0]]) == component
            ):
                return [node.place], list(node.zones), node.group
        return [], [], ""

    def _endpoints(self) -> None:
        """All interface endpoints are one box, all gateway endpoints another."""
        for sort in ("Interface", "Gateway"):
            found = [
                one
                for one in self.graph.of_kind("ec2.VpcEndpoint")
                if one.inputs.get("vpcEndpointType") == sort
            ]
            if not found:
                continue
            names = sorted(
                str(one.inputs["serviceName"]).split(f"{self.graph.settings.region}.")[-1] for one in found
            )
            zones = sorted(
                {
                    _letter(str(subnet.inputs["availabilityZone"]))
                    for one in found
                    for subnet in self._subnets(one)
                }
            )
            node = Node(
                key=f"endpoints:{sort}",
                title=f"{len(found)} {sort.lower()} endpoint{'s' * (len(found) > 1)}",
                detail=(" ".join(names),),
                kind="ec2.VpcEndpoint",
                place="private",
                zones=tuple(zones),
                group="endpoints",
            )
            self._add(node, *found)

    def _alarms(self) -> None:
        alarms = self.graph.of_kind("cloudwatch.MetricAlarm")
        whole = self.graph.of_kind("cloudwatch.CompositeAlarm")
        if alarms:
            detail = (f"{len(whole)} composite",) if whole else ()
            node = Node(
                "alarms", f"{len(alarms)} alarms", ("CloudWatch", *detail), "cloudwatch.MetricAlarm", "region"
            )
            self._add(node, *alarms, *whole)
        for one in self.graph.of_kind("budgets.Budget"):
            limit = float(one.inputs["limitAmount"])
            node = Node(f"budget:{one.name}", "budget", (f"${limit:,.0f} a month",), one.kind, "region")
            self._add(node, one)

    def _schedules(self) -> None:
        """Those of a component that have one target are one box."""
        together: dict[str, list[Resource]] = defaultdict(list)
        for one in sorted(
            self.graph.of_kind("scheduler.Schedule", "cloudwatch.EventRule"), key=lambda one: one.name
        ):
            together[self.graph.component(one)].append(one)
        for component, found in sorted(together.items()):
            times = sorted({str(one.inputs.get("scheduleExpression") or "on an event") for one in found})
            shown = times if len(times) <= 2 else [times[0], f"and {len(times) - 1} more"]
            node = Node(
                f"schedule:{component}", f"{component} schedule", tuple(shown), "scheduler.Schedule", "region"
            )
            self._add(node, *found)

    def _outside(self) -> None:
        graph = self.graph
        if streams := graph.of_kind("kinesis.Stream"):
            self._add(Node("producers", "producers", ("devices, services",), "producers", "outside"))
            for one in streams:
                self.edges.add(("producers", self.owner[one.urn], "data", "writes"))
        if graph.of_kind("ec2.Instance") or graph.of_kind("sns.TopicSubscription"):
            self._add(Node("people", "people", ("engineers, on call",), "people", "outside"))
        if graph.of_kind("ec2.NatGateway"):
            self._add(Node("internet", "internet", ("AWS APIs, packages",), "internet", "outside"))
            self.edges.add(("group:nat", "internet", "network", ""))
        copies = graph.of_kind("rds.InstanceAutomatedBackupsReplication", "redshift.SnapshotCopy")
        if copies:
            regions = sorted(
                {str(one.inputs.get("region") or one.inputs.get("destinationRegion")) for one in copies}
            )
            self._add(
                Node(
                    "copies", "second region", (", ".join(regions), "backups, snapshots"), "copies", "outside"
                ),
                *copies,
            )
            for one in copies:
                for source in _referred(graph, one):
                    if source.kind in ("rds.Instance", "redshift.Cluster"):
                        self.edges.add((self.owner[source.urn], "copies", "data", "copies"))

    # -- arrows ----------------------------------------------------------------------------------------------

    def _network(self) -> None:
        """Where a rule lets something out of one group and another lets it into the other."""
        groups = {
            one.outputs["id"]: one.name.removeprefix("group-")
            for one in self.graph.of_kind("ec2.SecurityGroup")
        }
        used = {node.group for node in self.nodes.values()}
        out = set()
        for one in self.graph.of_kind("vpc.SecurityGroupEgressRule"):
            own = groups.get(one.inputs["securityGroupId"], "")
            if own not in used:
                continue
            port = f"{one.inputs.get('fromPort') or 0:.0f}"
            if one.inputs.get("referencedSecurityGroupId"):
                out.add((own, groups.get(one.inputs["referencedSecurityGroupId"], ""), port))
            elif one.inputs.get("prefixListId"):
                self.edges.add((f"group:{own}", "group:endpoints", "network", port))
            elif one.inputs.get("cidrIpv4") == "0.0.0.0/0":
                self.edges.add((f"group:{own}", "group:nat", "network", port))
        for one in self.graph.of_kind("vpc.SecurityGroupIngressRule"):
            target = groups.get(one.inputs["securityGroupId"], "")
            source = groups.get(one.inputs.get("referencedSecurityGroupId") or "", "")
            port = f"{one.inputs.get('fromPort') or 0:.0f}"
            if target in used and (source, target, port) in out:
                self.edges.add((f"group:{source}", f"group:{target}", "network", port))
        if "people" in self.nodes:
            for one in self.graph.of_kind("ec2.Instance"):
                self.edges.add(("people", self.owner[one.urn], "network", "SSM"))

    def _rights(self) -> None:
        """What the role of a box may do to the resource of another box."""
        arns = {
            str(one.outputs["arn"]): key
            for urn, key in self.owner.items()
            if (one := self.graph.resources[urn]).kind in TITLES and one.outputs.get("arn")
        }
        roles = {one.urn: one for one in self.graph.of_kind("iam.Role")}
        allowed = self._statements()
        for urn, key in sorted(self.owner.items()):
            for role in self._roles(self.graph.resources[urn], roles):
                for actions, resources in allowed.get(str(role.inputs.get("name")), ()):
                    for target in {arns[arn] for text in resources if (arn := _owner_arn(text, arns))}:
                        if target != key:
                            words = verb(actions)
                            self.edges.add(
                                (key, target, "event" if words in ("starts", "sends") else "data", words)
                            )

    def _statements(self) -> dict[str, list[tuple[list[str], list[str]]]]:
        """Role name → (actions, resources) that its own policies allow."""
        found: dict[str, list[tuple[list[str], list[str]]]] = defaultdict(list)
        documents = {
            str(one.outputs["arn"]): one.inputs.get("policy") for one in self.graph.of_kind("iam.Policy")
        }
        given = [
            (one.inputs["role"], one.inputs.get("policy")) for one in self.graph.of_kind("iam.RolePolicy")
        ]
        given += [
            (one.inputs["role"], documents.get(one.inputs["policyArn"]))
            for one in self.graph.of_kind("iam.RolePolicyAttachment")
        ]
        for role, text in given:
            for statement in json.loads(text)["Statement"] if text else ():
                if statement["Effect"] == "Allow":
                    found[str(role)].append(
                        (_listed(statement.get("Action")), _listed(statement.get("Resource")))
                    )
        return found

    def _roles(self, one: Resource, roles: Mapping[str, Resource]) -> Iterator[Resource]:
        """Those that it acts with: not what ECS pulls its image with, nor what RDS sends its metrics with."""
        if one.kind in ("rds.Instance", "s3.Bucket"):
            return
        for name in sorted(one.references):
            if name == "executionRoleArn":
                continue
            for urn in one.references[name]:
                if urn in roles:
                    yield roles[urn]
                found = self.graph.resources.get(urn)
                if found is not None and found.kind in (
                    "ecs.TaskDefinition",
                    "iam.InstanceProfile",
                    "redshiftserverless.Namespace",
                ):
                    yield from self._roles(found, roles)

    def _deliveries(self) -> None:
        """Alarms to topics, topics to people, buckets and queues to functions."""
        topics = {one.outputs["arn"]: self.owner[one.urn] for one in self.graph.of_kind("sns.Topic")}
        for one in self.graph.of_kind("cloudwatch.MetricAlarm", "cloudwatch.CompositeAlarm"):
            for arn in one.inputs.get("alarmActions") or ():
                if arn in topics:
                    self.edges.add(("alarms", topics[arn], "event", ""))
        for one in self.graph.of_kind("budgets.Budget"):
            for notification in one.inputs.get("notifications") or ():
                for arn in notification.get("subscriberSnsTopicArns") or ():
                    if arn in topics:
                        self.edges.add((self.owner[one.urn], topics[arn], "event", ""))
        for one in self.graph.of_kind("sns.TopicSubscription"):
            if one.inputs.get("protocol") == "email" and one.inputs["topic"] in topics:
                self.edges.add((topics[one.inputs["topic"]], "people", "event", "mail"))
        for one in self.graph.of_kind("cloudwatch.EventTarget"):
            self._target(one, f"schedule:{self.graph.component(one)}", str(one.inputs.get("arn")))
        for one in self.graph.of_kind("scheduler.Schedule"):
            self._target(one, self.owner[one.urn], str((one.inputs.get("target") or {}).get("arn")))

    def _target(self, one: Resource, source: str, arn: str) -> None:
        for other in _referred(self.graph, one):
            key = self.owner.get(other.urn)
            if other.outputs.get("arn") == arn and key and source in self.nodes and key != source:
                self.edges.add((source, key, "event", "starts"))


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _owner_arn(text: str, arns: Mapping[str, str]) -> str | None:
    """The ARN of a box that a policy's resource is, or lies in (`…/prefix/*`, `…/index/*`)."""
    if text in arns:
        return text
    return next(
        (arn for arn in sorted(arns, key=len, reverse=True) if text.startswith((f"{arn}/", f"{arn}:"))), None
    )
