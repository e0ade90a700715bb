-- answers: how many entities have each value of a hot attribute, such as processes by status; the most
--   frequent first
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param attribute: name of the hot attribute
-- param filter = {}: JSON object; an entity has all of it
-- param rows = 100: how many at most
-- index: entity_jsonb_pkey: the tenant's rows in one partition; all of them are read, that is what the
--   question asks
SELECT
    (e.hot_attrs || e.hot_volatile) -> :'attribute'::text AS hot_value,
    count(*) AS entities,
    max(e.observed_at) AS newest
FROM eav.entity_jsonb AS e
WHERE
    e.tenant_id = :'tenant_id'
    AND (e.hot_attrs || e.hot_volatile) @> :'filter'::jsonb
    AND (e.hot_attrs || e.hot_volatile) ? :'attribute'::text
GROUP BY (e.hot_attrs || e.hot_volatile) -> :'attribute'::text
ORDER BY entities DESC, hot_value ASC
LIMIT :'rows';
