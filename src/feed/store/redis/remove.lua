-- KEYS: a feed. ARGV: run, ids.
if mark_of(KEYS[1]) then
  for i = 2, #ARGV do
    redis.call('LREM', KEYS[1], 1, ARGV[i])
  end
end
return 0
