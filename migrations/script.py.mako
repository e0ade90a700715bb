"""${message}

Locks: which relations, in which mode, and for how long on a busy system (say it here; the reviewer reads it first).
Undo: what the downgrade loses, if anything.

Revision: ${up_revision}   follows: ${down_revision | comma,n}
"""

from alembic import op
${imports if imports else ""}
from migrations.steps import drop_function, load_function, run, as_owner

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    # as_owner sets lock_timeout and statement_timeout for this transaction and makes eav_owner the owner of what it
    # creates. An index on a table that may hold rows: CREATE INDEX CONCURRENTLY inside op.get_context().autocommit_block().
    with as_owner(op):
        ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    with as_owner(op):
        ${downgrades if downgrades else "pass"}
