-- answers: which entities are like this now: {"process.status": "running", "process.cpu.percent": {"gte": 50}};
--   the language is described in sql/functions/eav/find_entities.v1.sql
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param filter = {}: JSON object; an entity fulfils all of it
-- param rows = 100: how many at most; for the next page eav.find_entities takes the last entity as p_after
-- index: none that EXPLAIN shows: inside the function the GIN index of values that are not volatile, where few entities
--   match; else the key, in order of entity until there are enough
SELECT
    f.entity_id,
    f.observed_at,
    f.attrs AS hot_attrs
FROM eav.find_entities(:'filter'::jsonb, p_limit => :'rows') AS f
WHERE eav.current_tenant() = :'tenant_id';
