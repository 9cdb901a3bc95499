"""The read-only views that auditors and their tools may rely on, and the indexes behind questions.

Columns may be added at the end, never renamed, moved or given another meaning; `docs/querying.md`
explains each. Times are text in UTC, truths are 1 and 0 on every database. Characters that no
database can hold stand in SQL as in the tables (see `models.escaped`).
"""

from collections.abc import Mapping

from sqlalchemy import Connection, Double, Index, Integer, TableClause, column, event, table
from sqlalchemy.schema import DDL

from lad_agent.store.models import Base, Event, Inspection, JudgementRow, ReviewRow, Verbatim

VERSION = 4
"""Of the views and their columns; raised whenever one is added."""

_TEXT, _WHOLE, _REAL = Verbatim(), Integer(), Double[float]()

INSPECTIONS = table(
    "v_inspections",
    column("id", _TEXT),
    column("part_id", _TEXT),
    column("station", _TEXT),
    column("lot", _TEXT),
    column("attempt", _WHOLE),
    column("product", _TEXT),
    column("result", _TEXT),
    column("final", _TEXT),
    column("reason", _TEXT),
    column("detail", _TEXT),
    column("cause", _TEXT),
    column("anomalous", _WHOLE),
    column("anomaly_score", _REAL),
    column("confidence", _REAL),
    column("decision_score", _REAL),
    column("rationale", _TEXT),
    column("rule", _TEXT),
    column("places", _TEXT),
    column("well_formed", _WHOLE),
    column("evidence", _TEXT),
    column("evidence_detail", _TEXT),
    column("reviewer", _TEXT),
    column("finding", _TEXT),
    column("disposition", _TEXT),
    column("comment", _TEXT),
    column("reviewed_at", _TEXT),
    column("audit", _WHOLE),
    column("image", _TEXT),
    column("image_sha256", _TEXT),
    column("task_version", _TEXT),
    column("recipe_version", _TEXT),
    column("model", _TEXT),
    column("actor", _TEXT),
    column("opened_at", _TEXT),
    column("recorded_at", _TEXT),
    column("closed_at", _TEXT),
    column("day", _TEXT),
    column("hour", _TEXT),
    column("tokens", _WHOLE),
    column("elapsed_s", _REAL),
)

REVIEWS = table(
    "v_reviews",
    column("id", _TEXT),
    column("inspection_id", _TEXT),
    column("kind", _TEXT),
    column("part_id", _TEXT),
    column("station", _TEXT),
    column("lot", _TEXT),
    column("product", _TEXT),
    column("result", _TEXT),
    column("anomalous", _WHOLE),
    column("opened_at", _TEXT),
    column("decided_at", _TEXT),
    column("decided_by", _TEXT),
    column("finding", _TEXT),
    column("disposition", _TEXT),
    column("rule", _TEXT),
    column("comment", _TEXT),
    column("agrees", _WHOLE),
    column("day", _TEXT),
)

DAILY_YIELD = table(
    "v_daily_yield",
    column("day", _TEXT),
    column("product", _TEXT),
    column("station", _TEXT),
    column("inspections", _WHOLE),
    column("ok", _WHOLE),
    column("not_ok", _WHOLE),
    column("waiting", _WHOLE),
    column("escalated", _WHOLE),
    column("yield_rate", _REAL),
)

CAUSES = table(
    "v_causes",
    column("day", _TEXT),
    column("product", _TEXT),
    column("station", _TEXT),
    column("cause", _TEXT),
    column("inspections", _WHOLE),
)

DAILY_COUNTS = table(
    "v_daily_counts",
    column("day", _TEXT),
    column("product", _TEXT),
    column("station", _TEXT),
    column("recipe_version", _TEXT),
    column("model", _TEXT),
    column("result", _TEXT),
    column("final", _TEXT),
    column("cause", _TEXT),
    column("inspections", _WHOLE),
)

HOURLY_COUNTS = table(
    "v_hourly_counts",
    column("hour", _TEXT),
    column("product", _TEXT),
    column("station", _TEXT),
    column("result", _TEXT),
    column("final", _TEXT),
    column("inspections", _WHOLE),
)

LOT_COUNTS = table(
    "v_lot_counts",
    column("lot", _TEXT),
    column("product", _TEXT),
    column("station", _TEXT),
    column("result", _TEXT),
    column("final", _TEXT),
    column("inspections", _WHOLE),
)

ALL: tuple[TableClause, ...] = (
    INSPECTIONS,
    REVIEWS,
    DAILY_YIELD,
    CAUSES,
    DAILY_COUNTS,
    HOURLY_COUNTS,
    LOT_COUNTS,
)

STATEMENTS_0003 = {
    "v_inspections": """
        CREATE VIEW v_inspections AS
        SELECT i.id, i.part_id, i.station, i.lot, i.attempt, i.product, i.result, i.final,
          i.reason, i.detail,
          CASE WHEN i.final = 'NotOK' THEN coalesce(e.rule, a.rule, j.rule) END AS cause,
          CASE WHEN j.anomalous THEN 1 WHEN NOT j.anomalous THEN 0 END AS anomalous,
          j.anomaly_score, j.confidence,
          0.5 + (j.anomaly_score - 0.5) * j.confidence AS decision_score,
          j.rationale, j.rule, CAST(j.places AS TEXT) AS places,
          CASE WHEN j.well_formed THEN 1 WHEN NOT j.well_formed THEN 0 END AS well_formed,
          j.evidence, j.evidence_detail,
          coalesce(e.decided_by, a.decided_by) AS reviewer,
          coalesce(e.finding, a.finding) AS finding,
          coalesce(e.disposition, a.disposition) AS disposition,
          coalesce(e.comment, a.comment) AS comment,
          coalesce(e.decided_at, a.decided_at) AS reviewed_at,
          CASE WHEN i.audit THEN 1 ELSE 0 END AS audit,
          i.image, i.image_sha256, i.task_version, i.recipe_version, i.model, i.actor,
          i.opened_at, i.recorded_at, i.closed_at,
          substr(i.opened_at, 1, 10) AS day, substr(i.opened_at, 1, 13) AS hour,
          j.tokens, j.elapsed_s
        FROM inspections i
        LEFT JOIN judgements j ON j.inspection_id = i.id
        LEFT JOIN reviews e ON e.inspection_id = i.id AND e.kind = 'escalation'
        LEFT JOIN reviews a ON a.inspection_id = i.id AND a.kind = 'audit'""",
    "v_reviews": """
        CREATE VIEW v_reviews AS
        SELECT r.id, r.inspection_id, r.kind, i.part_id, i.station, i.lot, i.product, i.result,
          CASE WHEN j.anomalous THEN 1 WHEN NOT j.anomalous THEN 0 END AS anomalous,
          r.opened_at, r.decided_at, r.decided_by, r.finding, r.disposition, r.rule, r.comment,
          CASE WHEN r.finding IS NULL OR j.anomalous IS NULL THEN NULL
            WHEN j.anomalous AND r.finding = 'nonconforming' THEN 1
            WHEN NOT j.anomalous AND r.finding = 'conforming' THEN 1
            ELSE 0 END AS agrees,
          substr(r.opened_at, 1, 10) AS day
        FROM reviews r
        JOIN inspections i ON i.id = r.inspection_id
        LEFT JOIN judgements j ON j.inspection_id = r.inspection_id""",
    "v_daily_yield": """
        CREATE VIEW v_daily_yield AS
        SELECT substr(opened_at, 1, 10) AS day, product, station, count(*) AS inspections,
          sum(CASE WHEN final = 'OK' THEN 1 ELSE 0 END) AS ok,
          sum(CASE WHEN final = 'NotOK' THEN 1 ELSE 0 END) AS not_ok,
          sum(CASE WHEN final IS NULL THEN 1 ELSE 0 END) AS waiting,
          sum(CASE WHEN result = 'NotDecidable' THEN 1 ELSE 0 END) AS escalated,
          1.0 * sum(CASE WHEN final = 'OK' THEN 1 ELSE 0 END) / nullif(count(final), 0)
            AS yield_rate
        FROM inspections
        GROUP BY substr(opened_at, 1, 10), product, station""",
    "v_causes": """
        CREATE VIEW v_causes AS
        SELECT day, product, station, cause, count(*) AS inspections
        FROM v_inspections
        WHERE cause IS NOT NULL
        GROUP BY day, product, station, cause""",
}
"""The views by name, as of schema 0003."""

STATEMENTS_0007 = STATEMENTS_0003 | {
    "v_daily_yield": """
        CREATE VIEW v_daily_yield AS
        SELECT day, product, station, sum(inspections) AS inspections,
          sum(CASE WHEN final = 'OK' THEN inspections ELSE 0 END) AS ok,
          sum(CASE WHEN final = 'NotOK' THEN inspections ELSE 0 END) AS not_ok,
          sum(CASE WHEN final = '' THEN inspections ELSE 0 END) AS waiting,
          sum(CASE WHEN result = 'NotDecidable' THEN inspections ELSE 0 END) AS escalated,
          1.0 * sum(CASE WHEN final = 'OK' THEN inspections ELSE 0 END)
            / nullif(sum(CASE WHEN final <> '' THEN inspections ELSE 0 END), 0) AS yield_rate
        FROM tallies
        GROUP BY day, product, station""",
    "v_causes": """
        CREATE VIEW v_causes AS
        SELECT day, product, station, cause, sum(inspections) AS inspections
        FROM tallies
        WHERE cause <> ''
        GROUP BY day, product, station, cause""",
    "v_daily_counts": """
        CREATE VIEW v_daily_counts AS
        SELECT day, product, station, recipe_version, model, nullif(result, '') AS result,
          nullif(final, '') AS final, nullif(cause, '') AS cause, inspections
        FROM tallies""",
}
"""The views by name, as of schema 0007."""

STATEMENTS_0010 = STATEMENTS_0007 | {
    # Joins whose columns are not asked for cost nothing where nothing can be lost by leaving them.
    "v_reviews": """
        CREATE VIEW v_reviews AS
        SELECT r.id, r.inspection_id, r.kind, i.part_id, i.station, i.lot, i.product, i.result,
          CASE WHEN j.anomalous THEN 1 WHEN NOT j.anomalous THEN 0 END AS anomalous,
          r.opened_at, r.decided_at, r.decided_by, r.finding, r.disposition, r.rule, r.comment,
          r.agrees, substr(r.opened_at, 1, 10) AS day
        FROM reviews r
        LEFT JOIN inspections i ON i.id = r.inspection_id
        LEFT JOIN judgements j ON j.inspection_id = r.inspection_id""",
    "v_hourly_counts": """
        CREATE VIEW v_hourly_counts AS
        SELECT hour, product, station, nullif(result, '') AS result, nullif(final, '') AS final,
          inspections
        FROM hourly_tallies""",
}
"""The views by name, as of schema 0010."""

STATEMENTS = STATEMENTS_0010 | {
    "v_lot_counts": """
        CREATE VIEW v_lot_counts AS
        SELECT nullif(lot, '') AS lot, product, station, nullif(result, '') AS result,
          nullif(final, '') AS final, inspections
        FROM lot_tallies""",
}
"""The views by name, as of schema 0012."""

INDEXES = (
    *(
        Index(f"ix_inspections_{name}_id", Inspection.__table__.c[name], Inspection.id)
        for name in ("product", "station", "lot", "model")
    ),
    # These hold all that is counted, so that the rows are never read.
    Index(
        "ix_inspections_recipe_version_yield",
        Inspection.recipe_version,
        Inspection.id,
        Inspection.result,
        Inspection.final,
    ),
    Index(
        "ix_inspections_yield",
        Inspection.opened_at,
        Inspection.product,
        Inspection.station,
        Inspection.result,
        Inspection.final,
    ),
    Index("ix_inspections_final_id", Inspection.final, Inspection.id),
    Index(
        "ix_inspections_open",
        Inspection.id,
        sqlite_where=Inspection.closed_at.is_(None),
        postgresql_where=Inspection.closed_at.is_(None),
    ),
    Index("ix_judgements_rule_inspection_id", JudgementRow.rule, JudgementRow.inspection_id),
    Index(
        "ix_reviews_audits",
        ReviewRow.finding,
        ReviewRow.decided_by,
        ReviewRow.agrees,
        sqlite_where=ReviewRow.kind == "audit",
        postgresql_where=ReviewRow.kind == "audit",
    ),
    Index("ix_reviews_rule_inspection_id", ReviewRow.rule, ReviewRow.inspection_id),
    Index("ix_reviews_decided_by_inspection_id", ReviewRow.decided_by, ReviewRow.inspection_id),
    Index(
        "ix_events_software_seen",
        Event.station,
        Event.seq,
        sqlite_where=Event.type == "software.seen",
        postgresql_where=Event.type == "software.seen",
    ),
)


def create(connection: Connection, statements: Mapping[str, str]) -> None:
    """Make views (used by migrations)."""
    for statement in statements.values():
        connection.execute(DDL(statement))  # type: ignore[no-untyped-call]


def drop(connection: Connection, statements: Mapping[str, str]) -> None:
    """Undo `create`."""
    for name in reversed(list(statements)):
        connection.execute(DDL(f"DROP VIEW {name}"))  # type: ignore[no-untyped-call]


for _statement in STATEMENTS.values():
    event.listen(Base.metadata, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
