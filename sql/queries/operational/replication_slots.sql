-- answers: which replication slots there are and how much WAL each holds back; one that nobody reads fills
--   the disk
-- role: pg_monitor
-- scope: none
-- index: none: a view of the server
WITH w AS (
    SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn
)

SELECT
    s.slot_name,
    s.slot_type,
    s.plugin,
    s.database,
    s.active,
    s.wal_status,
    pg_wal_lsn_diff(w.lsn, s.restart_lsn) AS retained_bytes,
    pg_wal_lsn_diff(w.lsn, s.confirmed_flush_lsn) AS unread_bytes
FROM pg_replication_slots AS s
CROSS JOIN w
ORDER BY retained_bytes DESC NULLS LAST, s.slot_name ASC;
