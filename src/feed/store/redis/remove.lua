-- KEYS: a feed. ARGV: run, the most ids of a feed, ids.
local feed, most = KEYS[1], tonumber(ARGV[2])
local mark = mark_of(feed)
if not mark then
  return 0
end
if redis.call('LLEN', feed) > most then
  redis.call('LSET', feed, 0, string.sub(mark, 1, 17) .. redis.call('LINDEX', feed, -1))
end
local removed = 0
for i = 3, #ARGV do
  removed = removed + redis.call('LREM', feed, 1, ARGV[i])
end
return removed
