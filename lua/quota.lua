--[[
Reads the quota hashes of one user (and the pool) as they stand, for people to look at.

KEYS[1] meta
KEYS[2] user_quota
KEYS[3] pool_quota   absent for a personal account

REPLY fenced, now, missing, user, pool
missing: 1 user, 2 pool, 3 both; user and pool: field, value, ... of the hash
]]
--- @include "fence"
--- @include "quota"

local meta = fence(KEYS[1])
if not meta then return { 1, 0, 0, {}, {} } end
local function pool_version(key)
  local epoch, _, _, _, _, version = open_state(redis.call('HGET', key, 'state'), meta)
  return epoch and version
end
local of_user = pool_version(KEYS[2])
local of_pool = KEYS[3] and pool_version(KEYS[3])
local missing = (of_user and 0 or 1) + (KEYS[3] and not of_pool and 2 or 0)
if of_user and of_pool and of_user ~= of_pool then missing = of_user < of_pool and 1 or 2 end
if missing > 0 then return { 0, meta.now_ms, missing, {}, {} } end
return { 0, meta.now_ms, 0, redis.call('HGETALL', KEYS[2]),
  KEYS[3] and redis.call('HGETALL', KEYS[3]) or {} }
