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
KEYS[4] quotas...  quota hashes, after the keys of all partitions

ARGV[1] partitions  how many the keys name
ARGV[2] enforce     0: hard limits and rate windows only count (QUOTA_ENFORCEMENT=false)
ARGV[3] cap         undrained entries of a partition beyond which nothing more is admitted
ARGV[4] ttl         seconds a quota hash lives after its last use

EVENT[1] partition    place among the partitions, from 1
EVENT[2] user_quota   place among the quotas, from 1
EVENT[3] pool_quota   place among the quotas, 0 for a personal account
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

local partitions, enforce, cap, ttl = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local quotas_before = partitions * KEYS_OF_PARTITION

local parts = {}

local function partition(place)
  local part = parts[place]
  if part then return part end
  local at = (place - 1) * KEYS_OF_PARTITION
  part = {
    stream = KEYS[at + 1], meta_key = KEYS[at + 2], meta = fence(KEYS[at + 2]),
    entries = {}, -- what to append, in order
    seen = {}, -- receipts made by earlier events of this call
  }
  local meta = part.meta
  if meta then
    part.today, part.yesterday = receipt_days(KEYS[at + 3], meta.now_ms)
    part.now_text = text(meta.now_ms)
    part.forgetful = meta.bumped_at > 0 and meta.now_ms < meta.bumped_at + FORGETFUL_MS
  end
  parts[place] = part
  return part
end

local changed = {} -- quotas to write, by key

local function replay(receipt, fingerprint)
  if string.sub(receipt, 1, RECEIPT_FINGERPRINT_BYTES) ~= fingerprint then return { CONFLICT } end
  local at, remaining, exceeded =
    string.match(receipt, '^(%d+) (%S+) (%d)$', RECEIPT_FINGERPRINT_BYTES + 1)
  return { REPLAYED, tonumber(at), tonumber(remaining) or false, tonumber(exceeded) }
end

-- Counts `units` in this call's copies and notes what to write.
local function count(key, subject, one, units, now_us)
  one.used = one.used + units
  one.changed = true
  if one.rate then
    refill(one, now_us)
    one.spent = math.min(one.spent + units, one.rate) -- past it only where windows do not bind
  end
  changed[key] = subject
end

local function decide(at)
  local part = partition(tonumber(ARGV[at + 1]))
  local meta = part.meta
  if not meta then return { FENCED } end
  local now_ms, id, fingerprint, usage_type = meta.now_ms, ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  local looked_up, shard = ARGV[at + 10], nil
  if fingerprint ~= '' then
    shard = receipt_shard(id)
    local receipt = part.seen[id] or find_receipt(part.today, part.yesterday, shard, id)
    if receipt then return replay(receipt, fingerprint) end
    if part.forgetful and looked_up ~= '1' then return { LOOK_UP } end
  end
  -- Refused, unless it is a retry of something recorded so long ago that its receipt is gone.
  local function refused(answer)
    return fingerprint ~= '' and looked_up == '0' and { LOOK_UP } or answer
  end
  local occurred = tonumber(ARGV[at + 9])
  if occurred and (occurred < now_ms - OLDEST_MS or occurred > now_ms + NEWEST_MS) then
    return refused({ UNTIMELY })
  end

  local user_key = KEYS[quotas_before + ARGV[at + 2]]
  local user, user_counter = quota(user_key, usage_type, meta)
  local counters, missing = { user_counter }, user_counter and 0 or 1
  local pooled, pool, pool_key = ARGV[at + 3] ~= '0', nil, nil
  if pooled then
    pool_key = KEYS[quotas_before + ARGV[at + 3]]
    pool, counters[2] = quota(pool_key, usage_type, meta)
    if not counters[2] then missing = missing + 2 end
  end
  if missing > 0 then return { MISS, now_ms, false, 0, 0, 0, 0, 0, missing } end
  if user.blocked then return refused({ BLOCKED, 0, false, 0, 0, 0, 0, 0, user.blocked }) end
  if meta.appended - meta.drained + #part.entries >= cap then return { FULL } end

  local units = tonumber(ARGV[at + 8])
  for _, one in ipairs(counters) do
    if one.used + one.held + units > MAX_UNITS then return refused({ OVERFLOW }) end
  end
  local denied, scope, bound, wait_us = verdict(counters, units, enforce, meta.now_us)
  if denied then
    local holder = scope == 2 and pool or user
    if denied == 'rate' then
      return refused({ RATE_LIMITED, now_ms, bound.rate - bound.spent, 1, scope, bound.rate,
        holder.starts, holder.ends, { math.ceil(wait_us / 1000), bound.window_us / 1000000 } })
    end
    return refused({ DENIED, now_ms, left(bound), 1, scope, bound.limit,
      holder.starts, holder.ends })
  end

  count(user_key, user, counters[1], units, meta.now_us)
  if pool then count(pool_key, pool, counters[2], units, meta.now_us) end
  local tight, tight_counter, remaining, exceeded = tightest(counters)
  local holder = tight == 2 and pool or user
  local shown = remaining and text(remaining) or '-'
  if fingerprint ~= '' then
    part.seen[id] = fingerprint .. part.now_text .. ' ' .. shown .. ' ' .. exceeded
  end
  local pool_starts, pool_used = '-', '-'
  if pool then pool_starts, pool_used = pool.starts_text, text(counters[2].used) end
  part.entries[#part.entries + 1] = {
    at = at, shard = shard, terms = user.terms,
    quota = ARGV[at + 8] .. ' ' .. part.now_text .. ' ' .. user.starts_text .. ' ' .. pool_starts
      .. ' ' .. text(counters[1].used) .. ' ' .. pool_used .. ' ' .. shown .. ' ' .. exceeded
      .. (enforce and ' 1' or ' 0'),
  }
  return { RECORDED, now_ms, remaining or false, exceeded, tight,
    tight_counter and tight_counter.limit or 0, holder.starts, holder.ends }
end

local reply = { {} }
for at = ARGS_BEFORE, #ARGV - SLOTS, SLOTS do
  reply[#reply + 1] = decide(at)
end

-- Writes from here on.
for key, subject in pairs(changed) do
  for _, one in pairs(subject.counters) do
    if one.changed then
      if one.rate then
        redis.call('HSET', key, one.field.used, text(one.used), one.field.spent, text(one.spent),
          one.field.spent_at, text(one.spent_at))
      else
        redis.call('HSET', key, one.field.used, text(one.used))
      end
    end
  end
  local now_ms = math.floor(server_us / 1000)
  if now_ms > subject.seen_at + REFRESH_MS then
    redis.call('HSET', key, 'seen_at', text(now_ms))
    redis.call('EXPIRE', key, ttl)
  end
end
for place = 1, partitions do
  local part, last = parts[place], ''
  if part and #part.entries > 0 then
    for _, entry in ipairs(part.entries) do
      local at = entry.at
      local id, fingerprint = ARGV[at + 5], ARGV[at + 6]
      last = redis.call('XADD', part.stream, '*', 'id', id, 'fingerprint', fingerprint,
        'who', ARGV[at + 4], 'type', ARGV[at + 7], 'quota', entry.quota, 'terms', entry.terms,
        'payload', ARGV[at + 11])
      if entry.shard then store_receipt(part.today, entry.shard, id, part.seen[id]) end
    end
    redis.call('HSET', part.meta_key, 'appended', text(part.meta.appended + #part.entries))
  end
  reply[1][place] = last
end
return reply
