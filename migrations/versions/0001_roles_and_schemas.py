"""Roles, schemas and pg_partman.

Locks: none that anybody could wait for. Needs a role that may create roles and extensions (on RDS: the master user).
Undo: drops the roles unless another database of the cluster uses them, and pg_partman unless others use it.

Revision: 0001   follows: nothing
"""

from alembic import op

from migrations.steps import OWNER, load_function, policy, run

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Who may log in. No role gets a password here: on RDS they are given rds_iam, locally `make psql` uses SET ROLE.
ROLES = {
    OWNER: False,
    "eav_ingest": True,
    "eav_app": True,
    "eav_analyst": True,
    "eav_jobs": True,
    "eav_superadmin": True,
}


def upgrade() -> None:
    with policy(op):
        run(op, "CREATE SCHEMA ops")
        load_function(op, "ops.ensure_role", 1)
        load_function(op, "ops.release_role", 1)
        for role, login in ROLES.items():
            run(op, f"SELECT ops.ensure_role('{role}', {str(login).lower()})")
        run(
            op,
            """
            GRANT eav_owner TO CURRENT_USER;
            ALTER SCHEMA ops OWNER TO eav_owner;
            CREATE SCHEMA eav AUTHORIZATION eav_owner;
            COMMENT ON SCHEMA eav IS 'Entities, attributes, values: staging, history, hot projection';
            COMMENT ON SCHEMA ops IS 'What operates the platform: jobs, partitions, audit';

            -- A generic plan of a tenant query is a plan for no tenant: 390 ms instead of under one.
            ALTER ROLE eav_app SET plan_cache_mode = 'force_custom_plan';
            ALTER ROLE eav_analyst SET plan_cache_mode = 'force_custom_plan';
            -- Nobody holds a transaction open for long by accident: a forgotten one stops vacuum, a forgotten batch
            -- keeps its slot from being emptied.
            ALTER ROLE eav_ingest SET idle_in_transaction_session_timeout = '30s';
            ALTER ROLE eav_ingest SET statement_timeout = '5min';
            ALTER ROLE eav_app SET idle_in_transaction_session_timeout = '60s';
            ALTER ROLE eav_app SET statement_timeout = '30s';
            ALTER ROLE eav_analyst SET idle_in_transaction_session_timeout = '5min';
            ALTER ROLE eav_analyst SET statement_timeout = '15min';
            ALTER ROLE eav_analyst SET default_transaction_read_only = on;
            ALTER ROLE eav_jobs SET lock_timeout = '5s';
            ALTER ROLE eav_jobs SET idle_in_transaction_session_timeout = '60s';
            ALTER ROLE eav_superadmin SET idle_in_transaction_session_timeout = '60s';
            """,
        )
        run(
            op,
            """
            CREATE SCHEMA IF NOT EXISTS partman;
            CREATE EXTENSION IF NOT EXISTS pg_partman SCHEMA partman;
            GRANT USAGE, CREATE ON SCHEMA partman TO eav_owner;
            GRANT ALL ON ALL TABLES IN SCHEMA partman TO eav_owner;
            GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partman TO eav_owner;
            """,
        )
        run(op, "SET LOCAL ROLE eav_owner")
        load_function(op, "eav.current_tenant", 1)
        run(
            op,
            """
            GRANT USAGE ON SCHEMA eav TO eav_ingest, eav_app, eav_analyst, eav_jobs, eav_superadmin;
            GRANT USAGE ON SCHEMA ops TO eav_jobs, eav_superadmin;
            GRANT EXECUTE ON FUNCTION eav.current_tenant() TO eav_app, eav_analyst, eav_ingest, eav_jobs, eav_superadmin;
            """,
        )
        run(op, "RESET ROLE")


def downgrade() -> None:
    with policy(op):
        run(op, "DROP FUNCTION eav.current_tenant()")
        # RESTRICT on purpose: it fails, and the whole revision with it, when anybody else uses pg_partman here.
        run(op, "DROP EXTENSION pg_partman")
        run(op, "DROP SCHEMA partman")
        run(op, "DROP SCHEMA eav")
        for role in reversed(ROLES):
            if role != OWNER:
                run(op, f"SELECT ops.release_role('{role}')")
        run(op, "ALTER SCHEMA ops OWNER TO CURRENT_USER")
        run(op, f"SELECT ops.release_role('{OWNER}')")
        run(op, "DROP FUNCTION ops.ensure_role(text, boolean)")
        run(op, "DROP FUNCTION ops.release_role(text)")
        run(op, "DROP SCHEMA ops")
