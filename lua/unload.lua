--[[
Makes quotas unusable until they are loaded anew, because the ledger's counts of them changed
otherwise than Redis counted: the hash becomes a stub that refuses every snapshot from before the
change. Rate windows stay, for the next load to take over.

KEYS[1] meta
KEYS[2] quotas...

ARGV[1] revision  of the partition's counts since the change
ARGV[2] ttl       seconds

REPLY outcome
outcome: UNLOADED 0, FENCED 1
]]
--- @include "fence"
--- @include "quota"

local UNLOADED, FENCED = 0, 1

local meta = fence(KEYS[1])
if not meta then return FENCED end
local revision = tonumber(ARGV[1])
local closed = struct.pack(STATE, meta.epoch, 0, 0, 0, 0, '') -- a period that is never open
for i = 2, #KEYS do
  local old = whole(redis.call('HGET', KEYS[i], 'revision'))
  redis.call('HSET', KEYS[i], 'state', closed, 'revision', text(math.max(old, revision)))
  redis.call('EXPIRE', KEYS[i], ARGV[2])
end
return UNLOADED
