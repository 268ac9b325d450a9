--- @include "number"
local STATE, RULE = '>I8I8I8I8I8I8Bc0', '>c1i8I8I8'

local STATE_FRONT = 49 -- bytes, the last of them the length of what follows

-- Epoch, starts, ends, good_until, seen_at, pool_version and blocked of a quota hash, when it may be
-- used: whole, of this epoch, its period running and its terms in force. Absent, a stub, or anything
-- else must be loaded.
-- good_until is at most `ends`: when an organisation pays whose own period ends earlier, it may be on
-- another plan from there on, or pay no more, before anybody has noted that.
-- pool_version is the version of the organisation's terms that it was loaded under, 0 when personal:
-- a user's quota is used only beside a pool of the same, so that a change of an organisation's plan
-- overtakes all its users by making one hash a stub.
local function open_state(state, meta)
  if not state or #state < STATE_FRONT or #state ~= STATE_FRONT + string.byte(state, STATE_FRONT) then
    return nil
  end
  local epoch, starts, ends, good_until, seen_at, pool_version, blocked = struct.unpack(STATE, state)
  if epoch ~= meta.epoch or starts > meta.now_ms or meta.now_ms >= good_until then return nil end
  return epoch, starts, ends, good_until, seen_at, pool_version, blocked
end

-- The epoch that a quota hash was written in; nil when it does not say.
local function state_epoch(state)
  return state and #state >= STATE_FRONT and struct.unpack('>I8', state) or nil
end

-- A counter is one usage type of one quota hash. A list, because a table with names costs Redis
-- several times as much.
local LETTER, STARTS, ENDS, TERMS, SEEN_AT, LIMIT = 1, 2, 3, 4, 5, 6
local USED, RATE, BLOCKED_BY, TYPE, POOL_VERSION, TEXT = 7, 8, 9, 10, 11, 12
-- LETTER enforcement: h hard, s soft, w shadow (watched only), x not in the plan (hard, limit 0),
-- n no entitlement of this scope (counted, never limited). LIMIT false: unlimited. RATE false: no
-- window. BLOCKED_BY a reason, or empty. TEXT of USED once something was counted, to be written.
local ENFORCED = { h = true, x = true }
local SHOWN = { h = true, x = true, s = true }
local LETTERS = { h = true, s = true, w = true, x = true, n = true }

local function read_rate(key, usage_type, units, window_us)
  local spent = redis.call('HMGET', key, 'spent:' .. usage_type, 'spent_at:' .. usage_type)
  -- A plan change may have made the bucket smaller than what was out of it.
  return {
    units = units, window_us = window_us,
    spent = math.min(whole(spent[1]), units), spent_at = whole(spent[2]),
  }
end

-- The counter of a usage type; false when the quota must be loaded (also where it was loaded
-- before the usage type existed).
local function read_counter(key, usage_type, meta)
  local raw = redis.call('HMGET', key, 'state', 'terms', 'rule:' .. usage_type, 'used:' .. usage_type)
  local epoch, starts, ends, _, seen_at, pool_version, blocked = open_state(raw[1], meta)
  if not epoch or not raw[3] then return false end
  local letter, limit, rate_units, window_us = struct.unpack(RULE, raw[3])
  if not LETTERS[letter] then error('damaged rule') end
  local rate = rate_units > 0 and read_rate(key, usage_type, rate_units, window_us)
  return {
    letter, starts, ends, raw[2], seen_at, limit >= 0 and limit, whole(raw[4]), rate, blocked,
    usage_type, pool_version, false,
  }
end

-- Has a quota loaded anew, from a snapshot of this version and revision or a later one. Rate windows
-- stay, for that load to take over.
local function make_stub(key, meta, version, revision, ttl)
  local closed = struct.pack(STATE, meta.epoch, 0, 0, 0, 0, 0, 0, '') -- a period that is never open
  redis.call('HSET', key, 'state', closed, 'version', version, 'revision', revision)
  redis.call('EXPIRE', key, ttl)
end

-- Renews the time to live of a quota hash that is in use.
local function see(key, seen_at, ttl)
  local epoch, starts, ends, good_until, _, pool_version, blocked =
    struct.unpack(STATE, redis.call('HGET', key, 'state'))
  redis.call('HSET', key, 'state',
    struct.pack(STATE, epoch, starts, ends, good_until, seen_at, pool_version, #blocked, blocked))
  redis.call('EXPIRE', key, ttl)
end
