"""The server settings of every local PostgreSQL: what RDS will have, sized for a small machine. Pure
functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Value = str | int | bool

DATABASE = "eav"
SUPERUSER = "postgres"

# For servers whose data nobody will miss. A killed server loses nothing by these (the kernel still holds its
# writes), only a power cut does: crash tests stay honest.
THROWAWAY: Mapping[str, Value] = {
    "fsync": False,
    "full_page_writes": False,
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
}


def server_settings(
    *, memory_bytes: int, preload: Sequence[str], overrides: Mapping[str, Value] | None = None
) -> dict[str, Value]:
    """Settings for a server on a machine of `memory_bytes`, with the libraries `preload` loaded at start.

    Port, addresses and certificate files are not here: they belong to where the server runs.
    """
    shared_megabytes = min(max(memory_bytes // 2**20 // 8, 128), 2048)
    settings: dict[str, Value] = {
        "ssl": True,
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        # A plan of a partitioned table costs more to compile than such short queries take to run.
        "jit": False,
        "shared_buffers": f"{shared_megabytes}MB",
        "max_connections": 200,
        # One transaction over hash and time partitions locks each of them and each of their indexes.
        "max_locks_per_transaction": 256,
        "max_wal_size": "2GB",
        "wal_level": "logical",
        "hot_standby_feedback": True,
        "max_wal_senders": 10,
        "max_replication_slots": 10,
        # A forgotten slot must not fill a developer's disk.
        "max_slot_wal_keep_size": "8GB",
        "max_worker_processes": 16,
        "track_io_timing": True,
        "shared_preload_libraries": ",".join(preload),
    }
    if "pg_cron" in preload:
        settings["cron.database_name"] = DATABASE
        # Background workers need no password; connections of pg_cron's own would.
        settings["cron.use_background_workers"] = True
    settings.update(overrides or {})
    return settings


def render(settings: Mapping[str, Value]) -> str:
    """`name = 'value'` lines for postgresql.conf.

    >>> render({"jit": False, "cluster_name": "it's"})
    "jit = 'off'\\ncluster_name = 'it''s'\\n"
    """
    return "".join(
        f"{name} = '{text(value).replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items()
    )


def text(value: Value) -> str:
    """A setting's value as PostgreSQL writes it: booleans are on and off."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def parse(config: str) -> dict[str, str]:
    """The inverse of `render`: values as text."""
    found = re.findall(r"^([\w.]+) = '((?:[^'\n]|'')*)'$", config, flags=re.MULTILINE)
    return {name: value.replace("''", "'") for name, value in found}
