--[[
Has the quotas of a user and its pool rebuilt from the ledger, which counts otherwise than they do
since a dead letter was settled. Each becomes a stub: it is loaded before it is used again, and no
snapshot from before is taken for it. Its rate windows stay.

KEYS[1] meta
KEYS[2] user_quota
KEYS[3] pool_quota   absent for a personal account

ARGV[1] settled      dead letters settled in this partition: a snapshot must know of as many
ARGV[2] ttl          seconds

REPLY fenced
]]
--- @include "fence"
--- @include "quota"

local meta = fence(KEYS[1])
if not meta then return 1 end
local settled, ttl = tonumber(ARGV[1]), ARGV[2]

local function stub(key)
  local held = redis.call('HGET', key, 'settled')
  redis.call('HSET', key, 'settled', text(math.max(settled, whole(held))),
    'state', struct.pack(STATE, meta.epoch, 0, 0, 0, 0, '')) -- a period that is never open
  redis.call('EXPIRE', key, ttl)
end

stub(KEYS[2])
if KEYS[3] then stub(KEYS[3]) end
return 0
