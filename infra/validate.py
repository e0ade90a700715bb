"""The graph of a stack before the AWS provider's own validation, and created once in an emulator of the AWS APIs.

`python -m infra validate STACK`: Terraform with terraform-provider-aws checks every resource of the stack by the schema
and the validation of the provider that pulumi-aws bridges to. `--apply` creates them all in an emulator and looks
whether a second run would change anything. Neither needs an account. What the emulator cannot do is listed below.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from infra.emulator import emulator
from infra.errors import InfraError
from infra.graph import Graph, Resource, load_graph
from infra.terraform import TYPES, convert

PROVIDER: Final = "registry.terraform.io/hashicorp/aws"
MIRRORS: Final = (
    "~/.terraform.d/plugins",
    "~/.local/share/terraform/plugins",
    "/usr/local/share/terraform/plugins",
    "/usr/share/terraform/plugins",
)
"""Where Terraform looks for providers before it asks the registry; `/opt/*` is looked at too."""

NOT_EMULATED: Final[dict[str, str]] = {
    "budgets.Budget": "DescribeSubscribersForNotification",
    "cloudwatch.CompositeAlarm": "PutCompositeAlarm",
    "ec2.Instance": "DescribeInstanceCreditSpecifications knows the instance by no filter",
    "rds.Instance:replica": "a replica has the DbiResourceId of its primary, by which the provider looks for it",
    "rds.InstanceAutomatedBackupsReplication": "StartDBInstanceAutomatedBackupsReplication",
    "redshift.Cluster": "DescribeClusters has no ClusterAvailabilityStatus, which the provider waits for",
    "redshift.EventSubscription": "CreateEventSubscription",
    "redshift.Logging": "needs the cluster",
    "redshift.ParameterGroup": "ModifyClusterParameterGroup",
    "redshift.SnapshotCopy": "needs the cluster",
    "redshift.SnapshotSchedule": "CreateSnapshotSchedule",
    "redshift.SnapshotScheduleAssociation": "needs the cluster",
    "redshift.UsageLimit": "needs the cluster",
    "s3.BucketLogging": "reads the Resource of the target's policy as text only, where ours is a list",
    "s3.BucketMetric": "PutBucketMetricsConfiguration is taken for CreateBucket",
    "sfn.StateMachine": "ValidateStateMachineDefinition",
}
"""Kinds that moto cannot make, and the operation that it lacks; the provider's validation sees them all the same."""

APPLY_SECONDS: Final = 600
"""Then an apply is given up, and what was not there yet is said."""

FORGOTTEN: Final[dict[str, dict[str, str]]] = {
    "dynamodb.Table": {"on_demand_throughput": "moto has no caps"},
    "ecs.Service": {
        "availability_zone_rebalancing": "moto has none",
        "enable_ecs_managed_tags": "moto has none",
    },
    "kinesis.Stream": {"tags_all": "CreateStream takes no tags in moto"},
    "lambda.Function": {"dead_letter_config": "moto keeps none", "logging_config": "moto keeps none"},
    "rds.Instance": {
        "performance_insights_enabled": "moto has no Performance Insights",
        "performance_insights_kms_key_id": "moto has no Performance Insights",
        "performance_insights_retention_period": "moto has no Performance Insights",
    },
    "rds.ParameterGroup": {"parameter": "DescribeDBParameters gives none back in moto"},
    "redshift.SnapshotCopyGrant": {"tags_all": "CreateSnapshotCopyGrant takes no tags in moto"},
    "vpc.SecurityGroupEgressRule": {"description": "moto keeps none for a rule"},
    "vpc.SecurityGroupIngressRule": {"description": "moto keeps none for a rule"},
}
"""Attributes that moto does not give back as they were set, so that a second plan would set them again."""

SERVICES: Final = (
    "appautoscaling", "budgets", "cloudwatch", "dynamodb", "ec2", "ecr", "ecs", "events", "glue", "iam", "kinesis",
    "kms", "lambda", "logs", "rds", "redshift", "redshiftserverless", "route53", "s3", "scheduler", "secretsmanager",
    "sfn", "sns", "sqs", "ssm", "sts",
)  # fmt: skip


@dataclass
class Checked:
    """What came of it."""

    stack: str
    provider: str
    """Its version."""
    resources: int
    created: int = 0
    errors: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    """What a second run would change."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Kinds of this stack that the emulator does not have, and why."""
    unseen: list[str] = field(default_factory=list)
    """Inputs that this provider is too old to know."""
    left_out_count: int = 0
    """Resources of these kinds."""

    @property
    def passed(self) -> bool:
        """Nothing was refused, and a second run has nothing to do."""
        return not self.errors and not self.changes


def find_terraform() -> str | None:
    """The program, if it is here."""
    return shutil.which("terraform")


def find_mirror() -> Path | None:
    """A folder of providers with the AWS provider in it."""
    places = [Path(one).expanduser() for one in MIRRORS] + sorted(Path("/opt").glob("*"))
    return next((one for one in places if (one / PROVIDER).is_dir()), None)


def check(
    graph: Graph,
    *,
    apply: bool = False,
    without: Collection[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Checked:
    """Validate a graph, or create it in an emulator, less the kinds of `without`.

    Raises InfraError where there is no Terraform.
    """
    program = find_terraform()
    if program is None:
        raise InfraError("there is no terraform on PATH: its AWS provider is what checks the graph")
    with tempfile.TemporaryDirectory(prefix="eav-terraform-") as folder:
        terraform = _Terraform(program, Path(folder))
        say("terraform init")
        schemas, version = terraform.prepare()
        checked = Checked(graph.settings.stack, version, sum(one.custom for one in graph))
        if not apply:
            nowhere = _provider("http://127.0.0.1:1")
            written = convert(graph, schemas, provider=nowhere, code=terraform.code())
            terraform.write(written.config)
            checked.unseen += written.unseen
            say("terraform validate")
            checked.errors += terraform.validate()
            return checked
        left_out = {
            one.urn: _not_emulated(one) or one.kind * (one.kind in without) for one in graph if one.custom
        }
        checked.left_out = {
            kind: NOT_EMULATED.get(kind, "not asked for")
            for kind in sorted(filter(None, set(left_out.values())))
        }
        images = {str(one.inputs["ami"]) for one in graph.of_kind("ec2.Instance")}
        with emulator(images) as endpoint:
            found = convert(
                graph,
                schemas,
                provider=_provider(endpoint),
                code=terraform.code(),
                without=frozenset(urn for urn, kind in left_out.items() if kind),
            )
            terraform.write(found.config)
            checked.unseen += found.unseen
            checked.left_out_count = checked.resources - len(found.addresses)
            say(f"terraform apply of {len(found.addresses)} resources")
            checked.errors += terraform.apply()
            if not checked.errors:
                say("terraform plan, the second")
                kinds = {name: kind for kind, name in TYPES.items()}
                planned = terraform.changes()
                checked.created = len(found.addresses)
                checked.changes += list(_unexpected(planned, kinds))
        return checked


def _not_emulated(one: Resource) -> str:
    """The entry of NOT_EMULATED that a resource falls under, or ''."""
    kind = f"{one.kind}:replica" if one.inputs.get("replicateSourceDb") else one.kind
    return kind if kind in NOT_EMULATED else ""


def _unexpected(planned: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> Iterator[str]:
    """A line for each attribute that a second run would change and the emulator has not just forgotten."""
    for one in planned:
        change = one["change"]
        if change["actions"] == ["no-op"] or change["actions"] == ["read"]:
            continue
        before, after = change["before"] or {}, change["after"] or {}
        unknown = change.get("after_unknown") or {}
        differing = {name for name in after if after[name] != before.get(name)} | {
            name for name in unknown if unknown[name]
        }
        differing -= set(FORGOTTEN.get(kinds[one["type"]], {}))
        if differing or change["actions"] != ["update"]:
            yield f"{one['address']}: {'/'.join(change['actions'])} of {', '.join(sorted(differing)) or 'nothing'}"


def _provider(endpoint: str) -> dict[str, Any]:
    """Settings of a provider that talks to the emulator and to nothing else."""
    return {
        "access_key": "emulated",
        "secret_key": "emulated",
        "skip_credentials_validation": True,
        "skip_metadata_api_check": True,
        "s3_use_path_style": True,
        # 25 by default: an emulator that cannot do a thing would be asked for it for ten minutes.
        "max_retries": 2,
        "endpoints": [dict.fromkeys(SERVICES, endpoint)],
    }


class _Terraform:
    """Terraform in a folder of its own, with nothing of the user's settings."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder
        mirror = find_mirror()
        rc = folder / "terraform.rc"
        rc.write_text(
            f'provider_installation {{\n  filesystem_mirror {{ path = "{mirror}" }}\n}}\n' if mirror else ""
        )
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("TF_", "AWS_"))
        } | {
            "TF_CLI_CONFIG_FILE": str(rc),
            "TF_IN_AUTOMATION": "true",
            "CHECKPOINT_DISABLE": "true",
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def prepare(self) -> tuple[Mapping[str, Any], str]:
        """Schemas of the resource types, and the provider's version."""
        self.write({"terraform": {"required_providers": {"aws": {"source": "hashicorp/aws"}}}})
        done = self.run("init", "-no-color", "-input=false")
        if done.returncode:
            raise InfraError(f"terraform init: {_first_error(done.stdout + done.stderr)}")
        version = json.loads(self.run("version", "-json").stdout)["provider_selections"][PROVIDER]
        schemas = json.loads(self.run("providers", "schema", "-json").stdout)
        return schemas["provider_schemas"][PROVIDER]["resource_schemas"], version

    def write(self, config: Mapping[str, Any]) -> None:
        (self.folder / "main.tf.json").write_text(json.dumps(config))

    def code(self) -> str:
        """A zip file for functions: what is in theirs is another test's matter."""
        path = self.folder / "function.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("handler.py", "def handler(event, context): return {}\n")
        return str(path)

    def validate(self) -> list[str]:
        """Errors of the configuration, a line each."""
        answer = json.loads(self.run("validate", "-json").stdout)
        return [_told(one) for one in answer["diagnostics"] if one["severity"] == "error"]

    def apply(self) -> list[str]:
        """Create everything; errors, a line each."""
        log = self.folder / "apply.json"
        with log.open("w") as sink, subprocess.Popen(
            [self.program, "apply", "-json", "-auto-approve", "-input=false", "-parallelism=32"],
            cwd=self.folder, env=self.environment, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                process.wait(APPLY_SECONDS)
            except subprocess.TimeoutExpired:
                # Terraform waits long for what an emulator never says is ready; its provider is a process of its own.
                os.killpg(process.pid, signal.SIGKILL)
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        found = [
            _told(line.get("diagnostic", {"summary": line["@message"]}))
            for line in lines
            if line["@level"] == "error"
        ]
        if process.returncode and not found:
            done = {
                line["hook"]["resource"]["addr"]
                for line in lines
                if line["type"] in ("apply_complete", "apply_errored")
            }
            begun = {line["hook"]["resource"]["addr"] for line in lines if line["type"] == "apply_start"}
            found = [f"{address}: not there after {APPLY_SECONDS} s" for address in sorted(begun - done)]
        return found or (
            [] if process.returncode == 0 else [f"terraform apply ended with {process.returncode}"]
        )

    def changes(self) -> list[Mapping[str, Any]]:
        """What a run after this one would do, resource by resource."""
        done = self.run("plan", "-input=false", "-no-color", "-out=again.plan")
        if done.returncode:
            raise InfraError(f"terraform plan: {_first_error(done.stdout + done.stderr)}")
        shown: list[Mapping[str, Any]] = json.loads(self.run("show", "-json", "again.plan").stdout)[
            "resource_changes"
        ]
        return shown


def _told(found: Mapping[str, Any]) -> str:
    """One diagnostic of Terraform as a line."""
    where = found.get("address") or found.get("snippet", {}).get("context") or ""
    return " ".join(f"{where}: {found['summary']}: {found.get('detail', '')}".split())


def _first_error(output: str) -> str:
    lines = [line.strip("│ ") for line in output.splitlines() if "Error" in line or line.startswith("│")]
    return " ".join(" ".join(lines).split())[:500]


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m infra validate`; returns the exit code. Raises InfraError."""
    parser = argparse.ArgumentParser(
        prog="python -m infra validate",
        description="Have terraform-provider-aws, on which pulumi-aws is built, validate every resource of a stack."
        " Needs terraform on PATH, and the provider where terraform finds it; no account.",
        epilog="exit codes: 0 accepted; 1 it could not be checked; 3 refused, or a second run would change something",
    )
    parser.add_argument("stack", help="dev, staging, prod")
    parser.add_argument(
        "--apply",
        action="store_true",
        help="create it all in an emulator of AWS, and look what a second run would do",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(argv)

    def say(line: str) -> None:
        print(f"==> {line}", file=sys.stderr, flush=True)

    checked = check(load_graph(options.stack), apply=options.apply, say=say)
    if options.json:
        print(json.dumps(asdict(checked) | {"passed": checked.passed}))
        return 0 if checked.passed else 3
    print(f"{checked.stack}: {checked.resources} resources before terraform-provider-aws {checked.provider}")
    for line in checked.unseen:
        print(f"  newer than this provider: {line}")
    for line in checked.errors:
        print(f"  refused: {line}")
    for line in checked.changes:
        print(f"  changes again: {line}")
    if options.apply:
        print(
            f"{checked.created} created in the emulator, {checked.left_out_count} left out that it cannot make:"
        )
        for kind, why in checked.left_out.items():
            print(f"  {kind}: {why}")
    print("accepted" if checked.passed else "not accepted")
    return 0 if checked.passed else 3
