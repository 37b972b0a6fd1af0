class CreateTables < ActiveRecord::Migration[6.1]
  def change
    create_table :countries, id: false do |t|
      t.string :code, limit: 2, primary_key: true
      t.text :name, null: false
    end
    create_table :users, id: :bigint, default: nil do |t|
      t.string :name, null: false, limit: 100, index: true
      t.string :country, limit: 2
      t.timestamps default: -> { "now()" }
      t.foreign_key :countries, column: :country, primary_key: :code
    end
    create_table :photos do |t|
      t.references :user, null: false, foreign_key: true
      t.text :caption, null: false, default: ""
      t.timestamps default: -> { "now()" }
    end
    create_table :follows, primary_key: [:source_id, :target_id] do |t|
      t.bigint :source_id, null: false
      t.bigint :target_id, null: false
    end
    create_table :likes do |t|
      t.references :user, null: false, foreign_key: true, index: false
      t.bigint :photo_id, null: false
      t.index [:user_id, :photo_id], unique: true
    end
    create_table :invoices do |t|
      t.bigint :user_id, null: false, index: true
      t.integer :cents, null: false
    end
  end
end
