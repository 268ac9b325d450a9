--[[
Writes a subject's quota hash from a ledger snapshot plus the stream's tail after it. Refuses any
snapshot that something newer has overtaken, so that no stale limit or count survives a race.

KEYS[1] stream
KEYS[2] meta
KEYS[3] quota

ARGV[1] subject   prefix of `who` in the entries that count against this hash
ARGV[2] epoch     of the snapshot
ARGV[3] version   of the subscription's terms in the snapshot
ARGV[4] revision  of the partition's counts in the snapshot
ARGV[5] starts    ms: period
ARGV[6] ends      ms
ARGV[7] good_until ms: when the terms must be looked up again, at most `ends`
ARGV[8] cursor    last drained id of the snapshot
ARGV[9] through   last id whose units are already in `used`
ARGV[10] terms    opaque, copied into every entry for the ledger
ARGV[11] blocked  reason why usage is refused, empty when it is not
ARGV[12] pool_version of the organisation's terms in the snapshot, 0 for a personal account
ARGV[13] ttl      seconds

LIMIT[1] usage_type
LIMIT[2] rule     packed: enforcement letter, limit, units and microseconds of its rate window
LIMIT[3] used     units: ledger totals of the period plus the tail up to `through`

REPLY outcome
outcome: LOADED 0, FENCED 1, RETRY 2
]]
--- @include "fence"
--- @include "stream_id"
--- @include "number"
--- @include "quota"

local LOADED, FENCED, RETRY = 0, 1, 2
local ARGS_BEFORE, SLOTS = 13, 3
local TAIL = 1000 -- entries read here at most: a Lua scan costs 3 us an entry and blocks the server
local SAID, COUNTED = '>c16Bc0Bc0Bc0', '>i8I8I8i8' -- as far as they matter here

local stream, key = KEYS[1], KEYS[3]
local subject, epoch = ARGV[1], tonumber(ARGV[2])
local version, revision = tonumber(ARGV[3]), tonumber(ARGV[4])
local starts, ends, good_until = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local blocked = ARGV[11]

local meta = fence(KEYS[2])
if not meta then return FENCED end
if epoch ~= meta.epoch then return RETRY end
if id_less(ARGV[8], redis.call('HGET', KEYS[2], 'floor') or '0-0') then return RETRY end
if meta.now_ms < starts or meta.now_ms >= good_until then return RETRY end
local old = redis.call('HMGET', key, 'version', 'state', 'revision')
-- What an earlier epoch knew of holds nobody out: the ledger may have been restored since.
if not state_epoch(old[2]) or state_epoch(old[2]) == meta.epoch then
  if old[1] and version < tonumber(old[1]) then return RETRY end
  if old[3] and revision < tonumber(old[3]) then return RETRY end -- of a hash or a stub
end

local is_pool = string.sub(subject, 1, 1) == 'o' and #subject == 17
local rules, used, types = {}, {}, {}
local complete = true
for at = ARGS_BEFORE, #ARGV - SLOTS, SLOTS do
  local usage_type = ARGV[at + 1]
  types[#types + 1] = usage_type
  rules[usage_type], used[usage_type] = ARGV[at + 2], tonumber(ARGV[at + 3])
  complete = complete and redis.call('HEXISTS', key, 'rule:' .. usage_type) == 1
end
local old_epoch, old_starts = open_state(old[2], meta)
local same = tonumber(old[1]) == version and tonumber(old[3]) == revision
if complete and same and old_epoch and old_starts == starts then return LOADED end

local tail = redis.call('XRANGE', stream, '(' .. ARGV[9], '+', 'COUNT', TAIL + 1)
if #tail > TAIL then return RETRY end
for _, entry in ipairs(tail) do
  local name, said, _, counted = unpack(entry[2])
  -- What cannot be read is skipped: the drain parks it, and it counts nowhere.
  local read, _, _, usage_type, who = pcall(struct.unpack, SAID, said or '')
  if name ~= 'event' and name ~= 'recovery' and name ~= 'control' then
    return RETRY -- another build's: what it counts is not known
  elseif name == 'event' and read and used[usage_type] and string.sub(who, 1, #subject) == subject then
    local whole_one, units, _, user_starts, pool_starts = pcall(struct.unpack, COUNTED, counted or '')
    if whole_one and (is_pool and pool_starts or user_starts) == starts then
      used[usage_type] = used[usage_type] + units
    end
  end
end

local state = struct.pack(STATE, epoch, starts, ends, good_until, math.floor(server_us / 1000),
  tonumber(ARGV[12]), #blocked, blocked)
local fields = { 'version', ARGV[3], 'revision', ARGV[4], 'state', state, 'terms', ARGV[10] }
local function set(name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end
for _, usage_type in ipairs(types) do
  local rule = rules[usage_type]
  set('rule:' .. usage_type, rule)
  if used[usage_type] ~= 0 then set('used:' .. usage_type, text(used[usage_type])) end
  local _, _, rate_units = struct.unpack(RULE, rule)
  if rate_units > 0 then
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
redis.call('EXPIRE', key, ARGV[13])
return LOADED
