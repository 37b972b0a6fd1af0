-- KEYS: the epoch. ARGV: run, a new epoch, which begins with the run. Says which epoch it is: that which is there, if it is of this run.
local epoch = redis.call('GET', KEYS[1])
if epoch and string.sub(epoch, 1, 8) == RUN then
  return epoch
end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
