-- KEYS: a feed. ARGV: run, a token, the oldest id that there can be, seconds to live. Says which token the feed has now.
local feed, token, oldest, life = KEYS[1], ARGV[2], ARGV[3], ARGV[4]
local mark = mark_of(feed)
if not mark then
  redis.call('RPUSH', feed, 'B' .. RUN .. token .. oldest)
elseif string.sub(mark, 1, 1) == 'B' then
  redis.call('LSET', feed, 0, 'B' .. RUN .. token .. from_of(mark))
else
  -- All who begin while it is complete share its token: each may merge into it.
  token = token_of(mark)
end
redis.call('EXPIRE', feed, life)
return token
