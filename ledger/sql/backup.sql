-- name: export_snapshot
-- What pg_dump is to see: the same instant as the manifest. The session waits for it in its
-- transaction, longer than one may elsewhere.
SELECT pg_export_snapshot(), set_config('idle_in_transaction_session_timeout', '0', TRUE);

-- name: applied_migrations
SELECT name FROM schema_migrations ORDER BY number;

-- name: positions
SELECT partition, epoch, last_id, drained, encode(audit_head, 'hex') AS audit_head
FROM stream_cursor ORDER BY partition;

-- name: row_counters
-- Every table there is, so that an archive of another version is counted whole as well.
SELECT c.oid::REGCLASS::TEXT AS name, format('SELECT COUNT(*) FROM %s', c.oid::REGCLASS) AS counter
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
ORDER BY name;

-- name: database_exists
SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1);

-- name: connected_sessions
SELECT COUNT(*) FROM pg_stat_activity
WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type = 'client backend';

-- name: skip_versions
-- Redis may hold quotas of changes that were made after the backup, or after an earlier restore: what is
-- loaded from now on must count as newer. The time does, whatever is restored how often: nobody makes
-- a thousand changes a second.
SELECT setval('subscription_versions', GREATEST(last_value + 1,
    (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT)) FROM subscription_versions;

-- name: renew_versions
UPDATE subscriptions SET version = nextval('subscription_versions');

-- name: renew_revisions
UPDATE stream_cursor SET revision = GREATEST(revision + 1,
    (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT);
