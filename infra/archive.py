"""The buckets: items as JSON, partitions as Parquet, and the access logs of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pulumi
import pulumi_aws as aws

from infra.component import Component, Context
from infra.iam import Statement, Text, document
from infra.keys import Keys
from infra.naming import Names
from infra.settings import Archive as Settings

ARCHIVES: Final = "archives"
MANIFESTS: Final = "manifests"
"""Folders of the bucket for items (ARCHIVE_PREFIX, MANIFEST_PREFIX)."""
PARTITIONS: Final = "partitions"
"""Folder of the bucket for partitions (PARTITION_PREFIX)."""
UNVERIFIED: Final = f"{PARTITIONS}/_unverified/"
"""Where an export is until it was read back; the job clears it away itself, unless it is never run again."""

STAGED: Final = "staging/"
"""Begin of the keys of what the warehouse loads by COPY."""

UNVERIFIED_DAYS: Final = 7
STAGED_DAYS: Final = 7
"""A load that failed on a Friday can be made again on the Monday; what was loaded is in the warehouse."""
CLEAN_UP_DAYS: Final = 7
"""Until the parts of an upload that nobody completed are gone: billed, and shown in no listing."""
NONCURRENT_DAYS: Final = 30
"""How long what was written over or deleted can be had back, where nothing older rests on it."""
INFREQUENT_ACCESS_LEAST_DAYS: Final = 30
"""S3 takes no object into Standard-IA sooner."""


class Archive(Component):
    """The buckets: items as JSON, partitions as Parquet, and the access logs of both.

    Attributes: `items`, `partitions`, `logs` (aws.s3.Bucket).

    None is copied to another region. S3 keeps an object in three zones or more; against deletion by mistake or by
    malice there are versions, and in prod the lock. A copy elsewhere would double the bill of seven years to guard
    against the loss of a region, which the sources of both outlive: backups of PostgreSQL go to a second region.
    """

    KIND = "archive"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        settings = context.settings.archive
        self._key = keys.arn("archive")
        self.logs = self._bucket("logs")
        self._fill("logs", self.logs, log_rules(settings), self._log_policy())
        self.items = self._bucket("items", lock=settings.lock_mode != "none")
        self._fill("items", self.items, item_rules(settings), self._own_key_only(self.items))
        self._lock(settings)
        self.partitions = self._bucket("partitions")
        self._fill(
            "partitions", self.partitions, partition_rules(settings), self._own_key_only(self.partitions)
        )
        self.register_outputs({"items": self.items.bucket, "partitions": self.partitions.bucket})

    def _physical(self, thing: str) -> str:
        return self.names.unique(f"archive-{thing}", self.context.account)

    def _bucket(self, thing: str, *, lock: bool = False) -> aws.s3.Bucket:
        return aws.s3.Bucket(
            f"archive-{thing}",
            bucket=self._physical(thing),
            # Only at its creation can a bucket be given the lock without a request to AWS support; turning the
            # setting over later makes another bucket, which `protect` refuses.
            object_lock_enabled=lock,
            opts=self.data_options(),
        )

    def _fill(
        self,
        thing: str,
        bucket: aws.s3.Bucket,
        rules: Sequence[aws.s3.BucketLifecycleConfigurationRuleArgs],
        statements: Sequence[Statement],
    ) -> None:
        """What every bucket has."""
        logical = f"archive-{thing}"
        versions = aws.s3.BucketVersioning(
            logical,
            bucket=bucket.bucket,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=self.options(),
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            logical,
            bucket=bucket.bucket,
            rules=[self._encryption(thing)],
            opts=self.options(),
        )
        closed = aws.s3.BucketPublicAccessBlock(
            logical,
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self.options(),
        )
        # No access lists: what is in the bucket belongs to its owner, whoever wrote it.
        owner = aws.s3.BucketOwnershipControls(
            logical,
            bucket=bucket.bucket,
            rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=self.options(depends_on=[closed]),
        )
        # S3 refuses two changes of one bucket's access at once (OperationAborted): one after the other.
        policy = aws.s3.BucketPolicy(
            logical,
            bucket=bucket.bucket,
            policy=document(*self._tls_only(bucket), *statements),
            opts=self.options(depends_on=[owner]),
        )
        aws.s3.BucketLifecycleConfiguration(
            logical,
            bucket=bucket.bucket,
            rules=list(rules),
            # Objects below 128 KiB stay where they are: moving one costs more than it saves, and Glacier adds 40 KiB.
            transition_default_minimum_object_size="all_storage_classes_128K",
            opts=self.options(depends_on=[versions]),
        )
        if thing == "logs":
            self._logs_take = policy
            return
        aws.s3.BucketLogging(
            logical,
            bucket=bucket.bucket,
            target_bucket=self.logs.bucket,
            target_prefix=f"{thing}/",
            opts=self.options(depends_on=[self._logs_take]),
        )

    def _encryption(self, thing: str) -> aws.s3.BucketServerSideEncryptionConfigurationRuleArgs:
        if thing == "logs":
            # S3 delivers access logs only to a bucket that encrypts with S3's own keys (SSE-S3): with a key of KMS
            # as its default, delivery stops without an error.
            default = (
                aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                    sse_algorithm="AES256"
                )
            )
            return aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                apply_server_side_encryption_by_default=default
            )
        default = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
            sse_algorithm="aws:kms", kms_master_key_id=self._key
        )
        # One request to KMS for many objects, in place of one for each.
        return aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
            apply_server_side_encryption_by_default=default, bucket_key_enabled=True
        )

    def _lock(self, settings: Settings) -> None:
        """The default retention of the items bucket, where the stack has one.

        What the archiver does goes with it: it never deletes from the bucket, writes an object once, and writes a
        manifest over, which in a locked bucket makes another version. Lifecycle rules move locked versions to Glacier
        all the same, and delete them when the lock is over.

        The other two have none. The archive of partitions clears away what was not verified and moves what was: it
        would work (a delete only hides a version), but each export would be kept, and paid for, once more for as
        long as the lock lasts. And S3 delivers access logs to no bucket with a default retention.
        """
        if settings.lock_mode == "none":
            return
        aws.s3.BucketObjectLockConfiguration(
            "archive-items",
            bucket=self.items.bucket,
            rule=aws.s3.BucketObjectLockConfigurationRuleArgs(
                default_retention=aws.s3.BucketObjectLockConfigurationRuleDefaultRetentionArgs(
                    mode=settings.lock_mode.upper(), days=settings.lock_days
                )
            ),
            opts=self.options(),
        )

    # -- policies --------------------------------------------------------------------------------------------

    def _tls_only(self, bucket: aws.s3.Bucket) -> tuple[Statement, ...]:
        everything = [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")]
        return (
            Statement(
                "OnlyByTls",
                ["s3:*"],
                everything,
                conditions={"Bool": {"aws:SecureTransport": "false"}},
                principals={"AWS": "*"},
                effect="Deny",
            ),
            # A request of a service for itself does not say its version of TLS, and a condition on what is absent
            # does not hold: such a request passes.
            Statement(
                "OnlyByTls12OrNewer",
                ["s3:*"],
                everything,
                conditions={"NumericLessThan": {"s3:TlsVersion": "1.2"}},
                principals={"AWS": "*"},
                effect="Deny",
            ),
        )

    def _own_key_only(self, bucket: aws.s3.Bucket) -> tuple[Statement, ...]:
        return key_statements(pulumi.Output.concat(bucket.arn, "/*"), self._key)

    def _log_policy(self) -> tuple[Statement, ...]:
        """Each bucket may have its log written into its own folder."""
        here = self.context
        return tuple(
            Statement(
                f"AccessLogOf{thing.title()}",
                ["s3:PutObject"],
                [pulumi.Output.concat(self.logs.arn, f"/{thing}/*")],
                conditions={
                    "ArnEquals": {"aws:SourceArn": f"arn:{here.partition}:s3:::{self._physical(thing)}"},
                    "StringEquals": {"aws:SourceAccount": here.account},
                },
                principals={"Service": "logging.s3.amazonaws.com"},
            )
            for thing in ("items", "partitions")
        )


def catalogue_name(names: Names) -> str:
    """Of the Glue database of archived partitions: without hyphens, which Athena takes only in quotes."""
    return names.of("archive").replace("-", "_")


def key_statements(objects: Text, key: Text) -> tuple[Statement, ...]:
    """What keeps objects from being encrypted by anything but this key.

    A request that says nothing of encryption gets the bucket's default, which is the key: the statements hold only for
    those that say something, and each is said by a `Null` of its own, since a condition with Not on a header that is
    absent holds. Parts of an upload never have the headers; its begin has.
    """
    algorithm = "s3:x-amz-server-side-encryption"
    own = "s3:x-amz-server-side-encryption-aws-kms-key-id"
    customer = "s3:x-amz-server-side-encryption-customer-algorithm"
    denied: tuple[tuple[str, Mapping[str, Mapping[str, Any]]], ...] = (
        ("NoOtherEncryption", {"Null": {algorithm: "false"}, "StringNotEquals": {algorithm: "aws:kms"}}),
        ("NoOtherKey", {"Null": {own: "false"}, "StringNotEquals": {own: key}}),
        # aws:kms without a key is not the bucket's default, but a key that AWS manages for the account.
        ("NoKeyOfAws", {"Null": {own: "true"}, "StringEquals": {algorithm: "aws:kms"}}),
        ("NoKeyOfTheClient", {"Null": {customer: "false"}}),
    )
    return tuple(
        Statement(
            sid, ["s3:PutObject"], [objects], conditions=conditions, principals={"AWS": "*"}, effect="Deny"
        )
        for sid, conditions in denied
    )


def key_use(context: Context, keys: Keys, bucket: aws.s3.Bucket) -> Statement:
    """The right to read and write what the archive's key encrypts, by way of S3 and in this bucket alone."""
    return Statement(
        "KeyOfTheArchiveByS3",
        ["kms:Decrypt", "kms:GenerateDataKey"],
        [keys.arn("archive")],
        conditions={
            "StringEquals": context.via("s3"),
            # With a bucket key S3 names the bucket, without one the object.
            "StringLike": {
                "kms:EncryptionContext:aws:s3:arn": [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")]
            },
        },
    )


def partition_statements(context: Context, archive: Archive, keys: Keys) -> tuple[Statement, ...]:
    """What `jobs archive-partitions` and `restore-partition` may do (docs/jobs.md, "Archive of partitions")."""
    bucket = archive.partitions
    return (
        # Of the whole bucket, which holds nothing else. With a condition on s3:prefix, which a request for one object
        # does not have, S3 would say of what is not there that it may not be read; uploads know no such condition.
        Statement("ListArchivedPartitions", ["s3:ListBucket", "s3:ListBucketMultipartUploads"], [bucket.arn]),
        Statement(
            "ReadWriteAndMovePartitions",
            [
                "s3:GetObject",
                "s3:GetObjectVersion",
                "s3:PutObject",
                "s3:DeleteObject",
                "s3:AbortMultipartUpload",
                "s3:RestoreObject",
            ],
            [pulumi.Output.concat(bucket.arn, f"/{PARTITIONS}/*")],
        ),
        key_use(context, keys, bucket),
    )


# -- lifecycle -----------------------------------------------------------------------------------------------


def item_rules(settings: Settings) -> tuple[aws.s3.BucketLifecycleConfigurationRuleArgs, ...]:
    """Archives to Glacier and, with their manifests, gone at the end; manifests are never in Glacier.

    A manifest is small, and `restore --key` and `verify` read thousands of them to find the one object to request.
    GLACIER is Flexible Retrieval: minutes to hours, against 12 hours of Deep Archive and the
    price of Instant Retrieval.
    """
    return (
        _rule(
            "archives",
            f"{ARCHIVES}/",
            transitions=[_transition("GLACIER", settings.glacier_days)],
            expiration=_expiration(settings.expire_days),
            noncurrent=NONCURRENT_DAYS,
        ),
        _rule(
            "manifests",
            f"{MANIFESTS}/",
            expiration=_expiration(settings.expire_days),
            noncurrent=NONCURRENT_DAYS,
        ),
        _clean_up(),
    )


def partition_rules(settings: Settings) -> tuple[aws.s3.BucketLifecycleConfigurationRuleArgs, ...]:
    """Parquet to Standard-IA, which Spectrum reads as it reads Standard; never to Glacier, which it cannot read.

    Nothing that is archived expires, nor does a version of it: each file is read by the version that was verified, also
    when something was written over it. Only what was not verified does, and what COPY has loaded, and their versions.
    Uploads that were cut short are cleared from the whole bucket, what is staged included.
    """
    cool = settings.partitions_cool_days
    return (
        _rule(
            "partitions",
            f"{PARTITIONS}/",
            transitions=[_transition("STANDARD_IA", cool)],
            noncurrent_transition=max(cool, INFREQUENT_ACCESS_LEAST_DAYS),
        ),
        _rule("unverified", UNVERIFIED, expiration=_expiration(UNVERIFIED_DAYS), noncurrent=UNVERIFIED_DAYS),
        # Anybody can make it again from the source: versions of it are kept no longer than S3 must.
        _rule("staged", STAGED, expiration=_expiration(STAGED_DAYS), noncurrent=1),
        _clean_up(),
    )


def log_rules(settings: Settings) -> tuple[aws.s3.BucketLifecycleConfigurationRuleArgs, ...]:
    """Access logs go after as many days as the archiver's own logs."""
    return (
        _rule("logs", "", expiration=_expiration(settings.log_days), noncurrent=1),
        _clean_up(),
    )


def _rule(
    name: str,
    prefix: str,
    *,
    transitions: Sequence[aws.s3.BucketLifecycleConfigurationRuleTransitionArgs] = (),
    expiration: aws.s3.BucketLifecycleConfigurationRuleExpirationArgs | None = None,
    noncurrent: int | None = None,
    noncurrent_transition: int | None = None,
) -> aws.s3.BucketLifecycleConfigurationRuleArgs:
    return aws.s3.BucketLifecycleConfigurationRuleArgs(
        id=name,
        status="Enabled",
        filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=prefix),
        transitions=list(transitions) or None,
        expiration=expiration,
        noncurrent_version_expiration=None
        if noncurrent is None
        else aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
            noncurrent_days=noncurrent
        ),
        noncurrent_version_transitions=None
        if noncurrent_transition is None
        else [
            aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionTransitionArgs(
                noncurrent_days=noncurrent_transition, storage_class="STANDARD_IA"
            )
        ],
    )


def _clean_up() -> aws.s3.BucketLifecycleConfigurationRuleArgs:
    """Of the whole bucket: parts of uploads that nobody completed, and delete markers that hide nothing any more."""
    return aws.s3.BucketLifecycleConfigurationRuleArgs(
        id="clean-up",
        status="Enabled",
        filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
        abort_incomplete_multipart_upload=aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
            days_after_initiation=CLEAN_UP_DAYS
        ),
        # S3 takes this and days in one rule for a mistake: it stands in a rule of its own.
        expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(expired_object_delete_marker=True),
    )


def _transition(storage: str, days: int) -> aws.s3.BucketLifecycleConfigurationRuleTransitionArgs:
    return aws.s3.BucketLifecycleConfigurationRuleTransitionArgs(storage_class=storage, days=days)


def _expiration(days: int) -> aws.s3.BucketLifecycleConfigurationRuleExpirationArgs:
    return aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=days)
