"""Names of what is provisioned: `eav-<stack>-<thing>`, within the limit that AWS sets for each kind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from infra.errors import InfraError

PROJECT: Final = "eav"

LIMITS: Final[dict[str, int]] = {
    "alarm": 255,
    "bucket": 63,
    "cluster": 63,
    "database": 63,
    "function": 64,
    "log_group": 512,
    "proxy": 60,
    "queue": 80,
    "role": 64,
    "schedule": 64,
    "state_machine": 80,
    "stream": 128,
    "subnet_group": 255,
    "table": 255,
    "topic": 256,
}
"""Longest name of a kind, in characters (the API references of the services); others may have 63."""

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Names:
    """The names of one stack."""

    stack: str

    def of(self, thing: str, kind: str = "") -> str:
        """`eav-prod-archive` for `archive`. Raises InfraError for one that AWS would not take."""
        name = f"{PROJECT}-{self.stack}-{thing}"
        limit = LIMITS.get(kind, 63)
        if not _NAME.fullmatch(name):
            raise InfraError(f"{name}: a name has lower-case letters, digits and single hyphens")
        if len(name) > limit:
            raise InfraError(f"{name}: {len(name)} characters, a {kind or 'name'} may have {limit}")
        return name

    def unique(self, thing: str, account: str, kind: str = "bucket") -> str:
        """The same for what shares its names with all of AWS: `eav-prod-archive-123456789012`."""
        return self.of(f"{thing}-{account}", kind)

    def path(self, *parts: str) -> str:
        """Of a log group, parameter or secret: `/eav/prod/postgres`."""
        return "/".join(("", PROJECT, self.stack, *parts))
