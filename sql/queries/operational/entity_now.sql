-- answers: what is known of one entity right now: each hot attribute, its latest value and when that was
--   observed
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param entity_id: which one
-- index: entity_jsonb_pkey: one row
SELECT
    h.key AS attribute_name,
    h.value AS latest,
    to_timestamp((e.hot_times ->> h.key)::bigint / 1000000.0) AS observed_at
FROM eav.entity_jsonb AS e
CROSS JOIN LATERAL jsonb_each(e.hot_attrs || e.hot_volatile) AS h
WHERE e.tenant_id = :'tenant_id' AND e.entity_id = :'entity_id'
ORDER BY h.key;
