"""The role that looks at the platform and changes nothing: eav_monitor, for the figures that alarms watch.

Locks: none that anybody could wait for; a role, grants, a function. On RDS the master user may grant pg_monitor.
Undo: drops the role unless another database of the cluster uses it; figures are no longer published.

Revision: 0012   follows: 0011
"""

from alembic import op

from migrations.steps import as_owner, drop_function, load_function, policy, run

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with policy(op):
        run(op, "SELECT ops.ensure_role('eav_monitor', true)")
        # pg_monitor, though pg_read_all_stats would do: on RDS the master user may give away the former only.
        run(
            op,
            """
            GRANT pg_monitor TO eav_monitor;
            ALTER ROLE eav_monitor SET default_transaction_read_only = on;
            -- It looks every minute: what takes longer than a look may is part of the trouble.
            ALTER ROLE eav_monitor SET statement_timeout = '15s';
            ALTER ROLE eav_monitor SET lock_timeout = '2s';
            ALTER ROLE eav_monitor SET idle_in_transaction_session_timeout = '10s';
            """,
        )
    with as_owner(op):
        load_function(op, "ops.rejected_lately", 1)
        run(
            op,
            """
            GRANT USAGE ON SCHEMA eav, ops TO eav_monitor;
            GRANT SELECT ON ops.job_runs, ops.partition_policies, ops.partition_archives, eav.hot_backfill,
                eav.staging_marker, eav.staging_progress, eav.staging_progress_durable TO eav_monitor;
            -- How much is staged and since when: neither whose nor what.
            GRANT SELECT (lane, batch, staged_at) ON eav.entity_values_ingest TO eav_monitor;
            GRANT EXECUTE ON FUNCTION ops.partition_bounds(regclass) TO eav_monitor;
            """,
        )


def downgrade() -> None:
    with as_owner(op):
        run(
            op,
            """
            REVOKE EXECUTE ON FUNCTION ops.partition_bounds(regclass) FROM eav_monitor;
            REVOKE SELECT (lane, batch, staged_at) ON eav.entity_values_ingest FROM eav_monitor;
            REVOKE SELECT ON ops.job_runs, ops.partition_policies, ops.partition_archives, eav.hot_backfill,
                eav.staging_marker, eav.staging_progress, eav.staging_progress_durable FROM eav_monitor;
            REVOKE USAGE ON SCHEMA eav, ops FROM eav_monitor;
            """,
        )
        drop_function(op, "ops.rejected_lately")
    with policy(op):
        run(op, "SELECT ops.release_role('eav_monitor')")
