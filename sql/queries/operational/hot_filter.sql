-- answers: which entities are like this now: {"process.status": "running", "process.cpu.percent": {"gte": 50}};
--   the language is described in sql/functions/eav/find_entities.v1.sql
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param filter = {}: JSON object; an entity fulfils all of it
-- param rows = 100: how many at most; for the next page eav.find_entities takes the last entity as p_after
-- index: entity_jsonb_hot_attrs_idx for values of hot attributes that are not volatile, where few entities match; else
--   entity_jsonb_pkey in order of entity until there are enough
SELECT
    f.entity_id,
    f.observed_at,
    f.attrs AS hot_attrs
FROM eav.find_entities(:'filter'::jsonb, p_limit => :'rows') AS f
WHERE eav.current_tenant() = :'tenant_id';
