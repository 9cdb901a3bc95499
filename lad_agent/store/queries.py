"""What the store is asked: outcomes, inspections and reviews, with their filters."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from lad_agent.inspection import Intake, Outcome, ReviewDecision, ReviewKind
from lad_agent.judgement import Disposition, Finding, Judgement, Reason, Result
from lad_agent.store import ledger
from lad_agent.store.ledger import Entry, timestamp
from lad_agent.store.models import Event, Inspection, JudgementRow, RecipeRow, ReviewRow


@dataclass(frozen=True)
class InspectionFilter:
    """Which inspections; what is None does not narrow. `complete` False: those still open.

    `result` is that of reasoner and policy; `since` counts from the intake.
    """

    product: str | None = None
    result: Result | None = None
    part_id: str | None = None
    station: str | None = None
    lot: str | None = None
    since: datetime | None = None
    complete: bool | None = None


@dataclass(frozen=True)
class ReviewFilter:
    """Which reviews. `decided` False: those waiting for a person.

    `applied` False: escalations that are decided, but whose inspection is not closed yet.
    """

    product: str | None = None
    kind: ReviewKind | None = None
    station: str | None = None
    since: datetime | None = None
    decided: bool | None = None
    applied: bool | None = None


@dataclass(frozen=True)
class Inspected:
    """An inspection as it stands: `outcome` is None while it is open.

    `detail` says in words what the outcome's `reason` names, where there is more to say.
    """

    id: str
    intake: Intake
    opened_at: str
    recorded_at: str | None
    closed_at: str | None
    detail: str | None
    outcome: Outcome | None


@dataclass(frozen=True)
class Review:
    """A part waiting for a person, or decided by one.

    `kept` is the path of the copy relative to the store's folder of images. A review of kind
    "audit" is blind: whoever decides it is not shown the outcome.
    """

    id: str
    kind: ReviewKind
    inspected: Inspected
    opened_at: str
    kept: str | None
    decided_at: str | None
    decision: ReviewDecision | None


@dataclass(frozen=True)
class History:
    """All that is known of one inspection; `recipe` is what the recipe said, if it was taken in."""

    inspected: Inspected
    judgement: Judgement | None
    reviews: tuple[Review, ...]
    recipe: dict[str, Any] | None
    events: tuple[Entry, ...]


def inspections(
    session: Session, wanted: InspectionFilter, *, newest_first: bool, limit: int | None
) -> Iterator[Inspected]:
    """Inspections by their intake's time."""
    order = Inspection.id.desc() if newest_first else Inspection.id
    query = _with_judgement().where(*_terms(wanted)).order_by(order).limit(limit)
    for inspection, judgement in session.execute(query.execution_options(yield_per=500)):
        yield _inspected(inspection, judgement)


def count(session: Session, wanted: InspectionFilter) -> int:
    """How many inspections there are of the wanted kind."""
    return session.scalar(select(func.count(Inspection.id)).where(*_terms(wanted))) or 0


def inspection(session: Session, inspection_id: str) -> Inspected | None:
    """The inspection of that id."""
    found = session.execute(_with_judgement().where(Inspection.id == inspection_id)).one_or_none()
    return _inspected(found[0], found[1]) if found else None


def history(session: Session, inspection_id: str) -> History | None:
    """The inspection of that id with its judgement, reviews and events."""
    found = inspection(session, inspection_id)
    if found is None:
        return None
    judgement = session.get(JudgementRow, inspection_id)
    events = ledger.entries(session.connection(), Event.inspection_id == inspection_id)
    return History(
        inspected=found,
        judgement=_judgement(judgement) if judgement else None,
        reviews=tuple(_reviews(session, ReviewRow.inspection_id == inspection_id)),
        recipe=session.scalar(
            select(RecipeRow.content).where(RecipeRow.recipe_version == found.intake.recipe_version)
        ),
        events=tuple(events),
    )


def reviews(session: Session, wanted: ReviewFilter, *, limit: int | None) -> Iterator[Review]:
    """Reviews, the one that has waited longest first."""
    return _reviews(session, *_review_terms(wanted), limit=limit)


def review(session: Session, review_id: str) -> Review | None:
    """The review of that id."""
    return next(_reviews(session, ReviewRow.id == review_id), None)


def review_decision(session: Session, inspection_id: str) -> ReviewDecision | None:
    """The decision about an escalated inspection, once there is one."""
    row = session.scalars(
        select(ReviewRow).where(
            ReviewRow.inspection_id == inspection_id, ReviewRow.kind == "escalation"
        )
    ).one_or_none()
    return _decision(row) if row else None


def last_attempt(session: Session, intake: Intake) -> int:
    """The highest attempt made at the same image, part, recipe and model; 0 if none."""
    query = select(func.max(Inspection.attempt)).where(
        Inspection.part_id == intake.part_id,
        Inspection.image_sha256.is_not_distinct_from(intake.image_sha256),
        Inspection.recipe_version == intake.recipe_version,
        Inspection.model == intake.model,
    )
    if intake.image_sha256 is None:
        query = query.where(Inspection.image == intake.image)
    return session.scalar(query) or 0


def _with_judgement() -> Select[Inspection, JudgementRow | None]:
    joined = select(Inspection, JudgementRow).outerjoin(JudgementRow)
    return cast("Select[Inspection, JudgementRow | None]", joined)


def _terms(wanted: InspectionFilter) -> list[ColumnElement[bool]]:
    equal = (
        (Inspection.product, wanted.product),
        (Inspection.result, wanted.result),
        (Inspection.part_id, wanted.part_id),
        (Inspection.station, wanted.station),
        (Inspection.lot, wanted.lot),
    )
    terms = [column == value for column, value in equal if value is not None]
    if wanted.since is not None:
        terms.append(Inspection.opened_at >= timestamp(wanted.since))
    if wanted.complete is not None:
        terms.append(Inspection.recorded_at.is_not(None) == wanted.complete)
    return terms


def _review_terms(wanted: ReviewFilter) -> list[ColumnElement[bool]]:
    equal = (
        (Inspection.product, wanted.product),
        (Inspection.station, wanted.station),
        (ReviewRow.kind, wanted.kind),
    )
    terms = [column == value for column, value in equal if value is not None]
    if wanted.since is not None:
        terms.append(ReviewRow.opened_at >= timestamp(wanted.since))
    if wanted.decided is not None:
        terms.append(ReviewRow.decided_at.is_not(None) == wanted.decided)
    if wanted.applied is not None:
        terms += [ReviewRow.kind == "escalation", ReviewRow.decided_at.is_not(None)]
        terms.append(Inspection.closed_at.is_not(None) == wanted.applied)
    return terms


def _reviews(
    session: Session, *terms: ColumnElement[bool], limit: int | None = None
) -> Iterator[Review]:
    query = (
        _with_judgement()
        .add_columns(ReviewRow)
        .join(ReviewRow, ReviewRow.inspection_id == Inspection.id)
        .where(*terms)
        .order_by(ReviewRow.id)
        .limit(limit)
    )
    for found, judgement, row in session.execute(query):
        yield Review(
            id=row.id,
            kind=row.kind,
            inspected=_inspected(found, judgement),
            opened_at=row.opened_at,
            kept=row.kept,
            decided_at=row.decided_at,
            decision=_decision(row),
        )


def _inspected(row: Inspection, judgement: JudgementRow | None) -> Inspected:
    return Inspected(
        id=row.id,
        intake=Intake(**{name: getattr(row, name) for name in Intake.model_fields}),
        opened_at=row.opened_at,
        recorded_at=row.recorded_at,
        closed_at=row.closed_at,
        detail=row.detail,
        outcome=_outcome(row, judgement) if row.recorded_at is not None else None,
    )


def _outcome(row: Inspection, judgement: JudgementRow | None) -> Outcome:
    said = (
        _judgement(judgement)
        if judgement is not None
        else Judgement(anomalous=None, well_formed=False, model=row.model)
    )
    return Outcome(
        id=row.id,
        part_id=row.part_id,
        station=row.station,
        lot=row.lot,
        image=row.image,
        image_sha256=row.image_sha256,
        product=row.product,
        task_version=row.task_version,
        recipe_version=row.recipe_version,
        result=Result(row.result or Result.NOT_DECIDABLE),
        anomalous=said.anomalous,
        anomaly_score=said.anomaly_score,
        confidence=said.confidence,
        decision_score=said.decision_score,
        weakest_token=said.weakest_token,
        samples=said.samples,
        agreement=said.agreement,
        rationale=said.rationale,
        rule=said.rule,
        places=said.places,
        well_formed=said.well_formed,
        reason=Reason(row.reason) if row.reason else None,
        model=said.model,
        elapsed_s=said.elapsed_s,
        evidence=said.evidence,
        final=Result(row.final) if row.final else None,
        attempt=row.attempt,
    )


def _judgement(row: JudgementRow) -> Judgement:
    fields = {name: getattr(row, name) for name in Judgement.model_fields}
    return Judgement(**fields | {"places": tuple(row.places)})


def _decision(row: ReviewRow) -> ReviewDecision | None:
    if row.decided_by is None or row.finding is None:
        return None
    return ReviewDecision(
        finding=Finding(row.finding),
        disposition=Disposition(row.disposition) if row.disposition else None,
        rule=row.rule,
        comment=row.comment,
        by=row.decided_by,
    )
