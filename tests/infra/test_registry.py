"""The image of the jobs in the registries of stacks: pushed once, copied with its digest; against moto's ECR."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra import image
from infra.errors import InfraError
from infra.graph import Graph
from infra.image import Registry
from tests.infra.account import empty_account
from tests.infra.conftest import graph_of

COMMIT = "c" * 40
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Docker:
    """Keeps what it was asked; pushes and copies as docker does, as far as a registry sees it."""

    def __init__(self, stacks: Sequence[str], *, works: bool = True) -> None:
        self.ecr = boto3.client("ecr", region_name=graph_of("dev").settings.region)
        self.works = works
        self.asked: list[list[str]] = []
        self.told: list[str | None] = []
        self.manifests: dict[str, str] = {}
        for stack in stacks:
            self.ecr.create_repository(repositoryName=f"eav-{stack}-jobs", imageTagMutability="IMMUTABLE")

    def __call__(self, arguments: Sequence[str], stdin: str | None = None) -> None:
        self.asked.append(list(arguments))
        self.told.append(stdin)
        if arguments[0] == "login" or not self.works:
            return
        manifest = (
            self.manifest() if arguments[1] == "build" else self.manifests[arguments[-1].partition("@")[2]]
        )
        for before, word in pairwise(arguments):
            if before == "--tag":
                name, _, tag = word.partition("/")[2].partition(":")
                self.ecr.put_image(
                    repositoryName=name, imageManifest=manifest, imageTag=tag, imageDigest=digest_of(manifest)
                )

    def manifest(self) -> str:
        made = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"digest": f"sha256:{len(self.manifests):064}"},
                "layers": [],
            }
        )
        self.manifests[digest_of(made)] = made
        return made


def digest_of(manifest: str) -> str:
    return f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"


def with_digest(stack: str, digest: str) -> Graph:
    found = graph_of(stack)
    workers = found.settings.workers.model_copy(update={"image_digest": digest})
    return Graph(found.settings.model_copy(update={"workers": workers}), found.resources)


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with empty_account(monkeypatch):
        yield


def registry(stack: str, docker: Docker) -> Registry:
    return Registry(graph_of(stack), boto3.Session(), docker)


def test_a_commit_is_built_and_pushed_once_for_the_processor_of_the_tasks() -> None:
    docker = Docker(["dev"])
    digest = registry("dev", docker).build(COMMIT)
    login, build = docker.asked
    assert login[:2] == ["login", "--username"]
    assert docker.told[0], "the password is told, not an argument"
    assert docker.told[0] not in login
    platform = build[build.index("--platform") + 1]
    task = graph_of("dev").one("ecs.TaskDefinition", "worker").inputs["runtimePlatform"]
    assert platform == f"{task['operatingSystemFamily']}/{task['cpuArchitecture']}".lower()
    assert f"{registry('dev', docker).uri}:{COMMIT}" in build
    assert registry("dev", docker).build(COMMIT) == digest
    assert len(docker.asked) == 2, "a tag never changes"


def test_what_was_not_pushed_is_not_taken_for_there() -> None:
    with pytest.raises(InfraError, match="was pushed and is not there"):
        registry("dev", Docker(["dev"], works=False)).build(COMMIT)


def test_a_stack_has_the_very_image_of_the_stack_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    docker = Docker(["dev", "staging"])
    digest = registry("dev", docker).build(COMMIT)
    graph = with_digest("staging", digest)
    image.ensure(graph, digest, boto3.Session(), docker)
    assert registry("staging", docker).find(imageDigest=digest) == (digest, (COMMIT,))
    assert capsys.readouterr().out.endswith(f"eav-staging-jobs@{digest}\n")
    done = len(docker.asked)
    image.ensure(graph, digest, boto3.Session(), docker)
    assert len(docker.asked) == done


def test_an_image_that_is_nowhere_is_a_line() -> None:
    docker, digest = Docker(["dev", "staging"]), f"sha256:{'1' * 64}"
    with pytest.raises(
        InfraError, match=r"is neither in .*eav-staging-jobs nor in .*eav-dev-jobs: build it first$"
    ):
        image.ensure(with_digest("staging", digest), digest, boto3.Session(), docker)
    with pytest.raises(InfraError, match=r"is not in .*eav-dev-jobs: python -m infra image dev --build$"):
        image.ensure(with_digest("dev", digest), digest, boto3.Session(), docker)
    with pytest.raises(InfraError, match="there is no registry eav-prod-jobs: `pulumi up -s prod` makes it"):
        registry("prod", docker)


def test_what_is_not_committed_gets_no_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> Any:
        return subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)

    monkeypatch.setattr(image, "ROOT", tmp_path)
    with pytest.raises(InfraError, match="no clone of git"):
        image.commit()
    git("init", "--quiet")
    (tmp_path / "a").write_text("1")
    with pytest.raises(InfraError, match="a is changed and not committed"):
        image.commit()
    git("add", "a")
    git("-c", "user.name=n", "-c", "user.email=e@example.com", "commit", "--quiet", "--message", "m")
    assert image.commit() == git("rev-parse", "HEAD").stdout.strip()


def test_a_docker_that_fails_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfraError, match="there is no docker here"):
        image.docker(["info"])
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(InfraError, match=r"docker buildx build --push … ended with exit code 7"):
        image.docker(["buildx", "build", "--push", "."])
