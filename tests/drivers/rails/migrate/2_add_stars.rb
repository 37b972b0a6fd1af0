class AddStars < ActiveRecord::Migration[6.1]
  class User < ActiveRecord::Base; end
  class Photo < ActiveRecord::Base; end

  def up
    add_column :photos, :stars, :integer, null: false, default: 3
    change_column :invoices, :cents, :bigint
    change_column :users, :name, :string, limit: 200
    add_index :photos, [:user_id, :caption]
    [User, Photo].each(&:reset_column_information)
    (1..32).each do |id|
      user = User.create!(id: id, name: "user #{id}")
      Photo.create!(user_id: user.id, caption: "first")
      Photo.where(user_id: id).update_all(stars: id)
      raise "not there" unless Photo.find_by!(user_id: id).stars == id
    end
    add_check_constraint :photos, "stars > 0", name: "has_stars"
  end

  def down
    remove_check_constraint :photos, name: "has_stars"
    (1..32).each do |id|
      Photo.where(user_id: id).delete_all
      User.where(id: id).delete_all
    end
    remove_index :photos, [:user_id, :caption]
    change_column :users, :name, :string, limit: 100
    change_column :invoices, :cents, :integer
    remove_column :photos, :stars
  end
end
