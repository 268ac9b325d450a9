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

local meta = fence(KEYS[1])
if not meta then return { 1, 0 } end
local enforce, usage_type, units = ARGV[1] == '1', ARGV[2], tonumber(ARGV[3])

local function decide()
  local user, pool = read_counter(KEYS[2], usage_type, meta), nil
  if KEYS[3] then pool = read_counter(KEYS[3], usage_type, meta) end
  local missing = missing_of(user, pool)
  if missing > 0 then return { MISS, false, 0, 0, 0, 0, missing } end
  if user[BLOCKED_BY] ~= '' then return { BLOCKED, false, 0, 0, 0, 0, user[BLOCKED_BY] } end
  if overflows(user, pool, units) then return { OVERFLOW } end
  if enforce then
    local denied, scope, bound, wait_us = verdict(user, pool, units, meta.now_us)
    if denied == 'quota' then
      return { DENIED, left(bound), scope, bound[LIMIT], bound[STARTS], bound[ENDS] }
    elseif denied then
      local rate = bound[RATE]
      return { RATE_LIMITED, rate.units - rate.spent, scope, rate.units, bound[STARTS], bound[ENDS],
        { math.ceil(wait_us / 1000), rate.window_us / 1000000 } }
    end
  end
  local tight, bound, remaining = tightest(user, pool)
  bound = bound or user
  return { ALLOWED, remaining or false, tight, tight > 0 and bound[LIMIT] or 0,
    bound[STARTS], bound[ENDS] }
end

return { 0, meta.now_ms, decide() }
