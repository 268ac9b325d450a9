--- @include "server_replid"
--- @include "number"
-- A partition's meta when this server is the one that was vouched for, else nil. The clock is
-- server time plus the test clock's offset: the only time that decides anything. One look at
-- the server serves every partition of a call.
local replid, server_us

local function fence(meta_key)
  local raw = redis.call('HMGET', meta_key, 'epoch', 'replid', 'bumped_at', 'offset', 'retained')
  replid = replid or server_replid()
  if not raw[1] or raw[2] ~= replid then return nil end
  if not server_us then
    local time = redis.call('TIME')
    server_us = time[1] * 1000000 + time[2]
  end
  local now_us = server_us + whole(raw[4]) * 1000
  return {
    epoch = whole(raw[1]),
    bumped_at = whole(raw[3]),
    retained = whole(raw[5]), -- entries that are drained and still in the stream
    now_us = now_us,
    now_ms = math.floor(now_us / 1000),
  }
end
