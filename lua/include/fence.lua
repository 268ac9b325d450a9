--- @include "server_replid"
-- The partition's meta when this server is the one that was vouched for, else nil.
-- now_us is server time plus the test clock's offset: the only time that decides anything.
local function fence(meta_key)
  local raw = redis.call('HMGET', meta_key,
    'epoch', 'replid', 'bumped_at', 'offset', 'appended', 'drained', 'floor')
  if not raw[1] or raw[2] ~= server_replid() then return nil end
  local time = redis.call('TIME')
  local now_us = time[1] * 1000000 + time[2] + (tonumber(raw[4]) or 0) * 1000
  return {
    epoch = raw[1],
    bumped_at = tonumber(raw[3]) or 0,
    undrained = (tonumber(raw[5]) or 0) - (tonumber(raw[6]) or 0),
    floor = raw[7] or '0-0',
    now_us = now_us,
    now_ms = math.floor(now_us / 1000),
  }
end
