-- A whole number as text: exact up to 2^53, where Lua's own conversion rounds from 10^14 on
-- (123456789123456 .. '' is 1.2345678912346e+14), and half of its cost.
local function text(number)
  return string.format('%d', number)
end

-- A stored whole number. Anything else stops the script before its first write: a damaged counter
-- must not be counted on.
local function whole(stored)
  if not stored then return 0 end
  local number = stored + 0 -- half of what tonumber costs; an error where that is nil
  if number % 1 ~= 0 then error('damaged number') end
  return number
end
