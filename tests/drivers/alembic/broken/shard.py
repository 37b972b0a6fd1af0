"""Fails where a user has two photos of one title."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "shard", "0003"


def upgrade():
    op.create_table("tags", sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("user_id", sa.BigInteger))
    op.create_index("once", "photos", ["user_id", "title"], unique=True)
