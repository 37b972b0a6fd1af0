# Fails where a user has two photos of one title.
class Shard < ActiveRecord::Migration[6.1]
  def up
    create_table(:tags) { |t| t.bigint :user_id, index: true }
    add_index :photos, [:user_id, :title], unique: true, name: "once"
  end
end
