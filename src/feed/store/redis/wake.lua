-- KEYS: the rows that workers are to hear of. ARGV: run, a row, the most rows, seconds to live. Nobody may be listening.
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[3]), -1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
