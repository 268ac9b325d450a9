-- A whole number as text. Lua's own conversion is exact below 10^14 and faster; above it rounds:
-- 123456789123456 .. '' is 1.2345678912346e+14.
local function text(number)
  if number < 100000000000000 and number > -100000000000000 then return number .. '' end
  return string.format('%.0f', number)
end

-- A stored whole number. Anything else stops the script before its first write: a damaged counter
-- must not be counted on.
local function whole(stored)
  if not stored then return 0 end
  local number = stored + 0 -- half of what tonumber costs; an error where that is nil
  if number % 1 ~= 0 then error('damaged number') end
  return number
end
