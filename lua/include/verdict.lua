--- @include "quota"
local MAX_UNITS = 9007199254740991 -- 2^53 - 1: beyond it doubles skip integers

-- Which of the two must be loaded first: 0 none, 1 user, 2 pool, 3 both. Of two that were not loaded
-- under the same terms of the organisation, the older.
local function missing_of(user, pool)
  if user and pool and user[POOL_VERSION] ~= pool[POOL_VERSION] then
    return user[POOL_VERSION] < pool[POOL_VERSION] and 1 or 2
  end
  return (user and 0 or 1) + (pool == false and 2 or 0)
end

-- Whether counting `units` more would pass what a double can count.
local function overflows(user, pool, units)
  return user[USED] + units > MAX_UNITS or pool and pool[USED] + units > MAX_UNITS
end

-- What is left under a counter's limit, or nil where no limit is shown to callers.
local function left(one)
  local limit = one[LIMIT]
  if limit and SHOWN[one[LETTER]] then return math.max(0, limit - one[USED]) end
end

-- Whether `units` more would pass a limit that binds.
local function is_over(one, units)
  local limit = one[LIMIT]
  return limit and ENFORCED[one[LETTER]] and one[USED] + units > limit
end

-- The rate window: a bucket of `units` that refills evenly over the window. `spent` units are out
-- of it as of `spent_at`; only whole units come back, and the time of the next one is kept in
-- `spent_at`, so that a burst of exactly the limit passes and nothing more.
local function refill(rate, now_us)
  local back = math.floor(math.max(0, now_us - rate.spent_at) * rate.units / rate.window_us)
  if back >= rate.spent then
    rate.spent, rate.spent_at = 0, now_us
  elseif back > 0 then
    rate.spent = rate.spent - back
    rate.spent_at = rate.spent_at + math.ceil(back * rate.window_us / rate.units)
  end
end

-- How long until `units` more would fit: 0 now, at most a window (more than the bucket never fit).
local function wait_for(one, units, now_us)
  local rate = one[RATE]
  if not rate or one[LETTER] == 'w' then return 0 end
  refill(rate, now_us)
  local missing = rate.spent + units - rate.units
  if missing <= 0 then return 0 end
  local wait = math.ceil(missing * rate.window_us / rate.units) - (now_us - rate.spent_at)
  return math.max(1, math.min(wait, rate.window_us))
end

-- Decides `units` against the user's counter and the pool's (nil for a personal account) without
-- changing either. Returns denied ('quota', 'rate' or nil), the scope and counter that bound, and
-- for a rate window the wait in microseconds. A period limit outranks a window: waiting would not
-- help. Of two limits the tighter one is named, of two waits the longer.
local function verdict(user, pool, units, now_us)
  local user_over, pool_over = is_over(user, units), pool and is_over(pool, units)
  if pool_over and not (user_over and left(user) <= left(pool)) then return 'quota', 2, pool end
  if user_over then return 'quota', 1, user end
  local user_wait = wait_for(user, units, now_us)
  local pool_wait = pool and wait_for(pool, units, now_us) or 0
  if pool_wait > user_wait then return 'rate', 2, pool, pool_wait end
  if user_wait > 0 then return 'rate', 1, user, user_wait end
end

local function is_exceeded(one)
  return one[USED] > one[LIMIT]
end

-- The tightest limit shown to callers: scope, counter, what remains, and whether any hard or soft
-- limit is exceeded.
local function tightest(user, pool)
  local of_user, of_pool = left(user), pool and left(pool)
  local exceeded = (of_user and is_exceeded(user) or of_pool and is_exceeded(pool)) and 1 or 0
  if of_pool and not (of_user and of_user <= of_pool) then return 2, pool, of_pool, exceeded end
  if of_user then return 1, user, of_user, exceeded end
  return 0, nil, nil, exceeded
end
