-- answers: the entities with the largest last value of a numeric attribute, with what is hot of them:
--   processes by memory
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param attribute: its name
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- param rows = 100: how many at most
-- index: entity_values_ts_active_idx: the attribute's rows of the window, once;
--   then entity_jsonb_pkey for the few that are shown
SELECT
    t.entity_id,
    t.latest,
    t.observed_at,
    e.hot_attrs || e.hot_volatile AS hot_attrs
FROM (
    SELECT
        l.entity_id,
        l.latest,
        l.observed_at
    FROM (
        SELECT DISTINCT ON (v.entity_id)
            v.entity_id,
            v.observed_at,
            v.value_number AS latest
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
        ORDER BY v.entity_id ASC, v.observed_at DESC
    ) AS l
    WHERE l.latest IS NOT NULL
    ORDER BY l.latest DESC, l.entity_id ASC
    LIMIT :'rows'
) AS t
LEFT JOIN eav.entity_jsonb AS e ON t.entity_id = e.entity_id AND e.tenant_id = :'tenant_id'
ORDER BY t.latest DESC, t.entity_id ASC;
