--[[
Decides and records usage events: every limit, idempotency, the counters and the stream entry
in one step, or nothing. Everything is read and decided before the first write; after it no call
can fail, because a Lua error would leave the writes before it in place.

A call may hold events of several partitions, all on one server: what a call costs by itself is
then shared by all that came in the same moment. A cluster would call each slot by itself.

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

EVENT[1] partition    place among the partitions, from 1
EVENT[2] user         place among the counters, from 1
EVENT[3] pool         place among the counters, 0 for a personal account
EVENT[4] who          subject: 'u' user, or 'o' organisation user (raw UUID bytes)
EVENT[5] usage_id     raw UUID bytes
EVENT[6] fingerprint  8 bytes of the body's hash; empty without idempotency key
EVENT[7] usage_type
EVENT[8] units
EVENT[9] occurred_at  ms, empty for now
EVENT[10] looked_up   0 not yet; 1: the ledger was asked and does not know this key; 2: it could not be asked
EVENT[11] payload     msgpack, passed on to the ledger unread

Entry: id, fingerprint, who, type, quota, terms, payload; quota is "units recorded_at starts
pool_starts used pool_used remaining exceeded enforced", with - where there is no pool or limit.

REPLY last_ids, one ANSWER per event
last_ids: per partition the last entry appended, empty when there was none
ANSWER[1] outcome     RECORDED 0, REPLAYED 1, CONFLICT 2, DENIED 3, RATE_LIMITED 4, MISS 5, FULL 6, LOOK_UP 7, UNTIMELY 8, OVERFLOW 9, BLOCKED 10, FENCED 11
ANSWER[2] recorded_at ms; MISS: now, the time to load for
ANSWER[3] remaining   units, nil when unlimited
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
local ARGS_BEFORE, SLOTS, KEYS_OF_PARTITION = 4, 11, 3
local MAX_UNITS = 9007199254740991 -- 2^53 - 1: beyond it doubles skip integers
local OLDEST_MS, NEWEST_MS = 35 * 86400000, 300000 -- how far occurred_at may lie from now
local FORGETFUL_MS = 86400000 -- after an epoch bump, receipts of one day may be missing
local REFRESH_MS = 3600000 -- how often a quota's time to live is renewed

local ARGV, KEYS, call = ARGV, KEYS, redis.call -- locals: each look at a global costs a search
local partitions, enforce, cap, ttl = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local counters_before = partitions * KEYS_OF_PARTITION
local enforced_text = enforce and ' 1' or ' 0'

local parts = {} -- by place; false where this server is not vouched for
local counters = {} -- by place; false where the quota must be loaded
local made = {} -- receipts of earlier events of this call, by usage id
local entries = {} -- what to append, in order

local function partition(place)
  local part = parts[place]
  if part ~= nil then return part end
  local at = (place - 1) * KEYS_OF_PARTITION
  local meta = fence(KEYS[at + 2])
  if meta then
    local stream, today, yesterday = KEYS[at + 1], receipt_days(KEYS[at + 3], meta.now_ms)
    part = {
      stream = stream, meta = meta, today = today, yesterday = yesterday, last_id = '',
      now_text = text(meta.now_ms), room = cap - (call('XLEN', stream) - meta.retained),
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
  if string.sub(receipt, 1, RECEIPT_FINGERPRINT_BYTES) ~= fingerprint then return { CONFLICT } end
  local at, remaining, exceeded =
    string.match(receipt, '^(%d+) (%S+) (%d)$', RECEIPT_FINGERPRINT_BYTES + 1)
  return { REPLAYED, tonumber(at), tonumber(remaining) or false, tonumber(exceeded) }
end

-- Refused, unless it is a retry of something recorded so long ago that its receipt is gone.
local function refused(at, answer)
  local fingerprint, looked_up = ARGV[at + 6], ARGV[at + 10]
  return fingerprint ~= '' and looked_up == '0' and { LOOK_UP } or answer
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

local function decide(at)
  local part = partition(tonumber(ARGV[at + 1]))
  if not part then return { FENCED } end
  local meta, now_text = part.meta, part.now_text
  local now_ms, id, fingerprint, usage_type = meta.now_ms, ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  local receipts, expires -- today's hash of this key
  if fingerprint ~= '' then
    local receipt, shard = nil, receipt_shard(id)
    receipts = part.today .. shard
    receipt, expires = find_receipt(receipts, part.yesterday .. shard, id)
    receipt = receipt or made[id] -- its own first: what else is in a call changes no retry's answer
    if receipt then return replay(receipt, fingerprint) end
    if part.forgetful and ARGV[at + 10] ~= '1' then return { LOOK_UP } end
  end
  local occurred = ARGV[at + 9]
  if occurred ~= '' and (now_ms - occurred > OLDEST_MS or occurred - now_ms > NEWEST_MS) then
    return refused(at, { UNTIMELY })
  end

  local user, pool = counter(tonumber(ARGV[at + 2]), usage_type, meta), nil
  local pool_place = tonumber(ARGV[at + 3])
  if pool_place > 0 then pool = counter(pool_place, usage_type, meta) end
  if not user or pool == false then
    local missing = (user and 0 or 1) + (pool == false and 2 or 0)
    return { MISS, now_ms, false, 0, 0, 0, 0, 0, missing }
  end
  if user[REASON] then return refused(at, { BLOCKED, 0, false, 0, 0, 0, 0, 0, user[REASON] }) end
  if part.room <= 0 then return { FULL } end

  local units = tonumber(ARGV[at + 8])
  if user[USED] + user[HELD] + units > MAX_UNITS
    or pool and pool[USED] + pool[HELD] + units > MAX_UNITS then
    return refused(at, { OVERFLOW })
  end
  if enforce then
    local denied, scope, bound, wait_us = verdict(user, pool, units, meta.now_us)
    if denied == 'quota' then
      return refused(at, { DENIED, now_ms, left(bound), 1, scope, bound[LIMIT],
        tonumber(bound[STARTS]), bound[ENDS] })
    elseif denied then
      local rate = bound[RATE]
      return refused(at, { RATE_LIMITED, now_ms, rate.units - rate.spent, 1, scope, rate.units,
        tonumber(bound[STARTS]), bound[ENDS],
        { math.ceil(wait_us / 1000), rate.window_us / 1000000 } })
    end
  end

  count(user, units, meta.now_us)
  if pool then count(pool, units, meta.now_us) end
  part.room = part.room - 1
  local tight, bound, remaining, exceeded = tightest(user, pool)
  local shown = remaining and text(remaining) or '-'
  local exceeded_text = exceeded == 1 and ' 1' or ' 0'
  local receipt
  if receipts then
    receipt = fingerprint .. now_text .. ' ' .. shown .. exceeded_text
    made[id] = receipt
  end
  local pool_starts, pool_used = '-', '-'
  if pool then pool_starts, pool_used = pool[STARTS], pool[TEXT] end
  entries[#entries + 1] = {
    at = at, part = part, receipts = receipts, receipt = receipt, expires = expires,
    terms = user[TERMS] or '',
    quota = ARGV[at + 8] .. ' ' .. now_text .. ' ' .. user[STARTS] .. ' ' .. pool_starts
      .. ' ' .. user[TEXT] .. ' ' .. pool_used .. ' ' .. shown .. exceeded_text
      .. enforced_text,
  }
  bound = bound or user
  return { RECORDED, now_ms, remaining or false, exceeded, tight,
    tight > 0 and bound[LIMIT] or 0, bound[STARTS] + 0, bound[ENDS] }
end

local reply = { {} }
for at = ARGS_BEFORE, #ARGV - SLOTS, SLOTS do
  reply[#reply + 1] = decide(at)
end

-- Writes from here on.
for place = 1, #KEYS - counters_before do
  local one = counters[place]
  if one and one[TEXT] then
    local key, field, rate = KEYS[counters_before + place], one[FIELD], one[RATE]
    if rate then
      call('HSET', key, field.used, one[TEXT], field.spent, text(rate.spent),
        field.spent_at, text(rate.spent_at))
    else
      call('HSET', key, field.used, one[TEXT])
    end
    local now_ms = math.floor(server_us / 1000)
    if now_ms > one[SEEN_AT] + REFRESH_MS then
      call('HSET', key, 'seen_at', text(now_ms))
      call('EXPIRE', key, ttl)
    end
  end
end
for i = 1, #entries do
  local entry = entries[i]
  local at, part = entry.at, entry.part
  local id = ARGV[at + 5]
  part.last_id = call('XADD', part.stream, '*', 'id', id, 'fingerprint', ARGV[at + 6],
    'who', ARGV[at + 4], 'type', ARGV[at + 7], 'quota', entry.quota, 'terms', entry.terms,
    'payload', ARGV[at + 11])
  if entry.receipts then store_receipt(entry.receipts, id, entry.receipt, entry.expires) end
end
for place = 1, partitions do
  reply[1][place] = parts[place] and parts[place].last_id or ''
end
return reply
