"""Figures over many inspections: yield, causes, reviewers, and what the audits say of the rest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, get_args, get_type_hints

from sqlalchemy import ColumnElement, and_, case, func, null, select
from sqlalchemy.orm import Session

from lad_agent.judgement import Finding, Result
from lad_agent.store.filters import InspectionFilter, inspection_terms
from lad_agent.store.models import Inspection, RecipeRow
from lad_agent.store.views import INSPECTIONS, REVIEWS

GROUPS = ("hour", "day", "product", "station", "lot", "model", "recipe_version")
"""What `yields` can be counted by; hours and days are UTC."""

KINDS = (*GROUPS, "cause", "reviewer", "audit")
"""What `figures` can be asked for."""

_V, _R = INSPECTIONS.c, REVIEWS.c
_HOUR, _DAY = 13, 10  # characters of a time


@dataclass(frozen=True)
class Table:
    """Rows under named columns with their types, as `export.write` takes them."""

    columns: Mapping[str, type]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Yield:
    """One group's inspections. `ok` and `not_ok` are final, `waiting` have no final result yet.

    `escalated` were NotDecidable. `yield_rate` is ok of all that are final, None if none are.
    """

    group: str | None
    inspections: int
    ok: int
    not_ok: int
    waiting: int
    escalated: int
    yield_rate: float | None


@dataclass(frozen=True)
class Cause:
    """How often a rule was broken; shares are of all rejected parts, `cumulative` from the top.

    `cause` is None where neither reasoner nor person named a rule; `text` is the rule's own, as
    the newest recipe of the product says it.
    """

    product: str
    cause: str | None
    text: str | None
    inspections: int
    share: float
    cumulative: float


@dataclass(frozen=True)
class Agreement:
    """One person's decisions, and how many of them say what the reasoner said.

    `compared` leaves out those about which the reasoner said nothing. Audits are blind,
    escalations are not.
    """

    reviewer: str
    decided: int
    compared: int
    agreed: int
    agreement: float | None
    audits: int
    audits_agreed: int
    audit_agreement: float | None


@dataclass(frozen=True)
class AuditFigures:
    """What decided audits say about a product's parts that nobody looked at.

    Of `passed_audited` parts that were OK, `escapes` were found nonconforming: their share is
    `outgoing_defect_rate`, within `low` and `high` at 95 % (Wilson). `escape_rate` (of all
    anomalous parts) and `overkill_rate` (of all good ones) scale both audited kinds and the
    decided escalations up to all parts of their kind; None where a kind has parts but none that a
    person has decided.
    """

    product: str
    passed: int
    passed_audited: int
    escapes: int
    rejected: int
    rejected_audited: int
    overkills: int
    outgoing_defect_rate: float | None
    low: float | None
    high: float | None
    escape_rate: float | None
    overkill_rate: float | None


Figure = Yield | Cause | Agreement | AuditFigures


def figures(session: Session, wanted: InspectionFilter, by: str) -> Table:
    """The figures of one of `KINDS` as columns and rows.

    Raises:
        UsageError: a `text` without a word in it.
    """
    match by:
        case "cause":
            return _table(Cause, causes(session, wanted))
        case "reviewer":
            return _table(Agreement, reviewers(session, wanted))
        case "audit":
            return _table(AuditFigures, audits(session, wanted))
        case _:
            return _table(Yield, yields(session, wanted, by))


def yields(session: Session, wanted: InspectionFilter, by: str) -> list[Yield]:
    """Inspections and their results by one of `GROUPS`, in the order of the groups' names."""
    # Of the table, not the view: SQLite would look up every inspection's judgement and reviews.
    group = _group(by, wanted)
    query = (
        select(
            group,
            func.count(),
            _number(Inspection.final == Result.OK),
            _number(Inspection.final == Result.NOT_OK),
            _number(Inspection.final.is_(None)),
            _number(Inspection.result == Result.NOT_DECIDABLE),
        )
        .where(*inspection_terms(wanted))
        .group_by(group)
        .order_by(group)
    )
    return [
        Yield(name, number, ok, not_ok, waiting, escalated, _share(ok, ok + not_ok))
        for name, number, ok, not_ok, waiting, escalated in session.execute(query)
    ]


def causes(session: Session, wanted: InspectionFilter) -> list[Cause]:
    """The broken rules by product, the most frequent first (Pareto)."""
    count = func.count()
    timed = wanted.since is not None or wanted.until is not None
    final = _unindexed(_V.final) if timed else _V.final
    query = (
        select(_V.product, _V.cause, count)
        .where(final == Result.NOT_OK, *inspection_terms(wanted, _V))
        .group_by(_V.product, _V.cause)
        .order_by(count.desc(), _V.product, _V.cause)
    )
    rows = session.execute(query).all()
    total = sum(number for *_, number in rows)
    texts = _rule_texts(session)
    summed = accumulate(number for *_, number in rows)
    return [
        Cause(product, cause, texts.get((product, cause)), number, number / total, so_far / total)
        for (product, cause, number), so_far in zip(rows, summed, strict=True)
    ]


def reviewers(session: Session, wanted: InspectionFilter) -> list[Agreement]:
    """Everyone who decided, who decided most first."""
    audit = and_(_R.kind == "audit", _R.agrees.is_not(None))
    decided = func.count()
    query = (
        select(
            _R.decided_by,
            decided,
            func.count(_R.agrees),
            _number(_R.agrees == 1),
            _number(audit),
            _number(and_(audit, _R.agrees == 1)),
        )
        .where(_R.decided_by.is_not(None), *_of_inspections(wanted))
        .group_by(_R.decided_by)
        .order_by(decided.desc(), _R.decided_by)
    )
    return [
        Agreement(
            name,
            number,
            compared,
            agreed,
            _share(agreed, compared),
            audits,
            audits_agreed,
            _share(audits_agreed, audits),
        )
        for name, number, compared, agreed, audits, audits_agreed in session.execute(query)
    ]


def audits(session: Session, wanted: InspectionFilter) -> list[AuditFigures]:
    """Escape and overkill by product, estimated from the blind audits and the escalations."""
    recorded = dict.fromkeys(Result, 0)
    kinds: dict[str, dict[Result, int]] = {}
    group = _group("product", wanted)
    query = (
        select(group, Inspection.result, func.count())
        .where(Inspection.result.is_not(None), *inspection_terms(wanted))
        .group_by(group, Inspection.result)
        .order_by(group)
    )
    for name, result, number in session.execute(query):
        kinds.setdefault(str(name), dict(recorded))[Result(str(result))] = number
    seen: dict[tuple[str, Result], tuple[int, int]] = {}
    product = _unindexed(_R.product)
    reviewed = (
        select(product, _R.result, func.count(), _number(_R.finding == Finding.NONCONFORMING))
        .where(_R.finding.is_not(None), *_of_inspections(wanted))
        .group_by(product, _R.result)
    )
    for name, result, number, bad in session.execute(reviewed):
        seen[str(name), Result(result)] = (number, bad)
    return [_audit_figures(name, counts, seen) for name, counts in kinds.items()]


def wilson(hits: int, of: int) -> tuple[float, float] | None:
    """The 95 % interval of a share after Wilson; None of nothing.

    >>> [round(end, 3) for end in wilson(0, 20)]
    [0.0, 0.161]
    """
    if of == 0:
        return None
    z, share = 1.959964, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def _table(kind: type[Figure], rows: Sequence[Figure]) -> Table:
    columns = {
        name: next(one for one in (str, int, float) if one in (hint, *get_args(hint)))
        for name, hint in get_type_hints(kind).items()
    }
    return Table(columns, [asdict(row) for row in rows])


def _audit_figures(
    product: str, counts: dict[Result, int], seen: dict[tuple[str, Result], tuple[int, int]]
) -> AuditFigures:
    looked = {result: seen.get((product, result), (0, 0)) for result in Result}
    bad = {
        result: _scaled(looked[result][1], looked[result][0], counts[result]) for result in Result
    }
    passed, escapes = looked[Result.OK]
    rejected, confirmed = looked[Result.NOT_OK]
    interval = wilson(escapes, passed)
    escape_rate = overkill_rate = None
    anomalous = _sum([bad[result] for result in Result])
    if anomalous is not None:
        good = sum(counts.values()) - anomalous
        escape_rate = _share(bad[Result.OK] or 0.0, anomalous)
        overkill_rate = _share(counts[Result.NOT_OK] - (bad[Result.NOT_OK] or 0.0), good)
    return AuditFigures(
        product=product,
        passed=counts[Result.OK],
        passed_audited=passed,
        escapes=escapes,
        rejected=counts[Result.NOT_OK],
        rejected_audited=rejected,
        overkills=rejected - confirmed,
        outgoing_defect_rate=_share(escapes, passed),
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        escape_rate=escape_rate,
        overkill_rate=overkill_rate,
    )


def _scaled(bad: int, looked: int, number: int) -> float | None:
    """How many of `number` are bad, if of `looked` there are `bad`."""
    if number == 0:
        return 0.0
    return bad / looked * number if looked else None


def _sum(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _share(part: float, of: float) -> float | None:
    return part / of if of else None


def _group(by: str, wanted: InspectionFilter) -> ColumnElement[str | None]:
    if by in ("hour", "day"):
        return func.substr(Inspection.opened_at, 1, _HOUR if by == "hour" else _DAY)
    column: ColumnElement[str | None] = Inspection.__table__.c[by]
    return column if wanted == InspectionFilter() else _unindexed(column)


def _unindexed(column: ColumnElement[str | None]) -> ColumnElement[str | None]:
    """The same, but SQLite walks no index just for the order of the groups: it would read all."""
    return func.nullif(column, null(), type_=column.type)


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _of_inspections(wanted: InspectionFilter) -> list[ColumnElement[bool]]:
    if wanted == InspectionFilter():
        return []
    return [_R.inspection_id.in_(select(Inspection.id).where(*inspection_terms(wanted)))]


def _rule_texts(session: Session) -> dict[tuple[str, str | None], str]:
    query = select(RecipeRow.product, RecipeRow.content).order_by(RecipeRow.first_at)
    return {
        (product, rule["id"]): rule["text"]
        for product, content in session.execute(query)
        for rule in (content or {}).get("rules", [])
    }
