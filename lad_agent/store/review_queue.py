"""The queue that reviewers work from, and what one of them has decided."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from lad_agent.inspection import ReviewKind
from lad_agent.judgement import Disposition, Finding, Reason
from lad_agent.store.ledger import now, timestamp
from lad_agent.store.models import ClaimRow, Inspection, JudgementRow, ReviewRow

BLIND_UNCERTAINTY = 0.5
"""Where an audit stands in the queue, whatever its score: its place must not tell it."""


@dataclass(frozen=True)
class Waiting:
    """An open review. `uncertainty` runs from 0, sure, to 1, a coin's toss or no score at all.

    `reason` is None for an audit, which is blind. `claimed_by` has it in hand now.
    """

    id: str
    kind: ReviewKind
    inspection_id: str
    part_id: str
    product: str
    station: str
    lot: str | None
    opened_at: str
    reason: Reason | None
    uncertainty: float
    claimed_by: str | None

    @property
    def rank(self) -> float:
        """Where it stands in the queue: an hour of age weighs as much as all uncertainty."""
        return datetime.fromisoformat(self.opened_at).timestamp() - 3600.0 * self.uncertainty


@dataclass(frozen=True)
class Decided:
    """A decision that stands."""

    review_id: str
    inspection_id: str
    part_id: str
    decided_at: str
    finding: Finding
    disposition: Disposition | None


def queue(session: Session) -> list[Waiting]:
    """All open reviews: the uncertain and the old first, and never in another order by the hour."""
    query = (
        select(
            ReviewRow.id,
            ReviewRow.kind,
            ReviewRow.inspection_id,
            Inspection.part_id,
            Inspection.product,
            Inspection.station,
            Inspection.lot,
            ReviewRow.opened_at,
            Inspection.reason,
            JudgementRow.anomaly_score,
            JudgementRow.confidence,
            ClaimRow.by,
            ClaimRow.until,
        )
        .join(Inspection, Inspection.id == ReviewRow.inspection_id)
        .outerjoin(JudgementRow, JudgementRow.inspection_id == Inspection.id)
        .outerjoin(ClaimRow, ClaimRow.review_id == ReviewRow.id)
        .where(ReviewRow.decided_at.is_(None))
    )
    moment = now()
    found = [
        Waiting(
            id=row.id,
            kind=row.kind,
            inspection_id=row.inspection_id,
            part_id=row.part_id,
            product=row.product,
            station=row.station,
            lot=row.lot,
            opened_at=row.opened_at,
            reason=Reason(row.reason) if row.reason and row.kind != "audit" else None,
            uncertainty=BLIND_UNCERTAINTY
            if row.kind == "audit"
            else _uncertainty(row.anomaly_score, row.confidence),
            claimed_by=row.by if row.until is not None and row.until > moment else None,
        )
        for row in session.execute(query)
    ]
    return sorted(found, key=lambda waiting: (waiting.rank, waiting.id))


def decisions(session: Session, by: str, since: datetime) -> list[Decided]:
    """What `by` decided since then and did not take back, the last one first."""
    query = (
        select(
            ReviewRow.id,
            ReviewRow.inspection_id,
            Inspection.part_id,
            ReviewRow.decided_at,
            ReviewRow.finding,
            ReviewRow.disposition,
        )
        .join(Inspection, Inspection.id == ReviewRow.inspection_id)
        .where(ReviewRow.decided_by == by, ReviewRow.decided_at >= timestamp(since))
        .order_by(ReviewRow.decided_at.desc())
    )
    return [
        Decided(
            review_id=row.id,
            inspection_id=row.inspection_id,
            part_id=row.part_id,
            decided_at=row.decided_at,
            finding=Finding(row.finding),
            disposition=Disposition(row.disposition) if row.disposition else None,
        )
        for row in session.execute(query)
    ]


def _uncertainty(anomaly_score: float | None, confidence: float | None) -> float:
    """1 - 2 |decision_score - 0.5|."""
    if anomaly_score is None or confidence is None:
        return 1.0
    return 1.0 - 2.0 * abs(anomaly_score - 0.5) * confidence
