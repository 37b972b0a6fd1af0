# ActiveRecord on Ruby's pg: see steps.txt. It looks types and tables up when it connects and when a model is first used, and
# prepares everything under names (a1, a2, ...).
require "active_record"
require "uri"
require_relative "steps"

URL_PARTS = URI(ENV.fetch("DATABASE_URL"))
CONFIG = {
  adapter: "postgresql", host: URL_PARTS.host, port: URL_PARTS.port, username: URL_PARTS.user, password: URL_PARTS.password,
  database: URL_PARTS.path.delete_prefix("/"), pool: 16
}.freeze
ActiveRecord::Base.default_timezone = :utc

class User < ActiveRecord::Base
  has_many :photos
end

class Photo < ActiveRecord::Base
  belongs_to :user
end

# Its key is of two columns, which this ActiveRecord does not know.
class Thing < ActiveRecord::Base
  self.primary_key = nil
end

def fails(code)
  yield
  raise "no error, where #{code} was expected"
rescue ActiveRecord::StatementInvalid => e
  same(e.cause.result&.error_field(PG::Result::PG_DIAG_SQLSTATE), code)
  e
end

def sql(text) = ActiveRecord::Base.connection.execute(text)
def raw = ActiveRecord::Base.connection.raw_connection

def put(number, column, *values)
  SOME.each { |user| values.each_with_index { |value, n| Thing.create!(user_id: user, id: number + n, column => value) } }
end

def got(number, column, expected)
  SOME.each { |user| same(Thing.find_by!(user_id: user, id: number)[column], expected) }
end

step("connect") do
  puts "version #{ActiveRecord::VERSION::STRING} on pg #{PG::VERSION}"
  same(ActiveRecord::Base.connection.encoding, "UTF8")
  USERS.each do |user|
    Thing.where(user_id: user).delete_all
    Photo.where(user_id: user).delete_all
    User.where(id: user).delete_all
  end
end

step("create") do
  USERS.each do |user|
    made = User.create!(id: user, name: "user #{user}")
    same(made.photos.create!(caption: "first").id.positive?, true)
  end
end

step("read") do
  USERS.each do |user|
    same(User.find(user).name, "user #{user}")
    photo = Photo.find_by!(user_id: user)
    same(Photo.find(photo.id).user_id, user)
    same(photo.user.name, "user #{user}")
  end
  same(User.where(id: [USERS[0], USERS[5]]).order(:id).ids, [USERS[0], USERS[5]])
  same(User.joins(:photos).where(id: USERS[3]).pluck(:name, :caption), [["user #{USERS[3]}", "first"]])
  same(User.where(id: USERS[3]).includes(:photos).to_a[0].photos.size, 1)
  same(User.eager_load(:photos).find(USERS[3]).photos.map(&:caption), ["first"])
  same(User.exists?(FIRST + 999), false)
  begin
    User.find(FIRST + 999)
  rescue ActiveRecord::RecordNotFound => e
    same(e.id, FIRST + 999)
  end
end

step("update") do
  USERS.each { |user| same(Photo.find_by!(user_id: user).update!(caption: "updated"), true) }
  same(Photo.where(user_id: USERS[0, 4]).update_all(caption: "updated"), 4)
end

step("delete") do
  Photo.create!(user_id: USERS[2], caption: "gone").destroy!
  same(Photo.where(user_id: USERS[2], caption: "gone").delete_all, 0)
end

step("scatter") do
  same(Photo.where(user_id: USERS[0]..USERS[15]).count, 16)
  same(User.where(id: USERS[0]..USERS[15]).order(id: :desc).limit(10).ids, USERS.last(10).reverse)
  same(Photo.where(user_id: USERS[0]..USERS[15]).group(:caption).count, { "updated" => 16 })
end

step("prepared") do
  3.times do
    USERS.each do |user|
      same(User.where(id: user).pick(:name), "user #{user}")
      same(Photo.where(user_id: user).count, 1)
    end
  end
  same(ActiveRecord::Base.connection.prepared_statements, true)
  ActiveRecord::Base.connection.clear_cache!
  same(User.find(USERS[1]).id, USERS[1])
end

step("commit") do
  User.transaction { [0, 4, 1].each { |n| User.find(USERS[n]).update!(name: "committed") } }
  same(User.where(name: "committed", id: USERS).count, 3)
  User.transaction(isolation: :serializable) { same(User.find(USERS[4]).name, "committed") }
end

step("rollback") do
  User.transaction do
    [0, 4].each { |n| User.find(USERS[n]).update!(name: "never") }
    raise ActiveRecord::Rollback
  end
  same(User.where(name: "never", id: USERS).count, 0)
end

step("savepoint") do
  User.transaction do
    USERS[4, 2].each do |user|
      Photo.create!(user_id: user, caption: "before")
      fails("23505") do
        User.transaction(requires_new: true) do
          Photo.create!(user_id: user, caption: "undone")
          User.create!(id: user, name: "twice")
        end
      end
      User.transaction(requires_new: true) { User.find(user).lock!.update!(name: "inside") }
    end
  end
  same(Photo.where(user_id: USERS[4]).order(:id).pluck(:caption), %w[updated before])
end

step("batch") do
  made = Photo.insert_all!(USERS.map { |user| { user_id: user, caption: "batch" } }, returning: %w[user_id])
  same(made.rows.flatten, USERS)
  User.upsert_all(USERS.map { |user| { id: user, name: "upserted" } })
  same(User.where(id: USERS, name: "upserted").count, 16)
  Photo.where(user_id: USERS, caption: "batch").update_all(caption: "many")
  same(Photo.where(user_id: USERS, caption: "many").count, 16)
end

step("batch_error") do
  fails("23505") { User.insert_all!([FIRST + 20, FIRST + 24, USERS[0]].map { |user| { id: user, name: "new" } }) }
  same(User.where(id: [FIRST + 20, FIRST + 24]).count, 0)
end

step("copy_in") do
  encoder = PG::TextEncoder::CopyRow.new
  raw.copy_data("COPY photos (user_id, caption) FROM STDIN", encoder) { USERS.each { |user| raw.put_copy_data([user.to_s, "copied \t\\ ü🚀"]) } }
  same(Photo.where(user_id: USERS, caption: "copied \t\\ ü🚀").count, 16)
  begin
    raw.copy_data("COPY photos (user_id, caption) FROM STDIN") do
      raw.put_copy_data("#{USERS[0]}\tlost\n")
      raise KeyError
    end
  rescue KeyError
    same(Photo.where(user_id: USERS, caption: "lost").count, 0)
  end
end

step("copy_out") do
  lines = []
  raw.copy_data("COPY (SELECT id FROM users WHERE id BETWEEN #{USERS[0]} AND #{USERS[15]}) TO STDOUT") do
    while (line = raw.get_copy_data)
      lines << Integer(line)
    end
  end
  same(lines.sort, USERS)
end

# No cursor, but parts by key.
step("cursor") do
  parts = []
  User.where(id: USERS).find_in_batches(batch_size: 5) { |users| parts << users.map(&:id) }
  same(parts, USERS.each_slice(5).to_a)
  same(Photo.where(user_id: USERS[0]).find_each(batch_size: 1).map(&:caption), ["updated", "many", "copied \t\\ ü🚀"])
end

step("unique_violation") do
  e = fails("23505") { User.create!(id: USERS[6], name: "twice") }
  same([e.class, e.cause.result.error_field(PG::Result::PG_DIAG_CONSTRAINT_NAME)], [ActiveRecord::RecordNotUnique, "users_pkey"])
  same(User.find(USERS[6]).name, "upserted")
end

step("syntax_error") do
  fails("42601") { sql("SELEC 1") }
  fails("42601") { User.where("id = ? FRM", USERS[0]).to_a }
  fails("42703") { User.where(id: USERS[0]).select(:nothing).to_a }
  same(sql("SELECT 1 AS one").to_a, [{ "one" => 1 }])
end

step("failed_transaction") do
  User.transaction do
    Photo.create!(user_id: USERS[0], caption: "lost")
    fails("22012") { User.where(id: USERS[0]).pluck(Arel.sql("1 / (id - id)")) }
    fails("25P02") { sql("SELECT 1") }
    raise ActiveRecord::Rollback
  end
  same(Photo.where(user_id: USERS, caption: "lost").count, 0)
end

step("cancel") do
  ["SELECT pg_sleep(60)", "SELECT pg_sleep(60) FROM users WHERE id = #{USERS[0]}"].each do |text|
    conn = raw
    done = false
    thread = Thread.new { (sleep 0.1; conn.cancel unless done) until done }
    e = fails("57014") { sql(text) }
    done = true
    thread.join
    same(e.class, ActiveRecord::QueryCanceled)
    sql("SELECT 1") rescue nil
  end
  sql("SET statement_timeout = '200ms'")
  fails("57014") { User.where(id: USERS[1]).pluck(Arel.sql("pg_sleep(60)::text")) }
  sql("RESET statement_timeout")
end

step("arrays") do
  put(100, :numbers, NUMBERS, [])
  put(110, :words, WORDS)
  got(100, :numbers, NUMBERS)
  got(101, :numbers, [])
  got(110, :words, WORDS)
  same(User.where("id = ANY (ARRAY[?])", USERS[3, 6]).order(:id).ids, USERS[3, 6])
  same(Thing.where(user_id: USERS[1]).where("? = ANY (words)", "b c").pluck(:id), [110])
end

step("json") do
  put(200, :data, DATA)
  put(201, :doc, DATA)
  got(200, :data, DATA)
  got(201, :doc, DATA)
  SOME.each { |user| same(Thing.where(user_id: user).where("data ->> 'a' = '1' AND data @> ?", '{"a": 1}').pluck(:id), [200]) }
end

step("timestamps") do
  at = Time.utc(2024, 2, 29, 12, 34, 56 + Rational(789012, 1000000))
  local = Time.utc(2024, 12, 31, 23, 59, 59 + Rational(999999, 1000000))
  put(300, :at, at)
  put(301, :local, local)
  put(302, :day, Date.new(1999, 12, 31))
  got(300, :at, at)
  got(301, :local, local)
  got(302, :day, Date.new(1999, 12, 31))
  sql("SET TIME ZONE 'Asia/Kathmandu'")
  SOME.each { |user| same(Thing.where(user_id: user, id: 300).pick(Arel.sql("at::text")), "2024-02-29 18:19:56.789012+05:45") }
  sql("SET TIME ZONE 'UTC'")
end

step("numerics") do
  put(400, :price, BigDecimal(PRICE), -BigDecimal(PRICE))
  put(410, :big, BigDecimal(BIG))
  put(420, :ratio, Float::INFINITY, Float::NAN, 0.1)
  got(401, :price, -BigDecimal(PRICE))
  got(410, :big, BigDecimal(BIG))
  got(420, :ratio, Float::INFINITY)
  got(422, :ratio, 0.1)
  SOME.each { |user| same(Thing.find_by!(user_id: user, id: 421).ratio.nan?, true) }
  same(Thing.where(user_id: USERS[0]..USERS[15], id: 400).sum(:price), BigDecimal(PRICE) * 8)
end

step("null") do
  SOME.each do |user|
    Thing.create!(user_id: user, id: 500, **COLUMNS.to_h { |column| [column.to_sym, nil] })
    same(Thing.where(user_id: user, id: 500).pick(*COLUMNS), [nil] * 13)
    same(Thing.where(user_id: user, note: nil).where("id >= 500").pluck(:id), [500])
  end
end

step("bytea") do
  put(600, :bytes, BYTES, "".b, BYTES * 400)
  [BYTES, "".b, BYTES * 400].each_with_index { |bytes, n| got(600 + n, :bytes, bytes) }
end

step("unicode") do
  put(700, :note, TEXT)
  got(700, :note, TEXT)
  same(Thing.where(user_id: USERS[0], note: TEXT).pick(:id, Arel.sql("length(note)")), [700, TEXT.length])
  same(Thing.where(user_id: USERS[0]).where("note LIKE '%🚀%'").pluck(Arel.sql("'東🚀'''")), ["東🚀'"])
end

step("pool") do
  threads = 16.times.map do |n|
    Thread.new do
      10.times do |turn|
        ActiveRecord::Base.connection_pool.with_connection do |connection|
          user = USERS[(n + turn) % 16]
          same(User.find(user).id, user)
          connection.verify!
          connection.reset! if turn == 5
        end
      end
    end
  end
  threads.each(&:join)
end

step("also tables and columns") do
  connection = ActiveRecord::Base.connection
  same((%w[users photos things countries] - connection.tables), [])
  same(connection.columns("photos").map(&:name), %w[id user_id caption created_at])
  same(connection.primary_keys("things"), %w[user_id id])
  same(connection.indexes("photos").map(&:columns), [%w[user_id id]])
  same(connection.table_exists?("nothing"), false)
end

run_steps(open: -> { ActiveRecord::Base.establish_connection(CONFIG) }, close: ->(_) { ActiveRecord::Base.connection_pool.disconnect! })
