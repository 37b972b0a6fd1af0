-- KEYS: feeds. ARGV: run, id, the most ids of a feed. Says how many feeds have it new, had it, are absent or too full.
-- Most feeds get an id that is newer than all others: for these as few calls as can be, they are what a push costs.
local id, most = ARGV[2], tonumber(ARGV[3])
local new, duplicate, absent = 0, 0, 0
local id1, id2 = struct.unpack('>I4I4', id)

local function id_is_newer(other)
  local other1, other2 = struct.unpack('>I4I4', other)
  return id1 > other1 or (id1 == other1 and id2 > other2)
end

-- Behind the first, which is not older. Its length with the mark, or false: it is there already. What is posted at the same time
-- comes in any order, and a push may be repeated: so its place is near the first as a rule, and is looked for there by one call.
local NEAR = 24
local function insert(feed, first)
  if first == id then
    return false
  end
  local near = redis.call('LRANGE', feed, 2, NEAR)
  for _, other in ipairs(near) do
    if other == id then
      return false
    end
    if id_is_newer(other) then
      return redis.call('LINSERT', feed, 'BEFORE', other, id)
    end
  end
  if #near < NEAR - 1 then
    return redis.call('RPUSH', feed, id)
  end
  local n = redis.call('LLEN', feed) - 1
  local at = count_newer(feed, n, id)
  if at == n then
    return redis.call('RPUSH', feed, id)
  end
  local older = redis.call('LINDEX', feed, at + 1)
  if older == id then
    return false
  end
  return redis.call('LINSERT', feed, 'BEFORE', older, id)
end

for _, feed in ipairs(KEYS) do
  local head = redis.call('LRANGE', feed, 0, 1)
  local mark, first = head[1], head[2]
  if not is_ours(feed, mark) or newer(from_of(mark), id) then
    absent = absent + 1
  else
    local len
    if not first or id_is_newer(first) then
      len = redis.call('LINSERT', feed, 'AFTER', mark, id)
    else
      len = insert(feed, first)
    end
    if not len then
      duplicate = duplicate + 1
    elseif len > most + 1 and redis.call('RPOP', feed) == id then
      absent = absent + 1
    else
      new = new + 1
    end
  end
end
return {new, duplicate, absent}
