"""The image of the jobs in the registry of a stack: built of a commit, or as the stack before this one has it.

Without `--build` it sees to the image of `workers.image_digest`: what a stack is to run is in its registry, else it is
copied there, byte for byte, from the registry of the stack before this one.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import InfraError
from infra.graph import ROOT, Graph, load_graph

BEFORE: Final = {"staging": "dev", "prod": "staging"}
"""Stack → the one that has an image first."""
PLATFORM: Final = "linux/arm64"
"""Of the task definitions."""

EPILOG: Final = """\
Building and copying need docker with buildx 0.15 or newer. A tag is a commit and never changes: what is there is left
as it is, so that this can be run again at any time.

exit codes: 0 the image is there, or none is set; 1 it is not; 2 wrong usage"""

Run = Callable[[Sequence[str], str | None], None]


def docker(arguments: Sequence[str], stdin: str | None = None) -> None:
    """Run docker; what it says is seen. Raises InfraError if it fails."""
    try:
        done = subprocess.run(["docker", *arguments], cwd=ROOT, input=stdin, text=True, check=False)
    except FileNotFoundError:
        raise InfraError("there is no docker here") from None
    if done.returncode:
        raise InfraError(f"docker {' '.join(arguments[:3])} … ended with exit code {done.returncode}")


class Registry:
    """The registry of a stack. session: boto3's, of its account. Raises InfraError where there is none yet."""

    def __init__(self, graph: Graph, session: Any, run: Run = docker) -> None:
        self.stack, self.docker = graph.settings.stack, run
        self.ecr = session.client("ecr", graph.settings.region)
        self.name = str(graph.one("ecr.Repository").inputs["name"])
        try:
            (found,) = self.ecr.describe_repositories(repositoryNames=[self.name])["repositories"]
        except self.ecr.exceptions.RepositoryNotFoundException:
            raise InfraError(
                f"there is no registry {self.name}: `pulumi up -s {self.stack}` makes it"
            ) from None
        self.uri = str(found["repositoryUri"])

    def find(self, **image: str) -> tuple[str, tuple[str, ...]] | None:
        """Digest and tags of an image by its `imageTag` or `imageDigest`; None if it is not there."""
        try:
            (found,) = self.ecr.describe_images(repositoryName=self.name, imageIds=[image])["imageDetails"]
        except self.ecr.exceptions.ImageNotFoundException:
            return None
        return str(found["imageDigest"]), tuple(found.get("imageTags") or ())

    def log_in(self) -> None:
        """Let docker pull and push here, for twelve hours."""
        (given,) = self.ecr.get_authorization_token()["authorizationData"]
        user, _, password = base64.b64decode(given["authorizationToken"]).decode().partition(":")
        self.docker(["login", "--username", user, "--password-stdin", self.uri.partition("/")[0]], password)

    def build(self, commit: str) -> str:
        """Build and push the image of what is checked out, tagged by its commit, unless it is there; its digest."""
        if (there := self.find(imageTag=commit)) is None:
            self.log_in()
            # Without an attestation the tag is the image itself, and not an index of one.
            self.docker(
                ["buildx", "build", "--platform", PLATFORM, "--provenance=false", "--file", "jobs/Dockerfile",
                 "--tag", f"{self.uri}:{commit}", "--push", "."],
                None,
            )  # fmt: skip
            there = self.find(imageTag=commit)
        if there is None:
            raise InfraError(f"{self.uri}:{commit} was pushed and is not there")
        return there[0]

    def take(self, digest: str, source: Registry) -> None:
        """Copy an image from another registry, with its tags. The digest, which is of every byte, stays the same."""
        found = source.find(imageDigest=digest)
        if found is None:
            raise InfraError(f"{digest} is neither in {self.uri} nor in {source.uri}: build it first")
        tags = found[1] or (digest.removeprefix("sha256:")[:12],)
        source.log_in()
        self.log_in()
        named = [word for tag in tags for word in ("--tag", f"{self.uri}:{tag}")]
        self.docker(
            ["buildx", "imagetools", "create", "--prefer-index=false", *named, f"{source.uri}@{digest}"], None
        )
        if self.find(imageDigest=digest) is None:
            raise InfraError(f"{digest} was copied to {self.uri} and is not there")


def commit() -> str:
    """The commit that is checked out. Raises InfraError if files are changed beside it."""
    if changed := _git("status", "--porcelain").splitlines():
        raise InfraError(f"{changed[0][3:]} is changed and not committed: the tag would tell another image")
    return _git("rev-parse", "HEAD")


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise InfraError("this is no clone of git, and the tag of an image is its commit") from None


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m infra image`; returns the exit code. Raises InfraError."""
    parser = argparse.ArgumentParser(
        prog="python -m infra image",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stack", help="dev, staging, prod")
    parser.add_argument("--build", action="store_true", help="build and push the commit that is checked out")
    options = parser.parse_args(argv)
    graph, session = load_graph(options.stack), boto3.Session()
    digest = graph.settings.workers.image_digest
    file = f"Pulumi.{options.stack}.yaml"
    try:
        if options.build:
            print(f"{file}: workers.image_digest: {Registry(graph, session).build(commit())}")
        elif digest is None:
            print(f"{file} sets no workers.image_digest: no task runs")
        else:
            ensure(graph, digest, session)
    except (BotoCoreError, ClientError) as error:
        raise InfraError(f"AWS: {error}") from None
    return 0


def ensure(graph: Graph, digest: str, session: Any, run: Run = docker) -> None:
    """See to it that the image is in the registry of a stack. Raises InfraError where it is nowhere."""
    own = Registry(graph, session, run)
    if own.find(imageDigest=digest) is None:
        before = BEFORE.get(own.stack)
        if before is None:
            raise InfraError(f"{digest} is not in {own.uri}: python -m infra image {own.stack} --build")
        own.take(digest, Registry(load_graph(before), session, run))
    print(f"{own.uri}@{digest}")
