#!lua flags=allow-oom
--[[
Tells the partition how much has been drained and, when given, removes entries up to a cursor
that was committed longer ago than the retention window. The floor remembers what is gone, since
a trimmed stream itself does not. Allowed when memory is full: only this makes room again.

KEYS[1] stream
KEYS[2] meta

ARGV[1] replid    the server the drained entries were read from
ARGV[2] drained   entries drained since the partition began
ARGV[3] through   last id to remove, empty for none

REPLY trimmed
trimmed: entries removed; -1 when this is not that server any more
]]
--- @include "fence"
--- @include "stream_id"

local meta = fence(KEYS[2])
if not meta or server_replid() ~= ARGV[1] then return -1 end
local drained, through = tonumber(ARGV[2]), ARGV[3]
local before = redis.call('HMGET', KEYS[2], 'floor', 'drained')
local trimmed, newly = 0, drained - whole(before[2])
if through ~= '' and id_less(before[1] or '0-0', through) then
  redis.call('HSET', KEYS[2], 'floor', through) -- before the entries go: never the other way round
  trimmed = redis.call('XTRIM', KEYS[1], 'MINID', '=', id_after(through))
end
redis.call('HSET', KEYS[2], 'drained', ARGV[2],
  'retained', text(meta.retained + newly - trimmed))
return trimmed
