-- answers: which entities have these hot values now, any number of them: {"process.status": "running",
--   "process.name": "postgres"}
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param filter = {}: JSON object; an entity has all of it
-- param rows = 100: how many at most
-- index: entity_jsonb_pkey: one partition, the tenant's rows in order of entity until there are enough.
--   Under row-level security @> comes after that: it is not leakproof, so the GIN index
--   entity_jsonb_hot_attrs_idx is not used.
SELECT
    e.entity_id,
    e.observed_at,
    e.hot_attrs
FROM eav.entity_jsonb AS e
WHERE e.tenant_id = :'tenant_id' AND e.hot_attrs @> :'filter'::jsonb
ORDER BY e.entity_id
LIMIT :'rows';
