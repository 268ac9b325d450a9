#!lua flags=allow-oom
--[[
Decides whether this server may be believed, and vouches for it. Run holding the partition's
cursor row, before that transaction commits: what it wrote for a commit that then failed is
recognised by `vouched_from` and taken up again. Allowed when memory is full: a server that restarted
so must be believed before anything can be drained from it.

KEYS[1] stream
KEYS[2] meta

ARGV[1] row_replid  the server the ledger last believed, empty for a new partition
ARGV[2] epoch       of the cursor row
ARGV[3] cursor      last drained id
ARGV[4] drained     entries drained since the partition began
ARGV[5] acked       an id that a caller was answered for, 0-0 when not known
ARGV[6] offset      ms of the test clock
ARGV[7] decided     1: an operator has decided to go on from the cursor, whatever history this is

REPLY outcome, epoch, replid, last_id
outcome: WHOLE 0, LOST 1, SUPERSEDED 2
]]
--- @include "server_replid"
--- @include "stream_id"
--- @include "number"

local WHOLE, LOST, SUPERSEDED = 0, 1, 2

local stream, key = KEYS[1], KEYS[2]
local row_replid, epoch, cursor = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local decided = ARGV[7] == '1'

local replid = server_replid()
local last = last_id(stream)
local raw = redis.call('HMGET', key, 'epoch', 'replid', 'vouched_from', 'floor',
  'bumped_at')
local meta_epoch, meta_replid, vouched_from = tonumber(raw[1] or '0'), raw[2], raw[3]

-- Nothing was ever recorded, nor a first vouching committed: the server may have restarted since it.
local fresh = row_replid == '' and cursor == '0-0' and last == '0-0'
  and (not meta_replid or (vouched_from == '' and raw[4] == '0-0'))
-- A recovery whose commit failed left `vouched_from` as the row still is, however often the server
-- has restarted since. A ledger that knows of no server yet believes none but the one it vouched for.
local taken_up = vouched_from == row_replid and (row_replid ~= '' or meta_replid == replid)
local believed = fresh or meta_replid == row_replid or taken_up
if meta_replid and not believed and not decided then return { SUPERSEDED, ARGV[2], replid, last } end

-- Looked for by itself, because others may have recorded since it was lost. What was trimmed is in the
-- ledger, and what came before the last loss was missed then.
local function remembers(acked)
  return not id_less(raw[4] or '0-0', acked) or id_parts(acked) <= tonumber(raw[5] or '0')
    or #redis.call('XRANGE', stream, acked, acked) == 1
end

local whole = not decided
  and (fresh or (meta_replid and not id_less(last, cursor) and remembers(ARGV[5])))
local now_epoch = math.max(epoch, meta_epoch)
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[6])

if whole then
  redis.call('HSET', key, 'epoch', text(now_epoch), 'replid', replid,
    'vouched_from', row_replid, 'offset', ARGV[6])
  if fresh then
    redis.call('HSET', key, 'floor', '0-0', 'bumped_at', '0', 'drained', '0', 'retained', '0')
  end
  return { WHOLE, text(now_epoch), replid, last }
end

-- History was lost: a new epoch makes every counter of the old one unreadable until it is
-- rebuilt from the ledger, and the entry in the stream becomes the audit event of the loss.
now_epoch = now_epoch + 1
local epoch_text = text(now_epoch)
-- What was trimmed stays trimmed: a database restored from before it must still find the gap.
local floor = raw[4] and id_less(cursor, raw[4]) and raw[4] or cursor
-- After everything that anybody has heard of, so that this loss is found but once.
local highest = cursor
if id_less(highest, last) then highest = last end
if id_less(highest, ARGV[5]) then highest = ARGV[5] end
if id_less(highest, floor) then highest = floor end
redis.call('XADD', stream, id_after(highest), 'recovery', epoch_text, 'cursor', cursor, 'last', last,
  'at', text(now_ms), unpack(decided and { 'decided', '1' } or {}))
-- Counted, not measured: entries that were drained but not trimmed must not fill the cap.
local undrained = #redis.call('XRANGE', stream, '(' .. cursor, '+')
-- A decision whose commit failed was not audited: no row's server may have it taken up again.
local from = decided and 'decision' or row_replid
redis.call('DEL', key)
redis.call('HSET', key, 'epoch', epoch_text, 'replid', replid, 'vouched_from', from,
  'floor', floor, 'bumped_at', text(now_ms), 'offset', ARGV[6],
  'drained', ARGV[4], 'retained', text(redis.call('XLEN', stream) - undrained))
return { LOST, epoch_text, replid, last_id(stream) }
