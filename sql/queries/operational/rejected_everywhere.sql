-- answers: how many lines were refused in a time window, by tenant and reason, with the newest as it came;
--   also lines that were no value at all and so belong to no tenant
-- role: eav_superadmin
-- scope: all tenants
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- param rows = 100: how many at most
-- index: none: every row of the months of the window; it is for an incident, and audited
SELECT
    r.tenant_id,
    r.reason,
    count(*) AS refused,
    max(r.rejected_at) AS last_at,
    (array_agg(
        coalesce(
            encode(r.raw, 'escape'),
            eav.value_to_jsonb(r.value_number, r.value_text, r.value_bool, r.value_time) #>> '{}'
        ) ORDER BY r.rejected_id DESC
    ))[1] AS newest
FROM eav.entity_values_rejected AS r
WHERE
    r.rejected_at > :'until'::timestamptz - least(:'window'::interval, interval '30 days')
    AND r.rejected_at <= :'until'::timestamptz
GROUP BY r.tenant_id, r.reason
ORDER BY refused DESC, r.tenant_id ASC, r.reason ASC
LIMIT :'rows';
