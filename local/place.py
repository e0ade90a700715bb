"""Where the local server of one clone keeps its things, and which kind of server it last was."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from local.docker import Container
from local.errors import LocalError
from local.osuser import OsUser
from local.sharing import exclusive

Kind = Literal["url", "docker", "binaries"]

CLONE = Path(__file__).resolve().parent.parent
OUTSIDE = Path("/var/lib/eav-platform")


@dataclass(frozen=True)
class Memory:
    """What `up` has to remember: the kind of server that holds the data, and the port Docker publishes."""

    kind: Kind
    docker_port: int = 0


@dataclass(frozen=True)
class Place:
    """The `.local` folder of a clone."""

    clone: Path = CLONE
    outside: Path = OUTSIDE

    @property
    def folder(self) -> Path:
        """`.local` of the clone, which git ignores."""
        return self.clone / ".local"

    @property
    def name(self) -> str:
        """A name for this clone's things elsewhere (container, volume, folder): the same for the same
        path.
        """
        return f"eav-{hashlib.sha256(str(self.clone).encode()).hexdigest()[:12]}"

    def make(self) -> None:
        """Make `.local`. Raises LocalError."""
        try:
            self.folder.mkdir(exist_ok=True)
            (self.folder / "postgres").mkdir(exist_ok=True)
            # Our own folders, so that a strict umask does not keep the server's user out of its data.
            self.folder.chmod(0o755)
            (self.folder / "postgres").chmod(0o755)
        except OSError as error:
            raise LocalError(f"could not make {self.folder}: {error.strerror or error}") from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands of this clone out until this one is done."""
        self.make()
        with exclusive(self.folder / "lock"):
            yield

    def data_dirs(self) -> tuple[Path, Path]:
        """The two places a cluster may be: in the clone, or outside when the server's user cannot enter
        that.
        """
        return self.folder / "postgres" / "data", self.outside / self.name / "data"

    def data_dir(self) -> Path | None:
        """The data folder that holds a cluster; None if there is none yet."""
        for path in self.data_dirs():
            try:
                if (path / "PG_VERSION").exists():
                    return path
            except PermissionError:
                raise LocalError(
                    f"{path} belongs to another user: run this as the one who made it (root, perhaps)"
                ) from None
        return None

    def new_data_dir(self, os_user: OsUser) -> Path:
        """Where to make a cluster that `os_user` runs."""
        inside, outside = self.data_dirs()
        return inside if os_user.can_enter(inside.parent) else outside

    def remove_outside(self) -> None:
        """Remove the folder that held data outside the clone, once it is empty."""
        with contextlib.suppress(OSError):
            self.data_dirs()[1].parent.rmdir()

    def container(self) -> Container:
        """The container of this clone."""
        return Container(self.name, self.folder / "docker.password")

    def recall(self) -> Memory | None:
        """What the last `up` chose; None before the first one. Raises LocalError if it cannot be read."""
        path = self.folder / "server.json"
        try:
            return Memory(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise LocalError(
                f"{path} cannot be read ({error}): remove it and run: python -m local up"
            ) from None

    def remember(self, memory: Memory | None) -> None:
        """Keep `memory` for the next command, or forget."""
        path = self.folder / "server.json"
        if memory is None:
            path.unlink(missing_ok=True)
            return
        staged = path.with_name("server.json.new")
        staged.write_text(json.dumps(asdict(memory)) + "\n")
        staged.replace(path)
