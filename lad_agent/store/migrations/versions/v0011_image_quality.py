"""The quality of the picture beside each judgement."""

import sqlalchemy as sa
from alembic import op

from lad_agent.store import search, views

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels = None
depends_on = None

_INDEX = "ix_judgements_rule_inspection_id"


def upgrade() -> None:
    """Make the table anew; migrating fills it from the events.

    A column that is added to a table stands behind its constraints on SQLite, and migrated and
    fresh stores would differ for ever.
    """
    search.drop(op.get_bind())
    views.drop(op.get_bind(), views.STATEMENTS_0010)
    op.drop_index(_INDEX, "judgements")
    op.drop_table("judgements")
    op.create_table(
        "judgements",
        sa.Column("inspection_id", sa.Text(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("anomalous", sa.Boolean(), nullable=True),
        sa.Column("anomaly_score", sa.Double(), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("rationale", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("places", sa.JSON(), nullable=False),
        sa.Column("raw_text", sa.Text(), nullable=False),
        sa.Column("well_formed", sa.Boolean(), nullable=False),
        sa.Column("weakest_token", sa.Double(), nullable=True),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("agreement", sa.Double(), nullable=True),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("evidence_detail", sa.Text(), nullable=True),
        sa.Column("seen_product", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("elapsed_s", sa.Double(), nullable=False),
        sa.Column("mean_logprob", sa.Double(), nullable=True),
        sa.Column("sum_logprob", sa.Double(), nullable=True),
        sa.Column("image_quality", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["inspection_id"], ["inspections.id"], name="fk_judgements_inspection_id_inspections"
        ),
        sa.PrimaryKeyConstraint("inspection_id", name="pk_judgements"),
    )
    op.create_index(_INDEX, "judgements", ["rule", "inspection_id"])
    views.create(op.get_bind(), views.STATEMENTS_0010)
    search.create(op.get_bind())


def downgrade() -> None:
    op.drop_column("judgements", "image_quality")
