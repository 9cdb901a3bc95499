"""Which inspections and reviews are meant: the filters of every question, as terms of SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, TableClause, func, null, select, union_all
from sqlalchemy.orm import aliased

from lad_agent.inspection import ReviewKind
from lad_agent.judgement import Result
from lad_agent.store import search
from lad_agent.store.ledger import timestamp
from lad_agent.store.models import Inspection, JudgementRow, ReviewRow
from lad_agent.store.views import DAILY_COUNTS


@dataclass(frozen=True)
class InspectionFilter:
    """Which inspections; what is None does not narrow. `complete` False: those still open.

    `result` is that of reasoner and policy; `cause` is the rule that a rejected part broke, by
    the person if one named it; `reviewer` is who decided about it. `since` (included) and `until`
    (not included) count from the intake; `text` are words that the rationale must hold, all.
    """

    product: str | None = None
    result: Result | None = None
    part_id: str | None = None
    station: str | None = None
    lot: str | None = None
    since: datetime | None = None
    complete: bool | None = None
    until: datetime | None = None
    cause: str | None = None
    reviewer: str | None = None
    model: str | None = None
    recipe_version: str | None = None
    text: str | None = None


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


def inspection_terms(wanted: InspectionFilter, of: Any = Inspection) -> list[ColumnElement[bool]]:
    """What `wanted` asks of the columns `of`: the table's, or those of `views.INSPECTIONS`.

    Raises:
        UsageError: a `text` without a word in it.
    """
    terms = _equal(wanted, of, _SAME)
    if wanted.since is not None:
        terms.append(of.opened_at >= timestamp(wanted.since))
    if wanted.until is not None:
        terms.append(of.opened_at < timestamp(wanted.until))
    if wanted.complete is not None:
        terms.append(_is_set(of.recorded_at, wanted.complete))
        if not wanted.complete:
            terms.append(of.closed_at.is_(None))  # follows, and has an index
    if wanted.cause is not None:
        terms += _broke(wanted.cause, of)
    if wanted.reviewer is not None:
        decided = select(ReviewRow.inspection_id).where(ReviewRow.decided_by == wanted.reviewer)
        terms.append(of.id.in_(decided))
    if wanted.text is not None:
        terms.append(search.mentions(of.id, search.words(wanted.text)))
    return terms


def is_counted(wanted: InspectionFilter, by: TableClause = DAILY_COUNTS) -> bool:
    """Whether nothing is asked but what `by`, a view of counts, tells apart."""
    asked = (name for name, value in vars(wanted).items() if value is not None)
    return all(name in by.c for name in asked)


def count_terms(
    wanted: InspectionFilter, by: TableClause = DAILY_COUNTS
) -> list[ColumnElement[bool]]:
    """What `wanted`, if it `is_counted`, asks of the columns of `by`."""
    terms = _equal(wanted, by.c, [name for name in vars(wanted) if name in by.c])
    if wanted.cause is not None:
        terms.append(by.c.final == Result.NOT_OK)
    return terms


def unindexed(column: Any) -> ColumnElement[Any]:
    """The same, but SQLite walks no index for the order of the groups: it would read all of it."""
    return func.nullif(column, null(), type_=column.type)


def review_terms(wanted: ReviewFilter) -> list[ColumnElement[bool]]:
    """What `wanted` asks of reviews joined with their inspections."""
    equal = (
        (Inspection.product, wanted.product),
        (Inspection.station, wanted.station),
        (ReviewRow.kind, wanted.kind),
    )
    terms = [column == value for column, value in equal if value is not None]
    if wanted.since is not None:
        terms.append(ReviewRow.opened_at >= timestamp(wanted.since))
    if wanted.decided is not None:
        terms.append(_is_set(ReviewRow.decided_at, wanted.decided))
    if wanted.applied is not None:
        terms += [ReviewRow.kind == "escalation", ReviewRow.decided_at.is_not(None)]
        terms.append(_is_set(Inspection.closed_at, wanted.applied))
        if not wanted.applied:
            # Says nothing new, but is found by an index.
            terms.append(ReviewRow.inspection_id.in_(_OPEN))
    return terms


_SAME = ("product", "result", "part_id", "station", "lot", "model", "recipe_version")


def _equal(wanted: InspectionFilter, of: Any, names: Sequence[str]) -> list[ColumnElement[bool]]:
    asked = ((name, getattr(wanted, name)) for name in names)
    return [getattr(of, name) == value for name, value in asked if value is not None]


_open = aliased(Inspection)
_OPEN = select(_open.id).where(_open.closed_at.is_(None))


def _is_set(column: Any, wanted: bool) -> ColumnElement[bool]:
    found: ColumnElement[bool] = column.is_not(None) if wanted else column.is_(None)
    return found


def _broke(rule: str, of: Any) -> list[ColumnElement[bool]]:
    """The person's rule counts before the reasoner's, as in `v_inspections.cause`."""
    said, found = aliased(JudgementRow), aliased(ReviewRow)
    named = union_all(
        select(said.inspection_id).where(said.rule == rule),
        select(found.inspection_id).where(found.rule == rule),
    )
    persons = select(func.max(found.rule)).where(found.inspection_id == of.id)
    reasoners = select(said.rule).where(said.inspection_id == of.id)
    cause = func.coalesce(persons.scalar_subquery(), reasoners.scalar_subquery())
    # The first term narrows by an index, the others say what is meant.
    return [of.id.in_(named), of.final == Result.NOT_OK, cause == rule]
