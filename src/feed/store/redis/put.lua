-- KEYS: the epoch, objects. ARGV: run, the epoch that must be, seconds to live, for each object its value. How many were put: none
-- in another epoch (all was lost since, tombstones too), none on a tombstone.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return 0
end
local life, put = ARGV[3], 0
for i = 2, #KEYS do
  if redis.call('GETRANGE', KEYS[i], 0, 8) ~= RUN .. 'T' then
    redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', life)
    put = put + 1
  end
end
return put
