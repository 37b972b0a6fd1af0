from alembic import op

revision, down_revision = "0003", "0002"


def upgrade():
    op.alter_column("photos", "caption", new_column_name="title")
    op.drop_column("photos", "stars")
    op.rename_table("likes", "hearts")


def downgrade():
    op.rename_table("hearts", "likes")
    op.execute("ALTER TABLE photos ADD COLUMN stars integer NOT NULL DEFAULT 3 CONSTRAINT has_stars CHECK (stars > 0)")
    op.create_index("photos_stars", "photos", ["stars"])
    op.alter_column("photos", "title", new_column_name="caption")
