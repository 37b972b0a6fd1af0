import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade():
    op.add_column("photos", sa.Column("stars", sa.Integer, server_default="3", nullable=False))
    op.alter_column("invoices", "cents", type_=sa.BigInteger)
    op.alter_column("users", "name", type_=sa.String(200))
    op.create_index("photos_stars", "photos", ["stars"])
    users = sa.table("users", sa.column("id"), sa.column("name"))
    photos = sa.table("photos", sa.column("user_id"), sa.column("caption"), sa.column("stars"))
    op.bulk_insert(users, [{"id": id, "name": f"user {id}"} for id in range(1, 33)])
    for id in range(1, 33):
        op.execute(photos.insert().values(user_id=id, caption="first"))
        op.execute(photos.update().where(photos.c.user_id == id).values(stars=id))
        assert op.get_bind().scalar(sa.select(photos.c.stars).where(photos.c.user_id == id)) == id
    op.create_check_constraint("has_stars", "photos", "stars > 0")


def downgrade():
    op.drop_constraint("has_stars", "photos")
    op.drop_index("photos_stars", "photos")
    for id in range(1, 33):
        op.execute(f"DELETE FROM photos WHERE user_id = {id}")
        op.execute(f"DELETE FROM users WHERE id = {id}")
    op.alter_column("users", "name", type_=sa.String(100))
    op.alter_column("invoices", "cents", type_=sa.Integer)
    op.drop_column("photos", "stars")
