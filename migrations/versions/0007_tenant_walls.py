"""Who sees what: grants, row-level security by tenant, and audited access across tenants.

Locks: ACCESS EXCLUSIVE on each of the six tables, for the moment that a policy takes.
Undo: takes every grant and policy away; nobody but the owner sees anything then.

Revision: 0007   follows: 0006
"""

from alembic import op

from migrations.steps import as_owner, drop_function, load_function, run

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WALLED = ("tenants", "attributes", "entities", "entity_values_ts", "entity_jsonb", "entity_values_rejected")
FUNCTIONS = ("ops.open_cross_tenant", "ops.cross_tenant_open")


def upgrade() -> None:
    with as_owner(op):
        run(
            op,
            """
            CREATE TABLE ops.cross_tenant_access (
                access_id bigint GENERATED ALWAYS AS IDENTITY,
                opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
                expires_at timestamptz NOT NULL,
                opened_in xid8 NOT NULL,
                backend_pid integer NOT NULL,
                login text NOT NULL,
                application text,
                client inet,
                reason text NOT NULL,
                session_key bytea NOT NULL,
                CONSTRAINT cross_tenant_access_pkey PRIMARY KEY (access_id)
            );
            COMMENT ON TABLE ops.cross_tenant_access IS 'Who looked across tenants, from where, why and until when';
            COMMENT ON COLUMN ops.cross_tenant_access.session_key IS
            'SHA-256 of the key that the session holds (ops.cross_tenant_key): a later session with its pid does not hold it';
            CREATE INDEX cross_tenant_access_backend_pid_expires_at_idx ON ops.cross_tenant_access (backend_pid, expires_at);
            """,
        )
        for name in FUNCTIONS:
            load_function(op, name, 1)
        for table in WALLED:
            # The sub-selects make each function run once a query, not once a row.
            run(
                op,
                f"""
                ALTER TABLE eav.{table} ENABLE ROW LEVEL SECURITY;
                CREATE POLICY tenant_scope ON eav.{table} TO eav_app, eav_analyst
                USING (tenant_id = (SELECT eav.current_tenant()))
                WITH CHECK (tenant_id = (SELECT eav.current_tenant()));
                CREATE POLICY cross_tenant ON eav.{table} FOR SELECT TO eav_superadmin
                USING ((SELECT ops.cross_tenant_open()));
                GRANT SELECT ON eav.{table} TO eav_app, eav_analyst, eav_superadmin;
                """,
            )
        run(
            op,
            """
            GRANT INSERT (tenant_id, entity_id, name), UPDATE (name) ON eav.entities TO eav_app;
            GRANT INSERT (tenant_id, name, data_type, unit, is_hot, is_volatile, validation),
                UPDATE (unit, is_hot, is_volatile, validation, retired_at) ON eav.attributes TO eav_app;
            GRANT SELECT ON eav.hot_backfill TO eav_jobs;
            GRANT SELECT ON eav.hot_reconcile TO eav_jobs;
            GRANT SELECT ON ops.partition_policies TO eav_jobs;
            GRANT SELECT ON ops.cross_tenant_access TO eav_superadmin;
            """,
        )


def downgrade() -> None:
    with as_owner(op):
        run(
            op,
            """
            REVOKE SELECT ON ops.partition_policies FROM eav_jobs;
            REVOKE INSERT (tenant_id, entity_id, name), UPDATE (name) ON eav.entities FROM eav_app;
            REVOKE SELECT ON eav.hot_backfill FROM eav_jobs;
            REVOKE SELECT ON eav.hot_reconcile FROM eav_jobs;
            REVOKE INSERT (tenant_id, name, data_type, unit, is_hot, is_volatile, validation),
                UPDATE (unit, is_hot, is_volatile, validation, retired_at) ON eav.attributes FROM eav_app;
            """,
        )
        for table in WALLED:
            run(
                op,
                f"""
                REVOKE SELECT ON eav.{table} FROM eav_app, eav_analyst, eav_superadmin;
                DROP POLICY cross_tenant ON eav.{table};
                DROP POLICY tenant_scope ON eav.{table};
                ALTER TABLE eav.{table} DISABLE ROW LEVEL SECURITY;
                """,
            )
        drop_function(op, *reversed(FUNCTIONS))
        run(op, "DROP TABLE ops.cross_tenant_access")
