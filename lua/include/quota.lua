-- A subject's quota hash as this call sees it, or nil when it must be loaded: absent, a stub
-- left by supersede, of another epoch, or its period is over (or has not begun).
-- Held in `subjects`, so that later events of the call see what earlier ones decided.
local subjects = {}

local function quota(key, meta)
  local subject = subjects[key]
  if subject ~= nil then return subject end
  subject = false
  local raw = redis.call('HMGET', key, 'head', 'terms', 'blocked')
  if raw[1] then
    local epoch, starts, ends = string.match(raw[1], '^(%d+) %d+ (%d+) (%d+)$')
    if epoch == meta.epoch and tonumber(starts) <= meta.now_ms and meta.now_ms < tonumber(ends) then
      subject = {
        key = key, starts = tonumber(starts), ends = tonumber(ends),
        terms = raw[2] or '', blocked = raw[3], counters = {},
      }
    end
  end
  subjects[key] = subject
  return subject
end

-- One usage type's limit and counters; nil when the hash was loaded before the type existed.
local function counter(subject, usage_type)
  local found = subject.counters[usage_type]
  if found ~= nil then return found end
  local raw = redis.call('HMGET', subject.key, 'limit:' .. usage_type, 'used:' .. usage_type,
    'held:' .. usage_type, 'tat:' .. usage_type)
  found = false
  if raw[1] then
    local enforcement, limit, rate, window = string.match(raw[1], '^(%a) (%S+) (%d+) (%d+)$')
    found = {
      enforcement = enforcement, limit = tonumber(limit), -- nil: unlimited
      rate = tonumber(rate), window_us = tonumber(window),
      used = tonumber(raw[2] or '0'), held = tonumber(raw[3] or '0'),
      tat = tonumber(raw[4] or '0'), added = 0,
    }
  end
  subject.counters[usage_type] = found
  return found
end
