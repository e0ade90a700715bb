"""What a Lambda function runs: folders of this repository and the locked packages that they import, as one archive.

`make bundle` builds it, `pulumi up` takes the file that is there. Two builds of the same sources are the same bytes, so
that nothing is deployed that has not changed; the digest of the sources is the archive's comment, so that nothing is
deployed that was built from others.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final

import pulumi
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.errors import InfraError

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = Path("requirements/runtime.txt")
"""The one lock of what runs: what the tests run with is what the functions run with."""

RUNTIME: Final = "python3.13"
"""The newest that AWS patches for longer than three years (to October 2029); the code runs from 3.11 on."""
ARCHITECTURE: Final = "arm64"
"""A fifth cheaper a second than x86_64."""
PLATFORMS: Final = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
"""What Amazon Linux 2023 (glibc 2.34) on arm64 runs; a wheel may bear any of these names."""

_VERSION: Final = RUNTIME.removeprefix("python")
TARGET: Final[Mapping[str, str]] = {
    "implementation_name": "cpython",
    "implementation_version": f"{_VERSION}.0",
    "os_name": "posix",
    "platform_machine": "aarch64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": f"{_VERSION}.0",
    "python_version": _VERSION,
    "sys_platform": "linux",
}
"""What markers of requirements see there."""

MOST_BYTES: Final = 50 * 2**20
"""Of an archive that is uploaded with the function (Lambda quotas); a larger one has to go by a bucket."""
MOST_UNPACKED: Final = 250 * 2**20
_ENTRY: Final = re.compile(r"^(\S+==[^\s;]+)(?: *; *(.*?))?((?: +--hash=\S+)+) *$", re.MULTILINE)
"""Of a lock, whose lines are joined: pin, marker, hashes."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Of every file: the first time that an archive of this format knows."""


@dataclass(frozen=True)
class Bundle:
    """The code of a function.

    `packages` are folders of this repository, `requirements` what they import of others (their own requirements are
    found), `handler` is `module.function`.
    """

    name: str
    packages: tuple[str, ...]
    requirements: tuple[str, ...]
    handler: str
    downloads: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Name in the archive → https address of what AWS publishes and no package has."""
    root: Path = ROOT

    @property
    def path(self) -> Path:
        """Where it is built."""
        return self.root / ".local" / "bundles" / f"{self.name}.zip"

    @property
    def where(self) -> str:
        """The same from the root of the repository, where Pulumi runs the program."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def archive(self) -> pulumi.FileArchive:
        """For a function's `code`. Only its path: the offline plan does without the file."""
        return pulumi.FileArchive(self.where)

    def sources(self) -> dict[str, Path]:
        """Name in the archive → file, of the repository's own code, in the order of the names."""
        found = {
            path.relative_to(self.root).as_posix(): path
            for package in self.packages
            for path in (self.root / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        for package in self.packages:
            if not any(name.startswith(f"{package}/") for name in found):
                raise InfraError(f"bundle {self.name}: there is no folder {package} with files in it")
        return dict(sorted(found.items()))

    def digest(self) -> str:
        """Of all that decides what is in the archive: hexadecimal SHA-256."""
        whole = hashlib.sha256()
        downloads = [text for pair in sorted(self.downloads.items()) for text in pair]
        for text in (RUNTIME, ARCHITECTURE, *PLATFORMS, *self.requirements, self.handler, *downloads):
            whole.update(f"{text}\0".encode())
        for name, path in {**self.sources(), LOCK.as_posix(): self.root / LOCK}.items():
            content = path.read_bytes()
            whole.update(f"{name}\0{len(content)}\0".encode() + content)
        return whole.hexdigest()

    def check(self) -> None:
        """Raises InfraError, one line, if the archive is not there or was built from other sources."""
        where = self.where
        try:
            with zipfile.ZipFile(self.path) as archive:
                found = archive.comment.decode(errors="replace")
        except FileNotFoundError:
            raise InfraError(f"{where} is not there: make it with `make bundle`") from None
        except (OSError, zipfile.BadZipFile) as error:
            raise InfraError(f"{where} cannot be read ({error}): make it again with `make bundle`") from None
        if found != self.digest():
            raise InfraError(f"{where} was built from other sources: make it again with `make bundle`")


def build(bundle: Bundle) -> int:
    """Make the archive; returns its size in bytes. Raises InfraError."""
    bundle.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bundle.path.parent) as place:
        digest = bundle.digest()
        files = (
            bundle.sources() | _installed(bundle, Path(place) / "packages") | _downloaded(bundle, Path(place))
        )
        unpacked = sum(path.stat().st_size for path in files.values())
        if unpacked > MOST_UNPACKED:
            raise InfraError(
                f"bundle {bundle.name}: {unpacked:,} bytes, a function may have {MOST_UNPACKED:,}"
            )
        made = Path(place) / "bundle.zip"
        pack(made, files, digest)
        size = made.stat().st_size
        if size > MOST_BYTES:
            raise InfraError(f"bundle {bundle.name}: {size:,} bytes packed, {MOST_BYTES:,} can be uploaded")
        made.replace(bundle.path)
    return size


def pack(path: Path, files: Mapping[str, Path], comment: str) -> None:
    """An archive whose bytes depend on names, contents and the comment alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.comment = comment.encode()
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, also where it is built on another
            # Lambda reads as a user of its own: all may read, nobody may write.
            entry.external_attr = 0o100444 << 16
            archive.writestr(entry, files[name].read_bytes())


# -- packages ------------------------------------------------------------------------------------------------


def closure(requirements: Iterable[str], environment: Mapping[str, str] = TARGET) -> frozenset[str]:
    """Names of these distributions and of all that they need where the function runs, from what is installed here.

    Installed here are the versions of the lock, so their metadata are those of what is bundled. `environment`: what
    markers see. Raises InfraError.
    """
    todo, seen = [Requirement(one) for one in requirements], set[tuple[str, str]]()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *sorted(wanted.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            todo += _needs(name, extra, environment)
    return frozenset(name for name, _ in seen)


def _needs(name: str, extra: str, environment: Mapping[str, str]) -> Iterator[Requirement]:
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise InfraError(f"{name} is not installed: run requirements/install runtime") from None
    for text in texts:
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({**environment, "extra": extra}):
            yield needed


def locked(lock: str, names: Iterable[str]) -> str:
    """Of the text of a lock the entries of these distributions, hashes included, without their markers.

    Raises InfraError for a name that the lock does not have for where the function runs.
    """
    found: dict[str, str] = {}
    for pin, marker, hashes in _ENTRY.findall(lock.replace("\\\n", " ")):
        if not marker or Marker(marker).evaluate(dict(TARGET)):
            found[canonicalize_name(pin.partition("==")[0])] = " ".join([pin, *hashes.split()])
    wanted = sorted(canonicalize_name(name) for name in names)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InfraError(f"{', '.join(missing)}: not in {LOCK}; add it to {LOCK.stem}.in and run `make lock`")
    return "".join(f"{found[name]}\n" for name in wanted)


def _installed(bundle: Bundle, place: Path) -> dict[str, Path]:
    """Name in the archive → file, of the packages, fetched for where the function runs. Raises InfraError."""
    place.mkdir()
    wanted = place.with_suffix(".txt")
    wanted.write_text(locked((bundle.root / LOCK).read_text(), closure(bundle.requirements)))
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--progress-bar", "off",
        # The list is complete, and only what it names by hash comes in; nothing is built, so nothing of a
        # package runs here.
        "--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile",
        "--implementation", "cp", "--python-version", _VERSION,
        *(word for platform in PLATFORMS for word in ("--platform", platform)),
        "--target", str(place), "--requirement", str(wanted),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise InfraError(f"bundle {bundle.name}: pip could not install its packages: {last}")
    # Programs have the path of this machine's Python in them, and the records of installing them too.
    shutil.rmtree(place / "bin", ignore_errors=True)
    return {
        path.relative_to(place).as_posix(): path
        for path in place.rglob("*")
        if path.is_file() and not _left_out(path)
    }


def _downloaded(bundle: Bundle, place: Path) -> dict[str, Path]:
    """Name in the archive → file, of what comes from AWS. Raises InfraError."""
    found = {}
    for number, (name, address) in enumerate(sorted(bundle.downloads.items())):
        path = place / f"download-{number}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 (ours, and https)
                path.write_bytes(answer.read())
            if name.endswith(".pem"):
                ssl.create_default_context(cafile=str(path))
        except ssl.SSLError as error:
            raise InfraError(f"bundle {bundle.name}: {address} holds no certificates: {error}") from None
        except OSError as error:
            raise InfraError(f"bundle {bundle.name}: cannot fetch {address}: {error}") from None
        found[name] = path
    return found


def _left_out(path: Path) -> bool:
    return "__pycache__" in path.parts or (
        path.parent.suffix == ".dist-info"
        and path.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
    )


# -- what there is -------------------------------------------------------------------------------------------

ARCHIVER: Final = Bundle(
    "archiver",
    packages=("archiver",),
    requirements=("aws-lambda-powertools[tracer]", "boto3", "orjson"),
    handler="archiver.handler.handler",
)
FIGURES: Final = Bundle(
    "figures",
    # The queries of the figures are files, which people run too.
    packages=("jobs", "sql/queries/operational"),
    requirements=("boto3", "psycopg[binary]"),
    handler="jobs.figures.handler",
    # RDS has an authority of its own, which no system knows, and the function checks whom it talks to.
    downloads={
        "certificates/rds-ca.pem": "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
    },
)
BUNDLES: Final = (ARCHIVER, FIGURES)
"""All that the program deploys."""


def check_all(bundles: Sequence[Bundle] = BUNDLES) -> None:
    """Before anything is deployed. Raises InfraError, a line for each that is missing or of other sources."""
    lines = []
    for bundle in bundles:
        try:
            bundle.check()
        except InfraError as error:
            lines.append(str(error))
    if lines:
        raise InfraError("\n".join(lines))


def main(argv: Sequence[str] | None = None, bundles: Sequence[Bundle] = BUNDLES) -> int:
    """`python -m infra bundle`; returns the exit code. Raises InfraError."""
    parser = argparse.ArgumentParser(
        prog="python -m infra bundle",
        description="Packs the Lambda functions with their locked packages into .local/bundles, those that are not"
        " there or were built from other sources.",
    )
    parser.add_argument("--check", action="store_true", help="build nothing: say whether all is there")
    if parser.parse_args(argv).check:
        check_all(bundles)
        return 0
    for bundle in bundles:
        try:
            bundle.check()
        except InfraError:
            print(f"building {bundle.where}", flush=True)
            print(f"{bundle.where}: {build(bundle) / 2**20:.1f} MiB", flush=True)
        else:
            print(f"{bundle.where} is up to date")
    return 0
