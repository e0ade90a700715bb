"""The objects of the archive in S3.

A file is uploaded to where no table is read (`_unverified/`), read back from there, recorded, and only then copied to
its table's folder: who reads the folder sees whole, verified files only, and each has its record. One that a newer
archive has superseded moves to `_superseded/`. Nothing is deleted but what was copied, or never verified.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobs.archive.settings import Settings
from jobs.errors import JobsError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CHUNK: Final = 8 * 2**20
"""Bytes that are hashed at a time."""
TRANSFER: Final = TransferConfig(
    multipart_threshold=64 * 2**20, multipart_chunksize=64 * 2**20, max_concurrency=4
)
RESTORE_DAYS: Final = 7
"""How long an object that was fetched from Glacier can be read."""
COLD: Final = ("GLACIER", "DEEP_ARCHIVE")
_GONE: Final = ("404", "NoSuchKey", "NotFound", "NoSuchVersion")


class StoreError(JobsError):
    """S3 cannot be reached, refuses, or has not what it should."""


class NotYetError(JobsError):
    """The objects are being fetched from Glacier: run the command again later."""

    exit_code = 3


class DamagedError(JobsError):
    """An object is not what was uploaded."""


class GoneError(DamagedError):
    """An object is not there."""


@dataclass(frozen=True)
class File:
    """A file of an archive as its record has it. `sha256` is in hexadecimal digits."""

    key: str
    bytes: int
    rows: int
    sha256: str
    version_id: str | None = None

    def at(self) -> dict[str, Any]:
        """The very version that was verified, as S3 is asked for it: another may have been written over it."""
        return {"Key": self.key} | ({"VersionId": self.version_id} if self.version_id else {})


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _hashed(answer: Any) -> tuple[int, str]:
    """Length and SHA-256 of what get_object answers, in pieces."""
    whole, size = hashlib.sha256(), 0
    for chunk in answer["Body"].iter_chunks(CHUNK):
        whole.update(chunk)
        size += len(chunk)
    return size, whole.hexdigest()


class Store:
    """Access to the bucket."""

    def __init__(self, settings: Settings, client: S3Client | None = None) -> None:
        self.settings = settings
        with self._translated("connect to"):
            self._client: S3Client = client or boto3.client(
                "s3",
                config=Config(
                    connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": 5}
                ),
            )

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        where = f"s3://{self.settings.bucket}"
        try:
            yield
        except ClientError as error:
            details: Any = error.response.get("Error", {})
            text = " ".join(str(details.get(one, "")) for one in ("Code", "Message")).strip()
            raise StoreError(f"cannot {what} {where}: {text}") from None
        except (BotoCoreError, Boto3Error) as error:
            raise StoreError(f"cannot {what} {where}: {str(error).splitlines()[0]}") from None

    @property
    def _encryption(self) -> dict[str, Any]:
        if self.settings.kms_key_id:
            return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.settings.kms_key_id}
        return {}

    def upload(self, path: Path, key: str) -> None:
        """Put a file there. Raises StoreError."""
        extra = {
            "ContentType": "application/vnd.apache.parquet", "ChecksumAlgorithm": "SHA256", **self._encryption,
        }  # fmt: skip
        with self._translated(f"write {key} to"):
            self._client.upload_file(str(path), self.settings.bucket, key, ExtraArgs=extra, Config=TRANSFER)

    def download(self, file: File, path: Path) -> None:
        """Get a file. Raises GoneError, DamagedError if it is not what the record says, StoreError."""
        with self._translated(f"read {file.key} from"):
            found = self._found(file)
            if found is None:
                raise GoneError(f"s3://{self.settings.bucket}/{file.key} is gone")
            extra = {"VersionId": found.version_id} if found.version_id else {}
            self._client.download_file(
                self.settings.bucket, file.key, str(path), ExtraArgs=extra, Config=TRANSFER
            )
        self._same(file, path.stat().st_size, digest(path))

    def _same(self, file: File, size: int, sha256: str) -> None:
        if (size, sha256) != (file.bytes, file.sha256):
            raise DamagedError(
                f"s3://{self.settings.bucket}/{file.key} is not what was written: it has {size:,} bytes with the"
                f" SHA-256 {sha256[:16]}…, written were {file.bytes:,} with {file.sha256[:16]}…"
            )

    def move(self, file: File, key: str) -> File:
        """Copy within the bucket, compare the copy, delete the original; done before, it is done again.

        Raises GoneError if neither is there, DamagedError, StoreError.
        """
        bucket = self.settings.bucket
        with self._translated(f"copy {file.key} in"):
            if file.key != key and (found := self._found(file)) is not None:
                source: Any = {"Bucket": bucket} | found.at()
                try:
                    self._client.copy_object(
                        Bucket=bucket,
                        Key=key,
                        CopySource=source,
                        ChecksumAlgorithm="SHA256",
                        **self._encryption,
                    )
                except ClientError as error:
                    # Another run has moved it since.
                    if error.response.get("Error", {}).get("Code") not in _GONE:
                        raise
            if self._head(key) is None:
                raise GoneError(f"s3://{bucket}/{file.key} is gone")
            answer = self._client.get_object(Bucket=bucket, Key=key)
            self._same(file, *_hashed(answer))
            if file.key != key:
                self._client.delete_object(Bucket=bucket, Key=file.key)
        version = answer.get("VersionId")
        return File(key, file.bytes, file.rows, file.sha256, None if version in (None, "null") else version)

    def _head(self, key: str, version_id: str | None = None) -> dict[str, Any] | None:
        """What S3 says of an object; None if there is none."""
        chosen: Any = {"VersionId": version_id} if version_id else {}
        try:
            answer: Any = self._client.head_object(Bucket=self.settings.bucket, Key=key, **chosen)
        except ClientError as error:
            # An id that it has never given is a bad request to S3.
            if error.response.get("Error", {}).get("Code") in (*_GONE, *(("400",) if version_id else ())):
                return None
            raise
        found: dict[str, Any] = answer
        return found

    def _found(self, file: File) -> File | None:
        """The file as it can be had: its version, else, in a bucket that was copied, the object of that name."""
        if self._head(file.key, file.version_id) is not None:
            return file
        return replace(file, version_id=None) if file.version_id and self._head(file.key) else None

    def exists(self, key: str) -> bool:
        """Whether there is an object. Raises StoreError."""
        with self._translated("look into"):
            return self._head(key) is not None

    def missing(self, files: Sequence[File]) -> list[str]:
        """Which of these are not there, or not as they were written. Raises StoreError."""
        gone = []
        with self._translated("look into"):
            for file in files:
                found = self._found(file)
                if found is None or self._contents(found) != (file.bytes, file.sha256):
                    gone.append(file.key)
        return gone

    def _contents(self, file: File) -> tuple[int, str]:
        """Length and SHA-256 of an object: as S3 keeps it, since we upload with it, or else by reading."""
        head: Any = self._client.head_object(Bucket=self.settings.bucket, ChecksumMode="ENABLED", **file.at())
        kept = head.get("ChecksumSHA256", "")
        # Of an upload in parts it is that of the parts' checksums.
        if kept and "-" not in kept:
            return head["ContentLength"], base64.b64decode(kept).hex()
        if head.get("StorageClass") in COLD or "ArchiveStatus" in head:
            return head["ContentLength"], file.sha256
        return _hashed(self._client.get_object(Bucket=self.settings.bucket, **file.at()))

    def tail(self, key: str, length: int) -> bytes:
        """The last bytes of an object, all of it if it is shorter. Raises StoreError."""
        with self._translated(f"read {key} from"):
            answer = self._client.get_object(Bucket=self.settings.bucket, Key=key, Range=f"bytes=-{length}")
            return answer["Body"].read()

    def described(self, key: str, rows: int) -> File:
        """A file of which there is no record. Raises StoreError."""
        with self._translated(f"read {key} from"):
            head = self._head(key)
            size, sha256 = self._contents(File(key, 0, rows, ""))
        version = (head or {}).get("VersionId")
        return File(key, size, rows, sha256, None if version in (None, "null") else version)

    def put_aside(self, key: str, aside: str) -> None:
        """Move an object of which no record tells what it should be. Raises StoreError."""
        bucket = self.settings.bucket
        with self._translated(f"copy {key} in"):
            self._client.copy_object(
                Bucket=bucket, Key=aside, CopySource={"Bucket": bucket, "Key": key},
                ChecksumAlgorithm="SHA256", **self._encryption,
            )  # fmt: skip
            self._client.delete_object(Bucket=bucket, Key=key)

    def keys(self, prefix: str) -> list[str]:
        """What begins with it. Raises StoreError."""
        with self._translated("list"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.settings.bucket, Prefix=prefix
            )
            return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def mark(self) -> str | None:
        """The mark that the last run has left in the folder (ops.archive_claim). Raises StoreError."""
        with self._translated("read"):
            if self._head(self.settings.mark) is None:
                return None
            answer = self._client.get_object(Bucket=self.settings.bucket, Key=self.settings.mark)
            return answer["Body"].read().decode(errors="replace").strip()

    def leave_mark(self, mark: str, *, first: bool = False) -> None:
        """Leave one; the `first` only where there is none. Raises StoreError."""
        chosen: Any = self._encryption | ({"IfNoneMatch": "*"} if first else {})
        with self._translated("leave a mark in"):
            self._client.put_object(
                Bucket=self.settings.bucket, Key=self.settings.mark, Body=mark.encode(), **chosen
            )

    def any(self, prefix: str) -> bool:
        """Whether anything begins with it. Raises StoreError."""
        with self._translated("list"):
            answer = self._client.list_objects_v2(Bucket=self.settings.bucket, Prefix=prefix, MaxKeys=1)
            return answer["KeyCount"] > 0

    def clear(self, *prefixes: str) -> int:
        """Delete what begins with these, uploads that were cut short too; returns how many. Raises StoreError."""
        bucket, deleted = self.settings.bucket, 0
        for key in (key for prefix in prefixes for key in self.keys(prefix)):
            with self._translated(f"delete {key} from"):
                self._client.delete_object(Bucket=bucket, Key=key)
            deleted += 1
        with self._translated("clear"):
            uploads = self._client.get_paginator("list_multipart_uploads")
            for prefix in prefixes:
                for parts in uploads.paginate(Bucket=bucket, Prefix=prefix):
                    for cut in parts.get("Uploads", []):
                        self._client.abort_multipart_upload(
                            Bucket=bucket, Key=cut["Key"], UploadId=cut["UploadId"]
                        )
        return deleted

    def thaw(self, files: Sequence[File]) -> None:
        """Ask for objects that are in Glacier. Raises NotYetError while any cannot be read, GoneError, StoreError."""
        waiting = 0
        with self._translated("look into"):
            for file in files:
                found = self._found(file)
                head = found and self._head(found.key, found.version_id)
                if not found or not head:
                    raise GoneError(f"s3://{self.settings.bucket}/{file.key} is gone")
                tiered = "ArchiveStatus" in head
                restored = 'ongoing-request="false"' in head.get("Restore", "")
                if not tiered and (head.get("StorageClass") not in COLD or restored):
                    continue
                waiting += 1
                if not head.get("Restore"):
                    # Intelligent-Tiering takes an object back for good, not for days.
                    days: Any = {} if tiered else {"Days": RESTORE_DAYS}
                    self._client.restore_object(
                        Bucket=self.settings.bucket, **found.at(),
                        RestoreRequest=days | {"GlacierJobParameters": {"Tier": "Standard"}},
                    )  # fmt: skip
        if waiting:
            raise NotYetError(
                f"{waiting} of {len(files)} files are being fetched from Glacier, which takes up to 12 hours"
                f" (48 from Deep Archive): run this again then; they stay readable for {RESTORE_DAYS} days"
            )
