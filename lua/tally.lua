--[[
What some quotas have counted, and the newest entries, at one instant: for reconcile to compare
with a snapshot of the ledger. Writes nothing.

KEYS[1] stream
KEYS[2] meta
KEYS[3] quotas...

ARGV[1] epoch    of the snapshot
ARGV[2] cursor   last drained id of the snapshot
ARGV[3] through  last id that the caller has read already

REPLY outcome, entries, quotas
outcome: TALLIED 0, FENCED 1, RETRY 2
entries: those after `through`; quotas: field, value, ... of each hash, empty when it is not in use
]]
--- @include "fence"
--- @include "stream_id"
--- @include "quota"

local TALLIED, FENCED, RETRY = 0, 1, 2
local TAIL = 1000 -- entries read here at most, as in load

local meta = fence(KEYS[2])
if not meta then return { FENCED, {}, {} } end
if tonumber(ARGV[1]) ~= meta.epoch then return { RETRY, {}, {} } end
if id_less(ARGV[2], redis.call('HGET', KEYS[2], 'floor') or '0-0') then return { RETRY, {}, {} } end
local tail = redis.call('XRANGE', KEYS[1], '(' .. ARGV[3], '+', 'COUNT', TAIL + 1)
if #tail > TAIL then return { RETRY, {}, {} } end
local quotas = {}
for i = 3, #KEYS do
  local open = open_state(redis.call('HGET', KEYS[i], 'state'), meta)
  quotas[i - 2] = open and redis.call('HGETALL', KEYS[i]) or {}
end
return { TALLIED, tail, quotas }
