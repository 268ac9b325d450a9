-- name: dead_letter
SELECT dead_letter_id, partition, stream_id, subject, usage_type, units, entry, reason, status,
       created_at
FROM dead_letters WHERE dead_letter_id = $1;

-- name: dead_letters
-- Open ones, or all, before one of them; newest first.
SELECT dead_letter_id, partition, stream_id, subject, usage_type, units, entry, reason, status,
       created_at
FROM dead_letters
WHERE ($1::BOOLEAN OR status = 'open') AND ($2::BIGINT IS NULL OR dead_letter_id < $2)
ORDER BY dead_letter_id DESC LIMIT $3;

-- name: open_dead_letters
SELECT dead_letter_id FROM dead_letters WHERE status = 'open' ORDER BY dead_letter_id;

-- name: count_open_dead_letters
SELECT COUNT(*) FROM dead_letters WHERE status = 'open';

-- name: close_dead_letter
UPDATE dead_letters SET status = $2 WHERE dead_letter_id = $1;

-- name: explain_dead_letter
UPDATE dead_letters SET reason = $2 WHERE dead_letter_id = $1;
