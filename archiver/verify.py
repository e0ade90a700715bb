"""The archive against its manifests: is each object there, and is it what was written?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from archiver import documents
from archiver.aws import Aws
from archiver.documents import Manifest
from archiver.errors import ArchiverError, VerificationError
from archiver.reports import Report
from archiver.settings import Settings
from archiver.state import State
from archiver.store import FrozenError, Store


@dataclass
class Findings(Report):
    """What the walk found."""

    items: int = 0
    bytes: int = 0
    read: int = 0
    """Objects that were read, and are what their manifest says."""
    frozen: int = 0
    """Objects in an archive class: length and SHA-256 as S3 keeps them are what the manifest says."""
    foreign: list[str] = field(default_factory=list)
    """Of the documented shape, without a manifest: they can be restored, not verified."""


def verify(
    aws: Aws, settings: Settings, day: str | None = None, progressed: Callable[[Findings], None] | None = None
) -> Findings:
    """Walk the archive, or what was archived on a day. Raises ArchiverError if it cannot be listed."""
    walk = _Walk(aws, settings)
    for _ in walk.manifests(day):
        if progressed:
            progressed(walk.found)
    walk.without_manifest(day)
    return walk.found


class _Walk:
    def __init__(self, aws: Aws, settings: Settings) -> None:
        self.aws = aws
        self.settings = settings
        self.store = Store(aws.s3, settings.archive_bucket)
        self.found = Findings()
        self._known: set[str] = set()

    def _prefix(self, base: str, day: str | None) -> str:
        return f"{base}/" if day is None else documents.day_prefix(base, day)

    def manifests(self, day: str | None) -> Iterator[None]:
        for name in self.store.keys(self._prefix(self.settings.manifest_prefix, day)):
            try:
                manifest = documents.read_manifest(name, self.store.get(name))
            except KeyError:
                continue
            except FrozenError as error:
                self.found.problems.append(
                    f"{error}: manifests have to stay readable, see its lifecycle rule"
                )
                continue
            except ArchiverError as error:
                self.found.problems.append(str(error))
                continue
            self._known.add(manifest.key)
            try:
                self._check(manifest)
            except ArchiverError as error:
                self.found.problems.append(str(error))
            yield

    def _check(self, manifest: Manifest) -> None:
        if manifest.status != "complete" and not self._unfinished(manifest):
            return
        self.found.objects += 1
        self.found.items += manifest.item_count
        self.found.bytes += manifest.size
        try:
            body = self.store.get_verified(manifest.key, manifest.digest, manifest.size)
        except FrozenError:
            stored = self.store.stored_checksum(manifest.key)
            if stored != (manifest.size, manifest.digest):
                raise VerificationError(
                    f"s3://{self.store.bucket}/{manifest.key}: S3 has {stored}, its manifest says"
                    f" {(manifest.size, manifest.digest)}"
                ) from None
            self.found.frozen += 1
            return
        archive = documents.read_archive(manifest.key, body)
        if archive.source is None:
            raise VerificationError(
                f"s3://{self.store.bucket}/{manifest.key} is none of ours, and has a manifest"
            )
        said = replace(manifest, status="begun", kept={})
        if archive.manifest(manifest.key, manifest.digest, manifest.size) != said:
            raise VerificationError(
                f"s3://{self.store.bucket}/{manifest.key} and its manifest say different things of its items"
            )
        self.found.read += 1

    def _unfinished(self, manifest: Manifest) -> bool:
        """Whether its deletes are under way. If not, nothing was deleted, and the object may be half written."""
        state = State(self.aws.dynamodb, self.settings.state_table, manifest.source.table)
        if state.progress(manifest.key) is None:
            self.found.abandoned.append(manifest.key)
            return False
        self.found.unfinished.append(manifest.key)
        return True

    def without_manifest(self, day: str | None) -> None:
        for name in self.store.keys(self._prefix(self.settings.archive_prefix, day)):
            if name in self._known:
                continue
            try:
                archive = documents.read_archive(name, self.store.get(name))
            except FrozenError:
                self.found.foreign.append(name)
            except (KeyError, ArchiverError) as error:
                self.found.problems.append(f"s3://{self.store.bucket}/{name} has no manifest: {error}")
            else:
                if archive.source:
                    self.found.problems.append(
                        f"s3://{self.store.bucket}/{name} has lost its manifest, or MANIFEST_PREFIX is not right"
                    )
                else:
                    self.found.foreign.append(name)
