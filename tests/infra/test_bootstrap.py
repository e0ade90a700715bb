from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra import bootstrap, image
from infra.bootstrap import Bootstrap
from infra.errors import InfraError
from infra.settings import STACKS
from tests.infra.account import empty_account
from tests.infra.conftest import graph_of

REGION = "eu-central-1"
REPOSITORY = "example/eav-platform"


@pytest.fixture(params=[False])
def account(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty account; with the policies that AWS has for everybody if asked (moto reads them for three seconds)."""
    if not request.param:
        monkeypatch.setattr(bootstrap, "READS", ())
    with empty_account(monkeypatch, {"iam": {"load_aws_managed_policies": request.param}}):
        yield boto3.Session(region_name=REGION)


def states(session: Any, *, execute: bool = False) -> dict[str, str]:
    return {step.what: step.state for step in Bootstrap(session, REGION, REPOSITORY, execute).run()}


@pytest.mark.parametrize("account", [True], indirect=True)
def test_nothing_is_made_unasked_and_everything_once(account: Any) -> None:
    assert set(states(account).values()) == {"missing"}
    assert account.client("s3").list_buckets()["Buckets"] == []
    states(account, execute=True)
    assert set(states(account).values()) == {"there"}
    assert set(states(account, execute=True).values()) == {"there"}


def test_what_somebody_changed_is_put_right(account: Any) -> None:
    states(account, execute=True)
    s3, iam = account.client("s3"), account.client("iam")
    bucket = s3.list_buckets()["Buckets"][0]["Name"]
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    open_to_all = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}],
    }
    iam.update_assume_role_policy(RoleName="eav-ci-prod", PolicyDocument=json.dumps(open_to_all))
    anything = json.dumps(
        {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
    )
    added = iam.create_policy(PolicyName="anything", PolicyDocument=anything)["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="eav-ci-dev", PolicyArn=added)
    differing = {what for what, state in states(account).items() if state == "differs"}
    assert differing == {f"bucket {bucket}: versions", "role eav-ci-prod", "role eav-ci-dev"}
    states(account, execute=True)
    assert set(states(account).values()) == {"there"}


def test_only_this_repository_may_take_the_roles(account: Any) -> None:
    states(account, execute=True)
    for name in ("eav-ci-preview", "eav-ci-image", "eav-ci-dev", "eav-ci-staging", "eav-ci-prod"):
        trust = account.client("iam").get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        (statement,) = trust["Statement"]
        subjects = statement["Condition"]["StringEquals"][f"{bootstrap.ISSUER}:sub"]
        assert all(subject.startswith(f"repo:{REPOSITORY}:") for subject in subjects)
        assert not any("*" in subject for subject in subjects)
    assert subjects == [f"repo:{REPOSITORY}:environment:prod"], "so that GitHub asks the reviewers of prod"


def test_state_in_another_region_is_left_as_it_is(account: Any) -> None:
    states(account, execute=True)
    elsewhere = Bootstrap(account, "us-east-1", REPOSITORY, execute=True)
    with pytest.raises(InfraError, match=r"is in eu-central-1, not in us-east-1: --region eu-central-1"):
        list(elsewhere.run())
    aliases = account.client("kms", "us-east-1").list_aliases()["Aliases"]
    assert bootstrap.ALIAS not in [one["AliasName"] for one in aliases]
    assert set(states(account).values()) == {"there"}


@pytest.mark.parametrize(("region", "says"), [("mars-1", "mars-1 is no region"), ("eu-central-1", None)])
def test_a_region_is_one_and_is_found_where_other_tools_look(
    account: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    region: str,
    says: str | None,
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_REGION", region)
    if says:
        with pytest.raises(InfraError, match=says):
            bootstrap.main(["--repository", REPOSITORY])
    else:
        assert bootstrap.main(["--repository", REPOSITORY]) == 0
        assert "missing" in capsys.readouterr().out


def test_a_preview_changes_no_state(account: Any) -> None:
    states(account, execute=True)
    policy = account.client("iam").get_role_policy(RoleName="eav-ci-preview", PolicyName="eav-ci-preview")[
        "PolicyDocument"
    ]
    writes = [one["Resource"] for one in policy["Statement"] if "s3:PutObject" in one["Action"]]
    assert writes == [["arn:aws:s3:::eav-pulumi-state-123456789012/.pulumi/locks/*"]]
    # What the program asks AWS for in a preview and no policy of AWS's for looking has.
    assert ["secretsmanager:GetRandomPassword"] in [one["Action"] for one in policy["Statement"]]


def document(account: Any, role: str) -> Any:
    return account.client("iam").get_role_policy(RoleName=role, PolicyName=role)["PolicyDocument"]


def test_who_builds_images_pushes_them_to_the_registry_of_the_first_stack_and_does_nothing_else(
    account: Any,
) -> None:
    states(account, execute=True)
    login, push = document(account, "eav-ci-image")["Statement"]
    assert login["Action"] == ["ecr:GetAuthorizationToken"]
    name = graph_of("dev").one("ecr.Repository").inputs["name"]
    assert push["Resource"] == [f"arn:aws:ecr:*:123456789012:repository/{name}"]
    assert not any("*" in action or "Delete" in action for action in push["Action"])
    # What the command calls; the rest is docker's.
    called = re.findall(r"self\.ecr\.([a-z_]+)\(", Path(image.__file__).read_text(encoding="utf-8"))
    asked = {"ecr:" + "".join(part.title() for part in call.split("_")) for call in called}
    assert asked <= {*login["Action"], *push["Action"]}
    (trust,) = account.client("iam").get_role(RoleName="eav-ci-image")["Role"]["AssumeRolePolicyDocument"][
        "Statement"
    ]
    assert trust["Condition"]["StringEquals"][f"{bootstrap.ISSUER}:sub"] == [
        f"repo:{REPOSITORY}:ref:refs/heads/main"
    ]


@pytest.mark.parametrize("stack", STACKS)
def test_who_deploys_may_migrate_with_the_roles_of_that_stack_s_tasks_alone(account: Any, stack: str) -> None:
    states(account, execute=True)
    found = {one["Sid"]: one for one in document(account, f"eav-ci-{stack}")["Statement"]}
    assert {"ecr:*", "ecs:*", "logs:*"} <= set(found["ThePlatformsServices"]["Action"])
    passed = found["RolesOfThisStack"]
    assert "iam:PassRole" in passed["Action"]
    (pattern,) = passed["Resource"]
    for name in ("task-migrate-role", "tasks-start-role"):
        role = f"arn:aws:iam::123456789012:role/{graph_of(stack).one('iam.Role', name).inputs['name']}"
        assert fnmatchcase(role, pattern)
        assert not fnmatchcase(role.replace(f"-{stack}-", "-other-"), pattern)


def test_the_command_says_what_it_did_and_what_comes_next(
    account: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--repository", REPOSITORY, "--region", REGION]
    assert bootstrap.main(command) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert bootstrap.main([*command, "--execute", "--json"]) == 0
    assert all(step["done"] for step in json.loads(capsys.readouterr().out))
    assert bootstrap.main(command) == 0
    assert "pulumi login 's3://eav-pulumi-state-123456789012?region=eu-central-1'" in capsys.readouterr().out


@pytest.mark.parametrize("repository", ["*", "example", "example/*", "a/b/c", "a/", "/b", "a/b,c"])
def test_a_repository_that_is_none_or_many_is_refused(
    repository: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bootstrap.main(["--repository", repository, "--region", REGION])
    assert ended.value.code == 2
    assert "argument --repository: must be OWNER/NAME" in capsys.readouterr().err


def test_a_bucket_of_somebody_else_is_not_used(account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Bootstrap(account, REGION, REPOSITORY, execute=True)

    def forbidden(**_: Any) -> None:
        raise found.s3.exceptions.ClientError(
            {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "HeadBucket"
        )

    monkeypatch.setattr(found.s3, "head_bucket", forbidden)
    with pytest.raises(InfraError, match="not this account's"):
        list(found.run())
