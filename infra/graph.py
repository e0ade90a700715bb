"""The resource graph of a stack, recorded from the real program with no CLI, account or network.

The program runs against a monitor that answers each registration as AWS would, with identifiers made up from the
resource's name, and keeps what it was asked: inputs, parent, dependencies by property, protection.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import threading
import typing
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, ClassVar, Final

import pulumi
import yaml
from pulumi.runtime import get_root_resource, mocks, rpc
from pulumi.runtime.stack import Stack

from infra.errors import InfraError, SettingsError
from infra.sdk import load_what_is_used
from infra.settings import PROJECT, Settings, load

load_what_is_used()

ROOT: Final = Path(__file__).parents[1]
ACCOUNT: Final = "123456789012"
"""Of nobody: the account of AWS's own examples."""


@dataclass(frozen=True)
class Resource:
    """One resource as it was registered."""

    urn: str
    type: str
    """The token, such as `aws:rds/instance:Instance`."""
    name: str
    parent: str
    """The URN of its parent, '' for a component."""
    inputs: Mapping[str, Any]
    """Plain values by Pulumi's property names; references are resolved to what `outputs` of the other resource hold."""
    outputs: Mapping[str, Any]
    """Inputs, and what AWS adds: id, arn and the like, made up and unlike any other."""
    depends_on: tuple[str, ...]
    """URNs of all that it waits for."""
    references: Mapping[str, tuple[str, ...]]
    """URNs by input property."""
    protect: bool
    retain_on_delete: bool
    custom: bool
    ignore_changes: tuple[str, ...] = ()

    @cached_property
    def kind(self) -> str:
        """`rds.Instance` for `aws:rds/instance:Instance`; `eav:network:Network` stays."""
        return kind_of(self.type)


def kind_of(token: str) -> str:
    """The kind of a type: `rds.Instance` for `aws:rds/instance:Instance`."""
    package, module, name = token.split(":")
    return f"{module.split('/')[0]}.{name}" if package == "aws" else token


@dataclass
class Graph:
    """All resources of a stack in the order of their registration."""

    settings: Settings
    resources: dict[str, Resource] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    stack_outputs: dict[str, Any] = field(default_factory=dict)
    """By name, what `pulumi stack output` would give."""

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.resources.values())

    def of_kind(self, *kinds: str) -> list[Resource]:
        """Those of these kinds, such as `rds.Instance`."""
        return [one for one in self if one.kind in kinds]

    def one(self, kind: str, name: str | None = None) -> Resource:
        """The only one of its kind (and logical name). Raises LookupError if there are none or several."""
        found = [one for one in self.of_kind(kind) if name in (None, one.name)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} resources {kind} {name or ''}: {[one.name for one in found]}")
        return found[0]

    def component(self, resource: Resource) -> str:
        """The component that a resource belongs to, such as `network`."""
        while resource.parent in self.resources:
            resource = self.resources[resource.parent]
        return resource.name if resource.type.startswith("eav:") else ""

    def made_up(self) -> dict[str, tuple[str, str]]:
        """Each made-up value → (URN, output property) of the resource that it stands for."""
        found: dict[str, tuple[str, str]] = {}
        for one in self:
            for name, value in one.outputs.items():
                if name not in one.inputs and isinstance(value, str) and value:
                    found.setdefault(value, (one.urn, name))
        return found


class _Loader(yaml.SafeLoader):
    """YAML as Pulumi reads it: a key that is there twice is refused, `yes` and 20:00 are text."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {  # type: ignore[misc]
        first: [
            (tag, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$") if tag.endswith(":bool") else pattern)
            for tag, pattern in found
        ]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        sixties = (
            kind is yaml.ScalarNode and implicit[0] and re.match(r"^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+", value)
        )
        return "tag:yaml.org,2002:str" if sixties else str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is there twice", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def read_config(stack: str, root: Path = ROOT) -> dict[str, Any]:
    """What stands in the file of a stack. Raises SettingsError if there is none or it is no YAML of that form."""
    path = root / f"Pulumi.{stack}.yaml"
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (it is a SafeLoader)
    except FileNotFoundError:
        known = ", ".join(sorted(one.name.split(".")[1] for one in root.glob("Pulumi.*.yaml")))
        raise SettingsError(f"{path.name} does not exist: the stacks are {known}") from None
    except yaml.YAMLError as error:
        told = " ".join(str(error).replace(' in "<unicode string>",', " at").split())
        raise SettingsError(f"{path.name}: not YAML: {told}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"{path.name}: {reason}") from None
    config = found.get("config") if isinstance(found, Mapping) else None
    if not isinstance(config, Mapping):
        raise SettingsError(f"{path.name}: must have config: with the settings under it")
    return {str(key): value for key, value in config.items()}


def check_apart(settings: Settings, root: Path = ROOT) -> None:
    """Raises SettingsError where another stack's file has a network that overlaps this one's."""
    own = settings.network.cidr
    for path in sorted(root.glob("Pulumi.*.yaml")):
        stack = path.name.split(".")[1]
        if stack == settings.stack:
            continue
        try:
            other = IPv4Network(read_config(stack, root)[f"{PROJECT}:network"]["cidr"])
        except (SettingsError, KeyError, TypeError, ValueError):
            continue  # what is wrong there is told where that stack is planned
        if own.overlaps(other):
            raise SettingsError(
                f"Pulumi.{settings.stack}.yaml: network.cidr {own} overlaps {other} of {path.name}: give each stack a"
                " range of its own, or two can never be peered"
            )


def record(
    settings: Settings, declare: Callable[[Settings], None] | None = None, running: str | None = None
) -> Graph:
    """Run the program for these settings and return its graph. Raises what the program raises.

    `running`: the version of the PostgreSQL that there is already; None for a stack that has none yet.
    """
    from infra import program  # with it comes the SDK, of which no more is loaded than is used

    graph = Graph(settings)
    monitor = _Recorder(_Answers(settings, running), graph)
    # Resources are declared on an event loop; one of its own, so that a graph can be recorded anywhere.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # Some 100 000 objects of Pulumi's are made and few are let go: looking for cycles among them took a third of the
    # time (1.2 s against 2.1 s for 310 resources, and 1 s more where the SDK is imported on the way).
    collects = gc.isenabled()
    gc.disable()
    try:
        mocks.set_mocks(monitor.mocks, PROJECT, settings.stack, preview=False, monitor=monitor)

        def run() -> pulumi.Output[None]:
            root = get_root_resource()
            assert isinstance(root, Stack)
            # The mocks keep the root of the graph that was recorded before this one.
            root.outputs.clear()
            (declare or program.declare)(settings)
            return pulumi.Output.from_input(dict(root.outputs)).apply(graph.stack_outputs.update)

        pulumi.runtime.test(run)()  # type: ignore[no-untyped-call]
    finally:
        if collects:
            gc.enable()
        loop.close()
        asyncio.set_event_loop(None)
    return graph


def load_graph(stack: str, root: Path = ROOT) -> Graph:
    """The graph of a stack by its file. Raises SettingsError, InfraError."""
    settings = load(stack, read_config(stack, root))
    check_apart(settings, root)
    return record(settings)


class _Recorder(mocks.MockMonitor):
    """Keeps the whole request, where the mocks of Pulumi's SDK see the inputs alone."""

    def __init__(self, answers: _Answers, graph: Graph) -> None:
        super().__init__(answers)
        self.graph = graph
        self.asked: set[str] = set()
        self.lock = threading.Lock()

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 (the protocol's name)
        urn = self.make_urn(request.parent, request.type, request.name)
        # Pulumi asks from several threads: two of one name come at once.
        with self.lock:
            if urn in self.asked:
                raise InfraError(f"two resources are called {request.name} ({request.type})")
            self.asked.add(urn)
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        if request.type == "pulumi:pulumi:Stack":
            return answer
        registered = self.resources[urn]
        self.graph.resources[urn] = Resource(
            urn=urn,
            type=request.type,
            name=request.name,
            parent="" if "pulumi:pulumi:Stack" in request.parent.split("::")[2:3] else request.parent,
            inputs=_plain(rpc.deserialize_properties(request.object)),
            outputs=_plain(registered.state) | ({"id": registered.id} if request.custom else {}),
            depends_on=tuple(sorted(request.dependencies)),
            references={
                name: tuple(sorted(found.urns))
                for name, found in request.propertyDependencies.items()
                if found.urns
            },
            protect=bool(request.protect),
            retain_on_delete=bool(request.retainOnDelete),
            custom=bool(request.custom),
            ignore_changes=tuple(request.ignoreChanges),
        )
        return answer

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """As the engine makes it: with the types of all parents but the stack, so that it tells the component."""
        chain = parent.split("::")[2] if parent else ""
        whole = type_ if chain in ("", "pulumi:pulumi:Stack") else f"{chain}${type_}"
        return f"urn:pulumi:{self.graph.settings.stack}::{PROJECT}::{whole}::{name}"


def _plain(value: Any) -> Any:
    """Secrets unwrapped, assets by their path."""
    if isinstance(value, Mapping):
        if rpc._special_sig_key in value and "value" in value:  # noqa: SLF001 (a secret on the wire)
            return _plain(value["value"])
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, pulumi.FileArchive | pulumi.FileAsset):
        return str(value.path)
    return value


class _Answers(mocks.Mocks):
    """What AWS would answer."""

    def __init__(self, settings: Settings, running: str | None = None) -> None:
        self.region = settings.region
        self.running = running

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        return self._answer(args), []

    def _answer(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        match args.token:
            case "aws:index/getCallerIdentity:getCallerIdentity":
                return {
                    "accountId": ACCOUNT,
                    "arn": f"arn:aws:iam::{ACCOUNT}:role/plan",
                    "userId": "plan",
                    "id": ACCOUNT,
                }
            case "aws:index/getPartition:getPartition":
                return {
                    "partition": "aws",
                    "dnsSuffix": "amazonaws.com",
                    "id": "aws",
                    "reverseDnsPrefix": "com.amazonaws",
                }
            case "aws:index/getAvailabilityZones:getAvailabilityZones":
                zones = [f"{self.region}{letter}" for letter in "abc"]
                return {
                    "names": zones,
                    "zoneIds": zones,
                    "groupNames": [self.region],
                    "id": self.region,
                    "state": "available",
                }
            case "aws:rds/getInstances:getInstances":
                names = (
                    [name for one in args.args["filters"] for name in one["values"]] if self.running else []
                )
                return {"instanceIdentifiers": names, "instanceArns": [], "id": self.region}
            case "aws:rds/getInstance:getInstance":
                return {"engineVersion": self.running, "id": args.args["dbInstanceIdentifier"]}
            case "aws:ssm/getParameter:getParameter":
                image = f"ami-{_digits(args.args['name'], 17)}"
                return dict(args.args) | {
                    "value": image,
                    "insecureValue": image,
                    "type": "String",
                    "version": 1,
                }
            case "aws:secretsmanager/getRandomPassword:getRandomPassword":
                return dict(args.args) | {"randomPassword": "made-up-for-the-plan"}
        raise InfraError(
            f"the program asks AWS for {args.token}, and the offline plan has no answer: see infra/graph.py"
        )

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        if not args.custom:
            return "", dict(args.inputs)
        state = dict(args.inputs)
        given = _plain(args.inputs)
        own = given.get("region", self.region)
        made_up = _made_up(args.typ, args.name, given, own)
        state |= {name: value for name, value in made_up.items() if name not in state}
        return made_up["id"], {name: value for name, value in state.items() if name != "id"}


_PHYSICAL: Final = (
    "identifier", "clusterIdentifier", "bucket", "name", "functionName", "family", "workgroupName", "namespaceName",
    "dashboardName", "alarmName",
)  # fmt: skip
"""The input that names a resource, where it has one."""

_BY_NAME: Final = re.compile(
    r"^aws:(s3/bucket|dynamodb/table|iam/role|iam/instanceProfile|cloudwatch/|rds/|redshift/|ecs/|ecr/|lambda/|kms/alias)"
)
"""What Pulumi knows by its name; the others have an identifier of AWS's making."""

_PREFIXES: Final = {
    "Vpc": "vpc", "Subnet": "subnet", "SecurityGroup": "sg", "DefaultSecurityGroup": "sg", "RouteTable": "rtb",
    "InternetGateway": "igw", "NatGateway": "nat", "Eip": "eipalloc", "VpcEndpoint": "vpce", "FlowLog": "fl",
    "Instance": "i", "LaunchTemplate": "lt", "RouteTableAssociation": "rtbassoc", "Route": "r",
    "SecurityGroupIngressRule": "sgr", "SecurityGroupEgressRule": "sgr",
}  # fmt: skip


def _digits(text: str, count: int) -> str:
    """Hexadecimal digits that are always the same for a text."""
    found = "".join(f"{zlib.crc32(f'{text}{part}'.encode()):08x}" for part in range(-(-count // 8)))
    return found[:count]


def _made_up(token: str, name: str, inputs: Mapping[str, Any], region: str) -> dict[str, Any]:
    """id, arn and every other output of a type, by the annotations of its class in the SDK."""
    module, kind = token.split(":")[1].split("/")[0], token.split(":")[2]
    physical = next((str(inputs[one]) for one in _PHYSICAL if inputs.get(one)), name)
    prefix = _PREFIXES.get(kind) if module in ("ec2", "vpc") else None
    own = f"{prefix}-{_digits(f'{token}{name}{region}', 17)}" if prefix else physical
    if not prefix and not _BY_NAME.match(token):
        own = f"{physical}-{_digits(f'{token}{name}{region}', 8)}"
    if token == "aws:rds/instance:Instance":  # noqa: S105 (a type, no secret)
        # Since provider 5 an instance is known by RDS's own identifier, not by its name.
        own = f"db-{_digits(f'{token}{name}{region}', 26).upper()}"
    made: dict[str, Any] = {"id": own, "arn": _arn(module, kind, physical, own, region, inputs)}
    for key, annotation in _annotations(token).items():
        if key in made or key in inputs:
            continue
        if key == "region":
            made[key] = region
            continue
        value = _value(annotation, f"{key}.{own}", key)
        if value is not None:
            made[key] = value
    if token.startswith(("aws:lambda/", "aws:sns/topic:", "aws:sqs/queue:")) and kind in ("Topic", "Queue"):
        made["id"] = (
            made["arn"] if kind == "Topic" else f"https://sqs.{region}.amazonaws.com/{ACCOUNT}/{physical}"
        )
        made["url"] = f"https://sqs.{region}.amazonaws.com/{ACCOUNT}/{physical}"
    return made


_ARNS: Final = {
    ("s3", "Bucket"): "arn:aws:s3:::{name}",
    ("iam", "Role"): "arn:aws:iam::{account}:role/{name}",
    ("iam", "Policy"): "arn:aws:iam::{account}:policy/{name}",
    ("iam", "InstanceProfile"): "arn:aws:iam::{account}:instance-profile/{name}",
    ("kms", "Key"): "arn:aws:kms:{region}:{account}:key/{id}",
    ("kms", "Alias"): "arn:aws:kms:{region}:{account}:{name}",
    ("sns", "Topic"): "arn:aws:sns:{region}:{account}:{name}",
    ("sqs", "Queue"): "arn:aws:sqs:{region}:{account}:{name}",
    ("lambda", "Function"): "arn:aws:lambda:{region}:{account}:function:{name}",
    ("dynamodb", "Table"): "arn:aws:dynamodb:{region}:{account}:table/{name}",
    ("kinesis", "Stream"): "arn:aws:kinesis:{region}:{account}:stream/{name}",
    ("cloudwatch", "LogGroup"): "arn:aws:logs:{region}:{account}:log-group:{name}",
    ("cloudwatch", "MetricAlarm"): "arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
    ("cloudwatch", "CompositeAlarm"): "arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
    ("rds", "Instance"): "arn:aws:rds:{region}:{account}:db:{name}",
    ("rds", "Proxy"): "arn:aws:rds:{region}:{account}:db-proxy:prx-{name}",
    ("glue", "CatalogDatabase"): "arn:aws:glue:{region}:{account}:database/{name}",
    ("redshiftserverless", "Namespace"): "arn:aws:redshift-serverless:{region}:{account}:namespace/{id}",
    ("redshiftserverless", "Workgroup"): "arn:aws:redshift-serverless:{region}:{account}:workgroup/{id}",
    ("redshift", "Cluster"): "arn:aws:redshift:{region}:{account}:cluster:{name}",
    ("sfn", "StateMachine"): "arn:aws:states:{region}:{account}:stateMachine:{name}",
    ("secretsmanager", "Secret"): "arn:aws:secretsmanager:{region}:{account}:secret:{name}",
    ("ecr", "Repository"): "arn:aws:ecr:{region}:{account}:repository/{name}",
    ("ecs", "Service"): "arn:aws:ecs:{region}:{account}:service/{cluster}/{name}",
    ("ecs", "Cluster"): "arn:aws:ecs:{region}:{account}:cluster/{name}",
    ("scheduler", "ScheduleGroup"): "arn:aws:scheduler:{region}:{account}:schedule-group/{name}",
    ("ecs", "TaskDefinition"): "arn:aws:ecs:{region}:{account}:task-definition/{name}:1",
}


def _arn(module: str, kind: str, name: str, own: str, region: str, inputs: Mapping[str, Any]) -> str:
    pattern = _ARNS.get((module, kind), "arn:aws:{module}:{region}:{account}:{kind}/{id}")
    cluster = str(inputs.get("cluster", "")).rsplit("/", 1)[-1]
    return pattern.format(
        module=module, kind=kind.lower(), name=name, id=own, region=region, account=ACCOUNT, cluster=cluster
    )


def _annotations(token: str) -> dict[str, Any]:
    """Output property → its type, from the class that the SDK has for a token."""
    _, module, kind = token.split(":")
    package, file = module.split("/")
    package = "lambda_" if package == "lambda" else package
    file = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", file).lower()
    for suffix in ("", "_"):
        loaded = sys.modules.get(f"pulumi_aws.{package}.{file}{suffix}")
        if loaded is not None:
            break
    else:
        raise InfraError(f"{token}: no module pulumi_aws.{package}.{file} is loaded")
    owner = getattr(loaded, kind)
    found: dict[str, Any] = {}
    for name, attribute in vars(owner).items():
        if isinstance(attribute, property) and attribute.fget is not None:
            pulumi_name = getattr(attribute.fget, "_pulumi_name", name)
            found[pulumi_name] = attribute.fget.__annotations__.get("return")
    return found


def _value(annotation: Any, text: str, key: str) -> Any:
    """A value of the type that an output has: text unlike any other, nothing for what may be absent."""
    inner = typing.get_args(annotation)[0] if typing.get_args(annotation) else None
    if key == "resourceId":
        return text.removeprefix("resourceId.")
    if inner is str:
        return text
    if key == "masterUserSecrets":
        return [
            {"secretArn": f"arn:aws:secretsmanager:::secret:{text}", "kmsKeyId": "", "secretStatus": "active"}
        ]
    if key == "endpoints":
        return [{"address": text, "port": 5439, "vpcEndpoints": []}]
    return None
