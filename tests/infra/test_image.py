"""The image of jobs/Dockerfile: what goes into it and, where there is a Docker engine, that it runs as the tasks do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from botocore.httpsession import DEFAULT_CA_BUNDLE
from packaging.requirements import Requirement

from infra.graph import ROOT
from local.cluster import Cluster, temporary_cluster
from local.docker import DockerError, find_engine
from tests.infra.changed import with_an_image
from tests.infra.test_workers import container
from tests.jobs.waiting import until

DOCKERFILE = ROOT / "jobs/Dockerfile"
MIGRATION_LOCK = 0x6561765F6D696772
"""Of migrations/env.py."""
TERMINATED = 143
"""Exit code of what a SIGTERM ended; 137 is that of what it did not, and a SIGKILL did."""


# -- what goes into it, by the files alone ---------------------------------------------------------------------


def let_in(path: str) -> bool:
    """Whether the builder is sent a file: as the last line of its .dockerignore that fits it, or its folder, says."""
    lines = (ROOT / "jobs/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    parents = [path, *map(str, Path(path).parents)]
    found = True
    for line in filter(None, lines):
        if not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            names = [one.rpartition("/")[2] for one in parents] if "**/" in line else parents
            if any(fnmatch(one, pattern) for one in names):
                found = line.startswith("!")
    return found


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the Dockerfile copies into WORKDIR, and no others."""
    folder = tmp_path_factory.mktemp("image")
    sources = re.findall(r"^COPY (?!--from)(\S+) \./", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sources
    for source in sources:
        whole = ROOT / source
        for path in [whole] if whole.is_file() else filter(Path.is_file, whole.rglob("*")):
            name = str(path.relative_to(ROOT))
            if let_in(name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / name)
    return folder


def python(folder: Path, *arguments: str) -> str:
    """What a Python in this folder says, that finds nothing of the repository beside it. Fails if it does."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_revisions_find_what_they_load(copied: Path) -> None:
    url = "postgresql://nobody@localhost/eav"
    said = python(copied, "-m", "alembic", "-x", f"url={url}", "upgrade", "head", "--sql")
    newest = max((ROOT / "migrations/versions").glob("0*.py")).name[:4]
    assert f"version_num='{newest}'" in said


def test_all_modules_of_the_jobs_find_what_they_import_and_read(copied: Path) -> None:
    said = python(
        copied,
        "-c",
        "import importlib, pkgutil, jobs\n"
        "for one in pkgutil.walk_packages(jobs.__path__, 'jobs.'):\n"
        "    if not one.name.endswith('__main__'): importlib.import_module(one.name)\n"
        "from jobs import figures\n"
        "print(jobs.__path__[0], len(list(figures.QUERIES.glob('*.sql'))))",
    )
    path, queries = said.split()
    assert path == str(copied / "jobs"), "the copies, not the repository's"
    assert int(queries) == len(list((ROOT / "sql/queries/operational").glob("*.sql")))


def test_no_linter_and_no_byte_code_of_this_machine_goes_along(copied: Path) -> None:
    assert not (copied / "migrations/lint").exists()
    assert not let_in("jobs/__pycache__/cli.cpython-313.pyc")
    assert not let_in(".env")
    assert not let_in("Pulumi.prod.yaml")


# -- with an engine --------------------------------------------------------------------------------------------


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments],
        env=os.environ | {"DOCKER_BUILDKIT": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=check,
    )


@pytest.fixture(scope="module")
def engine() -> None:
    try:
        find_engine()
    except DockerError as error:
        pytest.skip(str(error))
    if sys.platform != "linux":
        pytest.skip("containers here cannot use the network of this machine")


@pytest.fixture(scope="module")
def server(engine: None) -> Iterator[Cluster]:
    """An empty server as RDS has it: rds_iam is there, and roles of the jobs are asked for a token, not a password."""
    with temporary_cluster() as cluster:
        rules = cluster.data_dir / "pg_hba.conf"
        # This server cannot look at a token; that one is made, and that TLS is verified first, is what is shown here.
        rules.write_text(f"hostssl all eav_jobs,eav_ingest 127.0.0.1/32 trust\n{rules.read_text()}")
        with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE ROLE rds_iam")
        yield cluster


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The files of a folder by HTTP; the URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base's name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def image(server: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, built, that takes the server's certificate for one of RDS; its name."""
    folder = tmp_path_factory.mktemp("certificates")
    own = server.os_user.run(["cat", server.data_dir / "server.crt"]).stdout
    (folder / "bundle.pem").write_text(Path(DEFAULT_CA_BUNDLE).read_text(encoding="utf-8") + own)
    name = f"eav-platform-jobs:test-{os.getpid()}"
    with served(folder) as url:
        # The host's network for the build only, as in local/docker.py.
        done = docker(
            "build", "--network", "host", "--file", str(DOCKERFILE), "--tag", name,
            "--build-arg", f"RDS_CA={url}/bundle.pem", str(ROOT), check=False,
        )  # fmt: skip
    if "buildx component is missing" in done.stderr:
        pytest.skip("this docker builds without BuildKit: install docker-buildx")
    assert done.returncode == 0, done.stderr[-2000:]
    yield name
    docker("image", "rm", "--force", name)


@dataclass
class Task:
    """A container as ECS starts it by the definition of a task."""

    identifier: str
    stop_seconds: int
    healthy: str | None

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        return int(docker("wait", self.identifier).stdout)

    def stop(self) -> int:
        """Its exit code, after a SIGTERM and no more time than its definition gives; 137 if that was too little."""
        docker("stop", "--time", str(self.stop_seconds), self.identifier)
        return self.wait()

    def logs(self) -> str:
        """What it said."""
        done = docker("logs", self.identifier)
        return done.stdout + done.stderr

    def is_healthy(self) -> bool:
        """What the health check of the definition says now."""
        assert self.healthy is not None
        return docker("exec", self.identifier, "sh", "-c", self.healthy, check=False).returncode == 0


@contextmanager
def running(task: str, image: str, server: Cluster, changes: Mapping[str, str]) -> Iterator[Task]:
    """A task by its definition in the graph, but for the image, the server's address, and these variables."""
    wanted = container(with_an_image(), task)
    variables = {one["name"]: one["value"] for one in wanted["environment"]} | dict(changes)
    variables["DATABASE_URL"], count = re.subn(
        r"(?<=[/@])[^/@:]+:5432/", f"127.0.0.1:{server.port}/", variables["DATABASE_URL"]
    )
    assert count == 1
    assert "sslmode=verify-full" in variables["DATABASE_URL"]
    linux = wanted["linuxParameters"]
    options = ["--detach", "--network", "host", "--user", wanted["user"]]
    options += ["--read-only"] * wanted["readonlyRootFilesystem"]
    options += ["--init"] * linux["initProcessEnabled"]
    options += [word for one in linux["capabilities"]["drop"] for word in ("--cap-drop", one)]
    options += [word for one in wanted["mountPoints"] for word in ("--volume", one["containerPath"])]
    options += [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    check = wanted.get("healthCheck", {}).get("command", [None, None])[1]
    identifier = docker("run", *options, image, *wanted["command"]).stdout.strip()
    try:
        yield Task(identifier, wanted["stopTimeout"], check)
    finally:
        docker("rm", "--force", "--volumes", identifier)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch, server: Cluster) -> dict[str, str]:
    """Variables of tasks for an AWS that has the stream and the master's secret."""
    from tests import aws

    url = aws.use_emulator(monkeypatch)
    session = boto3.Session()
    secret = session.client("secretsmanager").create_secret(
        Name="master", SecretString=json.dumps({"username": "postgres", "password": server.password})
    )
    return {
        "AWS_ENDPOINT_URL": url,
        **{name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")},
        "AWS_DEFAULT_REGION": os.environ["AWS_REGION"],
        "secret": secret["ARN"],
    }


def of_master(emulated: Mapping[str, str]) -> dict[str, str]:
    return {**emulated, "DATABASE_SECRET_ARN": emulated["secret"]}


@pytest.mark.slow
@pytest.mark.cluster
class TestWithAnEngine:
    """In the order of a first deployment."""

    def test_its_packages_are_those_of_the_lock(self, image: str) -> None:
        text = (ROOT / "requirements/jobs.txt").read_text(encoding="utf-8")
        locked = [Requirement(one) for one in re.findall(r"^([a-z][^\\\n]*?) *\\$", text, re.MULTILINE)]
        assert {one.name for one in locked} >= {"alembic", "boto3"}
        program = (
            "import importlib.metadata as m, json;"
            "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in m.distributions()}))"
        )
        found = json.loads(docker("run", "--rm", image, "python", "-I", "-c", program).stdout)
        needed = [one for one in locked if one.marker is None or one.marker.evaluate()]
        assert found == {one.name: str(one.specifier).removeprefix("==") for one in needed}
        assert found["alembic"] == version("alembic")

    def test_it_has_nothing_to_build_with_and_its_user_writes_to_one_folder(self, image: str) -> None:
        said = docker(
            "run", "--rm", image, "sh", "-c",
            "id -u; command -v gcc cc make git; find / -xdev -path '*/.cache/pip' -print 2>/dev/null;"
            " find / -xdev -type d -writable ! -path '/proc/*' ! -path /tmp ! -path /var/tmp ! -path /run/lock"
            " 2>/dev/null",
            check=False,
        )  # fmt: skip
        assert said.stdout.split() == ["10001", "/scratch"]

    def test_it_was_built_of_nothing_that_is_secret(self, image: str) -> None:
        (found,) = json.loads(docker("image", "inspect", image).stdout)
        layers = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout
        assert "COPY jobs" in layers
        said = "\n".join([*found["Config"]["Env"], layers])
        assert not re.search(r"password|secret|token|access_key|index-url|//[^/\s]*@", said, re.IGNORECASE)

    def test_values_of_the_stream_are_in_the_database_after_a_migration(
        self, image: str, server: Cluster, emulated: dict[str, str]
    ) -> None:
        with running("migrate", image, server, of_master(emulated)) as migrate:
            assert migrate.wait() == 0, migrate.logs()
        with psycopg.connect(server.url(), autocommit=True) as connection:

            def one(query: str) -> Any:
                row = connection.execute(query.encode()).fetchone()
                assert row is not None
                return row[0]

            newest = max((ROOT / "migrations/versions").glob("0*.py")).name[:4]
            assert one("SELECT version_num FROM alembic_version") == newest
            assert one("SELECT pg_has_role('eav_jobs', 'rds_iam', 'MEMBER')") is True
            one("SELECT eav.tenant_add('one', 1, true)")
            stream = boto3.client("kinesis")
            name = with_an_image().one("kinesis.Stream").inputs["name"]
            stream.create_stream(StreamName=name, ShardCount=1)
            now = one("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
            for number in range(3):
                fields = {"tenant_id": 1, "entity_id": number, "attribute": "n", "value": number}
                stream.put_record(
                    StreamName=name, PartitionKey="k", Data=json.dumps(fields | {"observed_at": now})
                )
            with (
                running("worker", image, server, emulated) as worker,
                running("ingest", image, server, emulated) as ingest,
            ):
                try:
                    until(lambda: one("SELECT count(*) FROM eav.entity_values_ts") == 3)
                except AssertionError:
                    pytest.fail(worker.logs() + ingest.logs())
                for service in (worker, ingest):
                    assert service.is_healthy()
                    assert service.stop() == 0, service.logs()
                    assert "Traceback" not in service.logs()
                assert '"leading"' in worker.logs()

    def test_a_migration_that_is_stopped_ends_in_its_time_and_has_changed_nothing(
        self, image: str, server: Cluster, emulated: dict[str, str]
    ) -> None:
        with psycopg.connect(server.url(), autocommit=True) as connection:

            def begun() -> bool:
                asked = "SELECT true FROM pg_stat_activity WHERE application_name = 'alembic'"
                return connection.execute(asked).fetchone() is not None

            revision = "SELECT to_regclass('public.alembic_version'), current_setting('server_version')"
            before = connection.execute(revision).fetchone()
            # As if another migration were at it.
            connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
            with running("migrate", image, server, of_master(emulated)) as migrate:
                until(begun)
                assert migrate.stop() == TERMINATED, migrate.logs()
            assert connection.execute(revision).fetchone() == before
            until(lambda: not begun())
