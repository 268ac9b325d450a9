--[[
What every peer runs for one record: the steps of the service's own script without its fence,
periods, plans and rate windows. A little less work than the gateway does, never more.

KEYS[1] stream
KEYS[2] receipts     prefix of the receipt hashes
KEYS[3] user_quota
KEYS[4] pool_quota

ARGV[1] id           user and idempotency key
ARGV[2] who          organisation and user
ARGV[3] usage_type
ARGV[4] quantity     whole units
ARGV[5] payload      passed on unread

REPLY outcome, remaining, at
outcome: RECORDED 0, REPLAYED 1, DENIED 2
]]
local RECORDED, REPLAYED, DENIED = 0, 1, 2
local HOUR_MS = 3600000
local RECEIPT_TTL_S = 86400

local id = redis.sha1hex(ARGV[1])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local shard = ':' .. string.sub(id, 1, 3)
local bucket = math.floor(now_ms / HOUR_MS)
for back = 0, 1 do
  local receipt = redis.call('HGET', KEYS[2] .. (bucket - back) .. shard, id)
  if receipt then
    local at, remaining = string.match(receipt, '^(%d+) (%d+)$')
    return { REPLAYED, tonumber(remaining), at }
  end
end

local usage_type, units = ARGV[3], tonumber(ARGV[4])
local remaining = 2 ^ 53
local used = {}
for i = 3, 4 do
  local raw = redis.call('HMGET', KEYS[i], 'limit:' .. usage_type, 'used:' .. usage_type)
  used[i] = tonumber(raw[2] or '0') + units
  remaining = math.min(remaining, tonumber(raw[1] or '0') - used[i])
end
if remaining < 0 then return { DENIED, 0, now_ms } end

redis.call('HINCRBY', KEYS[3], 'used:' .. usage_type, units)
redis.call('HINCRBY', KEYS[4], 'used:' .. usage_type, units)
redis.call('XADD', KEYS[1], '*', 'id', id, 'who', ARGV[2], 'type', usage_type,
  'quota', string.format('%d %.0f %.0f %.0f %.0f', units, now_ms, used[3], used[4], remaining),
  'payload', ARGV[5])
local receipts = KEYS[2] .. bucket .. shard
redis.call('HSET', receipts, id, string.format('%.0f %.0f', now_ms, remaining))
redis.call('EXPIRE', receipts, RECEIPT_TTL_S)
return { RECORDED, remaining, now_ms }
