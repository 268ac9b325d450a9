--[[
Ends the terms that some quotas were loaded under, and says so in the stream: what comes before this
entry was admitted under earlier terms, what comes after it under those of `version` or later. The
hashes become stubs, which refuse every snapshot from before the change. Sent again after a fail-over
that lost it; then only the entry is new.

KEYS[1] stream
KEYS[2] meta
KEYS[3] quotas...

ARGV[1] control    opaque, into the entry for the ledger
ARGV[2] not_before ms: refused while this server's time is earlier; 0 at any time
ARGV[3] ttl        seconds
VERSION[1] version of the terms that each quota must have at least, in the order of the quotas

REPLY outcome, last_id
outcome: SUPERSEDED 0, FENCED 1, EARLY 2
]]
--- @include "fence"
--- @include "quota"

local SUPERSEDED, FENCED, EARLY = 0, 1, 2

local meta = fence(KEYS[2])
if not meta then return { FENCED, '' } end
if meta.now_ms < tonumber(ARGV[2]) then return { EARLY, '' } end
local overtaken = {}
for i = 3, #KEYS do
  local version = ARGV[i + 1]
  local old = redis.call('HMGET', KEYS[i], 'state', 'version', 'revision')
  if state_epoch(old[1]) ~= meta.epoch or whole(old[2]) < tonumber(version) then
    overtaken[#overtaken + 1] = { KEYS[i], version, old[3] or '0' }
  end
end
for _, one in ipairs(overtaken) do make_stub(one[1], meta, one[2], one[3], ARGV[3]) end
return { SUPERSEDED,
  redis.call('XADD', KEYS[1], '*', 'control', ARGV[1], 'at', text(meta.now_ms)) }
