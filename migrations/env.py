"""How Alembic runs here.

    alembic upgrade head                       the database at DATABASE_URL
    alembic -x url=postgresql://… upgrade head another target
    alembic upgrade head --sql                 the SQL, for review; no connection is made

Settings, each as -x NAME=VALUE:
    url                 target database (default: DATABASE_URL)
    lock_timeout        how long one statement waits for a lock (default 3s); then the whole revision is tried again
    lock_retries        how often (default 10), with a growing pause; never a last try without a time-out
    statement_timeout   longest statement (default 60s)
    partition_interval  width of one partition of eav.entity_values_ts, when the table is created
                        (default EAV_PARTITION_INTERVAL or 1 day)
    iam_logins          roles, with commas between, that log in with tokens of IAM from now on: they are granted
                        rds_iam, which only RDS has, so that no revision can

DATABASE_IAM_AUTH and DATABASE_SECRET_ARN are as for the jobs (docs/jobs.md).

One revision is one transaction, so that an interrupted run leaves whole revisions only. A session advisory lock keeps
two runs apart.
"""

from __future__ import annotations

import logging
import os
import time
from logging.config import fileConfig
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from migrations.tables import metadata

log = logging.getLogger("alembic.env")
if context.config.config_file_name and not logging.getLogger().handlers:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

MIGRATION_LOCK = 0x6561765F6D696772  # "eav_migr": the advisory lock that keeps two runs apart
LOCK_NOT_AVAILABLE = "55P03"
INTERNAL_ERROR = "XX000"
OWN_SCHEMAS = frozenset(metadata.info["schemas"])
X: dict[str, str] = {
    k: v for k, v in context.get_x_argument(as_dictionary=True).items() if isinstance(v, str)
}


def target_url() -> URL:
    """The database to migrate, with the psycopg 3 driver."""
    raw = X.get("url") or os.environ.get("DATABASE_URL", "")
    if not raw:
        raise CommandError(
            "no database given: set DATABASE_URL, or pass -x url=postgresql://… (`make url` prints the local one)"
        )
    try:
        url = make_url(raw)
    except ArgumentError:
        raise CommandError(
            "DATABASE_URL is not a database URL: expected postgresql://user:password@host:port/database"
        ) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise CommandError(f"DATABASE_URL must name a PostgreSQL database, got {url.get_backend_name()}://")
    return url.set(drivername="postgresql+psycopg")


def include_name(name: str | None, type_: str, parent_names: Any) -> bool:
    """Leave schemas of others (public, partman, cron …) alone."""
    return type_ != "schema" or name in OWN_SCHEMAS


def is_partition(connection: Connection) -> set[tuple[str, str]]:
    """(schema, name) of every partition, its copy while it is compacted or restored, and every index on one.

    pg_partman and functions of ops make them, not the metadata. So is one that is detached and not yet dropped.
    """
    archives = connection.scalar(sa.text("SELECT to_regclass('ops.partition_archives') IS NOT NULL"))
    found = connection.execute(
        sa.text(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE (c.relispartition OR c.relname ~ '_compacting|^restoring_[0-9]') AND n.nspname = ANY(:schemas)"
        ),
        {"schemas": sorted(OWN_SCHEMAS)},
    ).all()
    rows = [(schema, name) for schema, name in found]
    if archives:
        found = connection.execute(
            sa.text(
                "SELECT n.nspname, c.relname FROM ops.partition_archives a"
                " JOIN pg_class c ON c.oid = to_regclass(a.partition) AND c.oid = a.table_oid"
                " JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE a.status = 'detached'"
            )
        ).all()
        rows += [(schema, name) for schema, name in found]
    return set(rows)


def check_server(connection: Connection) -> None:
    """Refuse, in one line, a server that the revisions cannot run on."""
    version = connection.dialect.server_version_info or (0,)
    if version < (15,):
        raise CommandError(
            f"PostgreSQL 15 or newer is needed, this server is {'.'.join(map(str, version))}: upgrade it first"
        )
    read_only, standby = connection.execute(
        sa.text("SELECT current_setting('transaction_read_only')::boolean, pg_is_in_recovery()")
    ).one()
    if standby:
        raise CommandError("this server is a standby (read-only): point DATABASE_URL at the primary")
    if read_only:
        raise CommandError(
            "this database is read-only (default_transaction_read_only): use a role or database that may write"
        )
    if not connection.scalar(
        sa.text("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_partman'")
    ):
        raise CommandError(
            "pg_partman is not installed on this server: install it (Debian: apt-get install postgresql-15-partman; "
            "RDS and the local server have it) and run again"
        )
    elsewhere = connection.scalar(
        sa.text("SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_partman'")
    )
    if elsewhere not in (None, "partman"):
        raise CommandError(
            f"pg_partman is installed in schema {elsewhere} of this database, expected partman: "
            "drop the extension there if nothing uses it, and run again"
        )


def command_name() -> str:
    """Of Alembic's command line; empty where a program runs it."""
    return getattr(getattr(context.config.cmd_opts, "cmd", (None,))[0], "__name__", "")


def check_not_held(connection: Connection) -> None:
    """Refuse DDL while partitions are held: green of a blue/green deployment follows by rows and would end by it."""
    if not connection.scalar(sa.text("SELECT to_regclass('partman.part_config') IS NOT NULL")):
        return
    held = connection.scalar(
        sa.text("SELECT string_agg(parent_table, ', ') FROM partman.part_config WHERE undo_in_progress")
    )
    if not held or command_name() not in ("upgrade", "downgrade", "stamp"):
        return
    current = set(MigrationContext.configure(connection).get_current_heads())
    # With nothing to do an upgrade is no change, and a deployment may go on.
    if command_name() == "upgrade" and current == set(context.script.get_heads()):
        return
    raise CommandError(
        f"partitions are held ({held}): a new major version is under way, and DDL would end it. Migrate when"
        " python -m infra upgrade is over, or after its --abort"
    )


def take_turn(connection: Connection) -> None:
    """Wait, and say so, while another run migrates this database; give up after a minute."""
    for attempt in range(60):
        if connection.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK}):
            return
        if attempt == 0:
            log.warning("another migration of this database is running, waiting for it (at most 60 s)")
        time.sleep(1)
    raise CommandError(
        "another migration of this database is still running after 60 s: find it in pg_stat_activity, then run again"
    )


def let_in_by_iam(connection: Connection, roles: list[str]) -> None:
    """Grant rds_iam to these; from then on RDS takes no password of theirs. Nothing for those that have it."""
    if not connection.scalar(sa.text("SELECT count(*) FROM pg_roles WHERE rolname = 'rds_iam'")):
        raise CommandError("iam_logins is for RDS: this server has no role rds_iam")
    names = ", ".join(map(connection.dialect.identifier_preparer.quote, roles))
    connection.execute(sa.text(f"GRANT rds_iam TO {names}"))
    connection.commit()
    log.info("with tokens of IAM log in: %s", ", ".join(roles))


def one_line(error: DBAPIError) -> str:
    """PostgreSQL's own first line of an error, without SQL, parameters or credentials."""
    return str(error.orig).strip().splitlines()[0] if error.orig else str(error)


def number_in_sequence(_: Any, __: Any, directives: list[Any]) -> None:
    """`alembic revision -m …` gives the next number, so that files sort in the order they run in."""
    for script in directives:
        head = context.script.get_current_head()
        script.rev_id = f"{int(head or 0) + 1:04d}"


def run_online() -> None:
    """Migrate a live database, again from the failed revision when a lock was not to be had."""
    # Here: a new revision, or the SQL of one, needs neither a database nor the jobs.
    from jobs import login
    from jobs.errors import JobsError

    url = target_url()
    where = f"{url.host or 'local socket'}:{url.port or 5432}/{url.database}"

    def connect(options: dict[str, str]) -> Connection:
        known = {"connect_timeout": 10, "application_name": "alembic", **options}
        return sa.create_engine(url, poolclass=sa.pool.NullPool, connect_args=known).connect()

    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = login.connected(plain, connect, OperationalError)
    except JobsError as error:
        raise CommandError(str(error)) from None
    except OperationalError as error:
        raise CommandError(f"cannot connect to {where}: {one_line(error)}") from None
    with connection:
        check_server(connection)
        check_not_held(connection)
        take_turn(connection)
        partitions = is_partition(connection)
        connection.commit()

        def include_object(obj: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
            table = obj if type_ == "table" else getattr(obj, "table", None)
            return table is None or (table.schema, table.name) not in partitions

        context.configure(
            connection=connection,
            target_metadata=metadata,
            transaction_per_migration=True,
            include_schemas=True,
            include_name=include_name,
            include_object=include_object,
            process_revision_directives=number_in_sequence,
            compare_type=True,
            compare_server_default=False,
            # Comments are written once, in the revisions; the metadata is the shape.
            autogenerate_plugins=["alembic.autogenerate.*", "~alembic.autogenerate.comments"],
        )
        retries = int(X.get("lock_retries", "10"))
        for attempt in range(1, retries + 1):
            try:
                with context.begin_transaction():
                    context.run_migrations()
                break
            except DBAPIError as error:
                connection.rollback()
                if not worth_another_try(error):
                    raise CommandError(
                        f"{where}: {one_line(error)} (the failed revision left nothing behind)"
                    ) from error
                if attempt == retries:
                    raise CommandError(
                        f"{where}: no lock after {retries} tries; find who holds it (pg_blocking_pids) and run again: "
                        f"finished revisions stay, the failed one left nothing behind. {one_line(error)}"
                    ) from None
                pause = min(2 ** (attempt - 1), 30) * 0.5
                log.warning("%s; try %d of %d in %.1f s", one_line(error), attempt + 1, retries, pause)
                time.sleep(pause)
        if roles := X.get("iam_logins"):
            try:
                let_in_by_iam(connection, roles.split(","))
            except DBAPIError as error:
                raise CommandError(f"{where}: {one_line(error)}") from None


def worth_another_try(error: DBAPIError) -> bool:
    """A lock that was not to be had; or a role, which all databases share, altered by another one's migration."""
    state = getattr(error.orig, "sqlstate", None)
    return state == LOCK_NOT_AVAILABLE or (
        state == INTERNAL_ERROR and "tuple concurrently updated" in str(error.orig)
    )


def run_offline() -> None:
    """Print the SQL of the revisions asked for, one transaction each; or make a revision. No connection."""
    context.configure(
        url="postgresql+psycopg://",
        target_metadata=metadata,
        transaction_per_migration=True,
        literal_binds=True,
        as_sql=True,
        dialect_opts={"paramstyle": "named"},
        process_revision_directives=number_in_sequence,
    )
    with context.begin_transaction():
        context.run_migrations()


def makes_an_empty_revision() -> bool:
    """`alembic revision -m …` needs no database, unless it is to compare with one."""
    return command_name() == "revision" and not getattr(context.config.cmd_opts, "autogenerate", False)


if context.is_offline_mode() or makes_an_empty_revision():
    run_offline()
else:
    run_online()
