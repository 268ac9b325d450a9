--- @include "number"
-- Whether a quota hash may be used: of this epoch and its period running. Absent, a stub left by
-- supersede, or anything else must be loaded.
local function is_open(epoch, starts, ends, meta)
  return epoch == meta.epoch and starts and ends
    and tonumber(starts) <= meta.now_ms and meta.now_ms < tonumber(ends)
end

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

-- Enforcement letters: h hard, s soft, w shadow (watched only), x not in the plan (hard, limit 0),
-- n no entitlement of this scope (counted, never limited).
local LETTERS = { h = true, s = true, w = true, x = true, n = true }

local function new_counter(field, raw)
  local enforcement, limit = string.sub(raw[1], 1, 1), string.sub(raw[1], 2)
  if not LETTERS[enforcement] then error('damaged limit') end
  local found = {
    field = field, enforcement = enforcement, used = whole(raw[2]), held = whole(raw[3]),
  }
  if limit ~= '-' then found.limit = whole(limit) end -- nil: unlimited
  if raw[4] then
    local units, window = string.match(raw[4], '^(%d+) (%d+)$')
    found.rate, found.window_us = whole(units or ''), whole(window or '')
    -- A plan change may have made the bucket smaller than what was out of it.
    found.spent, found.spent_at = math.min(whole(raw[5]), found.rate), whole(raw[6])
  end
  return found
end

local subjects = {} -- so that later events of the call see what earlier ones decided

-- The subject and its counter of one usage type, in one read; nil when the quota must be loaded
-- (the counter alone is nil when it was loaded before the usage type existed).
local function quota(key, usage_type, meta)
  local subject = subjects[key]
  if subject == false then return nil end
  if subject and subject.counters[usage_type] then return subject, subject.counters[usage_type] end
  local field = names_of(usage_type)
  local raw = redis.call('HMGET', key, 'epoch', 'starts', 'ends', 'terms', 'blocked', 'seen_at',
    field.limit, field.used, field.held, field.rate, field.spent, field.spent_at)
  if not subject then
    if not is_open(raw[1], raw[2], raw[3], meta) then
      subjects[key] = false
      return nil
    end
    subject = {
      starts_text = raw[2], starts = tonumber(raw[2]), ends = tonumber(raw[3]),
      terms = raw[4] or '', blocked = raw[5], seen_at = whole(raw[6]), counters = {},
    }
    subjects[key] = subject
  end
  if raw[7] then
    subject.counters[usage_type] =
      new_counter(field, { raw[7], raw[8], raw[9], raw[10], raw[11], raw[12] })
  end
  return subject, subject.counters[usage_type]
end
