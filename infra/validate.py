"""The graph of a stack before the AWS provider's own validation, and created once in an emulator of the AWS APIs.

`python -m infra validate STACK`: Terraform with terraform-provider-aws checks every resource of the stack by the schema
and the validation of the provider that pulumi-aws bridges to. `--apply` creates them all in an emulator and looks
whether a second run would change anything. Neither needs an account.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
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
from infra.graph import Graph, load_graph
from infra.terraform import convert

SOURCE: Final = "hashicorp/aws"
PROVIDER: Final = f"registry.terraform.io/{SOURCE}"
VERSION: Final = "5.100.0"
"""What is taken from the registry where no mirror has one: `infra.terraform` knows which inputs are newer than it."""
MIRRORS: Final = (
    "~/.terraform.d/plugins",
    "~/.local/share/terraform/plugins",
    "/usr/local/share/terraform/plugins",
    "/usr/share/terraform/plugins",
)
"""Where Terraform looks for providers before it asks the registry; `/opt/*` is looked at too."""

SLOW: Final = frozenset({"rds.Instance", "rds.InstanceAutomatedBackupsReplication"})
"""The provider looks at an instance of RDS for 160 s before it believes that it is there, and a replica waits for its
primary; a copy of backups waits for both. No setting of it is shorter."""

APPLY_SECONDS: Final = 600
"""Then an apply is given up, and what was not there yet is said."""

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
    left_out: int = 0
    """Resources of kinds that were not asked for."""
    unseen: list[str] = field(default_factory=list)
    """Inputs that this provider is too old to know."""

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


def _unpacked(mirror: Path) -> Path | None:
    """The folder of the newest provider for this machine in a mirror that keeps them unpacked."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    found = (mirror / PROVIDER).glob(f"*/{sys.platform}_{machine}/terraform-provider-aws_*")
    return max((one.parent for one in found), key=lambda one: _number(one.parent.name), default=None)


def _number(version: str) -> list[int]:
    return [int(one) for one in re.findall(r"\d+", version)]


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
        say("terraform providers schema")
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
        images = {str(one.inputs["ami"]) for one in graph.of_kind("ec2.Instance")}
        with emulator(images) as endpoint:
            found = convert(
                graph,
                schemas,
                provider=_provider(endpoint),
                code=terraform.code(),
                without=frozenset(one.urn for one in graph if one.kind in without),
            )
            terraform.write(found.config)
            checked.unseen += found.unseen
            checked.left_out = checked.resources - len(found.addresses)
            say(f"terraform apply of {len(found.addresses)} resources")
            checked.errors += terraform.apply()
            if not checked.errors:
                say("terraform plan, the second")
                checked.created = len(found.addresses)
                checked.changes += list(_unexpected(terraform.changes()))
        return checked


def _unexpected(planned: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each resource that a second run would change, with its attributes."""
    for one in planned:
        change = one["change"]
        if change["actions"] == ["no-op"] or change["actions"] == ["read"]:
            continue
        before, after = change["before"] or {}, change["after"] or {}
        unknown = change.get("after_unknown") or {}
        differing = {name for name in after if after[name] != before.get(name)} | {
            name for name in unknown if unknown[name]
        }
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
        self.mirror = find_mirror()
        self.unpacked = _unpacked(self.mirror) if self.mirror else None
        rc = folder / "terraform.rc"
        installation = ""
        if self.unpacked:
            # Taken as it lies there: `init` and each command after it would read all of its 700 MB for a checksum.
            installation = f'dev_overrides {{ "{SOURCE}" = "{self.unpacked}" }}'
        elif self.mirror:
            installation = f'filesystem_mirror {{ path = "{self.mirror}" }}'
        rc.write_text(f"provider_installation {{\n  {installation}\n}}\n" if installation else "")
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
        wanted = {"source": SOURCE} | ({} if self.mirror else {"version": VERSION})
        self.write({"terraform": {"required_providers": {"aws": wanted}}})
        if self.unpacked:
            return _schemas(self), self.unpacked.parent.name
        done = self.run("init", "-no-color", "-input=false")
        if done.returncode:
            raise InfraError(f"terraform init: {_first_error(done.stdout + done.stderr)}")
        version = json.loads(self.run("version", "-json").stdout)["provider_selections"][PROVIDER]
        return _schemas(self), version

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
        done = self.run("plan", "-input=false", "-no-color", "-detailed-exitcode", "-out=again.plan")
        if done.returncode == 0:
            return []
        if done.returncode != 2:  # there are changes
            raise InfraError(f"terraform plan: {_first_error(done.stdout + done.stderr)}")
        shown: list[Mapping[str, Any]] = json.loads(self.run("show", "-json", "again.plan").stdout)[
            "resource_changes"
        ]
        return shown


_SCHEMAS: dict[Path, Mapping[str, Any]] = {}
"""Of a provider, read once a process: they take two seconds and 14 MB."""


def _schemas(terraform: _Terraform) -> Mapping[str, Any]:
    known = _SCHEMAS.get(terraform.unpacked) if terraform.unpacked else None
    if known is None:
        done = terraform.run("providers", "schema", "-json")
        if done.returncode:
            raise InfraError(f"terraform providers schema: {_first_error(done.stdout + done.stderr)}")
        known = json.loads(done.stdout)["provider_schemas"][PROVIDER]["resource_schemas"]
        if terraform.unpacked:
            _SCHEMAS[terraform.unpacked] = known
    return known


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
        help="create it all in an emulator of AWS, and look what a second run would do: up to eight minutes, since"
        " the provider waits for each instance of RDS",
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
        print(f"{checked.created} created in the emulator, {checked.left_out} left out")
    print("accepted" if checked.passed else "not accepted")
    return 0 if checked.passed else 3
