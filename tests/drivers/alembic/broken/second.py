"""Fails on its last operation."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "second", "0003"


def upgrade():
    op.create_table("albums", sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("user_id", sa.BigInteger))
    op.execute("INSERT INTO users (id, name) VALUES (101, 'x')")
    op.execute("INSERT INTO users (id, name) VALUES (110, 'y')")
    op.execute("ALTER TABLE photos ADD COLUMN a no_such_type")
