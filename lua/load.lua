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
LIMIT[2] limit    enforcement letter (see quota) and units, or - for unlimited
LIMIT[3] rate     units and window in microseconds; empty for none
LIMIT[4] used     units: ledger totals of the period plus the tail up to `through`

REPLY outcome
outcome: LOADED 0, FENCED 1, RETRY 2
]]
--- @include "fence"
--- @include "stream_id"
--- @include "number"

local LOADED, FENCED, RETRY = 0, 1, 2
local ARGS_BEFORE, SLOTS = 10, 4
local TAIL = 1000 -- entries read here at most: a Lua scan costs 3 us an entry and blocks the server

local stream, key = KEYS[1], KEYS[3]
local subject, epoch, version, starts, ends = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

local meta = fence(KEYS[2])
if not meta then return FENCED end
if epoch ~= meta.epoch then return RETRY end
if id_less(ARGV[6], meta.floor) then return RETRY end
if meta.now_ms < tonumber(starts) or meta.now_ms >= tonumber(ends) then return RETRY end
local old = redis.call('HMGET', key, 'version', 'epoch', 'starts')
if old[1] and version < tonumber(old[1]) then return RETRY end -- also of a stub, by supersede

local is_pool = string.sub(subject, 1, 1) == 'o' and #subject == 17
local limits, rates, used, types = {}, {}, {}, {}
local complete = true
for at = ARGS_BEFORE, #ARGV - SLOTS, SLOTS do
  local usage_type = ARGV[at + 1]
  types[#types + 1] = usage_type
  limits[usage_type], rates[usage_type] = ARGV[at + 2], ARGV[at + 3]
  used[usage_type] = tonumber(ARGV[at + 4])
  complete = complete and redis.call('HEXISTS', key, 'limit:' .. usage_type) == 1
end
if complete and old[2] == epoch and old[3] == starts and tonumber(old[1]) == version then
  return LOADED
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

local fields = { 'epoch', epoch, 'version', ARGV[3], 'starts', starts, 'ends', ends,
  'terms', ARGV[8], 'seen_at', text(math.floor(server_us / 1000)) }
local function set(name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end
if ARGV[9] ~= '' then set('blocked', ARGV[9]) end
for _, usage_type in ipairs(types) do
  set('limit:' .. usage_type, limits[usage_type])
  if used[usage_type] ~= 0 then set('used:' .. usage_type, text(used[usage_type])) end
  if rates[usage_type] ~= '' then
    set('rate:' .. usage_type, rates[usage_type])
    -- A rate window outlives a reload: forgetting it would let a burst through twice.
    local spent = redis.call('HMGET', key, 'spent:' .. usage_type, 'spent_at:' .. usage_type)
    if spent[1] and spent[2] then
      set('spent:' .. usage_type, spent[1])
      set('spent_at:' .. usage_type, spent[2])
    end
  end
end
redis.call('DEL', key)
redis.call('HSET', key, unpack(fields))
redis.call('EXPIRE', key, ARGV[10])
return LOADED
