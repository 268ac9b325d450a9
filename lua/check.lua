--[[
Would this quantity be admitted now? Decides with the record script's own rules and writes nothing.

KEYS[1] meta
KEYS[2] user_quota
KEYS[3] pool_quota   absent for a personal account

ARGV[1] enforce      0: everything is allowed (QUOTA_ENFORCEMENT=false)
ARGV[2] usage_type
ARGV[3] units

REPLY fenced, now, ANSWER
ANSWER[1] outcome    ALLOWED 0, DENIED 3, RATE_LIMITED 4, MISS 5, OVERFLOW 9, BLOCKED 10
ANSWER[2] remaining  units now, nil when unlimited
ANSWER[3] scope      1 user, 2 pool, 0 none: the limit that is tightest, or that bound
ANSWER[4] limit      units of that limit
ANSWER[5] starts     ms: period of the quota
ANSWER[6] ends       ms
ANSWER[7] detail     MISS: 1 user, 2 pool, 3 both; RATE_LIMITED: {wait ms, window s}; BLOCKED: reason
]]
--- @include "fence"
--- @include "quota"
--- @include "verdict"

local ALLOWED, DENIED, RATE_LIMITED, MISS, OVERFLOW, BLOCKED = 0, 3, 4, 5, 9, 10
local MAX_UNITS = 9007199254740991

local meta = fence(KEYS[1])
if not meta then return { 1, 0 } end
local enforce, usage_type, units = ARGV[1] == '1', ARGV[2], tonumber(ARGV[3])

local function decide()
  local user, user_counter = quota(KEYS[2], usage_type, meta)
  local counters, missing, pool = { user_counter }, user_counter and 0 or 1, nil
  if KEYS[3] then
    pool, counters[2] = quota(KEYS[3], usage_type, meta)
    if not counters[2] then missing = missing + 2 end
  end
  if missing > 0 then return { MISS, false, 0, 0, 0, 0, missing } end
  if user.blocked then return { BLOCKED, false, 0, 0, 0, 0, user.blocked } end
  for _, one in ipairs(counters) do
    if one.used + one.held + units > MAX_UNITS then return { OVERFLOW } end
  end
  local denied, scope, bound, wait_us = verdict(counters, units, enforce, meta.now_us)
  local tight, tight_counter, remaining = tightest(counters)
  local holder = (scope or tight) == 2 and pool or user
  if denied == 'rate' then
    return { RATE_LIMITED, bound.rate - bound.spent, scope, bound.rate, holder.starts, holder.ends,
      { math.ceil(wait_us / 1000), bound.window_us / 1000000 } }
  end
  if denied then
    return { DENIED, left(bound), scope, bound.limit, holder.starts, holder.ends }
  end
  return { ALLOWED, remaining or false, tight, tight_counter and tight_counter.limit or 0,
    holder.starts, holder.ends }
end

return { 0, meta.now_ms, decide() }
