-- answers: how many entities are like this now; the same filter as of hot_filter.sql
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param filter = {}: JSON object; an entity fulfils all of it
-- index: none that EXPLAIN shows: inside the function the GIN index or the key, as the filter is selective or not
SELECT CASE WHEN eav.current_tenant() = :'tenant_id' THEN eav.count_entities(:'filter'::jsonb) ELSE 0 END AS count;
