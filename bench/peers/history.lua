--[[
Receipts of earlier records, in the hashes where record.lua keeps them.

KEYS[1] receipts  prefix of the receipt hashes
ARGV[1] first     number of the first
ARGV[2] count
]]
local HOUR_MS, RECEIPT_TTL_S = 3600000, 86400

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local prefix = KEYS[1] .. math.floor(now_ms / HOUR_MS) .. ':'
local value = string.format('%.0f %.0f', now_ms, 1000000000000)
for number = ARGV[1] + 0, ARGV[1] + ARGV[2] - 1 do
  local id = string.format('%03x%037x', number % 4096, number)
  local receipts = prefix .. string.sub(id, 1, 3)
  redis.call('HSET', receipts, id, value)
  redis.call('EXPIRE', receipts, RECEIPT_TTL_S)
end
