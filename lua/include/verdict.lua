-- Enforcement letters in the hash: h hard, s soft, w shadow (watched only), x not in the plan
-- (hard, limit 0), n no entitlement of this scope (counted, never limited).
local ENFORCED = { h = true, x = true }
local SHOWN = { h = true, x = true, s = true }

-- What is left under a counter's limit, or nil where no limit is shown to callers.
local function left(one)
  if one.limit and SHOWN[one.enforcement] then
    return math.max(0, one.limit - one.used - one.held)
  end
end

-- The rate window (GCRA): the theoretical arrival time after `units` more, and how long until
-- they would fit. Weighed by units, so one call of 10 costs as much as ten calls of 1.
local function rate_window(one, units, now_us)
  local cost = math.ceil(units / one.rate * one.window_us)
  local tat = math.max(one.tat, now_us) + cost
  return tat, math.max(0, tat - now_us - one.window_us)
end

-- Units that still fit into the rate window now.
local function window_left(one, now_us)
  local free = now_us + one.window_us - math.max(one.tat, now_us)
  return math.max(0, math.floor(free * one.rate / one.window_us))
end

-- Decides `units` against every counter that applies (user first, then pool) without changing
-- any. Returns denied ('quota', 'rate' or nil), the scope and counter that bound, and for a rate
-- window the wait in microseconds. A period limit outranks a window: waiting would not help.
local function verdict(counters, units, enforce, now_us)
  local scope, bound, least
  for i, one in ipairs(counters) do
    if enforce and one.limit and ENFORCED[one.enforcement] and one.used + one.held + units > one.limit then
      local remaining = left(one)
      if not least or remaining < least then scope, bound, least = i, one, remaining end
    end
  end
  if bound then return 'quota', scope, bound end
  local longest = 0
  for i, one in ipairs(counters) do
    if enforce and one.rate > 0 and one.enforcement ~= 'w' then
      local _, wait = rate_window(one, units, now_us)
      if wait > longest then scope, bound, longest = i, one, wait end
    end
  end
  if bound then return 'rate', scope, bound, longest end
end

-- The tightest limit shown to callers after `units` more: scope, counter, what remains, and
-- whether any hard or soft limit is exceeded.
local function tightest(counters)
  local scope, bound, least, exceeded = 0, nil, nil, 0
  for i, one in ipairs(counters) do
    local remaining = left(one)
    if remaining then
      if one.used > one.limit then exceeded = 1 end
      if not least or remaining < least then scope, bound, least = i, one, remaining end
    end
  end
  return scope, bound, least, exceeded
end
