"""Where archives are kept, by environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.errors import JobsError

NO_BUCKET = "ARCHIVE_BUCKET is not set: nothing is archived, and nothing that must be archived first leaves"


@dataclass(frozen=True)
class Settings:
    """`bucket` and the folder in it, `prefix`; `kms_key_id` encrypts with that key instead of S3's own."""

    bucket: str
    prefix: str = "partitions"
    kms_key_id: str | None = None
    leave: bool = False
    """Partitions past their retention are detached, and so dropped, once they are archived."""
    glue_database: str = "archive"
    """Of the catalogue, where `--ddl` has the tables."""

    @property
    def mark(self) -> str:
        """The key of what tells whose folder it is."""
        return f"{self.prefix}/_mark"

    @property
    def tables(self) -> str:
        """The key prefix of the files of all tables that are verified."""
        return f"{self.prefix}/table="

    @property
    def folders(self) -> tuple[str, ...]:
        """The key prefixes of all files: another database may have a folder in this one."""
        return self.tables, f"{self.prefix}/_unverified/", f"{self.prefix}/_superseded/table="

    def staging(self, attempt: str) -> str:
        """The key prefix of files that are not verified."""
        return f"{self.prefix}/_unverified/{attempt}/"

    def folder(self, table: str) -> str:
        """The key prefix of a table: all of its verified files, and nothing else."""
        return f"{self.prefix}/table={table}/"


def settings(environment: Mapping[str, str] = os.environ) -> Settings | None:
    """ARCHIVE_BUCKET, PARTITION_PREFIX, KMS_KEY_ID, PARTITIONS_LEAVE, GLUE_DATABASE; None without a bucket.

    Raises JobsError.
    """
    bucket = environment.get("ARCHIVE_BUCKET", "")
    if not bucket:
        return None
    prefix = environment.get("PARTITION_PREFIX", "").strip("/") or "partitions"
    if not re.fullmatch(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*", prefix):
        raise JobsError(f"PARTITION_PREFIX must be letters, digits, hyphens and slashes, got {prefix!r}")
    leave = environment.get("PARTITIONS_LEAVE", "").lower() or "false"
    if leave not in ("true", "false"):
        raise JobsError(f"PARTITIONS_LEAVE must be true or false, got {leave!r}")
    database = environment.get("GLUE_DATABASE") or "archive"
    if not re.fullmatch(r"[a-z0-9_]{1,255}", database):
        raise JobsError(f"GLUE_DATABASE must be lower-case letters, digits and underscores, got {database!r}")
    return Settings(bucket, prefix, environment.get("KMS_KEY_ID") or None, leave == "true", database)


def required(environment: Mapping[str, str] = os.environ) -> Settings:
    """The same. Raises JobsError without a bucket."""
    found = settings(environment)
    if found is None:
        raise JobsError("ARCHIVE_BUCKET is not set: name the bucket that archives are in")
    return found
