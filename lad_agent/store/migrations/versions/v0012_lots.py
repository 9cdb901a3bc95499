"""Counts by the lot, and an index of what audits found."""

import sqlalchemy as sa
from alembic import op

from lad_agent.store import tallies, views

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels = None
depends_on = None

_FOUND = ["finding", "decided_by", "agrees"]


def upgrade() -> None:
    op.create_table(
        "lot_tallies",
        *(sa.Column(name, sa.Text(), nullable=False) for name in tallies.LOT_KEY),
        sa.Column("inspections", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(*tallies.LOT_KEY, name="pk_lot_tallies"),
        sqlite_with_rowid=False,
    )
    tallies.fill(op.get_bind(), ["lot_tallies"])
    views.drop(op.get_bind(), views.STATEMENTS_0010)
    views.create(op.get_bind(), views.STATEMENTS)
    op.drop_index("ix_inspections_lot_yield", "inspections")
    op.create_index("ix_inspections_lot_id", "inspections", ["lot", "id"])
    audits = sa.text("kind = 'audit'")
    op.create_index(
        "ix_reviews_audits", "reviews", _FOUND, sqlite_where=audits, postgresql_where=audits
    )


def downgrade() -> None:
    op.drop_index("ix_reviews_audits", "reviews")
    op.drop_index("ix_inspections_lot_id", "inspections")
    columns = ["lot", "id", "result", "final"]
    op.create_index("ix_inspections_lot_yield", "inspections", columns)
    views.drop(op.get_bind(), views.STATEMENTS)
    views.create(op.get_bind(), views.STATEMENTS_0010)
    op.drop_table("lot_tallies")
