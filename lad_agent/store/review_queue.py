"""The queue that reviewers work from, and what one of them has decided."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    Row,
    Select,
    SQLColumnExpression,
    case,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from lad_agent.inspection import ReviewKind
from lad_agent.judgement import Disposition, Finding, Reason
from lad_agent.store.filters import ReviewFilter, review_terms
from lad_agent.store.ledger import now, timestamp
from lad_agent.store.models import ClaimRow, Inspection, JudgementRow, ReviewRow

BLIND_UNCERTAINTY = 0.5
"""Where an audit stands in the queue, whatever its score: its place must not tell it."""
UNCERTAINTY_S = 3600.0
"""An hour of age weighs as much as all uncertainty."""

ALL = ReviewFilter()


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


@dataclass(frozen=True)
class Group:
    """How many open reviews there are of one product, kind and station."""

    product: str
    kind: ReviewKind
    station: str
    number: int


@dataclass(frozen=True)
class Decided:
    """A decision that stands."""

    review_id: str
    inspection_id: str
    part_id: str
    decided_at: str
    finding: Finding
    disposition: Disposition | None


def queue(
    session: Session,
    wanted: ReviewFilter = ALL,
    *,
    free_for: str | None = None,
    limit: int | None = None,
) -> list[Waiting]:
    """The wanted open reviews: the uncertain and the old first, never in another order by the hour.

    With `free_for` none that is in the hand of somebody else.
    """
    query = _waiting(wanted, free_for).order_by(_RANK, ReviewRow.id).limit(limit)
    return [_shown(row) for row in session.execute(query)]


def neighbours(
    session: Session, review_id: str, wanted: ReviewFilter = ALL, *, free_for: str | None = None
) -> tuple[Waiting | None, Waiting | None]:
    """The reviews before and after `review_id` in the `queue`; its end joins its beginning.

    A review that is not open stands before the first. Both None: there is no other.
    """
    others = _waiting(wanted, free_for).where(ReviewRow.id != review_id)
    place = tuple_(_RANK, ReviewRow.id)
    own = session.execute(
        _waiting(ALL, None).where(ReviewRow.id == review_id).with_only_columns(_RANK, ReviewRow.id)
    ).one_or_none()
    at = tuple_(literal(own[0] if own else 0.0, Double), literal(own[1] if own else ""))
    after = others.order_by(case((place > at, 0), else_=1), _RANK, ReviewRow.id)
    before = others.order_by(case((place < at, 0), else_=1), _RANK.desc(), ReviewRow.id.desc())
    found = [session.execute(query.limit(1)).one_or_none() for query in (before, after)]
    return _maybe(found[0]), _maybe(found[1])


def groups(session: Session) -> list[Group]:
    """How many open reviews there are of each kind."""
    query = (
        select(Inspection.product, ReviewRow.kind, Inspection.station, func.count().label("number"))
        .join(Inspection, Inspection.id == ReviewRow.inspection_id)
        .where(ReviewRow.decided_at.is_(None))
        .group_by(Inspection.product, ReviewRow.kind, Inspection.station)
    )
    return [Group(**row._mapping) for row in session.execute(query)]


def claims(session: Session, review_ids: Sequence[str]) -> dict[str, str]:
    """Whose hand these reviews are in; what is in nobody's is left out."""
    query = select(ClaimRow.review_id, ClaimRow.by).where(
        ClaimRow.review_id.in_(review_ids), ClaimRow.until > now()
    )
    return {row.review_id: row.by for row in session.execute(query)}


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


def _waiting(wanted: ReviewFilter, free_for: str | None) -> Select[*tuple[Any, ...]]:
    moment = now()
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
            _UNCERTAINTY.label("uncertainty"),
            case((ClaimRow.until > moment, ClaimRow.by)).label("claimed_by"),
        )
        .join(Inspection, Inspection.id == ReviewRow.inspection_id)
        .outerjoin(JudgementRow, JudgementRow.inspection_id == Inspection.id)
        .outerjoin(ClaimRow, ClaimRow.review_id == ReviewRow.id)
        .where(*review_terms(replace(wanted, decided=False)))
    )
    if free_for is None:
        return query
    return query.where(
        or_(ClaimRow.by.is_(None), ClaimRow.by == free_for, ClaimRow.until <= moment)
    )


def _shown(row: Row[Any]) -> Waiting:
    told = row.reason and row.kind != "audit"
    return Waiting(**{**row._mapping, "reason": Reason(row.reason) if told else None})


def _maybe(row: Row[Any] | None) -> Waiting | None:
    return _shown(row) if row else None


class _seconds(FunctionElement[float]):  # noqa: N801 - reads as a function of SQL
    """A time of the store in seconds since 1970, to the millisecond."""

    inherit_cache = True
    type = Double()


@compiles(_seconds, "sqlite")
def _seconds_sqlite(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    return f"((julianday({compiler.process(element.clauses, **options)}) - 2440587.5) * 86400.0)"


@compiles(_seconds, "postgresql")
def _seconds_postgres(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    said = compiler.process(element.clauses, **options)
    return f"CAST(extract(epoch FROM CAST({said} AS timestamptz)) AS double precision)"


_UNCERTAINTY: ColumnElement[float] = case(
    (ReviewRow.kind == "audit", BLIND_UNCERTAINTY),
    # 1 - 2 |decision_score - 0.5|
    else_=func.coalesce(
        1.0 - 2.0 * func.abs(JudgementRow.anomaly_score - 0.5) * JudgementRow.confidence, 1.0
    ),
)
_RANK: SQLColumnExpression[float] = _seconds(ReviewRow.opened_at) - UNCERTAINTY_S * _UNCERTAINTY
"""Where a review stands in the queue: the least comes first."""
