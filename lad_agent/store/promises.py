"""Whether what the store shows keeps what the calibrations in force have promised.

The audits of a recipe version are drawn with one probability, so they are weighted by version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from lad_agent import promise
from lad_agent.confidence import Calibration, Promise
from lad_agent.judgement import Finding, Result
from lad_agent.promise import Audited, Line
from lad_agent.store import queries
from lad_agent.store.filters import (
    InspectionFilter,
    count_terms,
    inspection_terms,
    is_counted,
    unindexed,
)
from lad_agent.store.holds import Alarm, Broken
from lad_agent.store.models import AlarmRow, InForce, Inspection, JudgementRow, RecipeRow, ReviewRow
from lad_agent.store.views import DAILY_COUNTS

if TYPE_CHECKING:
    from lad_agent.store.audit_store import AuditStore

WINDOW = 1000
"""The newest parts that drift is looked for in."""

EVERYTHING = InspectionFilter()


@dataclass(frozen=True)
class Looked:
    """Parts of one recipe version and result: all, those a person has decided, the bad of these."""

    parts: int = 0
    decided: int = 0
    bad: int = 0


Counts = dict[Result, Looked]


@dataclass(frozen=True)
class Watched:
    """One promise of a calibration in force, held against the audits since it is in force.

    `what` is the promised quantity; `parts` have the result that does the harm (passed for
    escapes), of these `audited` were decided and `found` are of the promise's class (bad). `rate`
    of `parts`, between `low` and `high` with 95 % certainty each, is of that class, and `allowed`
    is the most that the promise leaves room for. `state` is `kept so far`, `unknown` or `broken`.
    """

    product: str
    model: str
    calibrated_at: str
    what: str
    promise: str
    parts: int
    audited: int
    found: int
    rate: float | None
    low: float
    high: float
    allowed: float
    state: str


@dataclass(frozen=True)
class Drifted:
    """How far the newest parts not known to be bad are from the good ones of the calibration.

    `what` is confidence or anomaly_score; `parts` is how many were compared. `state` is
    `too few`, `as calibrated` or `drifted`.
    """

    product: str
    model: str
    calibrated_at: str
    what: str
    parts: int
    ks: float | None
    ks_p_value: float | None
    psi: float | None
    state: str


def counts(
    session: Session,
    wanted: InspectionFilter = EVERYTHING,
    *,
    versions: Sequence[str] | None = None,
    since: datetime | None = None,
) -> dict[tuple[str, str], Counts]:
    """Recorded parts by product and recipe version, with what reviews have found of them.

    Raises:
        UsageError: a `text` without a word in it.
    """
    counted = since is None and is_counted(wanted)
    of: Any = DAILY_COUNTS.c if counted else Inspection
    number: Any = func.sum(of.inspections) if counted else func.count()
    terms = count_terms(wanted) if counted else inspection_terms(wanted)
    groups = (unindexed(of.product), unindexed(of.recipe_version), of.result)
    recorded = select(*groups, number).where(of.result.is_not(None), *terms).group_by(*groups)
    bad = func.sum(case((ReviewRow.finding == Finding.NONCONFORMING, 1), else_=0))
    drawn = unindexed(Inspection.product), unindexed(Inspection.recipe_version), Inspection.result
    reviewed = (
        select(*drawn, func.count(), bad)
        .select_from(ReviewRow)
        .join(Inspection, Inspection.id == ReviewRow.inspection_id)
        .where(ReviewRow.finding.is_not(None), *inspection_terms(wanted))
        .group_by(*drawn)
    )
    if versions is not None:
        recorded = recorded.where(of.recipe_version.in_(versions))
        reviewed = reviewed.where(drawn[1].in_(versions))
    if since is not None:
        recorded = recorded.where(Inspection.id >= queries.id_at(since))
        reviewed = reviewed.where(ReviewRow.inspection_id >= queries.id_at(since))
    found: dict[tuple[str, str], Counts] = {}
    for product, version, result, parts in session.execute(recorded.order_by(*groups)):
        found.setdefault((product, version), {})[Result(result)] = Looked(parts)
    for product, version, result, decided, nonconforming in session.execute(reviewed):
        of_version, kind = found[product, version], Result(result)
        of_version[kind] = Looked(of_version[kind].parts, decided, nonconforming)
    return found


def audited(by_version: Sequence[Counts], result: Result, *, bad: bool = True) -> list[Audited]:
    """The parts of one result, counting the bad ones or the good, one group a recipe version."""
    looked = [counts.get(result, Looked()) for counts in by_version]
    return [Audited(n.parts, n.decided, n.bad if bad else n.decided - n.bad) for n in looked]


def watched(session: Session, wanted: InspectionFilter = EVERYTHING) -> list[Watched]:
    """Every promise in force that `wanted` does not leave out, by product."""
    return [
        _watched(one, promised, list(found.values()))
        for one in _calibrated(session, wanted)
        for found in [counts(session, wanted, versions=one.versions, since=one.since)]
        for promised in one.calibration.promises
    ]


def drifted(session: Session, wanted: InspectionFilter = EVERYTHING) -> list[Drifted]:
    """Confidence and score of every calibration in force, by product."""
    return [
        _drifted(one, what, values)
        for one in _calibrated(session, wanted)
        for what, values in _newest(session, wanted, one).items()
    ]


def broken(session: Session) -> list[Broken]:
    """Every promise that is broken, and every calibration that has drifted."""
    holding = {(one.product, one.calibration.made_at) for one in _calibrated(session) if one.hold}
    found: list[Watched | Drifted] = [*watched(session), *drifted(session)]
    return [
        Broken(
            one.product,
            one.model,
            one.calibrated_at,
            one.what,
            _told(one),
            (one.product, one.calibrated_at) in holding,
        )
        for one in found
        if one.state in ("broken", "drifted")
    ]


def check(store: "AuditStore", station: str, by: str) -> list[Alarm]:
    """Raise an alarm for all that is broken and stands in none yet; returns the new ones."""
    found = store.ask(broken)
    return store.raise_alarms(station, by, found) if found else []


@dataclass(frozen=True)
class _Calibrated:
    """A calibration in force with the recipe versions that rest on it.

    What a person has answered to is not counted again: `since` is when.
    """

    product: str
    calibration: Calibration
    versions: tuple[str, ...]
    since: datetime | None
    hold: bool


def _calibrated(session: Session, wanted: InspectionFilter = EVERYTHING) -> list[_Calibrated]:
    in_force = set(session.scalars(select(InForce.value).where(InForce.what == "recipe")))
    query = select(RecipeRow.recipe_version, RecipeRow.product, RecipeRow.content)
    rests: dict[tuple[str, str], list[str]] = {}
    read: dict[tuple[str, str], Calibration] = {}
    holding = set()
    for version, product, content in session.execute(query.order_by(RecipeRow.product)):
        if not (content or {}).get("calibration") or wanted.product not in (None, product):
            continue
        calibration = Calibration.model_validate(content["calibration"])
        which = (product, calibration.made_at)
        rests.setdefault(which, []).append(version)
        read[which] = calibration
        if version in in_force and content["policy"].get("on_alarm") == "hold":
            holding.add(which)
    answered = select(AlarmRow.product, func.max(AlarmRow.answered_at)).group_by(AlarmRow.product)
    last = dict(session.execute(answered).all())
    return [
        _Calibrated(
            which[0],
            read[which],
            tuple(versions),
            datetime.fromisoformat(at) if (at := last.get(which[0])) else None,
            which in holding,
        )
        for which, versions in rests.items()
        if not in_force.isdisjoint(versions)
    ]


def _watched(one: _Calibrated, promised: Promise, found: Sequence[Counts]) -> Watched:
    bad = promised.quantity == "escape_rate"
    harmful, other = (Result.OK, Result.NOT_OK) if bad else (Result.NOT_OK, Result.OK)
    harmed = audited(found, harmful, bad=bad)
    line = Line(
        harmed=tuple(harmed),
        spared=tuple(audited(found, other, bad=bad)),
        undecided=sum(
            group.parts - group.audited + group.found
            for group in audited(found, Result.NOT_DECIDABLE, bad=bad)
        ),
        parts=sum(looked.parts for version in found for looked in version.values()),
    )
    estimate = promise.share(harmed, promise.SURE)
    breaks = promise.broken(promised.at_most, line)
    return Watched(
        product=one.product,
        model=one.calibration.model,
        calibrated_at=one.calibration.made_at,
        what=promised.quantity,
        promise=str(promised),
        parts=sum(group.parts for group in harmed),
        audited=sum(group.audited for group in harmed),
        found=sum(group.found for group in harmed),
        rate=estimate.rate,
        low=estimate.lower,
        high=estimate.upper,
        allowed=promise.allowed(promised.at_most, line),
        state="broken" if breaks else "unknown" if estimate.rate is None else "kept so far",
    )


def _newest(session: Session, wanted: InspectionFilter, one: _Calibrated) -> dict[str, list[float]]:
    """Confidence and score of the newest parts that nobody knows to be bad."""
    query = (
        select(Inspection.id, JudgementRow.confidence, JudgementRow.anomaly_score)
        .join(JudgementRow, JudgementRow.inspection_id == Inspection.id)
        .where(
            Inspection.result.is_not(None),
            Inspection.final.is_distinct_from(Result.NOT_OK),
            JudgementRow.model == one.calibration.model,
            JudgementRow.confidence.is_not(None),
            JudgementRow.anomaly_score.is_not(None),
            *inspection_terms(wanted),
        )
        .order_by(Inspection.id.desc())
        .limit(WINDOW)
    )
    if one.since is not None:
        query = query.where(Inspection.id >= queries.id_at(one.since))
    # Each version by itself: so an index is walked from its end.
    rows = [
        row
        for version in one.versions
        for row in session.execute(query.where(Inspection.recipe_version == version))
    ]
    newest = sorted(rows, key=lambda row: row[0], reverse=True)[:WINDOW]
    return {
        "confidence": [sure for _, sure, _ in newest if sure is not None],
        "anomaly_score": [score for *_, score in newest if score is not None],
    }


def _drifted(one: _Calibrated, what: str, values: Sequence[float]) -> Drifted:
    known = (one.product, one.calibration.model, one.calibration.made_at, what, len(values))
    if len(values) < promise.FEWEST:
        return Drifted(*known, None, None, None, "too few")
    reference = getattr(one.calibration.reference, what)
    found = promise.drift(reference, values, one.calibration.chosen_on.good)
    state = "drifted" if found.alarming else "as calibrated"
    return Drifted(*known, found.ks, found.ks_p_value, found.psi, state)


def _told(one: Watched | Drifted) -> str:
    if isinstance(one, Drifted):
        return (
            f"the last {one.parts} parts differ from the calibration's good ones "
            f"(KS {one.ks:.2f}, p {one.ks_p_value:.1g}, PSI {one.psi:.2f})"
        )
    found, whose = ("bad", "passed") if one.what == "escape_rate" else ("good", "rejected")
    return (
        f"{one.found} of {one.audited} audited are {found}, at least {one.low:.2%} of the "
        f"{one.parts} {whose}; the promise ({one.promise}) allows {one.allowed:.2%}"
    )
