"""Counts by day, views that read them, and indexes that cost less at every result."""

import sqlalchemy as sa
from alembic import op

from lad_agent.store import tallies, views

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels = None
depends_on = None

_NAMES = ("product", "station", "model")


def upgrade() -> None:
    op.create_table(
        "tallies",
        *(sa.Column(name, sa.Text(), nullable=False) for name in tallies.KEY),
        sa.Column("inspections", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(*tallies.KEY, name="pk_tallies"),
        sqlite_with_rowid=False,
    )
    tallies.fill(op.get_bind(), ["tallies"])
    views.drop(op.get_bind(), views.STATEMENTS_0003)
    views.create(op.get_bind(), views.STATEMENTS_0007)
    for name in _NAMES:
        op.drop_index(f"ix_inspections_{name}_yield", "inspections")
        op.create_index(f"ix_inspections_{name}_id", "inspections", [name, "id"])
    op.drop_index("ix_inspections_opened_at", "inspections")
    is_open = sa.text("closed_at IS NULL")
    op.create_index(
        "ix_inspections_open",
        "inspections",
        ["id"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )


def downgrade() -> None:
    op.drop_index("ix_inspections_open", "inspections")
    op.create_index("ix_inspections_opened_at", "inspections", ["opened_at"])
    for name in _NAMES:
        op.drop_index(f"ix_inspections_{name}_id", "inspections")
        columns = [name, "id", "result", "final"]
        op.create_index(f"ix_inspections_{name}_yield", "inspections", columns)
    views.drop(op.get_bind(), views.STATEMENTS_0007)
    views.create(op.get_bind(), views.STATEMENTS_0003)
    op.drop_table("tallies")
