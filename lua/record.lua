--[[
Decides and records usage events: every limit, idempotency, the counters and the stream entry
in one step, or nothing. Everything is read and decided before the first write; after it no call
can fail, because a Lua error would leave the writes before it in place.

A call may hold events of several partitions, all on one server: what a call costs by itself is
then shared by all that came in the same moment. On a cluster a call holds those of one partition.
There, while a slot is being moved key by key, every call is refused before it is run, because KEYS[3]
never exists, and a cluster runs a call only where all of its keys are. The hashes of receipts, which
it is not told of, may be on either side.

KEYS[1] stream
KEYS[2] meta
KEYS[3] receipts   prefix of the partition's receipt hashes
...                the same three for every further partition
KEYS[4] counters...  the quota hash of each counter, after the keys of all partitions; a counter
                     is one usage type of one quota

ARGV[1] partitions  how many the keys name
ARGV[2] enforce     0: hard limits and rate windows only count (QUOTA_ENFORCEMENT=false)
ARGV[3] cap         undrained entries of a partition beyond which nothing more is admitted
ARGV[4] ttl         seconds a quota hash lives after its last use
ARGV[5] touch       1: a call that only replays writes too. WAITAOF waits for what its own connection
                    wrote, and the receipt that is repeated may be another's (DURABILITY=replicated)

EVENT[1] decision     packed: partition, user, pool, looked_up, timed, units, occurred_at
EVENT[2] said         packed: usage_id, fingerprint, usage_type; the rest is passed on unread
partition: place among the partitions, from 1; user: place among the counters, from 1;
pool: likewise, 0 for a personal account; fingerprint: 8 bytes of the body's hash, empty without
idempotency key; timed: 1 when occurred_at (ms) is given; looked_up: 0 not yet, 1 the ledger was
asked and does not know this key, 2 it could not be asked

Entry: event, quota, terms; event is EVENT[2], and quota packs units, recorded_at, starts,
pool_starts, used, pool_used, remaining, exceeded, enforced, with -1 where there is no pool or limit.

REPLY last_ids, one ANSWER per event
last_ids: per partition the last entry appended, empty when there was none
ANSWER: an outcome by itself, or ANSWER[1] to [8] packed; {that, detail} where there is a detail
ANSWER[1] outcome     RECORDED 0, REPLAYED 1, CONFLICT 2, DENIED 3, RATE_LIMITED 4, MISS 5, FULL 6, LOOK_UP 7, UNTIMELY 8, OVERFLOW 9, BLOCKED 10, FENCED 11
ANSWER[2] recorded_at ms; MISS: now, the time to load for
ANSWER[3] remaining   units, -1 when unlimited
ANSWER[4] exceeded    0 or 1
ANSWER[5] scope       1 user, 2 pool, 0 none: the limit that is tightest, or that bound
ANSWER[6] limit       units of that limit
ANSWER[7] starts      ms: period of the quota
ANSWER[8] ends        ms
ANSWER[9] detail      MISS: 1 user, 2 pool, 3 both; RATE_LIMITED: {wait ms, window s}; BLOCKED: reason
]]
--- @include "fence"
--- @include "number"
--- @include "quota"
--- @include "verdict"
--- @include "receipts"

local RECORDED, REPLAYED, CONFLICT, DENIED, RATE_LIMITED, MISS = 0, 1, 2, 3, 4, 5
local FULL, LOOK_UP, UNTIMELY, OVERFLOW, BLOCKED, FENCED = 6, 7, 8, 9, 10, 11
local ARGS_BEFORE, SLOTS, KEYS_OF_PARTITION = 5, 2, 3
local DECISION, SAID = '>HHHBBi8i8', '>c16Bc0Bc0'
local COUNTED, ANSWER = '>i8I8I8i8i8i8i8BB', '>BI8i8BBI8I8I8'
local OLDEST_MS, NEWEST_MS = 35 * 86400000, 300000 -- how far occurred_at may lie from now
local FORGETFUL_MS = 86400000 -- after an epoch bump, receipts of one day may be missing
local REFRESH_MS = 3600000 -- how often a quota's time to live is renewed

-- Locals: each look at a global costs a search.
local ARGV, KEYS, call, pack, unpacked = ARGV, KEYS, redis.call, struct.pack, struct.unpack
local partitions, enforce, cap, ttl = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local counters_before = partitions * KEYS_OF_PARTITION
local enforced = enforce and 1 or 0

local parts = {} -- by place; false where this server is not vouched for
local counters = {} -- by place; false where the quota must be loaded
local made = {} -- receipts of earlier events of this call, by usage id
local entries = {} -- what to append, in order
local replayed -- place of a partition whose receipt is repeated

local function partition(place)
  local part = parts[place]
  if part ~= nil then return part end
  local at = (place - 1) * KEYS_OF_PARTITION
  local meta = fence(KEYS[at + 2])
  if meta then
    local stream, today, yesterday = KEYS[at + 1], receipt_days(KEYS[at + 3], meta.now_ms)
    part = {
      stream = stream, meta = meta, today = today, yesterday = yesterday, last_id = '',
      room = cap - (call('XLEN', stream) - meta.retained),
      forgetful = meta.bumped_at > 0 and meta.now_ms < meta.bumped_at + FORGETFUL_MS,
    }
  end
  parts[place] = part or false
  return part
end

local function counter(place, usage_type, meta)
  local one = counters[place]
  if one == nil then
    one = read_counter(KEYS[counters_before + place], usage_type, meta)
    counters[place] = one
  end
  return one
end

local function replay(receipt, fingerprint)
  if #receipt ~= RECEIPT_BYTES then return LOOK_UP end
  local first, at, remaining, exceeded = unpacked(RECEIPT, receipt)
  if at > RECEIPT_NEWEST_MS then return LOOK_UP end -- damaged: only the ledger may know better
  if first ~= fingerprint then return CONFLICT end
  return pack(ANSWER, REPLAYED, at, remaining, exceeded, 0, 0, 0, 0)
end

-- Counts `units` in this call's copy, to be written below.
local function count(one, units, now_us)
  local used = one[USED] + units
  one[USED], one[TEXT] = used, text(used)
  local rate = one[RATE]
  if rate then
    refill(rate, now_us)
    rate.spent = math.min(rate.spent + units, rate.units) -- past it only where windows do not bind
  end
end

local function decide(decision, said)
  local place, user_place, pool_place, looked_up, timed, units, occurred_at =
    unpacked(DECISION, decision)
  local usage_id, fingerprint, usage_type = unpacked(SAID, said)
  local part = partition(place)
  if not part then return FENCED end
  local meta = part.meta
  local now_ms = meta.now_ms
  local receipts, expires -- today's hash of this key
  local refused -- said instead of a refusal: it may be a retry whose receipt is long gone
  if fingerprint ~= '' then
    local receipt, shard = nil, receipt_shard(usage_id)
    receipts = part.today .. shard
    receipt, expires = find_receipt(receipts, part.yesterday .. shard, usage_id)
    receipt = receipt or made[usage_id] -- its own first: what else is in a call changes no retry
    if receipt then
      replayed = place
      return replay(receipt, fingerprint)
    end
    if part.forgetful and looked_up ~= 1 then return LOOK_UP end
    refused = looked_up == 0 and LOOK_UP
  end
  if timed == 1 and (now_ms - occurred_at > OLDEST_MS or occurred_at - now_ms > NEWEST_MS) then
    return refused or UNTIMELY
  end

  local user, pool = counter(user_place, usage_type, meta), nil
  if pool_place > 0 then pool = counter(pool_place, usage_type, meta) end
  local missing = missing_of(user, pool)
  if missing > 0 then return { pack(ANSWER, MISS, now_ms, -1, 0, 0, 0, 0, 0), missing } end
  if user[BLOCKED_BY] ~= '' then return refused or { BLOCKED, user[BLOCKED_BY] } end
  if part.room <= 0 then return FULL end
  if overflows(user, pool, units) then return refused or OVERFLOW end
  if enforce then
    local denied, scope, bound, wait_us = verdict(user, pool, units, meta.now_us)
    if denied and refused then return refused end
    if denied == 'quota' then
      return pack(ANSWER, DENIED, now_ms, left(bound), 1, scope, bound[LIMIT], bound[STARTS],
        bound[ENDS])
    elseif denied then
      local rate = bound[RATE]
      local answer = pack(ANSWER, RATE_LIMITED, now_ms, rate.units - rate.spent, 1, scope,
        rate.units, bound[STARTS], bound[ENDS])
      return { answer, { math.ceil(wait_us / 1000), rate.window_us / 1000000 } }
    end
  end

  count(user, units, meta.now_us)
  if pool then count(pool, units, meta.now_us) end
  part.room = part.room - 1
  local tight, bound, remaining, exceeded = tightest(user, pool)
  remaining, bound = remaining or -1, bound or user
  local receipt
  if receipts then
    receipt = pack(RECEIPT, fingerprint, now_ms, remaining, exceeded)
    made[usage_id] = receipt
  end
  local quota = pack(COUNTED, units, now_ms, user[STARTS], pool and pool[STARTS] or -1, user[USED],
    pool and pool[USED] or -1, remaining, exceeded, enforced)
  entries[#entries + 1] = { part, said, quota, user[TERMS] or '', receipts, usage_id, receipt, expires }
  return pack(ANSWER, RECORDED, now_ms, remaining, exceeded, tight, tight > 0 and bound[LIMIT] or 0,
    bound[STARTS], bound[ENDS])
end

local reply = { {} }
for at = ARGS_BEFORE, #ARGV - SLOTS, SLOTS do
  reply[#reply + 1] = decide(ARGV[at + 1], ARGV[at + 2])
end

-- Writes from here on.
local seen_at = server_us and math.floor(server_us / 1000)
for place = 1, #KEYS - counters_before do
  local one = counters[place]
  if one and one[TEXT] then
    local key, used, rate = KEYS[counters_before + place], 'used:' .. one[TYPE], one[RATE]
    if rate then
      call('HSET', key, used, one[TEXT], 'spent:' .. one[TYPE], text(rate.spent),
        'spent_at:' .. one[TYPE], text(rate.spent_at))
    else
      call('HSET', key, used, one[TEXT])
    end
    if seen_at > one[SEEN_AT] + REFRESH_MS then see(key, seen_at, ttl) end
  end
end
for i = 1, #entries do
  local part, said, quota, terms, receipts, usage_id, receipt, expires = unpack(entries[i], 1, 8)
  part.last_id = call('XADD', part.stream, '*', 'event', said, 'quota', quota, 'terms', terms)
  if receipts then store_receipt(receipts, usage_id, receipt, expires) end
end
if replayed and #entries == 0 and ARGV[5] == '1' then
  local at = (replayed - 1) * KEYS_OF_PARTITION
  call('HSET', KEYS[at + 2], 'touch', '')
end
for place = 1, partitions do
  reply[1][place] = parts[place] and parts[place].last_id or ''
end
return reply
