-- Receipts: the memory that makes a retry answer the same. Kept in hashes of one time bucket
-- and one of 4096 shards each, small enough for the compact encoding (a receipt as a key of its
-- own takes five times the memory). Two buckets a day: a receipt lives 24 to 36 hours, and a
-- look-up reads three hashes.
local RECEIPT_BUCKET_MS = 12 * 3600 * 1000
local RECEIPT_BUCKETS_BACK = 2
local RECEIPT_TTL_S = 3 * 12 * 3600
local RECEIPT_FINGERPRINT_BYTES = 8

local function receipt_key(prefix, id, bucket)
  local shard = (string.byte(id, 1) * 256 + string.byte(id, 2)) % 4096
  return prefix .. bucket .. ':' .. shard
end

-- The stored receipt of a usage id: fingerprint and answer, or nil.
local function find_receipt(prefix, id, now_ms)
  local bucket = math.floor(now_ms / RECEIPT_BUCKET_MS)
  for back = 0, RECEIPT_BUCKETS_BACK do
    local raw = redis.call('HGET', receipt_key(prefix, id, bucket - back), id)
    if raw then return raw end
  end
end

local function store_receipt(prefix, id, now_ms, raw)
  local key = receipt_key(prefix, id, math.floor(now_ms / RECEIPT_BUCKET_MS))
  redis.call('HSET', key, id, raw)
  redis.call('EXPIRE', key, RECEIPT_TTL_S)
end
