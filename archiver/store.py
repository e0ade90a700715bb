"""Objects in the archive bucket: written once, encrypted, and read back."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError

from archiver.aws import Patience, code, explained
from archiver.errors import ArchiverError, VerificationError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class FrozenError(ArchiverError):
    """The object is in an archive class: it has to be requested, and takes hours."""

    exit_code = 3

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


@dataclass(frozen=True)
class Store:
    """The bucket. It never deletes, and never writes over an archive."""

    client: S3Client
    bucket: str
    kms_key_id: str | None = None
    sleep: Callable[[float], object] = time.sleep

    def put(self, key: str, body: bytes, *, once: bool) -> None:
        """Write an object; with `once` only where none of that name is. S3 refuses a body that came damaged.

        Raises ArchiverError.
        """
        arguments: dict[str, Any] = {"IfNoneMatch": "*"} if once else {}
        # Without a key it is the bucket's own default, which is never nothing.
        if self.kms_key_id:
            arguments |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_id}
        patience = Patience(self.sleep, tries=5)
        while True:
            try:
                self._put(key, body, once, arguments)
                return
            except ArchiverError as error:
                # A try of botocore's is still on its way, and its next one met it.
                if code(error.__cause__) != "ConditionalRequestConflict":
                    raise
                patience.wait(error)

    def _put(self, key: str, body: bytes, once: bool, arguments: dict[str, Any]) -> None:
        # Nobody knows a name that is new. Without it the segments, which all fail for one reason, say one thing.
        where = f"to s3://{self.bucket}/{key.split('/')[0]}/" if once else f"s3://{self.bucket}/{key}"
        with explained(f"could not write {where}"):
            try:
                self.client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=body,
                    ContentType="application/json",
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=base64.b64encode(hashlib.sha256(body).digest()).decode(),
                    **arguments,
                )
            except ClientError as error:
                # A try before this one got through, and its answer did not. What is there is compared when it is read.
                if not (once and code(error) in ("PreconditionFailed", "412")):
                    raise

    def put_verified(self, key: str, body: bytes, *, once: bool) -> bytes:
        """Write an object and read it back: what was read. Raises VerificationError if that is anything else."""
        self.put(key, body, once=once)
        return self.get_verified(key, sha256(body), len(body))

    def get(self, key: str) -> bytes:
        """All of an object. Raises KeyError if there is none, FrozenError if it is in an archive class."""
        where = f"s3://{self.bucket}/{key}"
        for attempt in (1, 2, 3):
            with explained(f"could not read {where}"):
                try:
                    return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
                except ClientError as error:
                    if code(error) in ("NoSuchKey", "404"):
                        raise KeyError(key) from None
                    if code(error) == "InvalidObjectState":
                        raise FrozenError(key, f"{where} is in an archive class: request it first") from None
                    raise
                except (HTTPClientError, IncompleteReadError, FlexibleChecksumError):
                    # The connection broke in the middle of the body, which botocore does not try again.
                    if attempt == 3:
                        raise
        raise AssertionError

    def get_verified(self, key: str, digest: str, length: int) -> bytes:
        """All of an object that must have this SHA-256 (hexadecimal) and length. Raises VerificationError."""
        try:
            body = self.get(key)
        except KeyError:
            raise VerificationError(f"s3://{self.bucket}/{key} is not there") from None
        if len(body) != length or sha256(body) != digest:
            raise VerificationError(
                f"s3://{self.bucket}/{key} is not what was written: {len(body)} bytes with SHA-256 {sha256(body)[:12]}…"
                f" instead of {length} with {digest[:12]}…"
            )
        return body

    def keys(self, prefix: str) -> Iterator[str]:
        """Names of all objects that begin with `prefix`, in order, without those that a console makes for folders."""
        with explained(f"could not list s3://{self.bucket}/{prefix}"):
            for page in self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix
            ):
                yield from (one["Key"] for one in page.get("Contents", []) if not one["Key"].endswith("/"))

    def thaw(self, key: str, days: int, tier: str) -> bool:
        """Ask for an object in an archive class; whether it was asked for now, not before. Raises ArchiverError."""
        asked: Any = {"GlacierJobParameters": {"Tier": tier}}
        with explained(f"could not request s3://{self.bucket}/{key}"):
            # In an archive tier of Intelligent-Tiering: it comes back into a tier that is read at once, not as a copy
            # for some days, and S3 refuses to be told how many.
            head: Any = self.client.head_object(Bucket=self.bucket, Key=key)
            if "ArchiveStatus" not in head:
                asked["Days"] = days
            try:
                self.client.restore_object(Bucket=self.bucket, Key=key, RestoreRequest=asked)
            except ClientError as error:
                if code(error) == "RestoreAlreadyInProgress":
                    return False
                raise
        return True

    def stored_checksum(self, key: str) -> tuple[int, str] | None:
        """Length and SHA-256 (hexadecimal) as S3 has them, without reading the object; None if it is not there."""
        with explained(f"could not look at s3://{self.bucket}/{key}"):
            try:
                head = self.client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
            except ClientError as error:
                if code(error) in ("404", "NoSuchKey", "NotFound"):
                    return None
                raise
        checksum = head.get("ChecksumSHA256", "")
        # That of an object in parts is of their checksums, not of its content.
        return head["ContentLength"], "" if "-" in checksum else base64.b64decode(checksum).hex()


def sha256(body: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(body).hexdigest()
