"""Checks of the walls in the catalogue: what each role may do to everything there is.

A check returns what is wrong, one line each: nothing, as long as the walls stand. What may be is written down
here, so that an object added later is a finding until it is, too.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.conftest import Connection
from tests.sql.walls import OWNER, ROLES, query

MIGRATORS_OWN = {"ops.ensure_role", "ops.release_role"}

# Not a tenant's data: what machinery and auditors read across tenants. Columns, where it is not the whole of it.
MACHINERY: dict[tuple[str, str], set[str]] = {
    ("eav_superadmin", "ops.cross_tenant_access"): set(),
    ("eav_superadmin", "ops.job_runs"): set(),
    ("eav_jobs", "ops.job_runs"): set(),
    ("eav_jobs", "ops.partition_policies"): set(),
    ("eav_jobs", "ops.compactions"): set(),
    ("eav_jobs", "ops.partition_archives"): set(),
    ("eav_jobs", "ops.archive_stores"): set(),
    ("eav_jobs", "eav.hot_backfill"): set(),
    ("eav_jobs", "eav.hot_reconcile"): set(),
    ("eav_jobs", "eav.ingest_sources"): set(),
    ("eav_jobs", "eav.ingest_checkpoint"): set(),
    ("eav_jobs", "eav.ingest_checkpoint_log"): set(),
    ("eav_jobs", "eav.ingest_source_marks"): set(),
    ("eav_jobs", "eav.ingest_gaps"): set(),
    ("eav_jobs", "eav.staging_marker"): set(),
    ("eav_jobs", "eav.staging_progress"): set(),
    ("eav_jobs", "eav.staging_progress_durable"): set(),
    ("eav_monitor", "ops.job_runs"): set(),
    ("eav_monitor", "ops.partition_policies"): set(),
    ("eav_monitor", "ops.partition_archives"): set(),
    ("eav_monitor", "eav.hot_backfill"): set(),
    ("eav_monitor", "eav.staging_marker"): set(),
    ("eav_monitor", "eav.staging_progress"): set(),
    ("eav_monitor", "eav.staging_progress_durable"): set(),
    ("eav_monitor", "eav.entity_values_ingest"): {"lane", "batch", "staged_at"},
    ("eav_jobs", "eav.entity_values_ingest"): {
        "lane",
        "batch",
        "source_id",
        "source_offset",
        "tenant_id",
        "observed_at",
        "staged_at",
    },
}
# The one view that has its owner's rights: what of it may be read is granted by column.
OWNERS_VIEWS = {"eav.entity_values_ingest"}
APP_MAY_WRITE = {
    ("eav.entities", "INSERT"): {"tenant_id", "entity_id", "name"},
    ("eav.entities", "UPDATE"): {"name"},
    ("eav.attributes", "INSERT"): {
        "tenant_id",
        "name",
        "data_type",
        "unit",
        "is_hot",
        "is_volatile",
        "validation",
    },
    ("eav.attributes", "UPDATE"): {"unit", "is_hot", "is_volatile", "validation", "retired_at"},
}
INGEST_MAY_WRITE = {
    *("source_id", "source_offset", "tenant_id", "entity_id", "attribute_id", "observed_at", "value_time"),
    *("value_bool", "value_number", "value_text", "attribute", "reason", "raw"),
}
# Filters that any tenant may ask: what is found must be the tenant's own.
FINDING = {
    "eav.find_entities": "SELECT * FROM eav.find_entities('{{}}')",
    "eav.count_entities": "SELECT eav.count_entities('{{}}')",
}
# A call of each function that a role may execute; {placeholders} are filled in by `call`.
CALLS: dict[str, dict[str, str]] = {
    "eav_app": {
        "eav.current_tenant": "SELECT eav.current_tenant()",
        "eav.value_to_jsonb": "SELECT eav.value_to_jsonb(1, NULL, NULL, NULL)",
        "eav.retire_attribute": "SELECT eav.retire_attribute({attribute})",
        "eav.compile_schema": """SELECT eav.compile_schema('{{"pattern": "^a"}}')""",
        "eav.schema_pattern": "SELECT eav.schema_pattern('^a')",
        **FINDING,
    },
    "eav_analyst": {
        "eav.current_tenant": "SELECT eav.current_tenant()",
        **FINDING,
        "eav.value_to_jsonb": "SELECT eav.value_to_jsonb(1, NULL, NULL, NULL)",
    },
    "eav_superadmin": {
        "eav.current_tenant": "SELECT eav.current_tenant()",
        "eav.value_to_jsonb": "SELECT eav.value_to_jsonb(1, NULL, NULL, NULL)",
        "ops.cross_tenant_open": "SELECT ops.cross_tenant_open()",
        "ops.open_cross_tenant": "SELECT ops.open_cross_tenant('incident 4711', '1 minute') IS NULL",
    },
    "eav_monitor": {
        "ops.partition_bounds": "SELECT count(*) FROM ops.partition_bounds('eav.entity_values_ts')",
        "ops.rejected_lately": "SELECT * FROM ops.rejected_lately('1 day')",
    },
    "eav_ingest": {
        "eav.current_tenant": "SELECT eav.current_tenant()",
        "eav.attribute_ids": "SELECT * FROM eav.attribute_ids(1, '{{temp,SECRET-temp}}')",
        "eav.ingest_source": "SELECT eav.ingest_source('feed', '1')",
        "eav.ingest_fingerprint": "SELECT eav.ingest_fingerprint('feed')",
        "eav.ingest_target": "SELECT eav.ingest_target()",
        "eav.ingest_position": "SELECT eav.ingest_position('feed')",
        "eav.ingest_marks": "SELECT * FROM eav.ingest_marks('feed')",
        "eav.ingest_mark": "SELECT eav.ingest_mark(1, 100, '4959', now()) IS NULL",
        "eav.ingest_gap": "SELECT eav.ingest_gap(1, 100, '4959', '4960', 'expired') IS NULL",
        "eav.ingest_outcome": "SELECT * FROM eav.ingest_outcome(1, 0, 100, '-infinity')",
    },
    "eav_jobs": {
        "eav.current_tenant": "SELECT eav.current_tenant()",
        "eav.value_to_jsonb": "SELECT eav.value_to_jsonb(1, NULL, NULL, NULL)",
        "eav.ingest_position": "SELECT eav.ingest_position('feed')",
        "eav.stage_flush": "SELECT eav.stage_flush()",
        "eav.replay_rejected": "SELECT eav.replay_rejected(2)",
        "eav.upsert_hot_attrs": """SELECT eav.upsert_hot_attrs(1, 1, '{{"temp": 3}}')""",
        "eav.reconcile_hot_attrs": "SELECT eav.reconcile_hot_attrs()",
        "eav.reconcile_hot_portion": "SELECT eav.reconcile_hot_portion() IS NULL",
        "eav.backfill_hot": "SELECT eav.backfill_hot()",
        "ops.maintain_partitions": "SELECT ops.maintain_partitions()",
        "ops.refresh_value_window": "SELECT ops.refresh_value_window() IS NULL",
        "ops.partition_bounds": "SELECT count(*) FROM ops.partition_bounds('eav.entity_values_ts')",
        "ops.expiring_partitions": "SELECT count(*) FROM ops.expiring_partitions()",
        "ops.expire_partitions": "SELECT ops.expire_partitions()",
        "ops.summarize_partitions": "SELECT ops.summarize_partitions()",
        "ops.compactable": "SELECT count(*) FROM ops.compactable()",
        "ops.compaction_twin": "SELECT ops.compaction_twin('eav.entities')",
        "ops.compaction_open": "SELECT ops.compaction_open('{due}')",
        "ops.compaction_watch": "SELECT ops.compaction_watch({opened}) IS NULL",
        "ops.compaction_copy": "SELECT ops.compaction_copy({opened}, '3')",
        "ops.compaction_verify": "SELECT ops.compaction_verify({copied})",
        "ops.compaction_swap": "SELECT ops.compaction_swap({verified})",
        "ops.compaction_abandon": "SELECT ops.compaction_abandon({stale}, 'walls') IS NULL",
        "ops.archive_columns": "SELECT ops.archive_columns('eav.entity_values_ts', 'eav.entity_values_ts')",
        "ops.archive_order": "SELECT ops.archive_order('eav.entity_values_ts')",
        "ops.archivable": "SELECT count(*) FROM ops.archivable()",
        "ops.archive_open": "SELECT ops.archive_open('{unarchived}')",
        "ops.archive_cursor": "SELECT ops.archive_cursor({exporting})",
        "ops.archive_measure": "SELECT ops.archive_measure({exporting})",
        "ops.archive_scratch": "SELECT ops.archive_scratch({exporting})",
        "ops.archive_piece": "WITH s AS MATERIALIZED (SELECT ops.archive_scratch({exporting}))"
        " SELECT ops.archive_piece({exporting}) FROM s",
        "ops.archive_difference": "SELECT ops.archive_difference({exporting})",
        "ops.archive_verified": "SELECT ops.archive_verified({measured}, 'none', '{files}') IS NULL",
        "ops.archive_published": "SELECT ops.archive_published({archived}, '[]') IS NULL",
        "ops.archive_damaged": "SELECT ops.archive_damaged({damaged}, 'walls')",
        "ops.archive_claim": "SELECT ops.archive_claim('none', 'walls', NULL) IS NULL",
        "ops.archive_settle": "SELECT ops.archive_settle() IS NULL",
        "ops.archive_looked": "SELECT ops.archive_looked({archived}) IS NULL",
        "ops.archive_cleared": "SELECT ops.archive_cleared({failing}) IS NULL",
        "ops.archive_failed": "SELECT ops.archive_failed({failing}, 'walls') IS NULL",
        "ops.archive_set_aside": "SELECT ops.archive_set_aside({archived}, '[]') IS NULL",
        "ops.archive_compare": "SELECT ops.archive_compare({archived})",
        "ops.archive_leaving": "SELECT count(*) FROM ops.archive_leaving()",
        "ops.archive_leave": "SELECT ops.archive_leave({archived})",
        "ops.archive_detach": "SELECT ops.archive_detach({leaving}) IS NULL",
        "ops.restore_open": "SELECT ops.restore_open({dropped})",
        "ops.restore_make": "SELECT ops.restore_make({dropped}) IS NULL",
        "ops.restore_piece": "WITH s AS MATERIALIZED (SELECT ops.archive_scratch({restoring}))"
        " SELECT ops.restore_piece({restoring}) FROM s",
        "ops.restore_verify": "SELECT ops.restore_verify({empty})",
        "ops.restore_attach": "SELECT ops.restore_attach({restored}, '1 day')",
        "ops.restore_abandon": "SELECT ops.restore_abandon({restoring}) IS NULL",
        "ops.prune_ingest": "SELECT ops.prune_ingest()",
        "ops.prune_job_runs": "SELECT ops.prune_job_runs()",
        "ops.job_begin": "SELECT ops.job_begin('walls', 'cli')",
        "ops.job_end": "SELECT ops.job_end(ops.job_begin('walls end', 'cli', false), 1) IS NULL",
        "ops.run_job": "CALL ops.run_job('walls', 'ops.expire_partitions')",
    },
}


GRANTS = """
    WITH role AS (
        SELECT r.oid, r.rolname AS name FROM pg_roles AS r WHERE r.rolname = ANY(%(roles)s)
        UNION ALL SELECT 0, 'PUBLIC'
    ),
    object AS (
        SELECT c.*, n.nspname || '.' || c.relname AS qualified
        FROM pg_class AS c JOIN pg_namespace AS n ON c.relnamespace = n.oid
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    ),
    held AS (
        SELECT o.oid, a.grantee, a.privilege_type, NULL::text AS column
        FROM object AS o CROSS JOIN LATERAL aclexplode(o.relacl) AS a
        UNION ALL
        SELECT o.oid, a.grantee, a.privilege_type, t.attname
        FROM object AS o JOIN pg_attribute AS t ON o.oid = t.attrelid CROSS JOIN LATERAL aclexplode(t.attacl) AS a
    )
    SELECT r.name, o.qualified, o.relkind::text, o.relispartition, o.relrowsecurity,
        coalesce(o.reloptions, '{}'), h.privilege_type, array_agg(h.column) FILTER (WHERE h.column IS NOT NULL),
        bool_or(h.column IS NULL)
    FROM held AS h JOIN object AS o ON h.oid = o.oid JOIN role AS r ON h.grantee = r.oid
    GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 7
"""


def check_relations(connection: Connection) -> list[str]:
    """Who may do what to which table, view or sequence, down to the column; and that rows are walled."""
    found = []
    rows = connection.execute(GRANTS, {"roles": list(ROLES)}).fetchall()
    for role, name, kind, is_partition, walled, options, privilege, columns, whole in rows:
        what = f"{role} may {privilege} {name}" + ("" if whole else f" ({', '.join(sorted(columns))})")
        granted = None if whole else set(columns)
        if role == "PUBLIC" or is_partition or kind in "mfS":
            found.append(f"{what}: never to PUBLIC, a partition, a copy of rows, a sequence")
        elif privilege == "SELECT":
            found += _read(connection, what, role, name, kind, walled, options, granted)
        elif (
            role == "eav_ingest"
            and privilege == "INSERT"
            and name.startswith("eav.staging_")
            and granted == INGEST_MAY_WRITE
        ):
            continue
        elif role != "eav_app" or granted is None or granted != APP_MAY_WRITE.get((name, privilege)):
            found.append(f"{what}: not among what it may write")
        elif not walled:
            found.append(f"{what}: without row-level security")
    return found


def _read(
    connection: Connection,
    what: str,
    role: str,
    name: str,
    kind: str,
    walled: bool,
    options: list[str],
    granted: set[str] | None,
) -> Iterable[str]:
    if kind == "v" and "security_invoker=true" not in options and name not in OWNERS_VIEWS:
        yield f"{what}: a view with its owner's rights, not security_invoker"
    if (role, name) in MACHINERY:
        if (granted or set()) != MACHINERY[role, name]:
            yield f"{what}: other columns than it may read across tenants"
    elif role in ("eav_ingest", "eav_jobs"):
        yield f"{what}: not among what machinery reads across tenants"
    elif kind != "v" and not walled:
        yield f"{what}: without row-level security"


TENANT_SCOPE = "(tenant_id = ( SELECT eav.current_tenant() AS current_tenant))"
CROSS_TENANT = "( SELECT ops.cross_tenant_open() AS cross_tenant_open)"


def check_policies(connection: Connection) -> list[str]:
    """Each policy is one of the two there are: the tenant's own rows, or reading while access is open."""
    found = []
    for table, policy, roles, command, using, check in query(
        connection,
        "SELECT p.polrelid::regclass::text, p.polname, array(SELECT coalesce(r.rolname, 'PUBLIC')"
        " FROM unnest(p.polroles) AS o (oid) LEFT JOIN pg_roles AS r ON o.oid = r.oid ORDER BY 1),"
        " p.polcmd::text, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)"
        " FROM pg_policy AS p ORDER BY 1, 2",
    ):
        scope = (["eav_analyst", "eav_app"], "*", TENANT_SCOPE, TENANT_SCOPE)
        across = (["eav_superadmin"], "r", CROSS_TENANT, None)
        if (roles, command, using, check) not in (scope, across):
            found.append(
                f"policy {policy} on {table} is neither of the two: {roles} {command} {using} {check}"
            )
    return found


def check_functions(connection: Connection) -> list[str]:
    """Who may execute what, and that no function of the owner's rights takes its names from the caller."""
    found = []
    known = {role: set(calls) for role, calls in CALLS.items()}
    for name, definer, config, role in query(
        connection,
        "SELECT n.nspname || '.' || p.proname, p.prosecdef, coalesce(p.proconfig, '{}'), coalesce(r.rolname, 'PUBLIC')"
        " FROM pg_proc AS p JOIN pg_namespace AS n ON p.pronamespace = n.oid"
        " CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a"
        " LEFT JOIN pg_roles AS r ON a.grantee = r.oid"
        " WHERE n.nspname IN ('eav', 'ops') AND a.grantee <> p.proowner ORDER BY 1, 4",
    ):
        if name not in known.get(role, set()):
            found.append(f"{role} may execute {name}: not among the functions whose calls are attacked")
        # pg_partman would undo a SET clause: that function pins the path itself, which is attacked too.
        if definer and name != "ops.maintain_partitions" and "search_path=pg_catalog, pg_temp" not in config:
            found.append(f"{name} runs as its owner without a fixed search_path")
    return found


def check_schemas(connection: Connection) -> list[str]:
    """Who may look into or create in which schema. Pg_partman's functions are PUBLIC's: its schema is not."""
    may_use = {("eav", role) for role in ROLES} | {
        ("ops", "eav_jobs"), ("ops", "eav_monitor"), ("ops", "eav_superadmin"),
    }  # fmt: skip
    may_use |= {("public", role) for role in ROLES}
    return [
        f"{role} has {privilege} on schema {schema}"
        for schema, role, privilege in query(
            connection,
            "SELECT n.nspname, r.rolname, p.privilege FROM pg_namespace AS n CROSS JOIN pg_roles AS r"
            " CROSS JOIN (VALUES ('USAGE'), ('CREATE')) AS p (privilege)"
            " WHERE r.rolname = ANY(%s) AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"
            " AND has_schema_privilege(r.oid, n.oid, p.privilege) ORDER BY 1, 2, 3",
            list(ROLES),
        )
        if privilege == "CREATE" or (schema, role) not in may_use
    ]


def check_roles(connection: Connection) -> list[str]:
    """No role is more than its grants: no attribute that walks through walls, no stranger, no membership but one."""
    found = [
        f"{member} is a member of {group}"
        for member, group in query(
            connection,
            "SELECT m.rolname, g.rolname FROM pg_auth_members AS a JOIN pg_roles AS m ON a.member = m.oid"
            " JOIN pg_roles AS g ON a.roleid = g.oid WHERE m.rolname = ANY(%s)",
            list(ROLES),
        )
        if (member, group) != ("eav_monitor", "pg_monitor")
    ]
    for (name,) in query(
        connection,
        "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
        " AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)",
        [*ROLES, OWNER],
    ):
        found.append(f"{name} has an attribute that no wall holds")
    for (name,) in query(
        connection,
        "SELECT DISTINCT r.rolname FROM pg_shdepend AS d JOIN pg_roles AS r ON d.refobjid = r.oid"
        " WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype IN ('a', 'r')"
        " AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND r.rolname <> ALL(%s)",
        [*ROLES, OWNER],
    ):
        found.append(f"{name} has grants here and is none of the platform's roles")
    return found


def check_owners(connection: Connection) -> list[str]:
    """All of eav and ops belongs to eav_owner, what makes roles to the migrating role, nothing to others."""
    return [
        f"{what} belongs to {owner}"
        for what, owner in query(
            connection,
            "SELECT n.nspname || '.' || c.relname, c.relowner::regrole::text FROM pg_class AS c"
            " JOIN pg_namespace AS n ON c.relnamespace = n.oid WHERE n.nspname IN ('eav', 'ops')"
            " UNION ALL SELECT n.nspname || '.' || p.proname, p.proowner::regrole::text FROM pg_proc AS p"
            " JOIN pg_namespace AS n ON p.pronamespace = n.oid WHERE n.nspname IN ('eav', 'ops')"
            " UNION ALL SELECT nspname, nspowner::regrole::text FROM pg_namespace WHERE nspname IN ('eav', 'ops')"
            " UNION ALL SELECT pg_describe_object(d.classid, d.objid, d.objsubid), d.refobjid::regrole::text"
            " FROM pg_shdepend AS d WHERE d.deptype = 'o' AND d.refobjid::regrole::text = ANY(%s)"
            " AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
            list(ROLES),
        )
        if owner != OWNER and not (what in MIGRATORS_OWN and owner not in ROLES)
    ]


def check_publication(connection: Connection) -> list[str]:
    """What leaves by replication: these tables, through their roots."""
    published = query(
        connection,
        "SELECT p.pubname, p.puballtables, p.pubviaroot, array_agg(r.prrelid::regclass::text ORDER BY 1)"
        " FROM pg_publication AS p LEFT JOIN pg_publication_rel AS r ON p.oid = r.prpubid GROUP BY 1, 2, 3",
    )
    tables = {"eav.entities", "eav.attributes", "eav.entity_values_ts", "eav.entity_jsonb"}
    return [
        f"publication {name}: all tables {everything}, by root {by_root}, {sorted(names)}"
        for name, everything, by_root, names in published
        if name != "eav_cdc" or everything or not by_root or set(names) != tables
    ]


CATALOGUE = {
    check.__name__: check
    for check in (
        check_relations,
        check_policies,
        check_functions,
        check_schemas,
        check_roles,
        check_owners,
        check_publication,
    )
}
