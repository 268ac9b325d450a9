-- A month is made beside the table and attached: CREATE TABLE ... PARTITION OF waits for every reader
-- of the table, and a backup reads it for as long as it takes.
CREATE OR REPLACE FUNCTION ensure_usage_month(month DATE) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    first DATE := date_trunc('month', month)::DATE;
    name  TEXT := 'usage_records_' || to_char(first, 'YYYY_MM');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN RETURN; END IF;
    -- Two drains may meet here.
    PERFORM pg_advisory_xact_lock(hashtext('ensure_usage_month'));
    IF to_regclass(name) IS NOT NULL THEN RETURN; END IF;
    EXECUTE format('CREATE TABLE %I (LIKE usage_records INCLUDING ALL)', name);
    EXECUTE format(
        'ALTER TABLE usage_records ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        name, to_char(first, 'YYYY-MM-DD') || ' 00:00:00+00',
        to_char(first + INTERVAL '1 month', 'YYYY-MM-DD') || ' 00:00:00+00');
END
$$;
