--[[
Who this server is and where a partition's history begins and ends: what the drain must know of the
server that its entries came from, because a superseded master must never move the cursor. Run in
one MULTI with the XRANGE that reads them. With the floor, so that a database restored from before
it cannot skip what was trimmed.

KEYS[1] stream
KEYS[2] meta

REPLY fenced, replid, epoch, floor, last_id
]]
--- @include "fence"
--- @include "stream_id"

local meta = fence(KEYS[2])
if not meta then return { 1, server_replid(), '0', '0-0', '0-0' } end
return { 0, server_replid(), meta.epoch, redis.call('HGET', KEYS[2], 'floor') or '0-0', last_id(KEYS[1]) }
