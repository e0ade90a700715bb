"""What has to be there before the first `pulumi up`: a bucket for the state, a key for its secrets, and roles for CI.

Pulumi cannot keep the state of what keeps its state, so this is made with the AWS API: dry by default, each thing made
once, and put right where somebody has changed it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import InfraError
from infra.naming import PROJECT
from infra.settings import REGIONS, STACKS

ALIAS: Final = f"alias/{PROJECT}-pulumi"
ISSUER: Final = "token.actions.githubusercontent.com"
AUDIENCE: Final = "sts.amazonaws.com"
KEEP_DAYS: Final = 90
"""Of versions of the state that a newer one has replaced."""

DEPLOYED: Final = (
    "budgets", "cloudwatch", "dynamodb", "ec2", "ecr", "ecs", "events", "glue", "kinesis", "kms", "lambda", "logs",
    "rds", "redshift", "redshift-serverless", "route53", "s3", "scheduler", "secretsmanager", "sns", "sqs", "ssm",
    "states", "tag", "xray",
)  # fmt: skip
"""Services that a deployment makes things in. What it may do in them cannot be told in advance without making every
change of the program a change of this role too, so it is all of these, in the stack's region, and IAM by name only."""

READS: Final[tuple[str, ...]] = (
    "arn:aws:iam::aws:policy/job-function/ViewOnlyAccess",
    "arn:aws:iam::aws:policy/SecurityAudit",
)
"""What a preview may see: settings of everything, contents of nothing."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One thing that should be so."""

    what: str
    state: str
    """`there`, `missing` or `differs`."""
    done: bool = False


@dataclass
class Bootstrap:
    """The account, and what it is given. Raises InfraError where AWS refuses."""

    session: Any
    region: str
    repository: str
    """`owner/name` on GitHub: who may take the roles."""
    execute: bool = False

    def __post_init__(self) -> None:
        self.kms, self.s3, self.iam = (
            self.session.client(name, self.region) for name in ("kms", "s3", "iam")
        )
        self.account = str(self.session.client("sts", self.region).get_caller_identity()["Account"])
        self.bucket = f"{PROJECT}-pulumi-state-{self.account}"

    def run(self) -> Iterator[Step]:
        """Look at each thing, in the order in which they need each other; make it if `execute`."""
        self._check_region()
        yield self._step(f"KMS key {ALIAS}", self._key_is, self._make_key)
        yield self._step("rotation of the key", self._rotation_is, self._rotate)
        yield self._step(f"bucket {self.bucket}", self._bucket_is, self._make_bucket)
        for what, look, want, put in self._bucket_settings():
            yield self._step(f"bucket {self.bucket}: {what}", _compare(look, want), put)
        yield self._step(f"identity provider {ISSUER}", self._issuer_is, self._make_issuer)
        for name, trust, policy, managed in self._roles():
            yield self._step(
                f"role {name}",
                self._role_is(name, trust, policy, managed),
                self._role(name, trust, policy, managed),
            )

    def _step(self, what: str, look: Callable[[], str], make: Callable[[], None]) -> Step:
        state = look()
        if state == "there" or not self.execute:
            return Step(what, state)
        make()
        return Step(what, state, done=True)

    def _check_region(self) -> None:
        """Raises InfraError where the state is in another region: key, roles and state have to be in one."""
        try:
            where = self.s3.get_bucket_location(Bucket=self.bucket, ExpectedBucketOwner=self.account)
        except ClientError:
            return  # none yet, or not ours: looked at below
        there = where.get("LocationConstraint") or "us-east-1"
        if there != self.region:
            raise InfraError(
                f"bucket {self.bucket} is in {there}, not in {self.region}: --region {there}, and nothing was changed"
            )

    # -- the key ---------------------------------------------------------------------------------------------

    def _key_is(self) -> str:
        return "there" if self._key_id() else "missing"

    def _key_id(self) -> str | None:
        try:
            return str(self.kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["Arn"])
        except self.kms.exceptions.NotFoundException:
            return None

    def _make_key(self) -> None:
        made = self.kms.create_key(
            Description=f"{PROJECT}: Pulumi state and its secrets", Tags=_tags("TagKey", "TagValue")
        )
        self.kms.create_alias(AliasName=ALIAS, TargetKeyId=made["KeyMetadata"]["KeyId"])

    def _rotation_is(self) -> str:
        key = self._key_id()
        return (
            "there"
            if key and self.kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
            else "missing"
        )

    def _rotate(self) -> None:
        self.kms.enable_key_rotation(KeyId=self._key_id())

    # -- the bucket ------------------------------------------------------------------------------------------

    def _bucket_is(self) -> str:
        try:
            self.s3.head_bucket(Bucket=self.bucket, ExpectedBucketOwner=self.account)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return "missing"
            raise InfraError(f"bucket {self.bucket} exists and is not this account's") from None
        return "there"

    def _make_bucket(self) -> None:
        # us-east-1 is the one region that has no name here.
        where = (
            {}
            if self.region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        )
        self.s3.create_bucket(Bucket=self.bucket, ObjectOwnership="BucketOwnerEnforced", **where)

    def _bucket_settings(self) -> Iterator[tuple[str, Callable[[], Any], Any, Callable[[], None]]]:
        """What → how it is, how it should be, and what makes it so."""
        bucket, closed = {"Bucket": self.bucket}, dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        )  # fmt: skip
        yield (
            "not public",
            lambda: self.s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"],
            closed,
            lambda: self.s3.put_public_access_block(**bucket, PublicAccessBlockConfiguration=closed),
        )
        yield (
            "versions",
            lambda: self.s3.get_bucket_versioning(**bucket).get("Status"),
            "Enabled",
            lambda: self.s3.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Enabled"}),
        )
        key = self._key_id() or "the key"
        by_key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
        yield (
            "encryption by the key",
            lambda: self.s3.get_bucket_encryption(**bucket)["ServerSideEncryptionConfiguration"]["Rules"][0][
                "ApplyServerSideEncryptionByDefault"
            ],
            by_key,
            lambda: self.s3.put_bucket_encryption(
                **bucket,
                ServerSideEncryptionConfiguration={
                    "Rules": [{"ApplyServerSideEncryptionByDefault": by_key, "BucketKeyEnabled": True}]
                },
            ),
        )
        policy = self._bucket_policy()
        yield (
            "only by TLS",
            lambda: json.loads(self.s3.get_bucket_policy(**bucket)["Policy"]),
            policy,
            lambda: self.s3.put_bucket_policy(**bucket, Policy=json.dumps(policy)),
        )
        old = {
            "ID": "old-versions",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": KEEP_DAYS},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        }
        yield (
            f"replaced versions leave after {KEEP_DAYS} days",
            lambda: self.s3.get_bucket_lifecycle_configuration(**bucket)["Rules"],
            [old],
            lambda: self.s3.put_bucket_lifecycle_configuration(
                **bucket, LifecycleConfiguration={"Rules": [old]}
            ),
        )

    def _bucket_policy(self) -> Document:
        arn = f"arn:aws:s3:::{self.bucket}"
        return _policy(
            {
                "Sid": "OnlyByTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, f"{arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        )

    # -- roles for CI ----------------------------------------------------------------------------------------

    @property
    def _issuer(self) -> str:
        return f"arn:aws:iam::{self.account}:oidc-provider/{ISSUER}"

    def _issuer_is(self) -> str:
        try:
            found = self.iam.get_open_id_connect_provider(OpenIDConnectProviderArn=self._issuer)
        except self.iam.exceptions.NoSuchEntityException:
            return "missing"
        return "there" if AUDIENCE in found["ClientIDList"] else "differs"

    def _make_issuer(self) -> None:
        if self._issuer_is() == "missing":
            self.iam.create_open_id_connect_provider(
                Url=f"https://{ISSUER}", ClientIDList=[AUDIENCE], Tags=_tags("Key", "Value")
            )
        else:
            self.iam.add_client_id_to_open_id_connect_provider(
                OpenIDConnectProviderArn=self._issuer, ClientID=AUDIENCE
            )

    def _roles(self) -> Iterator[tuple[str, Document, Document, tuple[str, ...]]]:
        """Name, trust, policy, managed policies: one to look, one to push images, and one a stack to change."""
        yield (
            f"{PROJECT}-ci-preview",
            self._trust("pull_request", "ref:refs/heads/main"),
            self._reads_state(),
            READS,
        )
        yield f"{PROJECT}-ci-image", self._trust("ref:refs/heads/main"), self._pushes(STACKS[0]), ()
        for stack in STACKS:
            yield f"{PROJECT}-ci-{stack}", self._trust(f"environment:{stack}"), self._deploys(stack), ()

    def _trust(self, *subjects: str) -> Document:
        return _policy(
            {
                "Effect": "Allow",
                "Principal": {"Federated": self._issuer},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {
                    "StringEquals": {
                        f"{ISSUER}:aud": AUDIENCE,
                        f"{ISSUER}:sub": [f"repo:{self.repository}:{subject}" for subject in subjects],
                    }
                },
            }
        )

    def _state(self, *writes: str) -> tuple[Document, ...]:
        arn = f"arn:aws:s3:::{self.bucket}"
        return (
            {"Sid": "ListState", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [arn]},
            {"Sid": "ReadState", "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{arn}/*"]},
            {
                "Sid": "WriteState",
                "Effect": "Allow",
                "Action": ["s3:PutObject", "s3:DeleteObject"],
                "Resource": [f"{arn}/{part}" for part in writes],
            },
            {
                "Sid": "SecretsOfState",
                "Effect": "Allow",
                "Action": ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"],
                "Resource": [self._key_id() or "*"],
            },
        )

    def _reads_state(self) -> Document:
        # A preview takes the lock of the stack, so that it does not read what a deployment is writing.
        return _policy(
            *self._state(".pulumi/locks/*"),
            # The program has AWS make the master's password up; what is made in a preview is thrown away.
            {
                "Sid": "MakeUpAPassword",
                "Effect": "Allow",
                "Action": ["secretsmanager:GetRandomPassword"],
                "Resource": ["*"],
            },
        )

    def _pushes(self, stack: str) -> Document:
        # Building runs what others have written: it gets no more than this, and from there a stack takes a digest.
        return _policy(
            {
                "Sid": "LogInToTheRegistry",
                "Effect": "Allow",
                "Action": ["ecr:GetAuthorizationToken"],
                "Resource": ["*"],
            },
            {
                "Sid": "PushImages",
                "Effect": "Allow",
                "Action": [
                    "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload",
                    "ecr:DescribeImages", "ecr:DescribeRepositories", "ecr:InitiateLayerUpload", "ecr:PutImage",
                    "ecr:UploadLayerPart",
                ],
                # A stack may be in another region than the state.
                "Resource": [f"arn:aws:ecr:*:{self.account}:repository/{PROJECT}-{stack}-jobs"],
            },
        )  # fmt: skip

    def _deploys(self, stack: str) -> Document:
        mine = f"{PROJECT}-{stack}-*"
        roles = f"arn:aws:iam::{self.account}:role/{mine}"
        return _policy(
            *self._state("*"),
            {
                "Sid": "ThePlatformsServices",
                "Effect": "Allow",
                "Action": [f"{service}:*" for service in DEPLOYED],
                "Resource": ["*"],
            },
            {
                "Sid": "RolesOfThisStack",
                "Effect": "Allow",
                "Action": [
                    "iam:AttachRolePolicy", "iam:CreateRole", "iam:DeleteRole", "iam:DeleteRolePolicy",
                    "iam:DetachRolePolicy", "iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies",
                    "iam:ListInstanceProfilesForRole", "iam:ListRolePolicies", "iam:PassRole", "iam:PutRolePolicy",
                    "iam:TagRole", "iam:UntagRole", "iam:UpdateAssumeRolePolicy", "iam:UpdateRole",
                ],
                "Resource": [roles],
            },
            {
                "Sid": "InstanceProfilesOfThisStack",
                "Effect": "Allow",
                "Action": [
                    "iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile", "iam:DeleteInstanceProfile",
                    "iam:GetInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:TagInstanceProfile",
                ],
                "Resource": [f"arn:aws:iam::{self.account}:instance-profile/{mine}"],
            },
            {
                "Sid": "RolesThatServicesMakeThemselves",
                "Effect": "Allow",
                "Action": ["iam:CreateServiceLinkedRole"],
                "Resource": [f"arn:aws:iam::{self.account}:role/aws-service-role/*"],
            },
            {
                # Whatever a deployment does, it does not take away what it is watched and undone by.
                "Sid": "NeverTheState",
                "Effect": "Deny",
                "Action": ["s3:DeleteBucket", "s3:PutBucketPolicy", "s3:PutBucketVersioning", "s3:DeleteObjectVersion"],
                "Resource": [f"arn:aws:s3:::{self.bucket}", f"arn:aws:s3:::{self.bucket}/*"],
            },
        )  # fmt: skip

    def _role_is(
        self, name: str, trust: Document, policy: Document, managed: Sequence[str]
    ) -> Callable[[], str]:
        def look() -> str:
            try:
                found = self.iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
            except self.iam.exceptions.NoSuchEntityException:
                return "missing"
            try:
                inline = self.iam.get_role_policy(RoleName=name, PolicyName=name)["PolicyDocument"]
            except self.iam.exceptions.NoSuchEntityException:
                return "differs"
            attached = {
                one["PolicyArn"]
                for one in self.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
            }
            return "there" if (found, inline, attached) == (trust, policy, set(managed)) else "differs"

        return look

    def _role(
        self, name: str, trust: Document, policy: Document, managed: Sequence[str]
    ) -> Callable[[], None]:
        def make() -> None:
            try:
                self.iam.create_role(
                    RoleName=name,
                    AssumeRolePolicyDocument=json.dumps(trust),
                    MaxSessionDuration=7200,
                    Tags=_tags("Key", "Value"),
                )
            except self.iam.exceptions.EntityAlreadyExistsException:
                self.iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))
            self.iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
            attached = {
                one["PolicyArn"]
                for one in self.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
            }
            for arn in attached - set(managed):
                self.iam.detach_role_policy(RoleName=name, PolicyArn=arn)
            for arn in set(managed) - attached:
                self.iam.attach_role_policy(RoleName=name, PolicyArn=arn)

        return make


def _policy(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _tags(key: str, value: str) -> list[dict[str, str]]:
    return [
        {key: name, value: text}
        for name, text in (("Project", f"{PROJECT}-platform"), ("ManagedBy", "bootstrap"))
    ]


def _compare(look: Callable[[], Any], want: Any) -> Callable[[], str]:
    def state() -> str:
        try:
            found = look()
        except ClientError as error:
            # NoSuchBucket, NoSuchLifecycleConfiguration, ServerSideEncryptionConfigurationNotFoundError and their like
            if error.response["Error"]["Code"] in ("AccessDenied", "403"):
                raise
            return "missing"
        return "there" if found == want else "differs"

    return state


def _repository(text: str) -> str:
    # A wildcard here would let any repository in.
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?/[A-Za-z0-9._-]+", text):
        raise argparse.ArgumentTypeError(f"must be OWNER/NAME, got {text}")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m infra bootstrap`; returns the exit code. Raises InfraError."""
    parser = argparse.ArgumentParser(prog="python -m infra bootstrap", description=(__doc__ or "").strip())
    parser.add_argument(
        "--repository",
        type=_repository,
        required=True,
        metavar="OWNER/NAME",
        help="on GitHub: who may take the roles",
    )
    parser.add_argument("--region", help="of the state's bucket and key (default: boto3's)")
    parser.add_argument("--execute", action="store_true", help="make what is missing (default: say what is)")
    parser.add_argument("--json", action="store_true", help="one JSON array on standard output")
    options = parser.parse_args(argv)
    session = boto3.Session()
    # boto3 itself reads AWS_DEFAULT_REGION alone, where other tools read AWS_REGION.
    region = options.region or os.environ.get("AWS_REGION") or session.region_name
    if not region:
        raise InfraError("no region: give --region or set AWS_REGION")
    if region not in REGIONS:
        raise InfraError(f"{region} is no region of AWS that this runs in, such as eu-central-1")
    try:
        found = Bootstrap(session, region, options.repository, options.execute)
        steps = list(found.run())
    except (BotoCoreError, ClientError) as error:
        raise InfraError(f"AWS: {' '.join(str(error).split())}") from None
    if options.json:
        print(json.dumps([asdict(step) for step in steps]))
    else:
        for step in steps:
            print(f"{'made' if step.done else step.state:8} {step.what}")
        if any(step.state != "there" and not step.done for step in steps):
            print("nothing was changed: --execute makes what is missing")
        else:
            print(f"pulumi login 's3://{found.bucket}?region={region}'")
            print(f"pulumi stack init dev --secrets-provider='awskms://{ALIAS}?region={region}'")
    return 0
