-- answers: which entities have these hot values, and a hot number that is not below a limit; the largest
--   first
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param filter = {}: JSON object; an entity has all of it
-- param attribute: name of the hot number
-- param at_least: its limit
-- param rows = 100: how many at most
-- index: entity_jsonb_pkey: the tenant's rows in one partition; @> and the comparison filter them (see
--   hot_filter.sql)
SELECT
    e.entity_id,
    e.observed_at,
    e.hot_attrs || e.hot_volatile AS hot_attrs,
    (e.hot_attrs || e.hot_volatile) -> :'attribute'::text AS latest
FROM eav.entity_jsonb AS e
WHERE
    e.tenant_id = :'tenant_id'
    AND (e.hot_attrs || e.hot_volatile) @> :'filter'::jsonb
    -- compared as JSON: a cast would fail on an entity where the attribute once was text
    AND jsonb_typeof((e.hot_attrs || e.hot_volatile) -> :'attribute'::text) = 'number'
    AND (e.hot_attrs || e.hot_volatile) -> :'attribute'::text >= to_jsonb(:'at_least'::numeric)
ORDER BY (e.hot_attrs || e.hot_volatile) -> :'attribute'::text DESC, e.entity_id ASC
LIMIT :'rows';
