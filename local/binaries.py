"""PostgreSQL server programs installed on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MINIMUM_MAJOR = 15
DEBIAN_ROOT = Path("/usr/lib/postgresql")

# Loaded at start where they are installed. pg_partman's background worker is left out: RDS does not offer
# it, and partitions are maintained table by table by our own jobs. plpgsql_check needs no preloading.
PRELOADED = ("pg_stat_statements", "pg_cron")


@dataclass(frozen=True)
class Binaries:
    """One installed server: its program folder, major version and what is installed beside it."""

    bindir: Path
    major: int
    sharedir: Path
    libdir: Path

    def program(self, name: str) -> Path:
        """Full path of one program, like `psql`."""
        return self.bindir / name

    def has_extension(self, name: str) -> bool:
        """Whether CREATE EXTENSION `name` can work here (its control file is installed)."""
        return (self.sharedir / "extension" / f"{name}.control").exists()

    def has_library(self, name: str) -> bool:
        """Whether `name` can be preloaded or used as an output plugin."""
        return (self.libdir / f"{name}.so").exists()

    @property
    def preload(self) -> tuple[str, ...]:
        """The libraries of PRELOADED that are installed."""
        return tuple(name for name in PRELOADED if self.has_library(name))


def inspect(bindir: Path) -> Binaries | None:
    """What is in `bindir`; None unless initdb, pg_ctl and postgres are there and answer."""
    if not all((bindir / name).exists() for name in ("initdb", "pg_ctl", "postgres", "pg_config")):
        return None
    version = _output([bindir / "postgres", "--version"])
    match = re.search(r"\(PostgreSQL\) (\d+)", version)
    if match is None:
        return None
    # Debian's pg_config of one version answers for that version when called by its full path.
    sharedir, libdir = _output([bindir / "pg_config", "--sharedir", "--pkglibdir"]).splitlines()
    return Binaries(bindir, int(match[1]), Path(sharedir), Path(libdir))


def installed(debian_root: Path = DEBIAN_ROOT) -> list[Binaries]:
    """All servers found: Debian's, newest first; then the one of PATH, if it is another. Any version."""
    folders = sorted(debian_root.glob("*/bin"), key=lambda path: _number(path.parent.name), reverse=True)
    on_path = shutil.which("pg_config")
    if on_path is not None:
        folders.append(Path(_output([Path(on_path), "--bindir"]).strip()))
    found: dict[Path, Binaries] = {}
    for folder in folders:
        if folder not in found and (binaries := inspect(folder)) is not None:
            found[folder] = binaries
    return list(found.values())


def choose(servers: list[Binaries], major: int | None = None) -> Binaries | None:
    """The first server new enough (of version `major`, if given), one with pg_partman before one without."""
    fit = [s for s in servers if s.major >= MINIMUM_MAJOR and major in (None, s.major)]
    return next((s for s in fit if s.has_extension("pg_partman")), fit[0] if fit else None)


def _number(name: str) -> float:
    return float(name) if re.fullmatch(r"\d+(\.\d+)?", name) else 0.0


def _output(command: list[Path | str]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return done.stdout
