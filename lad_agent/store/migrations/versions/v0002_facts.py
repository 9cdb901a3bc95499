"""Claims, holds, users, what is in force, signed heads and archives."""

import sqlalchemy as sa
from alembic import op

from lad_agent.store import dialects

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("review_id", sa.Text(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("until", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("review_id", name="pk_claims"),
        sa.ForeignKeyConstraint(["review_id"], ["reviews.id"], name="fk_claims_review_id_reviews"),
    )
    op.create_table(
        "in_force",
        sa.Column("station", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("since", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("station", "product", "what", name="pk_in_force"),
    )
    op.create_table(
        "holds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("on_at", sa.Text(), nullable=False),
        sa.Column("on_by", sa.Text(), nullable=False),
        sa.Column("released_at", sa.Text(), nullable=True),
        sa.Column("released_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
    )
    op.create_table(
        "users",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.Text(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_users"),
    )
    op.create_table(
        "heads",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("through", sa.Integer(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_heads"),
    )
    op.create_table(
        "archives",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("through", sa.Integer(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_archives"),
    )
    connection = op.get_bind()
    dialect = dialects.of(connection)
    dialect.create_triggers(connection, {_NO_DELETE: dialect.TRIGGERS[_NO_DELETE]})


def downgrade() -> None:
    """Give up the tables; the events stay, and migrating again fills the tables from them."""
    connection = op.get_bind()
    dialect = dialects.of(connection)
    dialect.create_triggers(connection, {_NO_DELETE: dialect.TRIGGERS_0001[_NO_DELETE]})
    for table in ("archives", "heads", "users", "holds", "in_force", "claims"):
        op.drop_table(table)


_NO_DELETE = "events_no_delete"
