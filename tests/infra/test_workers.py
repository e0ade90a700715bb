"""The jobs as Fargate tasks: what they are, what they may do, and that the jobs understand what they are told."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import conninfo

from infra import workers
from infra.graph import ROOT, Graph
from infra.postgres import PROXY_USERS
from infra.settings import Workers as Settings
from jobs import login
from jobs.archive import settings as archive_settings
from jobs.cli import parser
from jobs.ingest import kinesis
from tests.infra import changed
from tests.infra.changed import DIGEST, with_an_image
from tests.infra.policies import statements
from tests.infra.test_postgres import master_arn

TASKS = ("worker", "ingest", "migrate")


def container(graph: Graph, task: str) -> dict[str, Any]:
    (found,) = json.loads(graph.one("ecs.TaskDefinition", task).inputs["containerDefinitions"])
    assert isinstance(found, dict)
    return found


def environment(graph: Graph, task: str) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(graph, task)["environment"]}


class TestTasks:
    @pytest.mark.parametrize("task", TASKS)
    def test_a_task_is_nobody_who_can_write_anywhere_but_to_its_own_folder(
        self, graph: Graph, task: str
    ) -> None:
        one = container(graph, task)
        assert not one["user"].startswith(("0", "root"))
        assert one["readonlyRootFilesystem"] is True
        assert one["privileged"] is False
        assert one["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
        (mount,) = one["mountPoints"]
        (volume,) = graph.one("ecs.TaskDefinition", task).inputs["volumes"]
        assert mount["sourceVolume"] == volume["name"]
        assert environment(graph, task)["TMPDIR"] == mount["containerPath"]

    @pytest.mark.parametrize("task", TASKS)
    def test_it_runs_on_arm_with_time_to_end_and_in_utc(self, graph: Graph, task: str) -> None:
        inputs = graph.one("ecs.TaskDefinition", task).inputs
        assert inputs["runtimePlatform"]["cpuArchitecture"] == "ARM64"
        assert inputs["requiresCompatibilities"] == ["FARGATE"]
        # Fargate gives no more than two minutes; the worker's own grace is ten seconds.
        assert 10 < container(graph, task)["stopTimeout"] <= 120
        assert environment(graph, task)["TZ"] == "UTC"

    @pytest.mark.parametrize("task", TASKS)
    def test_its_log_group_is_there_before_it_with_a_key_and_an_end(self, graph: Graph, task: str) -> None:
        name = container(graph, task)["logConfiguration"]["options"]["awslogs-group"]
        (group,) = (one for one in graph.of_kind("cloudwatch.LogGroup") if one.inputs["name"] == name)
        assert group.inputs["retentionInDays"] == graph.settings.workers.log_days
        assert group.inputs["kmsKeyId"] == graph.one("kms.Key", "key-logs").outputs["arn"]
        assert group.urn in graph.one("ecs.TaskDefinition", task).depends_on

    @pytest.mark.parametrize("task", TASKS)
    def test_no_secret_is_in_the_environment_and_the_server_is_verified(
        self, graph: Graph, task: str
    ) -> None:
        url = conninfo.conninfo_to_dict(environment(graph, task)["DATABASE_URL"])
        primary = graph.one("rds.Instance", "primary")
        assert "password" not in url
        assert url["sslmode"] == "verify-full"
        assert url["host"] == primary.outputs["address"]
        assert url["dbname"] == graph.settings.postgres.database
        assert primary.urn in graph.one("ecs.TaskDefinition", task).references["containerDefinitions"]
        assert "secrets" not in container(graph, task)

    def test_a_shell_in_a_task_would_be_encrypted_and_kept_and_no_service_offers_one(
        self, graph: Graph
    ) -> None:
        (found,) = [graph.one("ecs.Cluster").inputs["configuration"]["executeCommandConfiguration"]]
        assert found["logging"] == "OVERRIDE"
        assert (
            found["logConfiguration"]["cloudWatchLogGroupName"]
            == graph.one("cloudwatch.LogGroup", "tasks-shells").outputs["name"]
        )
        assert not any(one.inputs["enableExecuteCommand"] for one in graph.of_kind("ecs.Service"))

    def test_fargate_may_use_the_key_of_the_disks_for_this_cluster(self, graph: Graph) -> None:
        cluster, key = graph.one("ecs.Cluster"), graph.one("kms.Key", "key-compute")
        disks = cluster.inputs["configuration"]["managedStorageConfiguration"]
        assert disks["fargateEphemeralStorageKmsKeyId"] == key.outputs["arn"]
        ours = [one for one in json.loads(key.inputs["policy"])["Statement"] if "Condition" in one]
        assert {
            one["Condition"]["StringEquals"]["kms:EncryptionContext:aws:ecs:clusterName"] for one in ours
        } == {cluster.inputs["name"]}
        assert {one["Principal"]["Service"] for one in ours} == {"fargate.amazonaws.com"}

    def test_container_insights_write_to_a_group_that_is_there_first(self, graph: Graph) -> None:
        cluster = graph.one("ecs.Cluster")
        group = graph.one("cloudwatch.LogGroup", "tasks-insights")
        assert group.inputs["name"] == f"/aws/ecs/containerinsights/{cluster.inputs['name']}/performance"
        assert group.urn in cluster.depends_on

    def test_without_insights_there_is_no_group_of_theirs(self) -> None:
        found = with_an_image()
        assert found.one("ecs.Cluster").inputs["settings"] == [
            {"name": "containerInsights", "value": "disabled"}
        ]
        assert "tasks-insights" not in {one.name for one in found.of_kind("cloudwatch.LogGroup")}


class TestWhatTheJobsMakeOfIt:
    @pytest.mark.parametrize(("task", "user"), [("worker", "eav_jobs"), ("ingest", "eav_ingest")])
    def test_services_log_in_with_a_token_as_their_own_role(
        self, graph: Graph, task: str, user: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(login, "_token", lambda host, port, name: f"token of {name} at {host}:{port}")
        found = environment(graph, task)
        address = graph.one("rds.Instance", "primary").outputs["address"]
        assert login.options(found["DATABASE_URL"], found) == {
            "password": f"token of {user} at {address}:5432"
        }

    def test_migrations_log_in_with_the_master_s_secret(
        self, graph: Graph, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def secret(service: str, call: str, **parameters: str) -> dict[str, str]:
            asked.append((service, call, parameters["SecretId"]))
            return {"SecretString": '{"username": "root", "password": "p"}'}

        monkeypatch.setattr(login, "_asked", secret)
        found = environment(graph, "migrate")
        assert login.options(found["DATABASE_URL"], found) == {"user": "root", "password": "p"}
        arn = master_arn(graph)
        assert asked == [("secretsmanager", "get_secret_value", arn)]

    def test_the_worker_is_told_where_partitions_go_and_whether_they_leave(self, graph: Graph) -> None:
        found = archive_settings.settings(environment(graph, "worker"))
        assert found is not None
        assert found.bucket == graph.one("s3.Bucket", "archive-partitions").outputs["bucket"]
        assert found.kms_key_id == graph.one("kms.Key", "key-archive").outputs["arn"]
        assert found.leave is graph.settings.archive.partitions_leave
        assert found.glue_database == graph.one("glue.CatalogDatabase").inputs["name"]

    def test_without_a_warehouse_no_catalogue_is_named(self) -> None:
        found = changed.graph("dev", warehouse={"kind": "none"})
        assert not found.of_kind("glue.CatalogDatabase")
        assert "GLUE_DATABASE" not in environment(found, "worker")

    def test_the_commands_are_those_of_the_jobs(self, graph: Graph) -> None:
        for task in ("worker", "ingest"):
            python, option, module, *arguments = container(graph, task)["command"]
            assert (python, option, module) == ("python", "-m", "jobs")
            args = parser().parse_args(arguments)
            assert str(args.alive) == workers.ALIVE
        assert args.follow
        assert args.file == [kinesis.SCHEME + graph.one("kinesis.Stream", "stream").inputs["name"]]

    def test_migrations_let_every_role_in_by_iam_that_may_log_in(self, graph: Graph) -> None:
        *alembic, option, names, command, target = container(graph, "migrate")["command"]
        assert (alembic, option, command, target) == (["python", "-m", "alembic"], "-x", "upgrade", "head")
        roles = importlib.import_module("migrations.versions.0001_roles_and_schemas").ROLES
        logins = {role for role, may in roles.items() if may}
        for path in (ROOT / "migrations/versions").glob("*.py"):
            logins |= set(re.findall(r"ensure_role\('(\w+)', true\)", path.read_text(encoding="utf-8")))
        assert "eav_monitor" in logins
        assert logins == set(names.removeprefix("iam_logins=").split(","))
        assert set(PROXY_USERS) <= logins

    @pytest.mark.parametrize(("age", "well"), [(0, True), (9, True), (11, False), (None, False)])
    def test_the_health_check_looks_at_the_age_of_the_file(
        self, prod: Graph, tmp_path: Path, age: int | None, well: bool
    ) -> None:
        kind, command = container(prod, "worker")["healthCheck"]["command"]
        assert kind == "CMD-SHELL"
        path = tmp_path / "alive"
        if age is not None:
            path.touch()
            moment = path.stat().st_mtime - 60 * age
            os.utime(path, (moment, moment))
        done = subprocess.run(
            ["sh", "-c", command.replace(workers.ALIVE, str(path))], check=False, capture_output=True
        )
        assert (done.returncode == 0) is well


class TestRights:
    def test_ingest_may_make_the_calls_that_its_code_makes_on_this_stream_alone(self, graph: Graph) -> None:
        made = re.findall(r"_client\.([a-z_]+)\b", Path(kinesis.__file__).read_text(encoding="utf-8"))
        stream = graph.one("kinesis.Stream", "stream").outputs["arn"]
        found = statements(graph, "task-ingest-policy")
        assert set(found["ReadTheStream"]["Action"]) == {
            "kinesis:" + "".join(part.title() for part in name.split("_")) for name in made
        }
        assert found["ReadTheStream"]["Resource"] == [stream]
        (key,) = [one for one in found.values() if one["Action"] == ["kms:Decrypt"]]
        assert key["Resource"] == [graph.one("kms.Key", "key-stream").outputs["arn"]]
        assert "kms:ViaService" in key["Condition"]["StringEquals"]
        assert len(found) == 3

    @pytest.mark.parametrize(("task", "user"), [("worker", "eav_jobs"), ("ingest", "eav_ingest")])
    def test_a_service_logs_in_as_its_own_role_and_reads_no_secret(
        self, graph: Graph, task: str, user: str
    ) -> None:
        found = statements(graph, f"task-{task}-policy")
        logins = [
            arn for one in found.values() if "rds-db:connect" in one["Action"] for arn in one["Resource"]
        ]
        assert logins
        assert {arn.rpartition("/")[2] for arn in logins} == {user}
        assert not any("secretsmanager" in action for one in found.values() for action in one["Action"])

    def test_migrations_read_one_secret_with_its_key_log_in_as_its_user_and_do_nothing_else(
        self, graph: Graph
    ) -> None:
        primary = graph.one("rds.Instance", "primary")
        arn = master_arn(graph)
        found = statements(graph, "task-migrate-policy")
        users = {one.rpartition("/")[2] for one in found["LogInToPostgres"]["Resource"]}
        assert users == {primary.inputs["username"]}
        assert {action for one in found.values() for action in one["Action"]} == {
            "rds-db:connect",
            "secretsmanager:GetSecretValue",
            "kms:Decrypt",
        }
        assert found["ReadTheMastersSecret"]["Resource"] == [arn]
        assert found["KeyOfTheSecret"]["Condition"]["StringEquals"]["kms:EncryptionContext:SecretARN"] == arn

    def test_nothing_is_allowed_on_everything_but_to_log_in_to_the_registry(self, graph: Graph) -> None:
        broad = [
            (one["Sid"], one["Action"])
            for name in ("tasks-start-policy", *(f"task-{task}-policy" for task in TASKS))
            for one in statements(graph, name).values()
            if "*" in one["Resource"] or any("*" in action for action in one["Action"])
        ]
        assert broad == [("LogInToTheRegistry", ["ecr:GetAuthorizationToken"])]

    def test_roles_are_for_tasks_of_this_account(self, graph: Graph) -> None:
        for name in ("tasks-start-role", *(f"task-{task}-role" for task in TASKS)):
            (trust,) = json.loads(graph.one("iam.Role", name).inputs["assumeRolePolicy"])["Statement"]
            assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
            assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}

    def test_each_task_has_a_role_of_its_own(self, graph: Graph) -> None:
        roles = [graph.one("ecs.TaskDefinition", task).inputs["taskRoleArn"] for task in TASKS]
        starters = {graph.one("ecs.TaskDefinition", task).inputs["executionRoleArn"] for task in TASKS}
        assert len(set(roles)) == 3
        assert len(starters) == 1
        assert not starters & set(roles)


class TestServices:
    def test_they_run_in_the_private_tier_as_jobs_and_roll_back_by_themselves(self, graph: Graph) -> None:
        tiers = {one.outputs["id"]: one.inputs["tags"]["Tier"] for one in graph.of_kind("ec2.Subnet")}
        assert {one.name for one in graph.of_kind("ecs.Service")} == {"worker", "ingest"}
        for service in graph.of_kind("ecs.Service"):
            network = service.inputs["networkConfiguration"]
            assert {tiers[one] for one in network["subnets"]} == {"private"}
            assert network["securityGroups"] == [graph.one("ec2.SecurityGroup", "group-jobs").outputs["id"]]
            assert network["assignPublicIp"] is False
            assert service.inputs["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}

    def test_without_an_image_nothing_runs_and_nothing_can_be_pulled(self, graph: Graph) -> None:
        assert graph.settings.workers.image_digest is None, "the files of the stacks name no image yet"
        assert {one.inputs["desiredCount"] for one in graph.of_kind("ecs.Service")} == {0}
        assert {container(graph, task)["image"].rpartition("@")[2] for task in TASKS} == {
            workers.NOTHING_PUSHED
        }

    def test_with_an_image_as_many_run_of_it_as_the_settings_say(self) -> None:
        found = with_an_image()
        assert {one.name: one.inputs["desiredCount"] for one in found.of_kind("ecs.Service")} == {
            "worker": 3,
            "ingest": 1,
        }
        url = found.one("ecr.Repository").outputs["repositoryUrl"]
        assert {container(found, task)["image"] for task in TASKS} == {f"{url}@{DIGEST}"}

    @given(digest=st.sampled_from([None, DIGEST]), number=st.integers(0, 4), ingesters=st.integers(0, 1))
    def test_counts(self, digest: str | None, number: int, ingesters: int) -> None:
        found = workers.counts(Settings(image_digest=digest, workers=number, ingesters=ingesters))
        assert found == {"worker": number if digest else 0, "ingest": ingesters if digest else 0}


class TestRegistry:
    def test_a_tag_never_changes_and_images_are_looked_through_and_encrypted(self, graph: Graph) -> None:
        found = graph.one("ecr.Repository").inputs
        assert found["imageTagMutability"] == "IMMUTABLE"
        assert found["imageScanningConfiguration"] == {"scanOnPush": True}
        (encryption,) = found["encryptionConfigurations"]
        assert encryption == {
            "encryptionType": "KMS", "kmsKey": graph.one("kms.Key", "key-compute").outputs["arn"],
        }  # fmt: skip
        assert found["forceDelete"] is not graph.settings.protect_data

    def test_images_are_not_kept_for_ever_and_the_newest_never_go_by_age(self, graph: Graph) -> None:
        policy = graph.one("ecr.LifecyclePolicy").inputs
        assert policy["repository"] == graph.one("ecr.Repository").inputs["name"]
        rules = json.loads(policy["policy"])["rules"]
        # ECR takes a rule for any tag only behind all others.
        assert [
            one["selection"]["tagStatus"] for one in sorted(rules, key=lambda one: one["rulePriority"])
        ] == [
            "untagged",
            "any",
        ]
        assert rules[-1]["selection"]["countType"] == "imageCountMoreThan"
        assert rules[-1]["selection"]["countNumber"] >= 50


class TestImage:
    """jobs/Dockerfile as it is written: that it fits what the tasks and the jobs expect. test_image.py builds it."""

    TEXT = (ROOT / "jobs/Dockerfile").read_text(encoding="utf-8")
    IGNORE = (ROOT / "jobs/Dockerfile.dockerignore").read_text(encoding="utf-8")

    def locked(self, name: str) -> dict[str, str]:
        text = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))

    def test_the_tasks_and_the_image_mean_the_same_user_folder_and_file(self) -> None:
        uid, gid = workers.USER.split(":")
        assert f"--uid {uid} --gid {gid}" in self.TEXT
        assert re.findall(r"^USER (.*)", self.TEXT, re.MULTILINE) == [workers.USER]
        assert re.findall(r"^VOLUME (.*)", self.TEXT, re.MULTILINE) == [workers.SCRATCH]
        # In this order the folder's owner becomes that of what is mounted there.
        assert self.TEXT.index("install --directory") < self.TEXT.index("USER") < self.TEXT.index("VOLUME")
        assert f" {workers.CERTIFICATES}\n" in self.TEXT

    def test_what_it_copies_is_there_and_sent_to_the_builder(self) -> None:
        sources = re.findall(r"^COPY (?!--from)(\S+) ", self.TEXT, re.MULTILINE)
        first, *rest = re.findall(r"^[^#\n].*", self.IGNORE, re.MULTILINE)
        assert first == "*"
        assert {f"!{source}" for source in sources} == {line for line in rest if line.startswith("!")}
        assert all((ROOT / source).exists() for source in sources)

    def test_its_packages_are_a_part_of_the_runtime_s_in_the_same_versions_and_no_emulator(self) -> None:
        jobs = self.locked("jobs")
        assert jobs.items() <= self.locked("runtime").items()
        assert {"psycopg", "alembic", "boto3", "pyarrow"} <= jobs.keys()
        assert not {"moto", "flask", "werkzeug", "pip", "setuptools"} & jobs.keys()
        assert "--require-hashes" in self.TEXT
        text = (ROOT / "requirements/jobs.txt").read_text(encoding="utf-8")
        entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
        assert len(entries) == len(jobs)
        assert all("--hash=sha256:" in entry for entry in entries)
        assert "://" not in text

    def test_it_has_every_package_that_its_code_imports(self) -> None:
        imported: set[str] = set()
        for folder in ("jobs", "migrations"):
            for path in (ROOT / folder).rglob("*.py"):
                if (ROOT / "migrations/lint") not in path.parents:
                    imported |= modules(ast.parse(path.read_text(encoding="utf-8")))
        ours = {"jobs", "migrations"}
        names = packages_distributions()
        needed = {
            name.lower().replace("_", "-")
            for module in imported - ours - set(sys.stdlib_module_names)
            for name in names[module]
        }
        assert needed <= self.locked("jobs").keys()


def modules(tree: ast.AST) -> set[str]:
    """The top-level modules that code imports, but for types alone."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
        found |= modules(node)
    return found
