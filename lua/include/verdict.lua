local ENFORCED = { h = true, x = true }
local SHOWN = { h = true, x = true, s = true }

-- What is left under a counter's limit, or nil where no limit is shown to callers.
local function left(one)
  if one.limit and SHOWN[one.enforcement] then
    return math.max(0, one.limit - one.used - one.held)
  end
end

-- The rate window: a bucket of `rate` units that refills evenly over the window. `spent` units are
-- out of it as of `spent_at`; only whole units come back, and the time of the next one is kept in
-- `spent_at`, so that a burst of exactly the limit passes and nothing more.
local function refill(one, now_us)
  local back = math.floor(math.max(0, now_us - one.spent_at) * one.rate / one.window_us)
  if back >= one.spent then
    one.spent, one.spent_at = 0, now_us
  elseif back > 0 then
    one.spent = one.spent - back
    one.spent_at = one.spent_at + math.ceil(back * one.window_us / one.rate)
  end
end

-- How long until `units` more would fit, at most a window (more than the bucket never fit).
local function wait_for(one, units, now_us)
  refill(one, now_us)
  local missing = one.spent + units - one.rate
  if missing <= 0 then return 0 end
  local wait = math.ceil(missing * one.window_us / one.rate) - (now_us - one.spent_at)
  return math.max(1, math.min(wait, one.window_us))
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
    if enforce and one.rate and one.enforcement ~= 'w' then
      local wait = wait_for(one, units, now_us)
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
