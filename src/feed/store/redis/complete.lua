-- KEYS: a feed. ARGV: run, the token, the most ids of a feed, seconds to live, ids in one string (newest first, none twice).
-- 1: done; 0: the feed is another's, or absent.
local feed, token, most, life, given = KEYS[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local mark = mark_of(feed)
if not mark or token_of(mark) ~= token then
  return 0
end
local from = from_of(mark)

local held = redis.call('LRANGE', feed, 1, -1)
local merged, h, g = {}, 1, 1
local function next_given()
  if g + 7 <= #given then
    return string.sub(given, g, g + 7)
  end
end
while #merged < most do
  local a, b = held[h], next_given()
  local id = a
  if not a or (b and newer(b, a)) then
    id = b
  end
  if not id or newer(from, id) then
    break
  end
  merged[#merged + 1] = id
  if id == a then h = h + 1 end
  if id == b then g = g + 8 end
end

redis.call('DEL', feed)
redis.call('RPUSH', feed, 'C' .. RUN .. token .. from)
-- A call takes some thousand arguments at most.
for i = 1, #merged, 500 do
  redis.call('RPUSH', feed, unpack(merged, i, math.min(i + 499, #merged)))
end
redis.call('EXPIRE', feed, life)
return 1
