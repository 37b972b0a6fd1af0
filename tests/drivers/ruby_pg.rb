# Ruby's pg: see steps.txt.
require "json"
require "pg"
require_relative "steps"

URL = ENV.fetch("DATABASE_URL")

def exec(conn, sql, *values)
  values.empty? ? conn.exec(sql) : conn.exec_params(sql, values)
end

def column(conn, sql, *values) = exec(conn, sql, *values).column_values(0)

def value(conn, sql, *values)
  found = column(conn, sql, *values)
  same(found.size, 1)
  found[0]
end

def fails(code)
  yield
  raise "no error, where #{code} was expected"
rescue PG::Error => e
  raise unless e.result && e.result.error_field(PG::Result::PG_DIAG_SQLSTATE) == code
  e
end

def list(users) = "{#{users.join(",")}}"

def captions(conn, caption) = value(conn, "SELECT count(*) FROM photos WHERE user_id = ANY ($1) AND caption = $2", list(USERS), caption)

def put(conn, number, column, *values)
  SOME.each do |user|
    values.each_with_index do |value, n|
      same(exec(conn, "INSERT INTO things (user_id, id, #{column}) VALUES ($1, $2, $3)", user, number + n, value).cmd_tuples, 1)
    end
  end
end

def got(conn, number, columns, expected)
  SOME.each { |user| same(value(conn, "SELECT #{columns} FROM things WHERE user_id = $1 AND id = $2", user, number), expected) }
end

step("connect") do |conn|
  puts "version #{PG::VERSION}, libpq #{PG.library_version}"
  same(conn.server_version >= 130000, true)
  same([value(conn, "SHOW client_encoding"), conn.internal_encoding], ["UTF8", Encoding::UTF_8])
  USERS.each do |user|
    exec(conn, "DELETE FROM things WHERE user_id = $1", user)
    exec(conn, "DELETE FROM photos WHERE user_id = $1", user)
    exec(conn, "DELETE FROM users WHERE id = $1", user)
  end
end

step("create") do |conn|
  USERS.each do |user|
    same(exec(conn, "INSERT INTO users (id, name) VALUES ($1, $2)", user, "user #{user}").cmd_status, "INSERT 0 1")
    same(value(conn, "INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING id", user, "first").positive?, true)
  end
end

step("read") do |conn|
  USERS.each do |user|
    same(value(conn, "SELECT name FROM users WHERE id = $1", user), "user #{user}")
    photo = value(conn, "SELECT id FROM photos WHERE user_id = $1", user)
    same(value(conn, "SELECT user_id FROM photos WHERE id = $1", photo), user)
  end
  same(column(conn, "SELECT id FROM users WHERE id IN ($1, $2) ORDER BY id", USERS[0], USERS[5]), [USERS[0], USERS[5]])
  joined = "SELECT u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = $1"
  same(exec(conn, joined, USERS[3]).to_a, [{ "name" => "user #{USERS[3]}", "caption" => "first" }])
  same(column(conn, "SELECT name FROM users WHERE id = $1", FIRST + 999), [])
end

step("update") do |conn|
  USERS.each { |user| same(exec(conn, "UPDATE photos SET caption = $1 WHERE user_id = $2", "updated", user).cmd_tuples, 1) }
  same(exec(conn, "UPDATE photos SET caption = 'updated' WHERE user_id = ANY ($1)", list(USERS[0, 4])).cmd_tuples, 4)
end

step("delete") do |conn|
  exec(conn, "INSERT INTO photos (user_id, caption) VALUES ($1, 'gone')", USERS[2])
  [1, 0].each { |n| same(exec(conn, "DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", USERS[2]).cmd_tuples, n) }
end

step("scatter") do |conn|
  same(value(conn, "SELECT count(*) FROM photos WHERE user_id BETWEEN $1 AND $2", USERS[0], USERS[15]), 16)
  last = "SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT 10"
  same(column(conn, last, USERS[0], USERS[15]), USERS.last(10).reverse)
end

step("prepared") do |conn|
  conn.prepare("by user", "SELECT name, (SELECT count(*) FROM photos WHERE user_id = $1) FROM users WHERE id = $1")
  conn.prepare("rename", "UPDATE users SET name = $2 WHERE id = $1")
  same(conn.describe_prepared("by user").fields, %w[name count])
  3.times do
    USERS.each do |user|
      same(conn.exec_prepared("by user", [user]).values, [["user #{user}", 1]])
      same(conn.exec_prepared("rename", [user, "user #{user}"]).cmd_tuples, 1)
    end
  end
  conn.exec("DEALLOCATE rename")
  fails("26000") { conn.exec_prepared("rename", [1, ""]) }
end

step("commit") do |conn|
  conn.transaction { [0, 4, 1].each { |n| exec(conn, "UPDATE users SET name = 'committed' WHERE id = $1", USERS[n]) } }
  same(value(conn, "SELECT count(*) FROM users WHERE name = 'committed' AND id = ANY ($1)", list(USERS)), 3)
end

step("rollback") do |conn|
  conn.transaction do
    [0, 4].each { |n| exec(conn, "UPDATE users SET name = 'never' WHERE id = $1", USERS[n]) }
    raise KeyError
  end
rescue KeyError
  same(value(conn, "SELECT count(*) FROM users WHERE name = 'never' AND id = ANY ($1)", list(USERS)), 0)
end

step("savepoint") do |conn|
  conn.transaction do
    USERS[4, 2].each do |user|
      exec(conn, "INSERT INTO photos (user_id, caption) VALUES ($1, 'before')", user)
      exec(conn, "SAVEPOINT one")
      exec(conn, "INSERT INTO photos (user_id, caption) VALUES ($1, 'undone')", user)
      fails("23505") { exec(conn, "INSERT INTO users (id, name) VALUES ($1, 'twice')", user) }
      same(conn.transaction_status, PG::PQTRANS_INERROR)
      exec(conn, "ROLLBACK TO SAVEPOINT one")
      exec(conn, "RELEASE SAVEPOINT one")
    end
  end
  same(column(conn, "SELECT caption FROM photos WHERE user_id = $1 ORDER BY id", USERS[4]), %w[updated before])
end

step("batch") do |conn|
  conn.enter_pipeline_mode
  USERS.each { |user| conn.send_query_params("INSERT INTO photos (user_id, caption) VALUES ($1, $2)", [user, "many"]) }
  conn.pipeline_sync
  USERS.each do
    same(conn.get_result.cmd_tuples, 1)
    same(conn.get_result, nil)
  end
  same(conn.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
  conn.exit_pipeline_mode
  same(captions(conn, "many"), 16)
end

step("batch_error") do |conn|
  conn.enter_pipeline_mode
  [0, 4, 0, 1].each { |n| conn.send_query_params("INSERT INTO things (user_id, id) VALUES ($1, 5)", [USERS[n]]) }
  conn.pipeline_sync
  states = 4.times.map do
    result = conn.get_last_result rescue $!.result
    result&.result_status
  end
  same(states[2..], [PG::PGRES_FATAL_ERROR, PG::PGRES_PIPELINE_ABORTED])
  same(conn.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
  conn.exit_pipeline_mode
  same(value(conn, "SELECT count(*) FROM things WHERE id = 5 AND user_id = ANY ($1)", list(USERS)), 0)
end

step("copy_in") do |conn|
  encoder = PG::TextEncoder::CopyRow.new
  result = conn.copy_data("COPY photos (user_id, caption) FROM STDIN", encoder) do
    USERS.each { |user| conn.put_copy_data([user.to_s, "copied \t\\ ü🚀"]) }
  end
  same(result.cmd_tuples, 16)
  conn.copy_data("COPY things (user_id, id, note) FROM STDIN (FORMAT csv)") { USERS.each { |user| conn.put_copy_data("#{user},30,\n") } }
  same(captions(conn, "copied \t\\ ü🚀"), 16)
  same(value(conn, "SELECT note FROM things WHERE user_id = $1 AND id = 30", USERS[9]), nil)
  begin
    conn.copy_data("COPY photos (user_id, caption) FROM STDIN") do
      conn.put_copy_data("#{USERS[0]}\tlost\n")
      raise KeyError, "the client breaks off"
    end
  rescue KeyError
    same(captions(conn, "lost"), 0)
  end
end

step("copy_out") do |conn|
  rows = []
  conn.copy_data("COPY (SELECT name, NULL FROM users WHERE id = #{USERS[9]}) TO STDOUT", PG::TextDecoder::CopyRow.new) do
    while (row = conn.get_copy_data)
      rows << row
    end
  end
  same(rows, [["user #{USERS[9]}", nil]])
  lines = []
  conn.copy_data("COPY (SELECT id FROM users WHERE id BETWEEN #{USERS[0]} AND #{USERS[15]}) TO STDOUT") do
    while (line = conn.get_copy_data)
      lines << Integer(line)
    end
  end
  same(lines.sort, USERS)
end

step("cursor") do |conn|
  conn.transaction do
    conn.exec("DECLARE mine CURSOR FOR SELECT caption FROM photos WHERE user_id = #{USERS[0]} ORDER BY id")
    same([2, 1, 0], 3.times.map { conn.exec("FETCH 2 FROM mine").ntuples })
    conn.exec("CLOSE mine")
  end
  # Row by row as they come.
  conn.send_query_params("SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id", [USERS[0], USERS[15]])
  conn.set_single_row_mode
  found = []
  conn.get_result.stream_each_row { |row| found << row[0] }
  conn.get_result
  same(found, USERS)
end

step("unique_violation") do |conn|
  e = fails("23505") { exec(conn, "INSERT INTO users (id, name) VALUES ($1, 'twice')", USERS[6]) }
  same([e.class, e.result.error_field(PG::Result::PG_DIAG_CONSTRAINT_NAME)], [PG::UniqueViolation, "users_pkey"])
  same(value(conn, "SELECT name FROM users WHERE id = $1", USERS[6]), "user #{USERS[6]}")
end

step("syntax_error") do |conn|
  fails("42601") { conn.exec("SELEC 1") }
  fails("42601") { exec(conn, "SELECT name FRM users WHERE id = $1", USERS[0]) }
  fails("42703") { exec(conn, "SELECT nothing FROM users WHERE id = $1", USERS[0]) }
  same(value(conn, "SELECT 1"), 1)
end

step("failed_transaction") do |conn|
  conn.exec("BEGIN")
  exec(conn, "INSERT INTO photos (user_id, caption) VALUES ($1, 'lost')", USERS[0])
  fails("22012") { exec(conn, "SELECT 1 / (id - id) FROM users WHERE id = $1", USERS[0]) }
  fails("25P02") { conn.exec("SELECT 1") }
  same(conn.exec("COMMIT").cmd_status, "ROLLBACK")
  same(captions(conn, "lost"), 0)
end

step("cancel") do |conn|
  ["SELECT pg_sleep(60)", "SELECT pg_sleep(60) FROM users WHERE id = #{USERS[0]}"].each do |sql|
    conn.send_query(sql)
    until conn.block(0.1)
      same(conn.cancel, nil)
    end
    fails("57014") { conn.get_last_result }
    conn.exec("SELECT 1") rescue nil
  end
  same(value(conn, "SELECT 1"), 1)
end

step("arrays") do |conn|
  ints, texts = PG::TextEncoder::Array.new(elements_type: PG::TextEncoder::Integer.new), PG::TextEncoder::Array.new
  put(conn, 100, "numbers", ints.encode(NUMBERS), "{}")
  put(conn, 110, "words", texts.encode(WORDS))
  got(conn, 100, "numbers", NUMBERS)
  got(conn, 101, "numbers", [])
  got(conn, 110, "words", WORDS)
  same(column(conn, "SELECT id FROM users WHERE id = ANY ($1) ORDER BY id", list(USERS[3, 6])), USERS[3, 6])
  same(value(conn, "SELECT id FROM things WHERE user_id = $1 AND $2 = ANY (words)", USERS[1], "b c"), 110)
end

step("json") do |conn|
  put(conn, 200, "data", JSON.generate(DATA))
  put(conn, 201, "doc", JSON.generate(DATA))
  got(conn, 200, "data", DATA)
  got(conn, 201, "doc", DATA)
  SOME.each { |user| same(value(conn, "SELECT id FROM things WHERE user_id = $1 AND data ->> 'a' = $2 AND data ? 'c'", user, "1"), 200) }
end

step("timestamps") do |conn|
  at = Time.utc(2024, 2, 29, 12, 34, 56 + Rational(789012, 1000000))
  put(conn, 300, "at", at.strftime("%F %T.%6N+00"))
  put(conn, 301, "local", "2024-12-31 23:59:59.999999")
  put(conn, 302, "day", "1999-12-31")
  conn.exec("SET TIME ZONE 'Asia/Kathmandu'")
  got(conn, 300, "at", at)
  got(conn, 300, "at::text", "2024-02-29 18:19:56.789012+05:45")
  got(conn, 301, "local::text", "2024-12-31 23:59:59.999999")
  got(conn, 302, "day", Date.new(1999, 12, 31))
  same(conn.parameter_status("TimeZone"), "Asia/Kathmandu")
  conn.exec("RESET TIME ZONE")
end

step("numerics") do |conn|
  put(conn, 400, "price", PRICE, "-#{PRICE}")
  put(conn, 410, "big", BIG)
  put(conn, 420, "ratio", "Infinity", "NaN", 0.1)
  got(conn, 401, "price::text", "-#{PRICE}")
  got(conn, 410, "big", BigDecimal(BIG))
  got(conn, 420, "ratio", Float::INFINITY)
  got(conn, 421, "ratio::text", "NaN")
  got(conn, 422, "ratio", 0.1)
  total = "SELECT sum(price) FROM things WHERE user_id BETWEEN $1 AND $2 AND id = 400"
  same(value(conn, total, USERS[0], USERS[15]), BigDecimal(PRICE) * 8)
end

step("null") do |conn|
  places = (2..14).map { |n| "$#{n}" }.join(", ")
  SOME.each do |user|
    exec(conn, "INSERT INTO things (user_id, id, #{COLUMNS.join(", ")}) VALUES ($1, 500, #{places})", user, *[nil] * 13)
    same(exec(conn, "SELECT #{COLUMNS.join(", ")} FROM things WHERE user_id = $1 AND id = 500", user).values, [[nil] * 13])
    same(value(conn, "SELECT id FROM things WHERE user_id = $1 AND id >= 500 AND note IS NULL", user), 500)
  end
end

step("bytea") do |conn|
  [BYTES, "", BYTES * 400].each_with_index do |bytes, n|
    SOME.each do |user|
      binary = { value: bytes, type: 17, format: 1 }
      conn.exec_params("INSERT INTO things (user_id, id, bytes) VALUES ($1, $2, $3)", [user, 600 + n, binary])
      text = conn.exec_params("SELECT bytes FROM things WHERE user_id = $1 AND id = $2", [user, 600 + n])
      same(text.getvalue(0, 0).b, bytes.b)
      in_binary = conn.exec_params("SELECT bytes FROM things WHERE user_id = $1 AND id = $2", [user, 600 + n], 1)
      same(in_binary.getvalue(0, 0).b, bytes.b)
    end
  end
end

step("unicode") do |conn|
  put(conn, 700, "note", TEXT)
  got(conn, 700, "note", TEXT)
  got(conn, 700, "length(note)", TEXT.length)
  same(value(conn, "SELECT id FROM things WHERE user_id = $1 AND note = $2", USERS[0], TEXT), 700)
  same(value(conn, "SELECT '東🚀''' FROM things WHERE user_id = #{USERS[0]} AND note LIKE '%🚀%'"), "東🚀'")
end

# It has no pool of its own: threads with a connection each, reset between two jobs.
step("pool") do
  threads = 16.times.map do |n|
    Thread.new do
      conn = open
      10.times do |turn|
        user = USERS[(n + turn) % 16]
        same(value(conn, "SELECT id FROM users WHERE id = $1", user), user)
        conn.exec("SET application_name = 'of #{n}'")
        same(value(conn, "SHOW application_name"), "of #{n}")
        conn.exec("DISCARD ALL") if turn % 3 == 0
        conn.reset if turn == 5
        conn.type_map_for_results = PG::BasicTypeMapForResults.new(conn) if turn == 5
      end
      conn.close
    end
  end
  threads.each(&:join)
end

step("also notifications") do |conn|
  conn.exec("LISTEN of_ruby_#{FIRST}")
  other = open
  3.times { |n| exec(other, "SELECT pg_notify($1, $2)", "of_ruby_#{FIRST}", "é#{n}") }
  other.close
  heard = 3.times.map { conn.wait_for_notify(20) { |_channel, _pid, payload| break payload } }
  same(heard, %w[é0 é1 é2])
  same(value(conn, "SELECT id FROM users WHERE id = $1", USERS[4]), USERS[4])
  conn.exec("UNLISTEN *")
end

def open
  conn = PG.connect(URL)
  # Looks the types up in pg_type.
  conn.type_map_for_results = PG::BasicTypeMapForResults.new(conn)
  json = Class.new(PG::SimpleDecoder) { def decode(text, _tuple = nil, _field = nil) = JSON.parse(text) }
  [114, 3802].each { |oid| conn.type_map_for_results.add_coder(json.new(oid: oid, name: "json")) }
  conn
end

run_steps(open: method(:open), close: :close.to_proc)
