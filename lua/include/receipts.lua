-- Receipts: the memory that makes a retry answer the same. Kept in hashes of one day and one of
-- 65,536 shards each, small enough for the compact encoding up to 97 keyed events a second and
-- partition (128 fields; a receipt as a key of its own takes five times the memory). Days, not
-- hours: a receipt then lives 24 to 48 hours, and a look-up reads two hashes instead of 25.
local RECEIPT_DAY_MS = 86400000
local RECEIPT_TTL_S = 2 * 86400
local RECEIPT_FINGERPRINT_BYTES = 8

-- Prefixes of today's and yesterday's hashes.
local function receipt_days(prefix, now_ms)
  local day = math.floor(now_ms / RECEIPT_DAY_MS)
  return prefix .. day .. ':', prefix .. (day - 1) .. ':'
end

local function receipt_shard(id)
  local high, low = string.byte(id, 1, 2)
  return high * 256 + low
end

-- Fingerprint and answer stored for a usage id, or nil.
local function find_receipt(today, yesterday, shard, id)
  return redis.call('HGET', today .. shard, id) or redis.call('HGET', yesterday .. shard, id)
end

local function store_receipt(today, shard, id, raw)
  local key = today .. shard
  redis.call('HSET', key, id, raw)
  if redis.call('HLEN', key) == 1 then redis.call('EXPIRE', key, RECEIPT_TTL_S) end
end
