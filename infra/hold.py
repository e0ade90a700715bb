"""The hold on partitions: while green follows, none is made, compacted or let go, since all of that is DDL.

It is kept in tables of partman and ops and goes wherever the database goes: a restored one may be held, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from infra.operation import Found, Site, done, todo
from jobs.db import Connection

HELD: Final = "1000 years"
"""On top of the times after which a partition is compacted or leaves: none ever is, and it comes off again."""

HOLDING: Final = """
    WITH a AS (
        SELECT
            c.undo_in_progress AND coalesce(p.retention >= %(held)s::interval, true)
                AND coalesce(p.compact_after >= %(held)s::interval, true) AS held,
            c.undo_in_progress OR coalesce(p.retention >= %(held)s::interval, false)
                OR coalesce(p.compact_after >= %(held)s::interval, false) AS held_in_part,
            (SELECT max(b.ends_at) FROM ops.partition_bounds(p.parent_table::regclass) AS b) - now() AS ahead
        FROM ops.partition_policies AS p
        INNER JOIN partman.part_config AS c USING (parent_table)
    )
    SELECT
        count(*) FILTER (WHERE held), count(*) FILTER (WHERE held_in_part), count(*),
        coalesce(min(ahead), interval '0')
    FROM a
"""
# pg_partman 4 and 5 pass over a table that is being undone, also when it is asked for by name.
HOLD: Final = (
    "UPDATE partman.part_config AS c SET undo_in_progress = true FROM ops.partition_policies AS p"
    " WHERE c.parent_table = p.parent_table AND NOT c.undo_in_progress",
    "UPDATE ops.partition_policies SET retention = retention + %(held)s::interval WHERE retention < %(held)s::interval",
    "UPDATE ops.partition_policies SET compact_after = compact_after + %(held)s::interval"
    " WHERE compact_after < %(held)s::interval",
)
RELEASE: Final = (
    "UPDATE partman.part_config AS c SET undo_in_progress = false FROM ops.partition_policies AS p"
    " WHERE c.parent_table = p.parent_table AND c.undo_in_progress",
    "UPDATE ops.partition_policies SET retention = retention - %(held)s::interval"
    " WHERE retention >= %(held)s::interval",
    "UPDATE ops.partition_policies SET compact_after = compact_after - %(held)s::interval"
    " WHERE compact_after >= %(held)s::interval",
)


@dataclass(frozen=True)
class Counts:
    """How many tables are held, held at least in part, and there; and how far partitions are ahead."""

    held: int
    in_part: int
    all: int
    ahead: timedelta


def counts(site: Site) -> Counts:
    """As it is now. Raises InfraError."""
    with site.database() as connection:
        (row,) = connection.execute(HOLDING.encode(), {"held": HELD}).fetchall()
    return Counts(*row)


def hold(site: Site) -> None:
    """Make partitions, and then none. Raises InfraError."""
    with site.database() as connection:
        connection.execute("SELECT ops.maintain_partitions()")
        _each(connection, HOLD)


def let_go(site: Site) -> Found:
    """Whether nothing is held any more."""
    if counts(site).in_part:
        return todo("what was held goes on, and partitions are made")
    return done("nothing is held")


def release(site: Site) -> None:
    """Have all go on as before, and make the partitions that lack. Raises InfraError."""
    with site.database() as connection:
        _each(connection, RELEASE)
        connection.execute("SELECT ops.maintain_partitions()")


def _each(connection: Connection, statements: Sequence[str]) -> None:
    with connection.transaction():
        for statement in statements:
            connection.execute(statement.encode(), {"held": HELD})
