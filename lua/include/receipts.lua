-- Receipts: the memory that makes a retry answer the same. Kept in hashes of one day and one of
-- 4,096 shards each: a receipt as a key of its own takes five times the memory, and a new hash
-- costs Redis more time than another field. Days, not hours: a receipt then lives 24 to 48 hours,
-- and a look-up reads two hashes instead of 25.
local RECEIPT_DAY_MS = 86400000
local RECEIPT_TTL_S = 2 * 86400
local RECEIPT_EXPIRES = '' -- a field no usage id can have: the hash has its time to live
local RECEIPT = '>c8I8i8B' -- fingerprint, recorded_at, remaining (-1 for none), exceeded
local RECEIPT_BYTES = 25
local RECEIPT_NEWEST_MS = 7258118400000 -- 2200: what says later was not written by this script

-- Prefixes of today's and yesterday's hashes.
local function receipt_days(prefix, now_ms)
  local day = math.floor(now_ms / RECEIPT_DAY_MS)
  return prefix .. day .. ':', prefix .. (day - 1) .. ':'
end

local function receipt_shard(id)
  local high, low = string.byte(id, 1, 2)
  return string.format('%d', high % 16 * 256 + low)
end

-- The receipt stored for a usage id, or nil; and whether today's hash will expire.
local function find_receipt(today, yesterday, id)
  local found = redis.call('HMGET', today, id, RECEIPT_EXPIRES)
  return found[1] or redis.call('HGET', yesterday, id), found[2]
end

local function store_receipt(today, id, receipt, expires)
  if expires then
    redis.call('HSET', today, id, receipt)
  else
    redis.call('HSET', today, id, receipt, RECEIPT_EXPIRES, '')
    redis.call('EXPIRE', today, RECEIPT_TTL_S)
  end
end
