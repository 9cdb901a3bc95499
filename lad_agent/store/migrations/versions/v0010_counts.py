"""Counts by the hour, and whether a person's finding is what the reasoner said."""

import sqlalchemy as sa
from alembic import op

from lad_agent.store import tallies, views

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels = None
depends_on = None

_INDEXES = {
    "ix_reviews_decided_at": ["decided_at"],
    "ix_reviews_decided_by_inspection_id": ["decided_by", "inspection_id"],
    "ix_reviews_rule_inspection_id": ["rule", "inspection_id"],
}


def upgrade() -> None:
    """Make the table of reviews anew, as 0008 did; migrating fills it from the events."""
    views.drop(op.get_bind(), views.STATEMENTS_0007)
    op.drop_table("claims")
    op.drop_table("reviews")
    op.create_table(
        "reviews",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("inspection_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.Text(), nullable=False),
        sa.Column("kept", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.Text(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("finding", sa.Text(), nullable=True),
        sa.Column("disposition", sa.Text(), nullable=True),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("agrees", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
        sa.UniqueConstraint("inspection_id", "kind", name="uq_reviews_inspection_id_kind"),
        sa.CheckConstraint(
            "(decided_at IS NULL) = (finding IS NULL)", name=op.f("ck_reviews_decided")
        ),
        sa.CheckConstraint(
            "finding IS NULL OR (finding = 'nonconforming') = (disposition IS NOT NULL)",
            name=op.f("ck_reviews_disposition"),
        ),
        sa.ForeignKeyConstraint(
            ["inspection_id"], ["inspections.id"], name="fk_reviews_inspection_id_inspections"
        ),
    )
    for name, columns in _INDEXES.items():
        op.create_index(name, "reviews", columns)
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
        "hourly_tallies",
        *(sa.Column(name, sa.Text(), nullable=False) for name in tallies.HOURLY_KEY),
        sa.Column("inspections", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(*tallies.HOURLY_KEY, name="pk_hourly_tallies"),
        sqlite_with_rowid=False,
    )
    views.create(op.get_bind(), views.STATEMENTS_0010)


def downgrade() -> None:
    views.drop(op.get_bind(), views.STATEMENTS_0010)
    op.drop_table("hourly_tallies")
    op.drop_column("reviews", "agrees")
    views.create(op.get_bind(), views.STATEMENTS_0007)
