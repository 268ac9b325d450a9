--- @include "number"
-- Whether a quota hash may be used: of this epoch and its period running. Absent, a stub left by
-- supersede, or anything else must be loaded.
local function is_open(epoch, starts, ends, meta)
  return epoch == meta.epoch and starts and ends
    and starts + 0 <= meta.now_ms and meta.now_ms < ends + 0
end

-- A counter is one usage type of one quota hash: the reply of HMGET itself, with what it counts as
-- numbers in the place of their text. Half of the script's time went into making tables with
-- names instead.
local LETTER, STARTS, ENDS, TERMS, SEEN_AT, LIMIT = 1, 2, 3, 4, 5, 6
local USED, HELD, RATE, REASON, FIELD, TEXT = 7, 8, 9, 10, 11, 12
-- LETTER enforcement: h hard, s soft, w shadow (watched only), x not in the plan (hard, limit 0),
-- n no entitlement of this scope (counted, never limited). STARTS stays text, because entries quote
-- it. LIMIT false: unlimited. RATE false: no window. FIELD names of the fields. TEXT of USED once
-- something was counted, to be written.
local ENFORCED = { h = true, x = true }
local SHOWN = { h = true, x = true, s = true }
local LETTERS = { h = true, s = true, w = true, x = true, n = true }

local names = {} -- field names by usage type: building them costs as much as reading them

local function names_of(usage_type)
  local found = names[usage_type]
  if not found then
    found = {
      limit = 'limit:' .. usage_type, used = 'used:' .. usage_type, held = 'held:' .. usage_type,
      rate = 'rate:' .. usage_type, spent = 'spent:' .. usage_type,
      spent_at = 'spent_at:' .. usage_type,
    }
    names[usage_type] = found
  end
  return found
end

local function read_rate(key, field, raw)
  local units, window_us = string.match(raw, '^(%d+) (%d+)$')
  local rate = { units = whole(units or ''), window_us = whole(window_us or '') }
  local spent = redis.call('HMGET', key, field.spent, field.spent_at)
  -- A plan change may have made the bucket smaller than what was out of it.
  rate.spent, rate.spent_at = math.min(whole(spent[1]), rate.units), whole(spent[2])
  return rate
end

-- The counter of a usage type; false when the quota must be loaded (also where it was loaded
-- before the usage type existed).
local function read_counter(key, usage_type, meta)
  local field = names_of(usage_type)
  local raw = redis.call('HMGET', key, 'epoch', 'starts', 'ends', 'terms', 'seen_at',
    field.limit, field.used, field.held, field.rate, 'blocked')
  local limit = raw[LIMIT]
  if not limit or not is_open(raw[1], raw[STARTS], raw[ENDS], meta) then return false end
  local letter, units = string.sub(limit, 1, 1), string.sub(limit, 2)
  if not LETTERS[letter] then error('damaged limit') end
  raw[LETTER], raw[LIMIT] = letter, units ~= '-' and whole(units)
  raw[ENDS], raw[SEEN_AT] = raw[ENDS] + 0, whole(raw[SEEN_AT])
  raw[USED], raw[HELD] = whole(raw[USED]), whole(raw[HELD])
  raw[RATE] = raw[RATE] and read_rate(key, field, raw[RATE])
  raw[FIELD], raw[TEXT] = field, false
  return raw
end
