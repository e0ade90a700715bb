-- answers: entities with these hot values, each with the latest value of a cold attribute in a time window
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param filter = {}: JSON object; an entity has all of it
-- param attribute: name of the cold attribute
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- param rows = 100: how many at most
-- index: entity_values_ts_active_idx, entity_values_ts_sorted_idx where compacted: the attribute's rows of the
--   window, once for all entities; entity_jsonb_pkey finds the entities
SELECT
    e.entity_id,
    c.latest,
    c.observed_at,
    e.hot_attrs || e.hot_volatile AS hot_attrs
FROM (
    SELECT DISTINCT ON (v.entity_id)
        v.entity_id,
        v.observed_at,
        eav.value_to_jsonb(v.value_number, v.value_text, v.value_bool, v.value_time) AS latest
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
) AS c
INNER JOIN eav.entity_jsonb AS e ON c.entity_id = e.entity_id
WHERE e.tenant_id = :'tenant_id' AND (e.hot_attrs || e.hot_volatile) @> :'filter'::jsonb
ORDER BY e.entity_id
LIMIT :'rows';
