-- KEYS: feeds. ARGV: run, id, the most ids of a feed. Says how many feeds have it new, had it, are absent or too full.
local id, most = ARGV[2], tonumber(ARGV[3])
local new, duplicate, absent = 0, 0, 0

-- At its place. Its length with the mark, or false: it is there already.
local function insert(feed, mark)
  local first = redis.call('LINDEX', feed, 1)
  if not first or newer(id, first) then
    return redis.call('LINSERT', feed, 'AFTER', mark, id)
  end
  if first == id then
    return false
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
  local mark = mark_of(feed)
  if not mark or not newer(id, trimmed_of(mark)) then
    absent = absent + 1
  else
    local len = insert(feed, mark)
    if not len then
      duplicate = duplicate + 1
    elseif len > most + 1 then
      local oldest = redis.call('RPOP', feed)
      redis.call('LSET', feed, 0, string.sub(mark, 1, 17) .. oldest)
      if oldest == id then
        absent = absent + 1
      else
        new = new + 1
      end
    else
      new = new + 1
    end
  end
end
return {new, duplicate, absent}
