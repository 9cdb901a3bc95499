"""What the store is asked: outcomes, inspections and reviews, with their filters."""

import hashlib
import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from lad_agent.inspection import Intake, Outcome, ReviewDecision, ReviewKind
from lad_agent.judgement import Disposition, Finding, Judgement, Reason, Result
from lad_agent.store import ledger, projections, search, software
from lad_agent.store.filters import (
    InspectionFilter,
    ReviewFilter,
    inspection_terms,
    review_terms,
)
from lad_agent.store.ledger import Entry
from lad_agent.store.models import Event, Inspection, JudgementRow, RecipeRow, ReviewRow

_AT_ONCE = 500
_SLACK = timedelta(days=1)
"""More than a clock is put forward or back between an inspection's id and its first event."""


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
    """All that is known of one inspection; `recipe` is what the recipe said, if it was taken in.

    `software` are the versions that the station judged with then, if they were noted.
    """

    inspected: Inspected
    judgement: Judgement | None
    reviews: tuple[Review, ...]
    recipe: dict[str, Any] | None
    events: tuple[Entry, ...]
    software: dict[str, str] | None

    def image_files(self, kept: Path) -> tuple[Path, ...]:
        """Where the image may lie: copies in `kept`, the store's folder of images, come first."""
        copies = (kept / review.kept for review in self.reviews if review.kept)
        return (*copies, Path(self.inspected.intake.image))


def inspections(
    session: Session,
    wanted: InspectionFilter,
    *,
    newest_first: bool,
    limit: int | None,
    after: str | None = None,
) -> Iterator[Inspected]:
    """Inspections by their intake's time, from the one that follows the id `after` in that order.

    Raises:
        UsageError: a `text` without a word in it.
    """
    order: Any = Inspection.id.desc() if newest_first else Inspection.id
    terms = id_terms(Inspection.id, wanted)
    if after is not None:
        terms.append(Inspection.id < after if newest_first else Inspection.id > after)
    # PostgreSQL knows by its own statistics whether words stand in many.
    sqlite = session.connection().dialect.name == "sqlite"
    if sqlite and wanted.text is not None and limit is not None and limit <= _AT_ONCE:
        # Ids first: rows that are found and not shown are never read.
        terms += inspection_terms(replace(wanted, text=None))
        few = search.few(session.connection(), wanted.text)
        if few is None:
            ids = _mentioning(session, terms, order, wanted.text, limit)
        else:
            these = Inspection.id.in_(search.of_events(few))
            listed = select(Inspection.id).where(these, *terms).order_by(order).limit(limit)
            ids = session.scalars(listed).all()
        terms = [Inspection.id.in_(ids)]
    else:
        terms += inspection_terms(wanted)
    query = _with_judgement().where(*terms).order_by(order).limit(limit)
    for inspection, judgement in session.execute(query.execution_options(yield_per=500)):
        yield _inspected(inspection, judgement)


def _mentioning(
    session: Session,
    terms: Sequence[ColumnElement[bool]],
    order: ColumnElement[str],
    text: str,
    limit: int,
) -> Collection[str]:
    """The first `limit` ids, in order, whose rationales hold words that stand in many."""
    judged = select(func.max(Event.seq)).where(
        Event.inspection_id == Inspection.id, Event.type == projections.JUDGED
    )
    those = select(Inspection.id, judged.scalar_subquery()).where(*terms).order_by(order)
    found: list[str] = []
    rows = session.execute(those.execution_options(yield_per=_AT_ONCE))
    for some in rows.partitions():
        holding = search.among(session.connection(), text, [seq for _, seq in some if seq])
        found += [one for one, seq in some if seq in holding]
        if len(found) >= limit:
            break
    rows.close()
    return found[:limit]


def count(session: Session, wanted: InspectionFilter) -> int:
    """How many inspections there are of the wanted kind."""
    return session.scalar(select(func.count(Inspection.id)).where(*inspection_terms(wanted))) or 0


def products(session: Session) -> list[str]:
    """Every product that was inspected, by name."""
    return list(session.scalars(select(RecipeRow.product).distinct().order_by(RecipeRow.product)))


def all_final(session: Session, hashes: Collection[str]) -> dict[tuple[str, str], bool]:
    """Of pictures by their SHA-256: every part that one was inspected as, and the picture.

    True where all inspections of that part and picture have their final result.
    """
    found: dict[tuple[str, str], bool] = {}
    which = (Inspection.part_id, Inspection.image_sha256)
    query = select(*which, func.count(), func.count(Inspection.final)).group_by(*which)
    ordered = sorted(hashes)
    for start in range(0, len(ordered), _AT_ONCE):
        some = Inspection.image_sha256.in_(ordered[start : start + _AT_ONCE])
        for part_id, sha256, inspections, final in session.execute(query.where(some)):
            found[part_id, sha256 or ""] = inspections == final
    return found


def id_at(moment: datetime) -> str:
    """No id made from then on is less: a UUIDv7 begins with its milliseconds."""
    digits = f"{max(0, int(moment.timestamp() * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def id_terms(ids: Any, wanted: InspectionFilter) -> list[ColumnElement[bool]]:
    """What the time asked for says of inspections' ids, which have an index."""
    terms: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        terms.append(ids >= id_at(wanted.since - _SLACK))
    if wanted.until is not None:
        terms.append(ids < id_at(wanted.until + _SLACK))
    return terms


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
    events = tuple(ledger.entries(session.connection(), Event.inspection_id == inspection_id))
    return History(
        inspected=found,
        judgement=_judgement(judgement) if judgement else None,
        reviews=tuple(_reviews(session, ReviewRow.inspection_id == inspection_id)),
        recipe=session.scalar(
            select(RecipeRow.content).where(RecipeRow.recipe_version == found.intake.recipe_version)
        ),
        events=events,
        software=_software(session, found, events),
    )


def sample(session: Session, wanted: InspectionFilter, count: int, seed: int) -> list[str]:
    """Ids of `count` of the wanted inspections, by their time; all, if there are no more.

    The same seed draws the same ones, and few others when more have been inspected since.

    Raises:
        UsageError: a `text` without a word in it.
    """
    ids = session.scalars(
        select(Inspection.id).where(*inspection_terms(wanted)).execution_options(yield_per=10_000)
    )
    drawn = heapq.nsmallest(
        count, ids, key=lambda one: hashlib.sha256(f"{seed}\0{one}".encode()).digest()
    )
    return sorted(drawn)


def reviews(
    session: Session, wanted: ReviewFilter, *, limit: int | None, after: str | None = None
) -> Iterator[Review]:
    """Reviews, the one that has waited longest first, from the one that follows the id `after`."""
    terms = review_terms(wanted)
    if after is not None:
        terms.append(ReviewRow.id > after)
    return _reviews(session, *terms, limit=limit)


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


def _software(
    session: Session, found: Inspected, events: tuple[Entry, ...]
) -> dict[str, str] | None:
    judged = [event.seq for event in events if event.type == projections.JUDGED]
    if not judged:
        return None
    return software.in_force(session.connection(), found.intake.station, judged[-1])


def _with_judgement() -> Select[Inspection, JudgementRow | None]:
    joined = select(Inspection, JudgementRow).outerjoin(JudgementRow)
    return cast("Select[Inspection, JudgementRow | None]", joined)


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
        mean_logprob=said.mean_logprob,
        sum_logprob=said.sum_logprob,
        image_quality=said.image_quality,
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
