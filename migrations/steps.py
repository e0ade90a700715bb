"""What every revision is written with: the policy around it, plain SQL, and versioned function files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import sqlalchemy as sa
from alembic import context

FUNCTIONS = Path(__file__).resolve().parent.parent / "sql" / "functions"
OWNER = "eav_owner"
LOCK_TIMEOUT = "3s"
STATEMENT_TIMEOUT = "60s"
_BIND = re.compile(r"(?<![:\w\\]):(?=\w+(?![:\w]))")


def run(op: ModuleType, sql: str) -> None:
    """Execute `sql` as it stands: one or more statements, no bind parameters.

    SQLAlchemy would read `'10:30'` as a parameter called `30`; the colon is escaped here, once.
    """
    op.execute(sa.text(_BIND.sub(r"\\:", sql)))


def setting(name: str, default: str) -> str:
    """The value of `-x name=value` on the command line, else `default`."""
    value = context.get_x_argument(as_dictionary=True).get(name, default)
    return value if isinstance(value, str) else default


@contextmanager
def policy(op: ModuleType) -> Iterator[None]:
    """Bound what a revision may wait for: it gives up instead of queueing everybody behind it; env.py tries again."""
    run(op, f"SET LOCAL lock_timeout = '{setting('lock_timeout', LOCK_TIMEOUT)}'")
    run(op, f"SET LOCAL statement_timeout = '{setting('statement_timeout', STATEMENT_TIMEOUT)}'")
    yield


@contextmanager
def as_owner(op: ModuleType) -> Iterator[None]:
    """`policy`, with everything inside it done by eav_owner, who so owns what is created."""
    with policy(op):
        run(op, f"SET LOCAL ROLE {OWNER}")
        yield
        # Alembic writes its version row with the rights of whoever runs the migration.
        run(op, "RESET ROLE")


def function_file(schema: str, name: str, version: int) -> Path:
    """The file that holds `schema.name` in this version."""
    return FUNCTIONS / schema / f"{name}.v{version}.sql"


def load_function(op: ModuleType, qualified_name: str, version: int) -> None:
    """Create or replace `schema.name` from its versioned file, which never changes once it has landed."""
    schema, name = qualified_name.split(".")
    run(op, function_file(schema, name, version).read_text())


def drop_function(op: ModuleType, *qualified_names: str) -> None:
    """Drop functions or procedures, whose names are not overloaded, in the order given."""
    for name in qualified_names:
        run(op, f"DROP ROUTINE IF EXISTS {name}")
