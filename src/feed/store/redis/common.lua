-- In front of every script. A feed is one list, so that it is there as a whole or not at all: first its mark, then its ids, newest
-- first, none twice. An id is 8 bytes that sort as it does. The mark is 25 bytes: B (building) or C (complete), the run of the
-- server that wrote it, the builder's token, and an id: of older ones the feed says nothing. Nor does a full feed of those older than its oldest;
-- its mark is told so only when it ceases to be full, as most pushes are to full feeds.
local RUN = ARGV[1]

-- Strings are not compared by < as Lua would do that in the server's locale. All parts of a number are exact up to 2^53.
local function newer(a, b)
  local a1, a2 = struct.unpack('>I4I4', a)
  local b1, b2 = struct.unpack('>I4I4', b)
  return a1 > b1 or (a1 == b1 and a2 > b2)
end

-- Whether there is a feed with this mark to be believed. What a server had before it was started is not: it may lack what came behind
-- its last snapshot.
local function is_ours(feed, mark)
  if not mark or string.sub(mark, 2, 9) == RUN then
    return mark
  end
  -- A replica can't be written to.
  if not REPLICA then
    redis.call('DEL', feed)
  end
  return false
end

-- The mark, or false: absent.
local function mark_of(feed)
  local mark = redis.call('LINDEX', feed, 0)
  return is_ours(feed, mark) and mark
end

local function token_of(mark) return string.sub(mark, 10, 17) end
local function from_of(mark) return string.sub(mark, 18, 25) end

-- How many of a feed's first n ids are newer than this one.
local function count_newer(feed, n, id)
  local low, high = 0, n
  while low < high do
    local middle = math.floor((low + high) / 2)
    if newer(redis.call('LINDEX', feed, middle + 1), id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end
