"""Which inspections and reviews are meant: the filters of every question, as terms of SQL."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select, union_all
from sqlalchemy.orm import aliased

from lad_agent.inspection import ReviewKind
from lad_agent.judgement import Result
from lad_agent.store import search
from lad_agent.store.ledger import timestamp
from lad_agent.store.models import Inspection, JudgementRow, ReviewRow


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


def inspection_terms(
    wanted: InspectionFilter, of: Any = Inspection, *, one_by_one: bool = False
) -> list[ColumnElement[bool]]:
    """What `wanted` asks of the columns `of`: the table's, or those of `views.INSPECTIONS`.

    `one_by_one` looks for the text in each inspection, where few will have to be looked at.

    Raises:
        UsageError: a `text` without a word in it.
    """
    equal = (
        (of.product, wanted.product),
        (of.result, wanted.result),
        (of.part_id, wanted.part_id),
        (of.station, wanted.station),
        (of.lot, wanted.lot),
        (of.model, wanted.model),
        (of.recipe_version, wanted.recipe_version),
    )
    terms = [column == value for column, value in equal if value is not None]
    if wanted.since is not None:
        terms.append(of.opened_at >= timestamp(wanted.since))
    if wanted.until is not None:
        terms.append(of.opened_at < timestamp(wanted.until))
    if wanted.complete is not None:
        terms.append(of.recorded_at.is_not(None) == wanted.complete)
    if wanted.cause is not None:
        terms += _broke(wanted.cause, of)
    if wanted.reviewer is not None:
        decided = select(ReviewRow.inspection_id).where(ReviewRow.decided_by == wanted.reviewer)
        terms.append(of.id.in_(decided))
    if wanted.text is not None:
        mentions = search.mentions_here if one_by_one else search.mentions
        terms.append(mentions(of.id, search.words(wanted.text)))
    return terms


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
        terms.append(ReviewRow.decided_at.is_not(None) == wanted.decided)
    if wanted.applied is not None:
        terms += [ReviewRow.kind == "escalation", ReviewRow.decided_at.is_not(None)]
        terms.append(Inspection.closed_at.is_not(None) == wanted.applied)
    return terms


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
