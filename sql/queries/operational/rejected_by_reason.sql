-- answers: how many values of a tenant were refused in a time window, by reason and attribute, with an
--   example
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- param rows = 100: how many at most
-- index: entity_values_rejected_tenant_id_reason_idx, in the months of the window
SELECT
    r.reason,
    coalesce(a.name, r.attribute) AS attribute_name,
    count(*) AS refused,
    min(r.rejected_at) AS first_at,
    max(r.rejected_at) AS last_at,
    (array_agg(
        eav.value_to_jsonb(r.value_number, r.value_text, r.value_bool, r.value_time)
        ORDER BY r.rejected_id DESC
    ))[1] AS example
FROM eav.entity_values_rejected AS r
LEFT JOIN eav.attributes AS a ON r.attribute_id = a.attribute_id AND a.tenant_id = :'tenant_id'
WHERE
    r.tenant_id = :'tenant_id'
    AND r.rejected_at > :'until'::timestamptz - least(:'window'::interval, interval '30 days')
    AND r.rejected_at <= :'until'::timestamptz
GROUP BY r.reason, coalesce(a.name, r.attribute)
ORDER BY refused DESC, r.reason ASC, attribute_name ASC
LIMIT :'rows';
