--[[
Decides and records usage events: every limit, idempotency, the counters and the stream entry
in one step, or nothing. Everything is read and decided before the first write; after it no call
can fail, because a Lua error would leave the writes before it in place.

KEYS[1] stream
KEYS[2] meta
KEYS[3] receipts   prefix of the partition's receipt hashes
KEYS[4] quotas...  quota hashes, named by position in EVENT

ARGV[1] enforce    0: hard limits and rate windows only count (QUOTA_ENFORCEMENT=false)
ARGV[2] cap        undrained entries beyond which nothing more is admitted
ARGV[3] ttl        seconds a quota hash lives after its last use

EVENT[1] user_quota   index into quotas, from 1
EVENT[2] pool_quota   index into quotas, 0 for a personal account
EVENT[3] who          subject: 'u' user, or 'o' organisation user (raw UUID bytes)
EVENT[4] usage_id     raw UUID bytes
EVENT[5] fingerprint  8 bytes of the body's hash; empty without idempotency key
EVENT[6] usage_type
EVENT[7] units
EVENT[8] occurred_at  ms, empty for now
EVENT[9] looked_up    0 not yet; 1: the ledger was asked and does not know this key; 2: it could not be asked
EVENT[10] payload     msgpack, passed on to the ledger unread

REPLY fenced, now, last_id, one ANSWER per event
last_id: of the last entry appended, empty when there was none
Entry: id, fingerprint, who, type, quota, terms, payload; quota is "units recorded_at starts
pool_starts used pool_used remaining exceeded enforced", with - where there is no pool or limit.

ANSWER[1] outcome     RECORDED 0, REPLAYED 1, CONFLICT 2, DENIED 3, RATE_LIMITED 4, MISS 5, FULL 6, LOOK_UP 7, UNTIMELY 8, OVERFLOW 9, BLOCKED 10
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
--- @include "quota"
--- @include "verdict"
--- @include "receipts"

local RECORDED, REPLAYED, CONFLICT, DENIED, RATE_LIMITED, MISS = 0, 1, 2, 3, 4, 5
local FULL, LOOK_UP, UNTIMELY, OVERFLOW, BLOCKED = 6, 7, 8, 9, 10
local KEYS_BEFORE, ARGS_BEFORE, SLOTS = 3, 3, 10
local MAX_UNITS = 9007199254740991 -- 2^53 - 1: beyond it doubles skip integers
local OLDEST_MS, NEWEST_MS = 35 * 86400000, 300000 -- how far occurred_at may lie from now
local FORGETFUL_MS = 86400000 -- after an epoch bump, receipts of one day may be missing

local stream, meta_key, receipts = KEYS[1], KEYS[2], KEYS[3]
local enforce, cap, ttl = ARGV[1] == '1', tonumber(ARGV[2]), ARGV[3]

local meta = fence(meta_key)
if not meta then return { 1, 0, '' } end
local now_ms = meta.now_ms
local forgetful = meta.bumped_at > 0 and now_ms < meta.bumped_at + FORGETFUL_MS

local seen = {} -- receipts made by earlier events of this call
local entries = {} -- what to append, in order
local touched = {} -- quota hashes to keep alive

local function replay(receipt, fingerprint)
  if string.sub(receipt, 1, RECEIPT_FINGERPRINT_BYTES) ~= fingerprint then return { CONFLICT } end
  local at, remaining, exceeded =
    string.match(string.sub(receipt, RECEIPT_FINGERPRINT_BYTES + 1), '^(%d+) (%S+) (%d)$')
  return { REPLAYED, tonumber(at), tonumber(remaining) or false, tonumber(exceeded) }
end

local function decide(at)
  local id, fingerprint, usage_type = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  local looked_up = ARGV[at + 9]
  if fingerprint ~= '' then
    local receipt = seen[id] or find_receipt(receipts, id, now_ms)
    if receipt then return replay(receipt, fingerprint) end
    if forgetful and looked_up ~= '1' then return { LOOK_UP } end
  end
  local occurred = tonumber(ARGV[at + 8])
  if occurred and (occurred < now_ms - OLDEST_MS or occurred > now_ms + NEWEST_MS) then
    return { UNTIMELY }
  end

  local user = quota(KEYS[KEYS_BEFORE + ARGV[at + 1]], meta)
  local pool = ARGV[at + 2] ~= '0' and quota(KEYS[KEYS_BEFORE + ARGV[at + 2]], meta)
  local counters = {}
  local missing = 0
  if user then counters[1] = counter(user, usage_type) end
  if not counters[1] then missing = 1 end
  if ARGV[at + 2] ~= '0' then
    if pool then counters[2] = counter(pool, usage_type) end
    if not counters[2] then missing = missing + 2 end
  end
  if missing > 0 then return { MISS, now_ms, false, 0, 0, 0, 0, 0, missing } end
  if user.blocked then return { BLOCKED, 0, false, 0, 0, 0, 0, 0, user.blocked } end
  if meta.undrained + #entries >= cap then return { FULL } end

  local units = tonumber(ARGV[at + 7])
  for _, one in ipairs(counters) do
    if one.used + one.held + units > MAX_UNITS then return { OVERFLOW } end
  end
  local denied, scope, bound, wait_us = verdict(counters, units, enforce, meta.now_us)
  if denied then
    local holder = scope == 2 and pool or user
    if fingerprint ~= '' and looked_up == '0' then return { LOOK_UP } end
    if denied == 'rate' then
      return { RATE_LIMITED, now_ms, window_left(bound, meta.now_us), 1, scope,
        bound.rate, holder.starts, holder.ends, { math.ceil(wait_us / 1000), bound.window_us / 1000000 } }
    end
    return { DENIED, now_ms, left(bound), 1, scope, bound.limit, holder.starts, holder.ends }
  end

  for _, one in ipairs(counters) do
    one.used = one.used + units
    one.added = one.added + units
    if one.rate > 0 then
      one.tat = math.min(rate_window(one, units, meta.now_us), meta.now_us + one.window_us)
      one.windowed = true
    end
  end
  local tight, tight_counter, remaining, exceeded = tightest(counters)
  touched[user.key] = user
  if pool then touched[pool.key] = pool end
  local shown = remaining and string.format('%.0f', remaining) or '-'
  if fingerprint ~= '' then
    seen[id] = fingerprint .. string.format('%.0f %s %d', now_ms, shown, exceeded)
  end
  entries[#entries + 1] = {
    id = id, fingerprint = fingerprint, who = ARGV[at + 3], usage_type = usage_type,
    terms = user.terms, payload = ARGV[at + 10],
    quota = string.format('%s %.0f %.0f %s %.0f %s %s %d %d', ARGV[at + 7], now_ms,
      user.starts, pool and string.format('%.0f', pool.starts) or '-',
      counters[1].used, pool and string.format('%.0f', counters[2].used) or '-',
      shown, exceeded, enforce and 1 or 0),
  }
  local holder = tight == 2 and pool or user
  return { RECORDED, now_ms, remaining or false, exceeded, tight,
    tight_counter and tight_counter.limit or 0, holder.starts, holder.ends }
end

local reply = { 0, now_ms, '' }
for at = ARGS_BEFORE, #ARGV - SLOTS, SLOTS do
  reply[#reply + 1] = decide(at)
end
if #entries == 0 then return reply end

-- Writes from here on.
for key, subject in pairs(touched) do
  for usage_type, one in pairs(subject.counters) do
    if one and one.added > 0 then
      redis.call('HINCRBY', key, 'used:' .. usage_type, string.format('%.0f', one.added))
      if one.windowed then
        redis.call('HSET', key, 'tat:' .. usage_type, string.format('%.0f', one.tat))
      end
    end
  end
  redis.call('EXPIRE', key, ttl)
end
for _, entry in ipairs(entries) do
  reply[3] = redis.call('XADD', stream, '*', 'id', entry.id, 'fingerprint', entry.fingerprint,
    'who', entry.who, 'type', entry.usage_type, 'quota', entry.quota, 'terms', entry.terms,
    'payload', entry.payload)
  if entry.fingerprint ~= '' then
    store_receipt(receipts, entry.id, now_ms, seen[entry.id])
  end
end
redis.call('HINCRBY', meta_key, 'appended', #entries)
return reply
