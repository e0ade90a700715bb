"""What a sequence of steps cannot show: all of them truly at once, and the same end.

Producers, flushers, the safety net, attributes that turn hot and cold, and sweeping jobs run beside each other;
nobody's error is a value, a deadlock or a wait that does not end.
"""

from __future__ import annotations

import pytest

from tests.conftest import Database
from tests.sql.load import Load
from tests.sql.staging import scalar
from tests.sql.test_crash_loop import SEED

CHORES = (
    "SELECT eav.reconcile_hot_portion()",
    "UPDATE eav.attributes SET is_hot = NOT is_hot WHERE name = 'seq'",
    "SELECT ops.prune_ingest()",
    "SELECT count(*) FROM eav.entity_values_ingest",
    "SELECT eav.replay_rejected(1)",
)


def finish(database: Database) -> None:
    """The attribute is hot at the end, and what was stored while it was cold is brought in."""
    with database.session() as connection:
        connection.execute("UPDATE eav.attributes SET is_hot = true WHERE name = 'seq'")
        while scalar(connection, "SELECT eav.backfill_hot()") is not None:
            pass
        connection.execute("SELECT eav.reconcile_hot_attrs('-infinity')")


@pytest.mark.parametrize(("flushers", "rounds"), [(2, 20), (4, 20)])
def test_all_at_once_ends_as_one_by_one(database: Database, flushers: int, rounds: int) -> None:
    print(f"EAV_SEED={SEED}")
    load = Load(database, seed=SEED, replayable=6, durable=2, flushers=flushers, chores=CHORES)
    with load.running():
        for _ in range(rounds):
            load.await_progress()
    load.settle()
    finish(database)
    load.check()
