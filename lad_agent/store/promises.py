"""Whether what the store shows keeps what the calibrations in force have promised.

Each watch is of one recipe version and a model that some station judges with by it; it is void if
that is not the model that was calibrated for. Another version, calibration or model begins a new
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session

from lad_agent import promise
from lad_agent.confidence import Calibration, Promise, standing, void_for
from lad_agent.judgement import Finding, Result
from lad_agent.promise import Audited, Line
from lad_agent.recipe import Policy
from lad_agent.store import queries
from lad_agent.store.filters import (
    InspectionFilter,
    count_terms,
    inspection_terms,
    is_counted,
    unindexed,
)
from lad_agent.store.holds import Alarm, Broken
from lad_agent.store.models import (
    AlarmRow,
    HoldRow,
    InForce,
    Inspection,
    JudgementRow,
    RecipeRow,
    ReviewRow,
)
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
    """One promise of a calibration in force, held against the audits of its own parts.

    These are the parts that `model` judged against `recipe_version`. `what` is the promised
    quantity; `parts` have the result that does the harm (passed for escapes), of these `audited`
    were decided and `found` are of the promise's class (bad). `rate` of `parts`, between `low` and
    `high` with 95 % certainty each, is of that class, and `allowed` is the most that the promise
    leaves room for. `state` is `kept so far` or `broken` where the audits show it, `open` where
    they show neither, `unknown` where there is none, and `void` where the calibration does not hold
    for what is judged now, or by: nothing is promised then, every part goes to people, and
    `promise` says why. `valid_for` says for which parts it was made.
    """

    product: str
    recipe_version: str
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
    valid_for: str


@dataclass(frozen=True)
class Drifted:
    """How far the newest parts not known to be bad are from the good ones of the calibration.

    `what` is confidence or anomaly_score; `parts` is how many were compared, of which `waiting` are
    not decided by a person yet: bad ones among these look like drift. `state` is `too few`,
    `as calibrated` or `drifted`.
    """

    product: str
    recipe_version: str
    model: str
    calibrated_at: str
    what: str
    parts: int
    waiting: int
    ks: float | None
    ks_p_value: float | None
    psi: float | None
    state: str


def counts(
    session: Session,
    wanted: InspectionFilter = EVERYTHING,
    *,
    since: datetime | None = None,
) -> dict[tuple[str, str], Counts]:
    """Recorded parts by product and recipe version, with what reviews have found of them.

    With `since` only the parts that were taken in after it.

    Raises:
        UsageError: a `text` without a word in it.
    """
    counted = since is None and is_counted(wanted)
    of: Any = DAILY_COUNTS.c if counted else Inspection
    number: Any = of.inspections if counted else 1
    terms = count_terms(wanted) if counted else inspection_terms(wanted)
    if since is not None:
        terms.append(Inspection.id >= queries.id_at(since))
    groups = (unindexed(of.product), unindexed(of.recipe_version), of.result)
    closed = func.sum(case((of.final.is_not(None), number), else_=0))
    rejected = func.sum(case((of.final == Result.NOT_OK, number), else_=0))
    recorded = (
        select(*groups, func.sum(number), closed, rejected)
        .where(of.result.is_not(None), *terms)
        .group_by(*groups)
        .order_by(*groups)
    )
    found: dict[tuple[str, str], Counts] = {}
    for product, version, result, parts, final, bad in session.execute(recorded):
        # An escalated part has a final result once a person has decided about it.
        escalated = result == Result.NOT_DECIDABLE
        looked = Looked(parts, final, bad) if escalated else Looked(parts)
        found.setdefault((product, version), {})[Result(result)] = looked
    for (product, version, result), (decided, bad) in _audits(session, wanted, since).items():
        of_version = found[product, version]
        of_version[result] = Looked(of_version[result].parts, decided, bad)
    return found


def by_product(session: Session, wanted: InspectionFilter = EVERYTHING) -> dict[str, list[Counts]]:
    """As `counts`, one for each recipe version of a product."""
    found: dict[str, list[Counts]] = {}
    for (product, _), of_version in counts(session, wanted).items():
        found.setdefault(product, []).append(of_version)
    return found


def _audits(
    session: Session, wanted: InspectionFilter, since: datetime | None
) -> dict[tuple[str, str, Result], tuple[int, int]]:
    """Decided audits by product, recipe version and result, and how many found a bad part."""
    drawn = unindexed(Inspection.product), unindexed(Inspection.recipe_version), Inspection.result
    bad = func.sum(case((ReviewRow.finding == Finding.NONCONFORMING, 1), else_=0))
    terms = queries.id_terms(ReviewRow.inspection_id, wanted) + inspection_terms(wanted)
    if since is not None:
        terms.append(ReviewRow.inspection_id >= queries.id_at(since))
    query = (
        select(*drawn, func.count(), bad)
        .select_from(ReviewRow)
        .join(Inspection, Inspection.id == ReviewRow.inspection_id)
        .where(ReviewRow.kind == "audit", ReviewRow.finding.is_not(None), *terms)
        .group_by(*drawn)
    )
    return {
        (product, version, Result(result)): (decided, nonconforming)
        for product, version, result, decided, nonconforming in session.execute(query)
    }


def audited(by_version: Sequence[Counts], result: Result, *, bad: bool = True) -> list[Audited]:
    """The parts of one result, counting the bad ones or the good, one group a recipe version."""
    looked = [counts.get(result, Looked()) for counts in by_version]
    return [Audited(n.parts, n.decided, n.bad if bad else n.decided - n.bad) for n in looked]


def watched(session: Session, wanted: InspectionFilter = EVERYTHING) -> list[Watched]:
    """Every promise in force that `wanted` does not leave out, by product."""
    return [
        _watched(one, promised, found)
        for one in _calibrated(session, wanted)
        for found in [_counts(session, wanted, one)]
        for promised in one.calibration.promises
    ]


def drifted(session: Session, wanted: InspectionFilter = EVERYTHING) -> list[Drifted]:
    """Confidence and score of every calibration in force that is not void, by product."""
    return [
        _drifted(one, what, values, waiting)
        for one in _calibrated(session, wanted)
        if one.void is None
        for newest, waiting in [_newest(session, wanted, one)]
        for what, values in newest.items()
    ]


def void(session: Session) -> list[str]:
    """Every calibration in force that does not hold for what is judged, or by, and why."""
    return [f"{one.product}: {one.void}" for one in _calibrated(session) if one.void]


def broken(session: Session) -> list[Broken]:
    """Every promise that is broken, and every calibration that has drifted."""
    holding = {one.recipe_version for one in _calibrated(session) if one.policy.on_alarm == "hold"}
    found: list[Watched | Drifted] = [*watched(session), *drifted(session)]
    return [
        Broken(
            one.product,
            one.recipe_version,
            one.model,
            one.calibrated_at,
            one.what,
            _told(one),
            one.recipe_version in holding,
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
    """A recipe version in force with its calibration, and the `model` that judges by it.

    `void` says why the calibration does not hold for these, None where it does. Counted are the
    parts after the last answer or release, `since`, and before the hold that is on, `held`: on hold
    nothing is decided, so nothing is seen of the promise.
    """

    product: str
    recipe_version: str
    model: str
    void: str | None
    calibration: Calibration
    policy: Policy
    since: datetime | None
    held: datetime | None


def _calibrated(session: Session, wanted: InspectionFilter = EVERYTHING) -> list[_Calibrated]:
    judging = sorted(_judging(session))
    row = RecipeRow
    query = select(row.product, row.recipe_version, row.task_version, row.content)
    spans: dict[str, tuple[datetime | None, datetime | None]] = {}
    asked = (wanted.product, wanted.recipe_version, wanted.model)
    found = []
    for product, version, task, content in session.execute(
        query.order_by(row.product, row.first_at)
    ):
        own = [
            watch
            for watch in judging
            if watch[:2] == (product, version)
            and all(a in (None, w) for a, w in zip(asked, watch, strict=True))
        ]
        if not own or not (content or {}).get("calibration"):
            continue
        # A newer station may have written what this version does not know.
        calibration = Calibration.model_validate(content["calibration"], extra="ignore")
        policy = Policy.model_validate(content["policy"], extra="ignore")
        if product not in spans:
            spans[product] = _watch(session, product)
        for watch in own:
            why = void_for(calibration, task, policy, watch[2])
            found.append(_Calibrated(*watch, why, calibration, policy, *spans[product]))
    return found


def _watch(session: Session, product: str) -> tuple[datetime | None, datetime | None]:
    """When the watch of a product began anew, and since when it is on hold."""
    own = or_(HoldRow.product == product, HoldRow.product.is_(None))
    released = session.scalar(select(func.max(HoldRow.released_at)).where(own))
    answered = session.scalar(
        select(func.max(AlarmRow.answered_at)).where(AlarmRow.product == product)
    )
    on = session.scalar(select(func.min(HoldRow.on_at)).where(own, HoldRow.released_at.is_(None)))
    began = [datetime.fromisoformat(at) for at in (released, answered) if at]
    return max(began, default=None), datetime.fromisoformat(on) if on else None


def _judging(session: Session) -> set[tuple[str, str, str]]:
    """What stations judge with: each product with its recipe version and model."""
    query = select(InForce.station, InForce.product, InForce.what, InForce.value)
    places: dict[tuple[str, str], dict[str, str]] = {}
    for station, product, what, value in session.execute(query):
        places.setdefault((station, product), {})[what] = value
    return {(product, at["recipe"], at["model"]) for (_, product), at in places.items()}


def _counts(session: Session, wanted: InspectionFilter, one: _Calibrated) -> Counts:
    ends = [at for at in (wanted.until, one.held) if at]
    own = replace(
        wanted,
        recipe_version=one.recipe_version,
        model=one.model,
        until=min(ends, default=None),
    )
    return counts(session, own, since=one.since).get((one.product, one.recipe_version), {})


def _watched(one: _Calibrated, promised: Promise, found: Counts) -> Watched:
    bad = promised.quantity == "escape_rate"
    harmful, other = (Result.OK, Result.NOT_OK) if bad else (Result.NOT_OK, Result.OK)
    [harmed] = audited([found], harmful, bad=bad)
    [spared] = audited([found], other, bad=bad)
    [waiting] = audited([found], Result.NOT_DECIDABLE, bad=bad)
    line = Line(
        harmed=(harmed,),
        spared=(spared,),
        undecided=waiting.parts - waiting.audited + waiting.found,
        parts=sum(looked.parts for looked in found.values()),
        known=waiting.found,
    )
    estimate = promise.share(line.harmed, promise.SURE)
    state = "unknown" if estimate.rate is None else "open"
    if promise.broken(promised.at_most, line):
        state = "broken"
    elif state == "open" and promise.kept(promised.at_most, line):
        state = "kept so far"
    told = standing(one.calibration, promised, one.policy)
    if one.void:
        state, told = "void", f"{told}, void: {one.void}"
    return Watched(
        product=one.product,
        recipe_version=one.recipe_version,
        model=one.model,
        calibrated_at=one.calibration.made_at,
        what=promised.quantity,
        promise=told,
        parts=harmed.parts,
        audited=harmed.audited,
        found=harmed.found,
        rate=estimate.rate,
        low=estimate.lower,
        high=estimate.upper,
        allowed=promise.allowed(promised.at_most, line),
        state=state,
        valid_for=one.calibration.valid_for,
    )


def _newest(
    session: Session, wanted: InspectionFilter, one: _Calibrated
) -> tuple[dict[str, list[float]], int]:
    """Confidence and score of the newest parts that neither machine nor person has found bad, and
    how many of them wait for a person."""
    query = (
        select(JudgementRow.confidence, JudgementRow.anomaly_score, Inspection.final)
        .join(Inspection, Inspection.id == JudgementRow.inspection_id)
        .where(
            Inspection.recipe_version == one.recipe_version,
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
    rows = session.execute(query).all()
    values = {
        "confidence": [sure for sure, _, _ in rows if sure is not None],
        "anomaly_score": [score for _, score, _ in rows if score is not None],
    }
    return values, sum(final is None for _, _, final in rows)


def _drifted(one: _Calibrated, what: str, values: Sequence[float], waiting: int) -> Drifted:
    made = one.calibration
    known = (one.product, one.recipe_version, made.model, made.made_at, what, len(values), waiting)
    if len(values) < promise.FEWEST:
        return Drifted(*known, None, None, None, "too few")
    found = promise.drift(getattr(made.reference, what), values, made.chosen_on.good)
    state = "drifted" if found.alarming else "as calibrated"
    return Drifted(*known, found.ks, found.ks_p_value, found.psi, state)


def _told(one: Watched | Drifted) -> str:
    if isinstance(one, Drifted):
        waits = f"; {one.waiting} of them wait for a person" if one.waiting else ""
        return (
            f"the last {one.parts} parts differ from the calibration's good ones "
            f"(KS {one.ks:.2f}, p {one.ks_p_value:.1g}, PSI {one.psi:.2f}){waits}"
        )
    found, whose = ("bad", "passed") if one.what == "escape_rate" else ("good", "rejected")
    return (
        f"{one.found} of {one.audited} audited are {found}, at least {one.low:.2%} of the "
        f"{one.parts} {whose}; the promise ({one.promise}) allows {one.allowed:.2%}"
    )
