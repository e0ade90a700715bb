-- By the key, newest first, and no more than so many: it costs the same however much was ever refused. rejected_id is
-- taken before rejected_at is known to others, so that the order of the two differs by moments only.
CREATE OR REPLACE FUNCTION ops.rejected_lately(p_window interval, p_most integer DEFAULT 100000)
RETURNS TABLE (reason text, rejected bigint)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT n.reason, count(*)
    FROM (
        SELECT r.reason, r.rejected_at
        FROM eav.entity_values_rejected AS r
        ORDER BY r.rejected_id DESC
        LIMIT p_most
    ) AS n
    WHERE n.rejected_at > now() - p_window
    GROUP BY n.reason;
$$;

COMMENT ON FUNCTION ops.rejected_lately(interval, integer) IS
'How many values were refused in the last p_window, by reason, of all tenants together; it counts to p_most. Neither whose they were nor what.';

REVOKE ALL ON FUNCTION ops.rejected_lately(interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.rejected_lately(interval, integer) TO eav_monitor;
