"""${message}.

Locks: which relations, in which mode, and for how long on a busy system (the reviewer reads this first).
Undo: what the downgrade loses, if anything.

Revision: ${up_revision}   follows: ${down_revision | comma,n}
"""

from alembic import op

from migrations.steps import as_owner, run
${imports + "\n" if imports else ""}
revision = "${up_revision}"
down_revision = "${down_revision}"
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    # as_owner bounds every wait (lock_timeout, statement_timeout) and makes eav_owner the owner of what is created.
    # An index on a table that may hold rows is made CONCURRENTLY, inside op.get_context().autocommit_block().
    # A function comes from its file: load_function(op, "eav.name", 2); the downgrade loads version 1 again.
    with as_owner(op):
        run(op, "")


def downgrade() -> None:
    with as_owner(op):
        run(op, "")
