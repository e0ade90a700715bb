"""What holds data: PostgreSQL, Redshift, S3, DynamoDB, Kinesis, and secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from infra.graph import Graph, Resource
from infra.rules.documents import ATTACHED, Clause, clauses
from infra.rules.kit import (
    GIVEN,
    KEY,
    NOT_FALSE,
    NOT_TRUE,
    PROD,
    TRUE,
    UNKNOWN,
    Rule,
    at_least,
    none_of,
    on,
    one_of,
    over,
    parameter,
    parameters,
    pointing,
    targets,
    told,
    values,
    want,
)  # fmt: skip

DATA: Final = (
    "dynamodb.Table", "kinesis.Stream", "kms.Key", "rds.Instance", "redshift.Cluster", "redshiftserverless.Namespace",
    "s3.Bucket",
)  # fmt: skip
"""What cannot be made again from the program."""

STREAM_KEEPS: Final = 168
"""Hours: a week in which ingest may stand still before values are lost."""


def is_replica(db: Resource) -> bool:
    """Whether an RDS instance takes its data from another."""
    return bool(db.inputs.get("replicateSourceDb"))


# -- PostgreSQL --------------------------------------------------------------------------------------------


def _monitored(db: Resource) -> Iterator[str]:
    yield from want("monitoringInterval", at_least(1))(db)
    yield from want("monitoringRoleArn", GIVEN)(db)


def _exports(db: Resource) -> Iterator[str]:
    found = values(db.inputs, "enabledCloudwatchLogsExports")
    for log in ("postgresql", "upgrade"):
        if log not in found and UNKNOWN not in found:
            yield f"enabledCloudwatchLogsExports lacks {log}"


def _managed_password(db: Resource) -> Iterator[str]:
    yield from want("manageMasterUserPassword", TRUE)(db)
    yield from want("masterUserSecretKmsKeyId", KEY)(db)


def _statements_logged(group: Resource) -> Iterator[str]:
    found = parameters(group)
    if found is None:
        return
    # pgaudit says more than log_statement does, and is as good.
    if found.get("log_statement") not in ("ddl", "mod", "all", UNKNOWN) and not found.get("pgaudit.log"):
        yield f"parameter log_statement must be ddl, mod or all, {told(found.get('log_statement'))}"
    if str(found.get("log_min_duration_statement", "-1")) == "-1":
        yield "parameter log_min_duration_statement must be 0 or more: slow statements leave no trace"


def _proxy_auth(proxy: Resource) -> Iterator[str]:
    for auth in values(proxy.inputs, "auths"):
        if isinstance(auth, dict) and auth.get("iamAuth") not in ("REQUIRED", UNKNOWN):
            yield f"auths.iamAuth must be REQUIRED, {told(auth.get('iamAuth'))}"


def _backup_copies(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for db in graph.of_kind("rds.Instance"):
        if not is_replica(db):
            copies = pointing(graph, db, "rds.InstanceAutomatedBackupsReplication", "sourceDbInstanceArn")
            if not copies:
                yield db, "its backups are in one region only"
            for copy in copies:
                for text in want("kmsKeyId", KEY)(copy):
                    yield copy, text


def _subscribed(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    heard = {
        one.inputs.get("sourceType")
        for one in graph.of_kind("rds.EventSubscription")
        if one.inputs.get("enabled") is not False
    }
    for db in graph.of_kind("rds.Instance"):
        if not heard & {None, "db-instance", UNKNOWN}:
            yield db, "nobody is told of its events: no rds.EventSubscription for db-instance"


# -- Redshift ----------------------------------------------------------------------------------------------


def _cluster_logs(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for cluster in graph.of_kind("redshift.Cluster"):
        if not pointing(graph, cluster, "redshift.Logging", "clusterIdentifier"):
            yield cluster, "it has no redshift.Logging: who connected, and what they asked, is not kept"


def _snapshot_copies(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for cluster in graph.of_kind("redshift.Cluster"):
        if not pointing(graph, cluster, "redshift.SnapshotCopy", "clusterIdentifier"):
            yield cluster, "its snapshots are in one region only"


def _grants(copy: Resource) -> Iterator[str]:
    yield from want("snapshotCopyGrantName", GIVEN)(copy)


def _namespace_logs(namespace: Resource) -> Iterator[str]:
    found = values(namespace.inputs, "logExports")
    for log in ("connectionlog", "userlog", "useractivitylog"):
        if log not in found and UNKNOWN not in found:
            yield f"logExports lacks {log}"


def _workgroup_tls(workgroup: Resource) -> Iterator[str]:
    given = values(workgroup.inputs, "configParameters")
    found = {one.get("parameterKey"): one.get("parameterValue") for one in given if isinstance(one, dict)}
    if UNKNOWN not in given and found.get("require_ssl") not in ("true", UNKNOWN):
        yield f"configParameters: require_ssl must be true, {told(found.get('require_ssl'))}"


# -- S3 ----------------------------------------------------------------------------------------------------


def log_buckets(graph: Graph) -> frozenset[str]:
    """URNs of buckets that S3 or Redshift delivers logs to: they take no key of ours, and do not log themselves."""
    return frozenset(
        urn
        for kind, prop in (("s3.BucketLogging", "targetBucket"), ("redshift.Logging", "bucketName"))
        for one in graph.of_kind(kind)
        for urn in one.references.get(prop, ())
    )


def _bucket_blocks(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for bucket in graph.of_kind("s3.Bucket"):
        found = pointing(graph, bucket, "s3.BucketPublicAccessBlock", "bucket")
        if not found:
            yield bucket, "it has no s3.BucketPublicAccessBlock"
        for block in found:
            for name in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"):
                for text in want(name, TRUE)(block):
                    yield block, text


def _bucket_keys(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    plain = log_buckets(graph)
    rule = "rules.applyServerSideEncryptionByDefault"
    for bucket in graph.of_kind("s3.Bucket"):
        found = pointing(graph, bucket, "s3.BucketServerSideEncryptionConfiguration", "bucket")
        if not found:
            yield bucket, "it has no s3.BucketServerSideEncryptionConfiguration"
        for one in found:
            if bucket.urn in plain:
                looks = [want(f"{rule}.sseAlgorithm", one_of("AES256", "aws:kms"))]
            else:
                looks = [
                    want(f"{rule}.sseAlgorithm", one_of("aws:kms", "aws:kms:dsse")),
                    want(f"{rule}.kmsMasterKeyId", KEY),
                    want("rules.bucketKeyEnabled", TRUE),
                ]
            for look in looks:
                for text in look(one):
                    yield one, text


def _bucket_versions(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for bucket in graph.of_kind("s3.Bucket"):
        found = pointing(graph, bucket, "s3.BucketVersioning", "bucket")
        if not found:
            yield bucket, "it has no s3.BucketVersioning"
        for one in found:
            for text in want("versioningConfiguration.status", one_of("Enabled"))(one):
                yield one, text


def _bucket_logs(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    targeted = log_buckets(graph)
    for bucket in graph.of_kind("s3.Bucket"):
        if bucket.urn not in targeted and not pointing(graph, bucket, "s3.BucketLogging", "bucket"):
            yield bucket, "it has no s3.BucketLogging: who read what is not kept"


def _bucket_owners(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for bucket in graph.of_kind("s3.Bucket"):
        found = pointing(graph, bucket, "s3.BucketOwnershipControls", "bucket")
        if not found:
            yield bucket, "it has no s3.BucketOwnershipControls"
        for one in found:
            for text in want("rule.objectOwnership", one_of("BucketOwnerEnforced"))(one):
                yield one, text


def _bucket_lifecycles(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    path = "rules.abortIncompleteMultipartUpload.daysAfterInitiation"
    for bucket in graph.of_kind("s3.Bucket"):
        found = pointing(graph, bucket, "s3.BucketLifecycleConfiguration", "bucket")
        if not found:
            yield bucket, "it has no s3.BucketLifecycleConfiguration"
        for one in found:
            if not values(one.inputs, path):
                yield (
                    one,
                    "uploads that were never finished stay, and cost, for ever: abortIncompleteMultipartUpload",
                )


def _bucket_locks(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    targeted = log_buckets(graph)
    for bucket in graph.of_kind("s3.Bucket"):
        if bucket.urn not in targeted and bucket.inputs.get("objectLockEnabled") not in (True, UNKNOWN):
            yield (
                bucket,
                "objectLockEnabled is not true: whoever may delete an object may delete its last version",
            )
        elif bucket.urn not in targeted and not any(
            values(one.inputs, "rule.defaultRetention.mode")
            for one in pointing(graph, bucket, "s3.BucketObjectLockConfiguration", "bucket")
        ):
            yield (
                bucket,
                "it can be locked, and has no default retention: objects are locked only by whoever asks",
            )


def denied_without_tls(graph: Graph, target: Resource, kind: str, prop: str, actions: str) -> bool | None:
    """Whether a policy of this kind that points at a resource denies these actions without TLS; None if unknown."""
    return _denied(graph, target, kind, prop, lambda clause: _plain_text(clause, actions))


def _denied(graph: Graph, target: Resource, kind: str, prop: str, test: object) -> bool | None:
    known = True
    for policy in pointing(graph, target, kind, prop):
        try:
            found = clauses(policy, ATTACHED)
        except ValueError:
            continue
        if found is None:
            known = False
        elif any(not one.allow and one.everybody and test(one) for one in found):  # type: ignore[operator]
            return True
    return False if known else None


def _plain_text(clause: Clause, actions: str) -> bool:
    test = {key.lower(): value for key, value in clause.conditions.get("Bool", {}).items()}
    covers = any(one in ("*", actions, actions.partition(":")[0] + ":*") for one in clause.actions)
    return covers and str(test.get("aws:securetransport")).lower() == "false"


def _other_key(clause: Clause) -> bool:
    return (
        "s3:x-amz-server-side-encryption-aws-kms-key-id" in clause.asked()
        and "s3:PutObject" in clause.actions
    )


def _bucket_tls(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for bucket in graph.of_kind("s3.Bucket"):
        if denied_without_tls(graph, bucket, "s3.BucketPolicy", "bucket", "s3:*") is False:
            yield bucket, "no policy denies requests without TLS"


def _bucket_right_key(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    plain = log_buckets(graph)
    for bucket in graph.of_kind("s3.Bucket"):
        if (
            bucket.urn not in plain
            and _denied(graph, bucket, "s3.BucketPolicy", "bucket", _other_key) is False
        ):
            yield bucket, "no policy denies an upload with another key"


def _no_acl(resource: Resource) -> Iterator[str]:
    if resource.kind == "s3.BucketAcl" or resource.inputs.get("acl") or resource.inputs.get("grants"):
        yield "rights are given by an access list, not by a policy"


def _website(resource: Resource) -> Iterator[str]:
    if resource.kind == "s3.BucketWebsiteConfiguration" or resource.inputs.get("website"):
        yield "it is served as a website"


# -- DynamoDB, Kinesis -------------------------------------------------------------------------------------


def _table_key(table: Resource) -> Iterator[str]:
    yield from want("serverSideEncryption.enabled", TRUE)(table)
    yield from want("serverSideEncryption.kmsKeyArn", KEY)(table)


def _table_scales(table: Resource) -> Iterator[str]:
    yield from want("billingMode", one_of("PAY_PER_REQUEST"))(table)
    for name in ("maxReadRequestUnits", "maxWriteRequestUnits"):
        yield from want(f"onDemandThroughput.{name}", at_least(1))(table)


def _stream_key(stream: Resource) -> Iterator[str]:
    yield from want("encryptionType", one_of("KMS"))(stream)
    yield from want("kmsKeyId", KEY)(stream)


# -- secrets -----------------------------------------------------------------------------------------------


def _rotated(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for secret in graph.of_kind("secretsmanager.Secret"):
        if not pointing(graph, secret, "secretsmanager.SecretRotation", "secretId"):
            yield secret, "it is not rotated: no secretsmanager.SecretRotation"


# -- what is kept ------------------------------------------------------------------------------------------


def _protected(resource: Resource) -> Iterator[str]:
    if not resource.protect:
        yield "protect is not set: a mistaken change in the program deletes it"


def _retained(resource: Resource) -> Iterator[str]:
    if not resource.retain_on_delete:
        yield "retain_on_delete is not set: it goes with the stack"


def _own_group(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for kind, prop, group in (
        ("rds.Instance", "parameterGroupName", "rds.ParameterGroup"),
        ("redshift.Cluster", "clusterParameterGroupName", "redshift.ParameterGroup"),
    ):
        for one in graph.of_kind(kind):
            if not targets(graph, one, prop, group):
                yield (
                    one,
                    f"{prop} is no {group} of this stack: then its settings are AWS's, without TLS enforced",
                )


_REPLICAS: Final = is_replica

RULES: Final[tuple[Rule, ...]] = (
    # PostgreSQL
    on("rds.Instance", "rds-encrypted", "Storage of PostgreSQL is encrypted",
       "disks, backups and snapshots hold tenants' values, and it cannot be turned on later", "CKV_AWS_16 RDS.3",
       want("storageEncrypted", TRUE), unless=_REPLICAS),
    on("rds.Instance", "rds-key", "PostgreSQL is encrypted with a customer managed key",
       "a right to the data can then be taken away, and each use is on record", "CKV_AWS_16 RDS.3",
       want("kmsKeyId", KEY), unless=_REPLICAS),
    on("rds.Instance", "rds-private", "PostgreSQL has no public address", "the internet tries every password",
       "CKV_AWS_17 RDS.2", want("publiclyAccessible", NOT_TRUE)),
    on("rds.Instance", "rds-multi-az", "PostgreSQL has a standby in another zone in prod",
       "a zone that fails takes a database without one with it", "CKV_AWS_157 RDS.5", want("multiAz", TRUE),
       stacks=PROD, unless=_REPLICAS),
    on("rds.Instance", "rds-backups", "PostgreSQL is backed up", "with 0 days there is no point in time to restore",
       "CKV_AWS_133 RDS.11", want("backupRetentionPeriod", at_least(1)), unless=_REPLICAS),
    on("rds.Instance", "rds-backups-prod", "Backups of PostgreSQL are kept 14 days or more in prod",
       "damage by a program is often found a week later", "CKV_AWS_133 RDS.11",
       want("backupRetentionPeriod", at_least(14)), stacks=PROD, unless=_REPLICAS),
    over("rds-backup-copy", "Backups of PostgreSQL are copied to a second region in prod",
         "a region or an account's region may be lost as a whole", "CKV_AWS_245", _backup_copies, stacks=PROD),
    on("rds.Instance", "rds-deletion-protection", "PostgreSQL cannot be deleted by one call in prod",
       "one mistaken command would be the end of it", "CKV_AWS_293 RDS.8", want("deletionProtection", TRUE),
       stacks=PROD, unless=_REPLICAS),
    on("rds.Instance", "rds-final-snapshot", "PostgreSQL leaves a last snapshot in prod",
       "what was deleted by mistake can be brought back", "", want("skipFinalSnapshot", NOT_TRUE), stacks=PROD,
       unless=_REPLICAS),
    on("rds.Instance", "rds-backups-outlive", "Backups of PostgreSQL outlive their database in prod",
       "an instance that was deleted by mistake can then be restored to its last minutes, not to a snapshot alone", "",
       want("deleteAutomatedBackups", one_of(False)), stacks=PROD, unless=_REPLICAS),
    on("rds.Instance", "rds-minor-upgrades", "PostgreSQL takes minor versions by itself",
       "they bring the security fixes", "CKV_AWS_226 RDS.13", want("autoMinorVersionUpgrade", NOT_FALSE)),
    on("rds.Instance", "rds-iam-auth", "PostgreSQL takes IAM tokens", "jobs then need no password",
       "CKV_AWS_161 RDS.10",
       want("iamDatabaseAuthenticationEnabled", TRUE)),
    on("rds.Instance", "rds-enhanced-monitoring", "The system under PostgreSQL is monitored",
       "CPU steal, swap and I/O waits are in no other metric", "CKV_AWS_118 RDS.6", _monitored),
    on("rds.Instance", "rds-insights", "Performance Insights is on", "what waited for what is known afterwards",
       "CKV_AWS_353", want("performanceInsightsEnabled", TRUE)),
    on("rds.Instance", "rds-insights-key", "Performance Insights is encrypted with a customer managed key",
       "it keeps texts of queries", "CKV_AWS_354", want("performanceInsightsKmsKeyId", KEY)),
    on("rds.Instance", "rds-log-exports", "PostgreSQL's logs go to CloudWatch", "on the instance they last three days",
       "CKV_AWS_129 CKV2_AWS_30 RDS.9 RDS.36", _exports),
    on("rds.Instance", "rds-managed-password", "RDS makes and rotates the master's password, under our key",
       "nobody knows it, and it is in no state file", "CKV_AWS_41 SecretsManager.1", _managed_password,
       unless=_REPLICAS),
    on("rds.Instance", "rds-username", "The master has a name of its own", "the usual ones are tried first", "RDS.25",
       want("username", none_of("postgres", "admin", "root")), unless=_REPLICAS),
    on("rds.Instance", "rds-tags-on-snapshots", "Snapshots carry the tags of their database",
       "whose they are, and what they cost, is known", "CKV2_AWS_60 RDS.17", want("copyTagsToSnapshot", TRUE)),
    on("rds.ParameterGroup", "rds-force-tls", "PostgreSQL refuses connections without TLS",
       "passwords and values would cross the network in the clear", "CKV2_AWS_69 RDS.38",
       parameter("rds.force_ssl", "1")),
    on("rds.ParameterGroup", "rds-statements-logged", "PostgreSQL logs changes of the schema and slow statements",
       "who dropped it, and what was slow, is known afterwards", "CKV2_AWS_30", _statements_logged),
    over("own-parameter-group", "PostgreSQL and Redshift have parameter groups of their own",
         "the default groups cannot be changed", "CKV_AWS_105 Redshift.2", _own_group),
    over("rds-events", "Somebody is told of what happens to PostgreSQL",
         "failovers, full storage and maintenance are events first", "RDS.19 RDS.20", _subscribed),
    on("rds.Proxy", "proxy-tls", "The proxy refuses connections without TLS", "as PostgreSQL itself", "",
       want("requireTls", TRUE)),
    on("rds.Proxy", "proxy-debug", "The proxy does not log statements", "its debug log has values in it", "",
       want("debugLogging", NOT_TRUE)),
    on("rds.Proxy", "proxy-iam", "The proxy takes IAM tokens only", "clients then need no password", "RDS.10",
       _proxy_auth),
    # Redshift
    on("redshift.Cluster", "redshift-encrypted", "Redshift is encrypted with a customer managed key",
       "disks and snapshots hold tenants' values", "CKV_AWS_64 CKV_AWS_142 Redshift.10",
       lambda one: (*want("encrypted", TRUE)(one), *want("kmsKeyId", KEY)(one))),
    on("redshift.Cluster", "redshift-private", "Redshift has no public address", "the internet tries every password",
       "CKV_AWS_87 Redshift.1 PCI.Redshift.1",
       lambda one: want("publiclyAccessible", one_of(False, "false"))(one)),
    on("redshift.Cluster", "redshift-routing", "Redshift's own traffic stays in the VPC",
       "COPY and UNLOAD pass by its rules and flow logs", "CKV_AWS_321 Redshift.7", want("enhancedVpcRouting", TRUE)),
    on("redshift.Cluster", "redshift-in-vpc", "Redshift is in subnets of ours", "outside a VPC nothing limits it",
       "CKV_AWS_154", want("clusterSubnetGroupName", GIVEN)),
    on("redshift.Cluster", "redshift-snapshots", "Redshift makes snapshots by itself", "there is something to restore",
       "CKV_AWS_343 Redshift.3", want("automatedSnapshotRetentionPeriod", at_least(1))),
    on("redshift.Cluster", "redshift-snapshots-prod", "Snapshots of Redshift are kept 7 days or more in prod",
       "damage by a program is often found days later", "CKV_AWS_343 Redshift.3",
       want("automatedSnapshotRetentionPeriod", at_least(7)), stacks=PROD),
    over("redshift-snapshot-copy", "Snapshots of Redshift are copied to a second region in prod",
         "a region may be lost as a whole", "", _snapshot_copies, stacks=PROD),
    on("redshift.SnapshotCopy", "redshift-copy-key", "Copies of snapshots are encrypted with a key of ours there",
       "a cluster under our key has no copy without a grant", "", _grants),
    on("redshift.Cluster", "redshift-final-snapshot", "Redshift leaves a last snapshot in prod",
       "what was deleted by mistake can be brought back", "", want("skipFinalSnapshot", one_of(False, None)),
       stacks=PROD),
    on("redshift.Cluster", "redshift-upgrades", "Redshift takes new versions by itself",
       "they bring the security fixes", "CKV_AWS_141 Redshift.6", want("allowVersionUpgrade", NOT_FALSE)),
    on("redshift.Cluster", "redshift-managed-password", "Redshift makes and rotates the administrator's password",
       "nobody knows it, and it is in no state file", "Redshift.8",
       lambda one: (*want("manageMasterPassword", TRUE)(one), *want("masterPasswordSecretKmsKeyId", KEY)(one))),
    on("redshift.Cluster", "redshift-names", "Redshift has other names than the usual ones",
       "they are tried first", "Redshift.8 Redshift.9",
       lambda one: (*want("masterUsername", none_of("awsuser", "admin"))(one),
                    *want("databaseName", none_of("dev"))(one))),
    over("redshift-audit", "Redshift keeps who connected and what they asked", "without it nothing can be looked into",
         "CKV_AWS_71 Redshift.4", _cluster_logs),
    on("redshift.ParameterGroup", "redshift-require-tls", "Redshift refuses connections without TLS",
       "passwords and values would cross the network in the clear", "CKV_AWS_105 Redshift.2",
       parameter("require_ssl", "true")),
    on("redshift.ParameterGroup", "redshift-activity", "Redshift logs statements",
       "the audit log has connections only without it", "Redshift.4",
       parameter("enable_user_activity_logging", "true")),
    on("redshiftserverless.Namespace", "serverless-key", "Serverless Redshift is encrypted with our key",
       "as the cluster", "CKV_AWS_282 RedshiftServerless.4", want("kmsKeyId", KEY)),
    on("redshiftserverless.Namespace", "serverless-audit", "Serverless Redshift keeps who asked what",
       "as the cluster", "RedshiftServerless.6", _namespace_logs),
    on("redshiftserverless.Namespace", "serverless-password", "Serverless Redshift makes the administrator's password",
       "as the cluster", "RedshiftServerless.5",
       lambda one: (*want("manageAdminPassword", TRUE)(one), *want("adminPasswordSecretKmsKeyId", KEY)(one),
                    *want("adminUsername", none_of("admin", "awsuser"))(one))),
    on("redshiftserverless.Workgroup", "serverless-private", "Serverless Redshift has no public address",
       "the internet tries every password", "RedshiftServerless.3", want("publiclyAccessible", NOT_TRUE)),
    on("redshiftserverless.Workgroup", "serverless-routing", "Serverless Redshift's own traffic stays in the VPC",
       "COPY and UNLOAD pass by its rules and flow logs", "RedshiftServerless.1", want("enhancedVpcRouting", TRUE)),
    on("redshiftserverless.Workgroup", "serverless-require-tls", "Serverless Redshift refuses connections without TLS",
       "as the cluster", "RedshiftServerless.2", _workgroup_tls),
    # S3
    over("s3-public-access", "Buckets refuse to become public", "one mistaken policy would publish the archive",
         "CKV_AWS_53 CKV_AWS_54 CKV_AWS_55 CKV_AWS_56 CKV2_AWS_6 S3.1 S3.8", _bucket_blocks),
    over("s3-key", "Buckets are encrypted with a customer managed key, and a bucket key",
         "a right to the data can be taken away; a bucket key makes that a hundredth of the calls",
         "CKV_AWS_19 CKV_AWS_145 S3.17", _bucket_keys),
    over("s3-versioning", "Buckets keep versions", "what was overwritten or deleted can be brought back",
         "CKV_AWS_21 S3.14", _bucket_versions),
    over("s3-logging", "Buckets log access, but for those that take logs", "who read what is known afterwards",
         "CKV_AWS_18 S3.9", _bucket_logs),
    over("s3-tls", "Buckets refuse requests without TLS", "values would cross the internet in the clear",
         "CKV_AWS_379 S3.5", _bucket_tls),
    over("s3-right-key", "Buckets refuse an upload under another key",
         "what was uploaded under a key of another account is lost with that account", "", _bucket_right_key),
    over("s3-owner", "The owner of a bucket owns its objects, and access lists are off",
         "an object could belong to whoever wrote it", "CKV2_AWS_65 S3.12", _bucket_owners),
    on(("s3.Bucket", "s3.BucketAcl"), "s3-no-acl", "No bucket has an access list", "rights stand in one place",
       "CKV_AWS_20 CKV_AWS_57 S3.12", _no_acl),
    on(("s3.Bucket", "s3.BucketWebsiteConfiguration"), "s3-no-website", "No bucket is a website", "it would be public",
       "", _website),
    over("s3-lifecycle", "Buckets have a lifecycle, and clear unfinished uploads", "they cost, and nobody sees them",
         "CKV_AWS_300 CKV2_AWS_61 S3.10 S3.13", _bucket_lifecycles),
    over("s3-lock", "Buckets of data are locked in prod", "ransom begins with deleting the copies", "S3.15",
         _bucket_locks, stacks=PROD, severity="advisory"),
    # DynamoDB, Kinesis, secrets
    on("dynamodb.Table", "dynamodb-pitr", "Tables can be restored to any second", "a bad write is found later",
       "CKV_AWS_28 DynamoDB.2", want("pointInTimeRecovery.enabled", TRUE)),
    on("dynamodb.Table", "dynamodb-key", "Tables are encrypted with a customer managed key",
       "a right to the data can be taken away", "CKV_AWS_119", _table_key),
    on("dynamodb.Table", "dynamodb-deletion-protection", "Tables cannot be deleted by one call in prod",
       "one mistaken command would be the end of it", "DynamoDB.6", want("deletionProtectionEnabled", TRUE),
       stacks=PROD),
    on("dynamodb.Table", "dynamodb-capacity", "Tables scale by themselves, and only so far",
       "a limit is the one thing between a loop and the bill", "DynamoDB.1", _table_scales),
    on("kinesis.Stream", "kinesis-key", "The stream is encrypted with a customer managed key",
       "it holds every value for a week", "CKV_AWS_43 CKV_AWS_185 Kinesis.1", _stream_key),
    on("kinesis.Stream", "kinesis-retention", "The stream keeps a week in prod",
       "ingest may stand still for a long weekend and lose nothing", "Kinesis.3",
       want("retentionPeriod", at_least(STREAM_KEEPS)), stacks=PROD),
    on("secretsmanager.Secret", "secret-key", "Secrets are encrypted with a customer managed key",
       "who may read a secret is then said twice", "CKV_AWS_149", want("kmsKeyId", KEY)),
    over("secret-rotation", "Secrets rotate", "one that leaked is worth nothing later",
         "CKV2_AWS_57 SecretsManager.1 SecretsManager.4", _rotated),
    # What is kept
    on(DATA, "data-protected", "Pulumi does not delete what holds data in prod",
       "a renamed resource is a deleted one", "", _protected, stacks=PROD, unless=_REPLICAS),
    on(DATA, "data-retained", "What holds data outlives its stack in prod", "tear-down is a decision for each store",
       "", _retained, scope="plan", stacks=PROD, unless=_REPLICAS),
    on(("s3.Bucket", "ecr.Repository"), "data-no-force",
       "A bucket or registry that is not empty cannot be deleted in prod",
       "force would empty it first", "",
       lambda one: (*want("forceDestroy", NOT_TRUE)(one), *want("forceDelete", NOT_TRUE)(one)), stacks=PROD),
)  # fmt: skip
