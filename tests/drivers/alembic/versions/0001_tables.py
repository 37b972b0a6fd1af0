import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade():
    op.create_table("countries", sa.Column("code", sa.CHAR(2), primary_key=True), sa.Column("name", sa.Text, nullable=False))
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(100), nullable=False, index=True),
        sa.Column("country", sa.CHAR(2), sa.ForeignKey("countries.code")),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    )
    op.create_table(
        "photos",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("caption", sa.Text, server_default="", nullable=False),
    )
    op.create_index("photos_of_user", "photos", ["user_id", sa.text("id DESC")])
    op.create_table(
        "follows",
        sa.Column("source_id", sa.BigInteger, sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("target_id", sa.BigInteger, primary_key=True),
    )
    op.create_table(
        "likes",
        sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("photo_id", sa.BigInteger, primary_key=True),
    )
    op.create_table(
        "invoices",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("cents", sa.Integer, nullable=False),
    )


def downgrade():
    for table in ("invoices", "likes", "follows", "photos", "users", "countries"):
        op.drop_table(table)
