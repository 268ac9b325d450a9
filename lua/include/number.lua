-- A whole number as text. Lua's own conversion is exact below 10^14 and three times as fast; above
-- it rounds: tostring(123456789123456) is 1.2345678912346e+14.
local function text(number)
  if number < 100000000000000 and number > -100000000000000 then return tostring(number) end
  return string.format('%.0f', number)
end

-- A stored whole number. Anything else stops the script before its first write: a damaged counter
-- must not be counted on.
local function whole(stored)
  if not stored then return 0 end
  return string.find(stored, '^%-?%d+$') and tonumber(stored) or error('damaged number')
end
