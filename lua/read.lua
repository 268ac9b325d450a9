--[[
Entries for the drain, together with the identity of the server they came from: a superseded
master must never move the cursor. With the floor, so that a database restored from before it cannot
skip what was trimmed.

KEYS[1] stream
KEYS[2] meta

ARGV[1] after     last drained id
ARGV[2] count     entries at most

REPLY fenced, replid, epoch, floor, last_id, entries
]]
--- @include "fence"
--- @include "stream_id"

local meta = fence(KEYS[2])
if not meta then return { 1, server_replid(), '0', '0-0', '0-0', {} } end
return { 0, server_replid(), meta.epoch, redis.call('HGET', KEYS[2], 'floor') or '0-0', last_id(KEYS[1]),
  redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2]) }
