"""The views for auditors, the search in rationales, and the indexes behind the questions."""

import sqlalchemy as sa
from alembic import op

from lad_agent.store import search, views

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None

_INDEXES = {
    **{
        f"ix_inspections_{name}_yield": ("inspections", [name, "id", "result", "final"])
        for name in ("product", "station", "lot", "recipe_version", "model")
    },
    "ix_inspections_yield": (
        "inspections",
        ["opened_at", "product", "station", "result", "final"],
    ),
    "ix_inspections_final_id": ("inspections", ["final", "id"]),
    "ix_judgements_rule_inspection_id": ("judgements", ["rule", "inspection_id"]),
    "ix_reviews_rule_inspection_id": ("reviews", ["rule", "inspection_id"]),
    "ix_reviews_decided_by_inspection_id": ("reviews", ["decided_by", "inspection_id"]),
}


def upgrade() -> None:
    for name, (table, columns) in _INDEXES.items():
        op.create_index(name, table, columns)
    software = sa.text("type = 'software.seen'")
    op.create_index(
        "ix_events_software_seen",
        "events",
        ["station", "seq"],
        sqlite_where=software,
        postgresql_where=software,
    )
    views.create(op.get_bind(), views.STATEMENTS_0003)
    search.create(op.get_bind())


def downgrade() -> None:
    search.drop(op.get_bind())
    views.drop(op.get_bind(), views.STATEMENTS_0003)
    op.drop_index("ix_events_software_seen", "events")
    for name, (table, _) in _INDEXES.items():
        op.drop_index(name, table)
