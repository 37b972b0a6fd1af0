# What `rails db:migrate` runs, against DATABASE_URL: ActiveRecord's migrations of `migrate/` (and of `broken/`, with a version
# as argument). It holds an advisory lock meanwhile.
require "active_record"
require "uri"

url = URI(ENV.fetch("DATABASE_URL"))
ActiveRecord::Base.establish_connection(
  adapter: "postgresql", host: url.host, port: url.port, username: url.user, password: url.password,
  database: url.path.delete_prefix("/")
)
ActiveRecord::Base.logger = nil
ActiveRecord::Migration.verbose = false
paths = ["migrate", "broken"].map { |dir| File.join(__dir__, dir) }
context = ActiveRecord::MigrationContext.new(paths, ActiveRecord::SchemaMigration)
case ARGV[0]
when "up" then context.run(:up, Integer(ARGV[1]))
when "to" then context.migrate(Integer(ARGV[1]))
else abort "usage: migrate.rb up VERSION | to VERSION"
end
