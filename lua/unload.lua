--[[
Makes quotas unusable until they are loaded anew, because the ledger's counts of them changed
otherwise than Redis counted: the hash becomes a stub that refuses every snapshot from before the
change.

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
for i = 2, #KEYS do
  local old = redis.call('HMGET', KEYS[i], 'version', 'revision')
  local newest = text(math.max(whole(old[2]), revision))
  make_stub(KEYS[i], meta, old[1] or '0', newest, ARGV[2])
end
return UNLOADED
