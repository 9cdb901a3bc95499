"""Figures over many inspections: yield, causes, reviewers, and what the audits say of the rest
and of the promises."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, get_args, get_type_hints

from sqlalchemy import ColumnElement, Integer, and_, case, func, literal_column, select
from sqlalchemy.orm import Session

from lad_agent import promise
from lad_agent.judgement import Result
from lad_agent.store import promises
from lad_agent.store.filters import (
    InspectionFilter,
    count_terms,
    inspection_terms,
    is_counted,
    unindexed,
)
from lad_agent.store.models import Inspection, RecipeRow, ReviewRow
from lad_agent.store.promises import Drifted, Watched
from lad_agent.store.views import DAILY_COUNTS, HOURLY_COUNTS, INSPECTIONS, LOT_COUNTS

GROUPS = ("hour", "day", "product", "station", "lot", "model", "recipe_version")
"""What `yields` can be counted by; hours and days are UTC."""

KINDS = (*GROUPS, "cause", "reviewer", "audit", "promise", "drift")
"""What `figures` can be asked for."""

_V, _R, _C = INSPECTIONS.c, ReviewRow, DAILY_COUNTS.c
_ONE = literal_column("1", Integer)
_COUNTS = {"hour": HOURLY_COUNTS, "lot": LOT_COUNTS}
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

    Of `passed_audited` parts that were OK, `escapes` were found nonconforming. Every audited part
    stands for as many as its recipe version, which drew the audits, has for one audited:
    `outgoing_defect_rate` is the share of bad parts among the passed so weighted, above `low` and
    below `high` with 95 % certainty each (Clopper and Pearson, see `promise.share`). `escape_rate`
    (of all anomalous parts) and `overkill_rate` (of all good ones) scale both audited kinds and
    the decided escalations up likewise; None where a kind has parts but none that a person has
    decided.
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


Figure = Yield | Cause | Agreement | AuditFigures | Watched | Drifted


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
        case "promise":
            return _table(Watched, promises.watched(session, wanted))
        case "drift":
            return _table(Drifted, promises.drifted(session, wanted))
        case _:
            return _table(Yield, yields(session, wanted, by))


def yields(session: Session, wanted: InspectionFilter, by: str) -> list[Yield]:
    """Inspections and their results by one of `GROUPS`, in the order of the groups' names."""
    of: Any
    group: ColumnElement[Any]
    each: ColumnElement[int] = _ONE
    counts = _COUNTS.get(by, DAILY_COUNTS)
    if by in counts.c and is_counted(wanted, counts):
        of, group, each = counts.c, counts.c[by], counts.c.inspections
        terms = count_terms(wanted, counts)
    else:
        # Of the table, not the view: SQLite would look up every inspection's judgement and reviews.
        of, group, terms = Inspection, _group(by, wanted), inspection_terms(wanted)
    query = (
        select(
            group,
            func.sum(each),
            _number(of.final == Result.OK, each),
            _number(of.final == Result.NOT_OK, each),
            _number(of.final.is_(None), each),
            _number(of.result == Result.NOT_DECIDABLE, each),
        )
        .where(*terms)
        .group_by(group)
        .order_by(group)
    )
    return [
        Yield(name, number, ok, not_ok, waiting, escalated, _share(ok, ok + not_ok))
        for name, number, ok, not_ok, waiting, escalated in session.execute(query)
    ]


def causes(session: Session, wanted: InspectionFilter) -> list[Cause]:
    """The broken rules by product, the most frequent first (Pareto)."""
    of: Any
    product: ColumnElement[Any]
    final: ColumnElement[Any]
    count: ColumnElement[int] = func.count()
    if is_counted(wanted):
        of, product, final, terms = _C, _C.product, _C.final, count_terms(wanted)
        count = func.sum(_C.inspections)
    else:
        timed = wanted.since is not None or wanted.until is not None
        of, final = _V, unindexed(_V.final) if timed else _V.final
        product = unindexed(_V.product) if timed else _V.product
        terms = inspection_terms(wanted, _V)
    query = (
        select(product, of.cause, count)
        .where(final == Result.NOT_OK, *terms)
        .group_by(product, of.cause)
        .order_by(count.desc(), product, of.cause)
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
            str(name),  # none is null here
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
    found = promises.by_product(session, wanted)
    return [audit_figures(product, versions) for product, versions in found.items()]


def audit_figures(product: str, found: Sequence[promises.Counts]) -> AuditFigures:
    """Those of one product, from the counts of each of its recipe versions."""
    groups = {result: promises.audited(found, result) for result in Result}
    number = {result: sum(one.parts for one in groups[result]) for result in Result}
    looked = {result: sum(one.audited for one in groups[result]) for result in Result}
    shares = {result: promise.share(groups[result], promise.SURE) for result in Result}
    passed = shares[Result.OK]
    bad = {result: _scaled(shares[result].rate, number[result]) for result in Result}
    escape_rate = overkill_rate = None
    anomalous = _sum([bad[result] for result in Result])
    if anomalous is not None:
        good = sum(number.values()) - anomalous
        escape_rate = _share(bad[Result.OK] or 0.0, anomalous)
        overkill_rate = _share(number[Result.NOT_OK] - (bad[Result.NOT_OK] or 0.0), good)
    return AuditFigures(
        product=product,
        passed=number[Result.OK],
        passed_audited=looked[Result.OK],
        escapes=sum(one.found for one in groups[Result.OK]),
        rejected=number[Result.NOT_OK],
        rejected_audited=looked[Result.NOT_OK],
        overkills=sum(one.audited - one.found for one in groups[Result.NOT_OK]),
        outgoing_defect_rate=passed.rate,
        low=None if passed.rate is None else passed.lower,
        high=None if passed.rate is None else passed.upper,
        escape_rate=escape_rate,
        overkill_rate=overkill_rate,
    )


def _table(kind: type[Figure], rows: Sequence[Figure]) -> Table:
    columns = {
        name: next(one for one in (str, int, float) if one in (hint, *get_args(hint)))
        for name, hint in get_type_hints(kind).items()
    }
    return Table(columns, [asdict(row) for row in rows])


def _scaled(rate: float | None, number: int) -> float | None:
    """How many of `number` are bad; None where there are some, but none that was looked at."""
    if number == 0:
        return 0.0
    return None if rate is None else rate * number


def _sum(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _share(part: float, of: float) -> float | None:
    return part / of if of else None


def _group(by: str, wanted: InspectionFilter) -> ColumnElement[str | None]:
    if by in ("hour", "day"):
        return func.substr(Inspection.opened_at, 1, _HOUR if by == "hour" else _DAY)
    column: ColumnElement[str | None] = Inspection.__table__.c[by]
    return column if wanted == InspectionFilter() else unindexed(column)


def _number(condition: ColumnElement[bool], each: ColumnElement[int] = _ONE) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, each), else_=0)), 0)


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
