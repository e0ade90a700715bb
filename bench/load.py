"""The load, made inside the server by generate_series: the same rows for every contestant, run after run.

20 tenants, the largest with about 40 % of the entities, each with 1000 attributes of type number, one in ten of them
with a range to be validated. An entity belongs to one tenant; row `n` is of entity `n * 7919 % entities + 1`, so that
consecutive rows are of other entities, and `entities` rows are of as many.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Final

import psycopg

from bench.sizes import ATTRIBUTES, TENANTS

Connection = psycopg.Connection[tuple[Any, ...]]

STRIDE: Final = 7919
"""A prime: consecutive numbers are far apart, and none comes twice."""
SLOTS: Final = 1000


def tenant_slots() -> list[int]:
    """Of each thousand entities, whose they are: 1 the most, about 40 %, then by the power -1.35 of the number.

    >>> slots = tenant_slots()
    >>> len(slots), slots.count(1), slots.count(20)
    (1000, 402, 7)
    """
    weights = [number**-1.35 for number in range(1, TENANTS + 1)]
    bounds = [round(SLOTS * total / sum(weights)) for total in accumulate(weights)]
    return [
        tenant
        for tenant in range(1, TENANTS + 1)
        for _ in range(bounds[tenant - 1] - ([0, *bounds])[tenant - 1])
    ]


LARGEST: Final = 1
MEDIAN: Final = TENANTS // 2


TAG_NAMES: Final = ("status", "environment", "site", "rack", "model", "firmware", "owner", "priority")
TAGS: Final = len(TAG_NAMES)
TEXT_TAGS: Final = TAGS - 1
"""All but the last, which is a number."""
VOLATILE_NAMES: Final = (
    "cpu.percent",
    "memory.percent",
    "temperature",
    "rx.bytes",
    "tx.bytes",
    "uptime.seconds",
)
OWNER: Final = TAG_NAMES.index("owner") + 1


def functions(entities: int) -> str:
    """SQL of schema bench: what row `n` of the load is, with that many entities."""
    slots = f"(ARRAY{tenant_slots()})"
    entity = f"(g.n * {STRIDE} % {entities}) + 1"
    tenant = f"{slots}[(g.n * {STRIDE} % {entities} % {SLOTS})::integer + 1]::bigint"
    return f"""
        CREATE SCHEMA IF NOT EXISTS bench;

        CREATE OR REPLACE FUNCTION bench.tenant_of(p_entity_id bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
            SELECT {slots}[((p_entity_id - 1) % {SLOTS})::integer + 1]::bigint
        $$;

        CREATE OR REPLACE FUNCTION bench.load(p_first bigint, p_last bigint, p_start timestamptz, p_step interval)
        RETURNS TABLE (
            n bigint, tenant_id bigint, entity_id bigint, attribute_id bigint, observed_at timestamptz, value numeric
        )
        LANGUAGE sql STABLE AS $$
            SELECT
                g.n,
                {tenant},
                {entity},
                ({tenant} - 1) * {ATTRIBUTES} + (hashint8(g.n) & 2147483647) % {ATTRIBUTES} + 1,
                p_start + g.n * p_step,
                (hashint8(g.n + 1) & 1023) * 0.1
            FROM generate_series(p_first, p_last) AS g (n)
        $$;

        CREATE OR REPLACE FUNCTION bench.events(p_first bigint, p_last bigint, p_tag boolean)
        RETURNS TABLE (
            n bigint, tenant_id bigint, entity_id bigint, attribute_id bigint, name text, observed_at timestamptz,
            value_number numeric, value_text text
        )
        LANGUAGE sql STABLE AS $$
            SELECT
                g.n,
                {tenant},
                {entity},
                ({tenant} - 1) * {ATTRIBUTES} + CASE WHEN p_tag THEN {OWNER} ELSE {TAGS + 1} END,
                CASE WHEN p_tag THEN 'owner' ELSE 'cpu.percent' END,
                '2026-01-01'::timestamptz + g.n * interval '1 millisecond',
                CASE WHEN NOT p_tag THEN (g.n * 31) % 10007 * 0.01 END,
                CASE WHEN p_tag THEN 'team-' || g.n % 211 END
            FROM generate_series(p_first, p_last) AS g (n)
        $$;

        CREATE OR REPLACE FUNCTION bench.volatile_names() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
            SELECT ARRAY{list(VOLATILE_NAMES)}
        $$;

        CREATE OR REPLACE FUNCTION bench.pick(p_entity_id bigint, p_what integer, p_of integer)
        RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
            SELECT (hashint8(p_entity_id * 64 + p_what) & 2147483647)::bigint % p_of
        $$;

        -- Half are online, there are a hundred sites, and of each rack there is one entity in 5000.
        CREATE OR REPLACE FUNCTION bench.hot_values(p_entity_id bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
            SELECT jsonb_build_object(
                'status', CASE WHEN bench.pick(p_entity_id, 1, 2) = 0 THEN 'online' ELSE 'offline' END,
                'environment',
                (ARRAY['production', 'staging', 'test'])[bench.pick(p_entity_id, 2, 3)::integer + 1],
                'site', 'site-' || bench.pick(p_entity_id, 3, 100),
                'rack', 'rack-' || bench.pick(p_entity_id, 4, 5000),
                'model', 'model-' || bench.pick(p_entity_id, 5, 20),
                'firmware', '4.' || bench.pick(p_entity_id, 6, 30),
                'owner', 'team-' || bench.pick(p_entity_id, 7, 200),
                'priority', bench.pick(p_entity_id, 8, 10),
                'cpu.percent', bench.pick(p_entity_id, 9, 1000) * 0.1,
                'memory.percent', bench.pick(p_entity_id, 10, 1000) * 0.1,
                'temperature', bench.pick(p_entity_id, 11, 800) * 0.1,
                'rx.bytes', bench.pick(p_entity_id, 12, 2000000000),
                'tx.bytes', bench.pick(p_entity_id, 13, 2000000000),
                'uptime.seconds', bench.pick(p_entity_id, 14, 10000000)
            )
        $$;
    """


def catalogue(connection: Connection, entities: int, hot: int = 0, tagged: bool = False) -> None:
    """The tenants, their attributes and entities; the first `hot` attributes of each are hot ones.

    `tagged`: they have the names and types of TAG_NAMES and VOLATILE_NAMES.
    """
    connection.execute(functions(entities).encode())
    for tenant in range(1, TENANTS + 1):
        connection.execute("SELECT eav.tenant_add(%s, %s)", (f"tenant-{tenant:02d}", tenant))
    # The ids are given, so that both designs store the same.
    connection.execute(
        """
        INSERT INTO eav.attributes (attribute_id, tenant_id, name, data_type, is_hot, validation)
        OVERRIDING SYSTEM VALUE
        SELECT
            (t - 1) * %(attributes)s + a,
            t,
            coalesce((%(names)s::text[])[a], 'a' || a),
            CASE WHEN a <= %(texts)s THEN 'text' ELSE 'number' END,
            a <= %(hot)s,
            CASE WHEN a %% 10 = 0 THEN '{"min": -1000, "max": 100000000000}'::jsonb ELSE '{}'::jsonb END
        FROM generate_series(1, %(tenants)s) AS t, generate_series(1, %(attributes)s) AS a
        """,
        {
            "attributes": ATTRIBUTES,
            "tenants": TENANTS,
            "names": [*TAG_NAMES, *VOLATILE_NAMES] if tagged else [],
            "texts": TEXT_TAGS if tagged else 0,
            "hot": hot,
        },
    )
    connection.execute(
        "INSERT INTO eav.entities (tenant_id, entity_id)"
        " SELECT bench.tenant_of(n), n FROM generate_series(1, %s::bigint) AS n",
        (entities,),
    )
    connection.execute("VACUUM ANALYZE eav.attributes, eav.entities, eav.tenants")
