from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from infra import bootstrap
from infra.bootstrap import Bootstrap
from infra.errors import InfraError

REGION = "eu-central-1"
REPOSITORY = "example/eav-platform"


@pytest.fixture(params=[False])
def account(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty account; with the policies that AWS has for everybody if asked (moto reads them for three seconds)."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "emulated")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    if not request.param:
        monkeypatch.setattr(bootstrap, "READS", ())
    with mock_aws(config={"iam": {"load_aws_managed_policies": request.param}}):
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
    for name in ("eav-ci-preview", "eav-ci-dev", "eav-ci-staging", "eav-ci-prod"):
        trust = account.client("iam").get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        (statement,) = trust["Statement"]
        subjects = statement["Condition"]["StringEquals"][f"{bootstrap.ISSUER}:sub"]
        assert all(subject.startswith(f"repo:{REPOSITORY}:") for subject in subjects)
        assert not any("*" in subject for subject in subjects)
    assert subjects == [f"repo:{REPOSITORY}:environment:prod"], "so that GitHub asks the reviewers of prod"


def test_a_preview_changes_no_state(account: Any) -> None:
    states(account, execute=True)
    policy = account.client("iam").get_role_policy(RoleName="eav-ci-preview", PolicyName="eav-ci-preview")[
        "PolicyDocument"
    ]
    writes = [one["Resource"] for one in policy["Statement"] if "s3:PutObject" in one["Action"]]
    assert writes == [["arn:aws:s3:::eav-pulumi-state-123456789012/.pulumi/locks/*"]]


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


@pytest.mark.parametrize("repository", ["*", "example", "example/*", "a/b/c"])
def test_a_repository_that_is_none_or_many_is_refused(repository: str) -> None:
    with pytest.raises(InfraError, match="OWNER/NAME"):
        bootstrap.main(["--repository", repository, "--region", REGION])


def test_a_bucket_of_somebody_else_is_not_used(account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Bootstrap(account, REGION, REPOSITORY, execute=True)

    def forbidden(**_: Any) -> None:
        raise found.s3.exceptions.ClientError(
            {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "HeadBucket"
        )

    monkeypatch.setattr(found.s3, "head_bucket", forbidden)
    with pytest.raises(InfraError, match="not this account's"):
        list(found.run())
