# Fails on its last operation.
class Second < ActiveRecord::Migration[6.1]
  def up
    create_table(:albums) { |t| t.bigint :user_id, index: true }
    execute "INSERT INTO users (id, name) VALUES (101, 'x')"
    execute "INSERT INTO users (id, name) VALUES (110, 'y')"
    execute "ALTER TABLE photos ADD COLUMN a no_such_type"
  end
end
