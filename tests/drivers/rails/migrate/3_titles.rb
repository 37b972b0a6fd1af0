class Titles < ActiveRecord::Migration[6.1]
  def change
    rename_column :photos, :caption, :title
    remove_check_constraint :photos, "stars > 0", name: "has_stars"
    remove_column :photos, :stars, :integer, null: false, default: 3
    rename_table :likes, :hearts
  end
end
