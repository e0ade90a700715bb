"""The flush: staged rows become history, hot values, rejections and a checkpoint in one transaction.

Locks: none; functions only.
Undo: values stay staged until a flush exists again.

Revision: 0006   follows: 0005
"""

from alembic import op

from migrations.steps import as_owner, drop_function, load_function

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FUNCTIONS = (
    "eav.try_timestamptz",
    "eav.is_ipv6",
    "eav.schema_accepts",
    "eav.reject_reason",
    "eav.empty_slots",
    "eav.batch_condition",
    "eav.prefer_join",
    "eav.await_lane",
    "eav.plan_cut",
    "eav.plan_lane",
    "eav.staged_rows",
    "eav.flush_exceptions",
    "eav.flush_hot",
    "eav.flush_lanes",
    "eav.stage_flush",
    "eav.replay_rejected",
    "eav.adopt_staging",
)


def upgrade() -> None:
    with as_owner(op):
        for name in FUNCTIONS:
            load_function(op, name, 1)


def downgrade() -> None:
    with as_owner(op):
        drop_function(op, *reversed(FUNCTIONS))
