-- name: insert_control_key
INSERT INTO control_keys (caller, idempotency_key, fingerprint, created_at) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING caller;

-- name: control_key
SELECT fingerprint, answer FROM control_keys WHERE caller = $1 AND idempotency_key = $2;

-- name: answer_control_key
UPDATE control_keys SET answer = $3 WHERE caller = $1 AND idempotency_key = $2;
