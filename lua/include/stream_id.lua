-- Stream ids order by number, not by text: 9-0 comes before 10-0.
local function id_parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function id_less(a, b)
  local a_ms, a_seq = id_parts(a)
  local b_ms, b_seq = id_parts(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

local function id_after(id)
  local ms, seq = id_parts(id)
  return string.format('%.0f-%.0f', ms, seq + 1)
end

-- The highest id the stream ever gave out, trimmed entries included; 0-0 when it never existed.
local function last_id(stream)
  if redis.call('EXISTS', stream) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end
