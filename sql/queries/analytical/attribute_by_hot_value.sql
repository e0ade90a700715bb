-- answers: how a numeric attribute is distributed in a time window, apart for each value of a hot
--   attribute: CPU by process name
-- role: eav_analyst
-- scope: one tenant
-- param tenant_id: whose values
-- param attribute: its name
-- param by: name of the hot attribute
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- param rows = 100: how many at most
-- index: entity_values_ts_active_idx: the attribute's rows of the window, once;
--   entity_jsonb_pkey for the tenant's entities

-- One look-up an entity, whatever the planner expects: it knows little of a single attribute, and a join that is
-- planned for ten rows compares every value with every entity.
WITH of_entity AS MATERIALIZED (
    SELECT
        p.entity_id,
        p.numbers,
        (
            SELECT (e.hot_attrs || e.hot_volatile) -> :'by'::text
            FROM eav.entity_jsonb AS e
            WHERE e.tenant_id = :'tenant_id' AND e.entity_id = p.entity_id
        ) AS hot_value
    FROM (
        SELECT
            v.entity_id,
            array_agg(v.value_number) AS numbers
        FROM eav.entity_values_ts AS v
        WHERE
            v.tenant_id = :'tenant_id'
            AND v.attribute_id = (
                SELECT a.attribute_id
                FROM eav.attributes AS a
                WHERE a.tenant_id = :'tenant_id' AND a.name = :'attribute'::text
            )
            AND v.observed_at > :'until'::timestamptz - least(:'window'::interval, interval '30 days')
            AND v.observed_at <= :'until'::timestamptz
            AND v.value_number IS NOT NULL
        GROUP BY v.entity_id
    ) AS p
)

SELECT
    o.hot_value,
    count(DISTINCT o.entity_id) AS entities,
    count(*) AS count,
    avg(n.number) AS avg,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY n.number::double precision) AS p50,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY n.number::double precision) AS p95,
    max(n.number) AS max
FROM of_entity AS o
CROSS JOIN unnest(o.numbers) AS n (number)
WHERE o.hot_value IS NOT NULL
GROUP BY o.hot_value
ORDER BY p95 DESC, o.hot_value ASC
LIMIT :'rows';
