--[[
Adds a correction of recorded usage to the stream, and to the counters that count what it corrects.
Nothing limits it: whether it may be was decided in the ledger, which also sends it again until it is
drained. A counter that is not loaded, or is of another period, is left alone: the entry says which
periods it belongs to, and whoever loads a quota of them finds it.

KEYS[1] stream
KEYS[2] meta
KEYS[3] receipts    prefix of the partition's receipt hashes; on a cluster that moves the slot a call is
                    refused because of it, as in record
KEYS[4] user_quota
KEYS[5] pool_quota  absent for a personal account

ARGV[1] cap         undrained entries of the partition beyond which nothing more is taken
ARGV[2] said        packed as in record: usage_id, fingerprint, usage_type; the rest is passed on unread
ARGV[3] units       to add; negative takes back
ARGV[4] starts      ms: the user's quota period that it corrects
ARGV[5] pool_starts ms: the pool's; -1 for a personal account
ARGV[6] terms       opaque, into the entry: those of what it corrects
ARGV[7] period      opaque, into the entry: the billing period of what it corrects

Entry: event, quota and terms as in record, and period; used and pool_used are -1 where the counter
was left alone.

REPLY outcome, recorded_at, remaining, exceeded
outcome: RECORDED 0, REPLAYED 1, CONFLICT 2, FULL 6, OVERFLOW 9, FENCED 11
remaining: units; -1 when unlimited, or when not all counters were there
]]
--- @include "fence"
--- @include "number"
--- @include "quota"
--- @include "verdict"
--- @include "receipts"

local RECORDED, REPLAYED, CONFLICT, FULL, OVERFLOW, FENCED = 0, 1, 2, 6, 9, 11
local SAID, COUNTED = '>c16Bc0Bc0', '>i8I8I8i8i8i8i8BB'

local meta = fence(KEYS[2])
if not meta then return { FENCED, 0, -1, 0 } end
local stream, cap, said, units = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local starts, pool_starts = tonumber(ARGV[4]), tonumber(ARGV[5])
local usage_id, fingerprint, usage_type = struct.unpack(SAID, said)

local today, yesterday = receipt_days(KEYS[3], meta.now_ms)
local shard = receipt_shard(usage_id)
local receipt, expires = find_receipt(today .. shard, yesterday .. shard, usage_id)
if receipt then
  local first, at, remaining, exceeded = struct.unpack(RECEIPT, receipt)
  if first ~= fingerprint then return { CONFLICT, 0, -1, 0 } end
  return { REPLAYED, at, remaining, exceeded }
end
if cap - (redis.call('XLEN', stream) - meta.retained) <= 0 then return { FULL, 0, -1, 0 } end

-- The counter of a quota, when it counts this period.
local function counting(key, period)
  local one = key and read_counter(key, usage_type, meta)
  return one and one[STARTS] == period and one
end

local of_user, of_pool = counting(KEYS[4], starts), counting(KEYS[5], pool_starts)
for _, one in ipairs({ of_user or false, of_pool or false }) do
  if one then
    one[USED] = one[USED] + units
    if one[USED] > MAX_UNITS then return { OVERFLOW, 0, -1, 0 } end
  end
end
local remaining, exceeded = -1, 0
if of_user and (of_pool or not KEYS[5]) then
  local _, _, left_over, over = tightest(of_user, of_pool or nil)
  remaining, exceeded = left_over or -1, over
end
local quota = struct.pack(COUNTED, units, meta.now_ms, starts, pool_starts, of_user and of_user[USED] or -1,
  of_pool and of_pool[USED] or -1, remaining, exceeded, 0)

-- Writes from here on.
if of_user then redis.call('HSET', KEYS[4], 'used:' .. usage_type, text(of_user[USED])) end
if of_pool then redis.call('HSET', KEYS[5], 'used:' .. usage_type, text(of_pool[USED])) end
redis.call('XADD', stream, '*', 'event', said, 'quota', quota, 'terms', ARGV[6], 'period', ARGV[7])
store_receipt(today .. shard, usage_id,
  struct.pack(RECEIPT, fingerprint, meta.now_ms, remaining, exceeded), expires)
return { RECORDED, meta.now_ms, remaining, exceeded }
