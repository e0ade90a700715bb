from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.settings import Settings as ArchiverSettings
from infra.archive import ARCHIVES, MANIFESTS, PARTITIONS, STAGED, UNVERIFIED, key_statements
from infra.errors import SettingsError
from infra.graph import ROOT, read_config, record
from infra.settings import load
from jobs.archive.settings import Settings as JobSettings
from tests.infra.conftest import graph_of
from tests.infra.policies import statements

if TYPE_CHECKING:
    from infra.graph import Graph
    from infra.iam import Statement

BUCKETS = ("archive-items", "archive-partitions", "archive-logs")
DATA = BUCKETS[:2]
KEY = "arn:aws:kms:eu-central-1:123456789012:key/own"


def policy(graph: Graph, bucket: str) -> list[dict[str, Any]]:
    return json.loads(graph.one("s3.BucketPolicy", bucket).inputs["policy"])["Statement"]  # type: ignore[no-any-return]


# -- every bucket --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bucket", BUCKETS)
def test_every_bucket_is_versioned_closed_and_its_owners(graph: Graph, bucket: str) -> None:
    versions = graph.one("s3.BucketVersioning", bucket).inputs["versioningConfiguration"]
    assert versions == {"status": "Enabled"}
    closed = graph.one("s3.BucketPublicAccessBlock", bucket).inputs
    assert all(
        closed[name] is True
        for name in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    )
    owner = graph.one("s3.BucketOwnershipControls", bucket).inputs["rule"]
    assert owner == {"objectOwnership": "BucketOwnerEnforced"}
    own = graph.one("s3.Bucket", bucket)
    assert (own.protect, own.retain_on_delete) == (graph.settings.protect_data,) * 2
    assert own.inputs.get("forceDestroy", False) is False


@pytest.mark.parametrize("bucket", BUCKETS)
def test_every_bucket_refuses_what_is_not_tls_1_2(prod: Graph, bucket: str) -> None:
    own = prod.one("s3.Bucket", bucket).outputs["arn"]
    refused = {
        json.dumps(one["Condition"], sort_keys=True)
        for one in policy(prod, bucket)
        if one["Effect"] == "Deny"
        and one["Action"] == ["s3:*"]
        and one["Principal"] == {"AWS": "*"}
        and set(one["Resource"]) == {own, f"{own}/*"}
    }
    assert refused == {
        '{"Bool": {"aws:SecureTransport": "false"}}',
        '{"NumericLessThan": {"s3:TlsVersion": "1.2"}}',
    }


def test_data_is_encrypted_with_the_archives_key_and_logs_with_s3s_own(graph: Graph) -> None:
    key = graph.one("kms.Key", "key-archive").outputs["arn"]
    for bucket in DATA:
        (rule,) = graph.one("s3.BucketServerSideEncryptionConfiguration", bucket).inputs["rules"]
        assert rule["applyServerSideEncryptionByDefault"] == {
            "sseAlgorithm": "aws:kms",
            "kmsMasterKeyId": key,
        }
        assert rule["bucketKeyEnabled"] is True
    (rule,) = graph.one("s3.BucketServerSideEncryptionConfiguration", "archive-logs").inputs["rules"]
    assert rule["applyServerSideEncryptionByDefault"] == {"sseAlgorithm": "AES256"}


def test_access_is_logged_and_only_the_log_service_may_write_the_log(graph: Graph) -> None:
    logs = graph.one("s3.Bucket", "archive-logs")
    allowed = [one for one in policy(graph, "archive-logs") if one["Effect"] == "Allow"]
    for bucket in DATA:
        logging = graph.one("s3.BucketLogging", bucket)
        assert logging.inputs["targetBucket"] == logs.inputs["bucket"]
        (statement,) = [
            one
            for one in allowed
            if one["Resource"] == [f"{logs.outputs['arn']}/{logging.inputs['targetPrefix']}*"]
        ]
        assert statement["Principal"] == {"Service": "logging.s3.amazonaws.com"}
        assert statement["Action"] == ["s3:PutObject"]
        assert statement["Condition"] == {
            "ArnEquals": {"aws:SourceArn": graph.one("s3.Bucket", bucket).outputs["arn"]},
            "StringEquals": {"aws:SourceAccount": "123456789012"},
        }
        # S3 looks at the policy when logging is set up.
        assert graph.one("s3.BucketPolicy", "archive-logs").urn in logging.depends_on
    assert len(allowed) == len(DATA)


@pytest.mark.parametrize("bucket", DATA)
def test_nobody_is_allowed_anything_by_the_policy_of_a_bucket_with_data(prod: Graph, bucket: str) -> None:
    assert {one["Effect"] for one in policy(prod, bucket)} == {"Deny"}


# -- the right key -------------------------------------------------------------------------------------------


def denied(statements: Iterable[Mapping[str, Any]], headers: Mapping[str, str]) -> bool:
    """Whether a PutObject with these is refused: what IAM makes of the conditions, absent keys included."""
    tests = {
        "Null": lambda key, wanted: (key not in headers) == (wanted == "true"),
        "StringEquals": lambda key, wanted: headers.get(key) == wanted,
        "StringNotEquals": lambda key, wanted: headers.get(key) != wanted,
    }
    return any(
        all(
            tests[operator](key, wanted)
            for operator, pairs in one["Condition"].items()
            for key, wanted in pairs.items()
        )
        for one in statements
        if one["Effect"] == "Deny" and one["Action"] == ["s3:PutObject"]
    )


def plain(statements: Iterable[Statement]) -> list[dict[str, Any]]:
    return [one.plain() for one in statements]


ALGORITHMS = (None, "AES256", "aws:kms", "aws:kms:dsse")
KEYS = (None, KEY, "arn:aws:kms:eu-central-1:999999999999:key/other", "own")


@pytest.mark.parametrize(
    ("algorithm", "key", "customer"), list(itertools.product(ALGORITHMS, KEYS, (None, "AES256")))
)
def test_only_the_buckets_default_or_its_own_key_by_name_is_taken(
    algorithm: str | None, key: str | None, customer: str | None
) -> None:
    prefix = "s3:x-amz-server-side-encryption"
    said = {
        prefix: algorithm,
        f"{prefix}-aws-kms-key-id": key,
        f"{prefix}-customer-algorithm": customer,
    }
    headers = {name: value for name, value in said.items() if value is not None}
    default = not headers
    own = algorithm == "aws:kms" and key == KEY and customer is None
    # A key without the word aws:kms is no request that S3 takes.
    invalid = algorithm is None and key == KEY and customer is None
    assert denied(plain(key_statements("arn:aws:s3:::b/*", KEY)), headers) is not (default or own or invalid)


def test_the_buckets_have_those_statements_with_the_archives_key(prod: Graph) -> None:
    key = prod.one("kms.Key", "key-archive").outputs["arn"]
    for bucket in DATA:
        objects = f"{prod.one('s3.Bucket', bucket).outputs['arn']}/*"
        wanted = plain(key_statements(objects, key))
        for one in wanted:
            one["Principal"] = {"AWS": "*"}
        assert [one for one in policy(prod, bucket) if one["Action"] == ["s3:PutObject"]] == wanted


# -- lifecycle -----------------------------------------------------------------------------------------------


def rules(graph: Graph, bucket: str) -> list[dict[str, Any]]:
    found = graph.one("s3.BucketLifecycleConfiguration", bucket).inputs["rules"]
    assert all(rule["status"] == "Enabled" for rule in found)
    return found  # type: ignore[no-any-return]


def tier(graph: Graph, bucket: str, key: str, days: int) -> str | None:
    """Where an object is after so many days; None: gone."""
    storage, since = "STANDARD", -1
    for rule in rules(graph, bucket):
        if not key.startswith(rule["filter"]["prefix"]):
            continue
        if days >= rule.get("expiration", {}).get("days", float("inf")):
            return None
        for one in rule.get("transitions", ()):
            if days >= one["days"] > since:
                storage, since = one["storageClass"], one["days"]
    return storage


AGES = st.integers(0, 40_000)


@given(days=AGES)
def test_an_archive_of_items_goes_to_glacier_and_then_away(days: int) -> None:
    key = f"{ARCHIVES}/2024/01/20/archive-1.json"
    expected = "STANDARD" if days < 90 else "GLACIER" if days < 2555 else None
    assert tier(graph_of("prod"), "archive-items", key, days) == expected


@given(days=AGES)
def test_a_manifest_is_never_in_glacier_and_goes_with_its_archive(days: int) -> None:
    key = f"{MANIFESTS}/2024/01/20/archive-1.json"
    assert tier(graph_of("prod"), "archive-items", key, days) == ("STANDARD" if days < 2555 else None)


@given(
    days=AGES,
    key=st.sampled_from(
        [
            f"{PARTITIONS}/table=eav.entity_values_ts/year=2024/month=01/p-1.parquet",
            f"{PARTITIONS}/_superseded/table=eav.entity_values_ts/p-1.parquet",
            f"{PARTITIONS}/_mark",
        ]
    ),
)
def test_what_is_archived_of_partitions_never_expires_and_stays_readable(days: int, key: str) -> None:
    cool = graph_of("prod").settings.archive.partitions_cool_days
    expected = "STANDARD" if days < cool else "STANDARD_IA"
    assert tier(graph_of("prod"), "archive-partitions", key, days) == expected


def test_no_version_of_an_archived_partition_expires(graph: Graph) -> None:
    """Each file is read by the version that was verified, whatever was written over it."""
    expiring = [
        rule["filter"]["prefix"]
        for rule in rules(graph, "archive-partitions")
        if "noncurrentVersionExpiration" in rule
    ]
    assert expiring == [UNVERIFIED, STAGED]
    moved = [
        one["storageClass"]
        for rule in rules(graph, "archive-partitions")
        for one in rule.get("noncurrentVersionTransitions", ())
    ]
    assert moved == ["STANDARD_IA"]


def test_what_was_not_verified_is_gone_after_a_week(graph: Graph) -> None:
    key = f"{UNVERIFIED}attempt/p-1.parquet"
    assert tier(graph, "archive-partitions", key, 6) == "STANDARD"
    assert tier(graph, "archive-partitions", key, 7) is None


def test_what_copy_loads_is_gone_after_a_week_and_its_versions_a_day_later(graph: Graph) -> None:
    key = f"{STAGED}entities/1.csv.gz"
    assert tier(graph, "archive-partitions", key, 6) == "STANDARD"
    assert tier(graph, "archive-partitions", key, 7) is None
    (rule,) = [one for one in rules(graph, "archive-partitions") if one["filter"]["prefix"] == STAGED]
    assert rule["noncurrentVersionExpiration"] == {"noncurrentDays": 1}
    # What the role of COPY may read is what goes.
    policy = statements(graph, "warehouse-copy-policy")["ReadThePrefix"]
    assert [arn.partition("/")[2] for arn in policy["Resource"]] == [f"{STAGED}*"]


@pytest.mark.parametrize("bucket", BUCKETS)
def test_every_bucket_is_cleaned_of_cut_uploads_and_empty_delete_markers(graph: Graph, bucket: str) -> None:
    (whole,) = [rule for rule in rules(graph, bucket) if "abortIncompleteMultipartUpload" in rule]
    assert whole["filter"] == {"prefix": ""}
    assert whole["abortIncompleteMultipartUpload"] == {"daysAfterInitiation": 7}
    # S3 refuses it beside days.
    assert whole["expiration"] == {"expiredObjectDeleteMarker": True}


def test_folders_are_those_that_are_written_to() -> None:
    archiver, job = ArchiverSettings(("t",), "b"), JobSettings("b")
    assert (archiver.archive_prefix, archiver.manifest_prefix) == (ARCHIVES, MANIFESTS)
    assert job.prefix == PARTITIONS
    assert job.staging("attempt").startswith(UNVERIFIED)


# -- the lock ------------------------------------------------------------------------------------------------


def test_in_prod_items_are_locked_as_long_as_they_are_kept_and_nothing_else_is(prod: Graph) -> None:
    locked = {one.name: one.inputs["objectLockEnabled"] for one in prod.of_kind("s3.Bucket")}
    assert {name: locked[name] for name in BUCKETS} == {
        "archive-items": True,
        "archive-partitions": False,
        "archive-logs": False,
    }
    (lock,) = prod.of_kind("s3.BucketObjectLockConfiguration")
    assert lock.inputs["bucket"] == prod.one("s3.Bucket", "archive-items").inputs["bucket"]
    assert lock.inputs["rule"] == {"defaultRetention": {"mode": "GOVERNANCE", "days": 2555}}


def test_without_the_setting_nothing_is_locked() -> None:
    graph = graph_of("dev")
    assert graph.settings.archive.lock_mode == "none"
    assert not graph.of_kind("s3.BucketObjectLockConfiguration")
    assert not any(
        one.inputs["objectLockEnabled"] for one in graph.of_kind("s3.Bucket") if one.name in BUCKETS
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"lock_mode": "governance"}, "lock_mode and lock_days go together"),
        ({"lock_mode": "compliance", "lock_days": 3000}, "must not outlast expire_days"),
        ({"glacier_days": 90, "expire_days": 179}, "expire_days must be at least 90 more than glacier_days"),
        ({"partitions_cool_days": 29}, "archive.partitions_cool_days"),
        ({"timeout_seconds": 179}, "archive.timeout_seconds"),
        ({"memory_mb": 511}, "archive.memory_mb"),
    ],
)
def test_wrong_settings_are_refused_in_a_line(values: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load("dev", read_config("dev") | {"eav-platform:archive": values})
    assert text in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# -- rights --------------------------------------------------------------------------------------------------

RIGHTS = {
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
    "copy_object": {"s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"},
    "delete_object": {"s3:DeleteObject"},
    "download_file": {"s3:GetObject", "s3:GetObjectVersion"},
    "get_object": {"s3:GetObject", "s3:GetObjectVersion"},
    "head_object": {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"},
    "list_multipart_uploads": {"s3:ListBucketMultipartUploads"},
    "list_objects_v2": {"s3:ListBucket"},
    "put_object": {"s3:PutObject"},
    "restore_object": {"s3:RestoreObject"},
    "upload_file": {"s3:PutObject"},
}
"""What S3 asks for an operation of boto3 (API reference)."""


def operations(path: Path) -> set[str]:
    """What a module calls of its client, paginators included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if ast.unparse(node.func.value).rpartition(".")[2].lstrip("_") not in ("client", "dynamodb", "s3"):
            continue
        name = node.func.attr
        if name == "get_paginator":
            (argument,) = node.args
            name = ast.literal_eval(argument)
        found.add(name)
    return found


def test_the_rights_of_the_partition_archive_are_those_of_what_it_calls() -> None:
    from infra.archive import Archive, partition_statements
    from infra.component import Context
    from infra.iam import document
    from infra.keys import Keys

    settings = graph_of("prod").settings
    texts: list[str] = []

    def declare(_: object) -> None:
        context = Context.of(settings)
        keys = Keys(context)
        archive = Archive(context, keys)
        document(*partition_statements(context, archive, keys)).apply(texts.append)

    graph = record(settings, declare)
    own = graph.one("s3.Bucket", "archive-partitions").outputs["arn"]
    statements = json.loads(texts[0])["Statement"]
    granted = {action for one in statements for action in one["Action"] if action.startswith("s3:")}
    called = operations(ROOT / "jobs/archive/store.py")
    assert granted == set().union(*(RIGHTS[name] for name in called))
    # And as they are documented.
    (words,) = re.findall(
        r"It needs (`s3:.+?) on that prefix", (ROOT / "docs/jobs.md").read_text(), re.DOTALL
    )
    assert {one.removeprefix("s3:") for one in re.findall(r"`([\w:]+)`", words)} == {
        one.removeprefix("s3:") for one in granted
    }
    for one in statements:
        for resource in one["Resource"]:
            if "s3:PutObject" in one["Action"]:
                assert resource == f"{own}/{PARTITIONS}/*"
            assert not resource.endswith(":*")
            assert resource != "*"
    (key,) = [one for one in statements if "kms:Decrypt" in one["Action"]]
    assert key["Resource"] == [graph.one("kms.Key", "key-archive").outputs["arn"]]
    assert key["Condition"]["StringEquals"] == {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}
    assert key["Condition"]["StringLike"] == {"kms:EncryptionContext:aws:s3:arn": [own, f"{own}/*"]}
