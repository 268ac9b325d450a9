--[[
Writes a subject's quota hash from a ledger snapshot plus the stream's tail after it. Refuses any
snapshot that something newer has overtaken, so that no stale limit or count survives a race.

KEYS[1] stream
KEYS[2] meta
KEYS[3] quota

ARGV[1] subject   prefix of `who` in the entries that count against this hash
ARGV[2] epoch     of the snapshot
ARGV[3] version   of the subscription's terms in the snapshot
ARGV[4] starts    ms: period
ARGV[5] ends      ms
ARGV[6] cursor    last drained id of the snapshot
ARGV[7] through   last id whose units are already in `used`
ARGV[8] terms     opaque, copied into every entry for the ledger
ARGV[9] blocked   reason why usage is refused, empty when it is not
ARGV[10] ttl      seconds

LIMIT[1] usage_type
LIMIT[2] rule     enforcement letter, limit, rate limit in units, rate window in microseconds
LIMIT[3] used     units: ledger totals of the period plus the tail up to `through`

REPLY outcome
outcome: LOADED 0, FENCED 1, RETRY 2
]]
--- @include "fence"
--- @include "stream_id"

local LOADED, FENCED, RETRY = 0, 1, 2
local ARGS_BEFORE, SLOTS = 10, 3
local TAIL = 1000 -- entries read here at most: a Lua scan costs 3 us an entry and blocks the server

local stream, key = KEYS[1], KEYS[3]
local subject, epoch, version, starts, ends = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

local meta = fence(KEYS[2])
if not meta then return FENCED end
if epoch ~= meta.epoch then return RETRY end
if id_less(ARGV[6], meta.floor) then return RETRY end
if meta.now_ms < tonumber(starts) or meta.now_ms >= tonumber(ends) then return RETRY end
local held = redis.call('HMGET', key, 'head', 'min_version')
if held[2] and version < tonumber(held[2]) then return RETRY end

local is_pool = string.sub(subject, 1, 1) == 'o' and #subject == 17
local rules, used, types = {}, {}, {}
for at = ARGS_BEFORE, #ARGV - SLOTS, SLOTS do
  local usage_type = ARGV[at + 1]
  types[#types + 1] = usage_type
  rules[usage_type], used[usage_type] = ARGV[at + 2], tonumber(ARGV[at + 3])
end

local head = string.format('%s %.0f %s %s', epoch, version, starts, ends)
if held[1] == head then
  local complete = true
  for _, usage_type in ipairs(types) do
    if redis.call('HEXISTS', key, 'limit:' .. usage_type) == 0 then complete = false end
  end
  if complete then return LOADED end
end

local tail = redis.call('XRANGE', stream, '(' .. ARGV[7], '+', 'COUNT', TAIL + 1)
if #tail > TAIL then return RETRY end
for _, entry in ipairs(tail) do
  local fields = entry[2]
  if fields[1] == 'id' and string.sub(fields[6], 1, #subject) == subject then
    local units, user_starts, pool_starts = string.match(fields[10], '^(%S+) %d+ (%d+) (%S+)')
    local usage_type = fields[8]
    if (is_pool and pool_starts or user_starts) == starts and used[usage_type] then
      used[usage_type] = used[usage_type] + tonumber(units)
    end
  end
end

local fields = { 'head', head, 'terms', ARGV[8], 'min_version', string.format('%.0f', version) }
if ARGV[9] ~= '' then
  fields[#fields + 1] = 'blocked'
  fields[#fields + 1] = ARGV[9]
end
for _, usage_type in ipairs(types) do
  fields[#fields + 1] = 'limit:' .. usage_type
  fields[#fields + 1] = rules[usage_type]
  if used[usage_type] ~= 0 then
    fields[#fields + 1] = 'used:' .. usage_type
    fields[#fields + 1] = string.format('%.0f', used[usage_type])
  end
  -- A rate window outlives a reload: forgetting it would let a burst through twice.
  local tat = redis.call('HGET', key, 'tat:' .. usage_type)
  if tat then
    fields[#fields + 1] = 'tat:' .. usage_type
    fields[#fields + 1] = tat
  end
end
redis.call('DEL', key)
redis.call('HSET', key, unpack(fields))
redis.call('EXPIRE', key, ARGV[10])
return LOADED
