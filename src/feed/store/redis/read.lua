-- KEYS: a feed. ARGV: run, N(ewest) | B(efore) | A(fter), an id, the most ids, seconds to live, the most ids of a feed. Says
-- whether there are more, the ids in one string, and the id of which older ones the feed says nothing; nil: not complete, or on a
-- replica, which can't note that it was read: the primary is to be asked.
local feed, way, id, most, life = KEYS[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local mark = mark_of(feed)
if not mark or string.sub(mark, 1, 1) ~= 'C' then
  return false
end

-- Not at every read: it is a write, which goes to a replica and into a log.
if redis.call('TTL', feed) < life * 0.97 then
  if REPLICA then
    return false
  end
  redis.call('EXPIRE', feed, life)
end

local n = redis.call('LLEN', feed) - 1
local says_from = from_of(mark)
if n >= tonumber(ARGV[6]) then
  local oldest = redis.call('LINDEX', feed, -1)
  if newer(oldest, says_from) then
    says_from = oldest
  end
end
local from, to, more = 1, most, n > most
if way == 'B' then
  from = count_newer(feed, n, id) + 1
  if redis.call('LINDEX', feed, from) == id then
    from = from + 1
  end
  to = from + most - 1
  more = n > to
elseif way == 'A' then
  to = count_newer(feed, n, id)
  from = math.max(1, to - most + 1)
  more = from > 1
end
-- An end of 0 or below would be the mark, or count from the end of the list.
if to < from then
  return {more and 1 or 0, '', says_from}
end
return {more and 1 or 0, table.concat(redis.call('LRANGE', feed, from, to)), says_from}
