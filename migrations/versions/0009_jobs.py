"""The record of every job's runs, and the procedure that a scheduler calls.

Locks: a new table only.
Undo: drops the record with its rows.

Revision: 0009   follows: 0008
"""

from alembic import op

from migrations.steps import as_owner, drop_function, load_function, run

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

FUNCTIONS = ("ops.job_begin", "ops.job_end", "ops.run_job", "ops.prune_job_runs", "eav.ingest_outcome")


def upgrade() -> None:
    with as_owner(op):
        run(
            op,
            """
            CREATE TABLE ops.job_runs (
                run_id bigint GENERATED ALWAYS AS IDENTITY,
                started_at timestamptz NOT NULL,
                finished_at timestamptz,
                rows bigint,
                pid integer NOT NULL,
                job text NOT NULL,
                status text NOT NULL,
                scheduler text NOT NULL,
                host text NOT NULL,
                error text,
                CONSTRAINT job_runs_pkey PRIMARY KEY (run_id),
                CONSTRAINT job_runs_status_check CHECK (status IN ('running', 'ok', 'failed', 'skipped')),
                CONSTRAINT job_runs_scheduler_check CHECK (scheduler IN ('cron', 'worker', 'cli'))
            )
            -- Every row is updated once, when its run ends: with room on its page that touches no index.
            WITH (fillfactor = 70);
            COMMENT ON TABLE ops.job_runs IS 'Every run of every job; pruned by the job prune-runs';
            COMMENT ON COLUMN ops.job_runs.status IS
            'running, ok, failed (see error), skipped (another run of the job was going on)';
            COMMENT ON COLUMN ops.job_runs.rows IS 'What the job counts: rows moved, partitions made';
            COMMENT ON COLUMN ops.job_runs.host IS 'Address of the client that ran it, local for pg_cron';
            COMMENT ON COLUMN ops.job_runs.pid IS 'Backend that ran it';
            CREATE INDEX job_runs_job_run_id_idx ON ops.job_runs (job, run_id DESC);
            GRANT SELECT ON ops.job_runs TO eav_jobs, eav_superadmin;
            """,
        )
        for name in FUNCTIONS:
            load_function(op, name, 1)


def downgrade() -> None:
    with as_owner(op):
        drop_function(op, *reversed(FUNCTIONS))
        run(op, "DROP TABLE ops.job_runs")
