-- The nginx peer: what an API gateway built on OpenResty's parts would do for one record.
local cjson = require "cjson.safe"
local redis = require "nginx.redis"

local POOL_IDLE_MS, POOL_SIZE = 60000, 64

local function answer(status, body)
  ngx.status = status
  local text = cjson.encode(body)
  ngx.header.content_type = "application/json"
  ngx.header.content_length = #text
  ngx.print(text)
end

ngx.req.read_body()
local body = cjson.decode(ngx.req.get_body_data() or "")
local key = ngx.var.http_idempotency_key
if not body or not key or not body.user_id or not body.organization_id then
  return answer(400, { error = "invalid" })
end

local connection = redis:new()
local ok = connection:connect(ngx.var.redis_host, tonumber(ngx.var.redis_port))
if not ok then return answer(503, { error = "unavailable" }) end
if connection:get_reused_times() == 0 then connection:auth(ngx.var.redis_password) end

local reply = connection:evalsha(ngx.var.record_sha, 4,
  "usage", "receipt:", "quota:" .. body.user_id, "quota:" .. body.organization_id,
  body.user_id .. ":" .. key, body.organization_id .. ":" .. body.user_id,
  body.usage_type, body.quantity, key)
if not reply then return answer(503, { error = "unavailable" }) end
connection:set_keepalive(POOL_IDLE_MS, POOL_SIZE)

if reply[1] == 2 then return answer(429, { quota_exceeded = true }) end
if reply[1] == 1 then ngx.header["Idempotent-Replayed"] = "true" end
answer(201, { usage_id = key, recorded_at = reply[3], quota_remaining = reply[2] })
