-- The server's own replication id. Restart, promotion and fail-back all change it, which is
-- what makes it a fence: a server that forgot cannot carry the id that was vouched for.
local function server_replid()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end
