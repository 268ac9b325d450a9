-- The single-record mix for wrk: the same bytes as bench/traffic.py makes. Parameters come by
-- environment, because a command line shows its token to everybody.
local population, users = tonumber(os.getenv("BENCH_POPULATION")), tonumber(os.getenv("BENCH_USERS"))
local organizations = tonumber(os.getenv("BENCH_ORGANIZATIONS"))
local prefix, path = os.getenv("BENCH_KEYS"), os.getenv("BENCH_PATH")
local quantity, usage_type = os.getenv("BENCH_QUANTITY"), os.getenv("BENCH_USAGE_TYPE")

local head = "POST " .. path .. " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
  .. os.getenv("BENCH_TOKEN") .. "\r\nContent-Type: application/json\r\nIdempotency-Key: " .. prefix
local tails = {}
local number = -1

function init()
  for user = 0, users - 1 do
    local body = string.format(
      '{"user_id":"%08x-0000-4000-8000-%012x","organization_id":"%08x-0000-4000-9000-%012x",'
        .. '"usage_type":"%s","quantity":%s}',
      population, user, population, user % organizations, usage_type, quantity)
    tails[user] = "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
  end
end

function request()
  number = number + 1
  return head .. number .. tails[number % users]
end

function done(summary)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d\n", summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
