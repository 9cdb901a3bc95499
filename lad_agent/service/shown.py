"""What the pages show, made from what the store knows. An audit is blind until it is decided."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from markupsafe import Markup
from sqlalchemy.orm import Session

from lad_agent import promise
from lad_agent.cells import CELLS, GRID
from lad_agent.inspection import ReviewKind, contrary
from lad_agent.judgement import Disposition, Finding, Judgement, Reason, Result
from lad_agent.promise import Audited
from lad_agent.recipe import Policy, Region
from lad_agent.service import charts
from lad_agent.store import (
    History,
    Inspected,
    InspectionFilter,
    Review,
    ReviewFilter,
    projections,
    promises,
    stats,
)
from lad_agent.store.review_queue import Decided, Group

SHIFT = timedelta(hours=12)
BREAK = timedelta(hours=1)

REASONS = {
    Reason.UNREADABLE: "the image could not be read",
    Reason.TOO_DARK: "the image is too dark",
    Reason.TOO_BRIGHT: "the image is too bright",
    Reason.BLURRED: "the image is blurred",
    Reason.TOO_SMALL: "the image is too small",
    Reason.NOISE: "the image is noise",
    Reason.PRODUCT_NOT_IN_MODEL: "the model was not made for this product",
    Reason.OTHER_PRODUCT: "it looks like another product",
    Reason.MALFORMED: "the reasoner gave no proper answer",
    Reason.EVIDENCE_CONTRADICTS: "the reasoner contradicts its own findings",
    Reason.LOW_CONFIDENCE: "the reasoner was not sure",
    Reason.CALIBRATION_VOID: "the calibration does not hold for this model or task",
    Reason.ON_HOLD: "every part of this product goes to people for now",
    Reason.SCORE_BETWEEN: "the score lies between the thresholds",
    Reason.TIMED_OUT: "the reasoner took too long",
    Reason.REASONER_FAILED: "the reasoner failed",
}

DECISIONS: dict[str, tuple[Finding, Disposition | None]] = {
    "conforming": (Finding.CONFORMING, None),
    **{str(what): (Finding.NONCONFORMING, what) for what in Disposition},
}
"""What a decision button says: the finding, and what becomes of a nonconforming part."""

_CELL = re.compile(r"\b[A-Z][0-9]{1,2}\b")


@dataclass(frozen=True)
class Filters:
    """Which reviews of the queue; an empty text does not narrow."""

    product: str = ""
    kind: str = ""
    station: str = ""

    def admits(self, one: Group) -> bool:
        wanted = (self.product, self.kind, self.station)
        found = (one.product, one.kind, one.station)
        return all(w in ("", f) for w, f in zip(wanted, found, strict=True))

    def of_store(self) -> ReviewFilter:
        """The same as the store asks it."""
        kind = cast("ReviewKind | None", self.kind or None)
        return ReviewFilter(product=self.product or None, kind=kind, station=self.station or None)


@dataclass(frozen=True)
class ShownRule:
    """A rule of the recipe. `suspect`: the reasoner says it is broken; `key` chooses it."""

    id: str
    text: str
    suspect: bool
    key: str | None


@dataclass(frozen=True)
class Clause:
    """One statement of the rationale; `bad` where it says that its rule is broken."""

    text: str
    bad: bool


@dataclass(frozen=True)
class Box:
    """A cell outlined on the image, in its pixels. `fault`: in the place of the broken rule."""

    name: str
    x: float
    y: float
    width: float
    height: float
    fault: bool


@dataclass(frozen=True)
class Happened:
    """One line of a history."""

    at: str
    told: str
    detail: str = ""


@dataclass(frozen=True)
class Item:
    """One part before its reviewer. What a blind audit must not tell is empty."""

    review: Review
    blind: bool
    why: str
    detail: str
    rules: tuple[ShownRule, ...]
    preselected: str | None
    verdict: str
    clauses: tuple[Clause, ...]
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None
    references: int
    scales: tuple[tuple[str, Markup], ...]
    past: tuple[Happened, ...]
    trail: tuple[Happened, ...]
    reason_for: Finding | None
    """The finding that goes against the reasoner, and so needs a comment."""


@dataclass(frozen=True)
class Shift:
    """One person's work since the last break: what was decided, how fast, and the last of it."""

    decided: int
    per_hour: float | None
    last: Decided | None


@dataclass(frozen=True)
class Product:
    """One product on the dashboard; rates are None where nothing was counted."""

    name: str
    parts: int
    yield_rate: float | None
    escalation_rate: float | None
    hourly: Markup
    escape: charts.Interval | None
    overkill: charts.Interval | None
    escape_chart: Markup
    overkill_chart: Markup
    escape_rate: float | None
    overkill_rate: float | None


@dataclass(frozen=True)
class Dashboard:
    """The plant since `since`; `hours` of it."""

    hours: int
    parts: int
    yield_rate: float | None
    escalation_rate: float | None
    columns: tuple[charts.Column, ...]
    hourly: Markup
    products: tuple[Product, ...]
    audited: int


def item(
    review: Review, history: History, past: Sequence[Inspected], size: tuple[int, int] | None
) -> Item:
    """What a reviewer sees of one part; `size` is that of its image in pixels."""
    blind = review.kind == "audit" and review.decision is None
    judgement = None if blind else history.judgement
    outcome = None if blind else review.inspected.outcome
    recipe = history.recipe or {}
    rules = recipe.get("rules", [])
    suspect = judgement.rule if judgement else None
    reason = outcome.reason if outcome else None
    return Item(
        review=review,
        blind=blind,
        why=REASONS[reason] if reason else "",
        detail=(review.inspected.detail or "") if reason else "",
        rules=tuple(
            ShownRule(rule["id"], rule["text"], rule["id"] == suspect, str(n) if n < 10 else None)
            for n, rule in enumerate(rules, 1)
        ),
        preselected=suspect if any(rule["id"] == suspect for rule in rules) else None,
        verdict=_verdict(judgement),
        clauses=_clauses(judgement.rationale) if judgement else (),
        boxes=_boxes(judgement, Region(**recipe.get("region", {})), size) if judgement else (),
        size=size,
        references=len(recipe.get("references", [])),
        scales=_scales(judgement, recipe) if judgement else (),
        past=() if blind else tuple(_past(one) for one in past if one.id != review.inspected.id),
        trail=tuple(_trail(review.id, history, blind=blind)),
        reason_for=contrary(review.kind, outcome.anomalous) if outcome else None,
    )


def shift(decisions: Sequence[Decided], moment: datetime) -> Shift:
    """The work since the last break; `decisions` of one person, the last one first."""
    times: list[datetime] = []
    for decided in decisions:
        at = datetime.fromisoformat(decided.decided_at)
        if times and times[-1] - at > BREAK:
            break
        times.append(at)
    if not times or moment - times[0] > BREAK:
        return Shift(0, None, decisions[0] if decisions else None)
    lasted = (moment - times[-1]).total_seconds()
    per_hour = (len(times) - 1) / lasted * 3600 if len(times) > 4 and lasted > 0 else None
    return Shift(len(times), per_hour, decisions[0])


def dashboard(session: Session, hours: int, moment: datetime) -> Dashboard:
    """Yield, escalations and what the audits found, by product and hour."""
    since = moment - timedelta(hours=hours)
    wanted = InspectionFilter(since=since)
    labels = _hours(since, moment)
    every = stats.yields(session, wanted, "hour")
    counted = {one.group: one for one in every}
    versions = promises.by_product(session, wanted)
    audits = {name: stats.audit_figures(name, counts) for name, counts in versions.items()}
    products = []
    for one in stats.yields(session, wanted, "product"):
        name = str(one.group)
        of_it = stats.yields(session, InspectionFilter(since=since, product=name), "hour")
        by_hour = {row.group: row for row in of_it}
        rows = [by_hour.get(hour) for hour, _ in labels]
        found = audits.get(name)
        counts = versions.get(name, [])
        escape = _interval(promises.audited(counts, Result.OK))
        overkill = _interval(promises.audited(counts, Result.NOT_OK, bad=False))
        products.append(
            Product(
                name=name,
                parts=one.inspections,
                yield_rate=one.yield_rate,
                escalation_rate=_share(one.escalated, one.inspections),
                hourly=charts.rates(
                    [
                        ("bad", [row.yield_rate if row else None for row in rows]),
                        ("accent", [_escalated(row) for row in rows]),
                    ],
                    name=f"yield and share to people of {name} by hour",
                ),
                escape=escape,
                overkill=overkill,
                escape_chart=charts.interval(escape, name="bad among the passed"),
                overkill_chart=charts.interval(overkill, name="good among the rejected"),
                escape_rate=found.escape_rate if found else None,
                overkill_rate=found.overkill_rate if found else None,
            )
        )
    columns = tuple(_column(label, counted.get(hour)) for hour, label in labels)
    ok, not_ok = sum(one.ok for one in every), sum(one.not_ok for one in every)
    parts = sum(one.inspections for one in every)
    return Dashboard(
        hours=hours,
        parts=parts,
        yield_rate=_share(ok, ok + not_ok),
        escalation_rate=_share(sum(one.escalated for one in every), parts),
        columns=columns,
        hourly=charts.by_hour(columns, name=f"parts by hour, the last {hours} hours"),
        products=tuple(products),
        audited=sum(one.passed_audited + one.rejected_audited for one in audits.values()),
    )


def local_time(at: str, form: str = "%Y-%m-%d %H:%M") -> str:
    """A time of the store as the clock of this machine shows it."""
    return datetime.fromisoformat(at).astimezone().strftime(form)


def ago(at: str) -> str:
    """How long ago a time of the store is, in one word and a number.

    >>> ago((datetime.now(UTC) - timedelta(minutes=5)).isoformat())
    '5 min'
    """
    minutes = int((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds() // 60)
    if minutes < 60:
        return f"{max(0, minutes)} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"


def _verdict(judgement: Judgement | None) -> str:
    if judgement is None or judgement.anomalous is None:
        return ""
    return "anomalous" if judgement.anomalous else "normal"


def _clauses(rationale: str) -> tuple[Clause, ...]:
    found = (text.strip() for text in rationale.split(";"))
    return tuple(Clause(text, text.endswith(" bad")) for text in found if text)


def _boxes(judgement: Judgement, region: Region, size: tuple[int, int] | None) -> tuple[Box, ...]:
    if size is None:
        return ()
    named = {*judgement.places, *_CELL.findall(judgement.rationale)}
    width = (region.right - region.left) * size[0] / GRID
    height = (region.bottom - region.top) * size[1] / GRID
    return tuple(
        Box(
            name=cell,
            x=region.left * size[0] + CELLS.index(cell) % GRID * width,
            y=region.top * size[1] + CELLS.index(cell) // GRID * height,
            width=width,
            height=height,
            fault=cell in judgement.places,
        )
        for cell in CELLS
        if cell in named
    )


def _scales(judgement: Judgement, recipe: dict[str, Any]) -> tuple[tuple[str, Markup], ...]:
    if "policy" not in recipe:
        return ()
    policy = Policy.model_validate(recipe["policy"], extra="ignore")  # a newer one may say more
    least = policy.least_confidence(bool(judgement.anomalous))
    both = policy.pass_below == policy.reject_above
    marks = (
        [(policy.pass_below, "threshold")]
        if both
        else [(policy.pass_below, "pass"), (policy.reject_above, "reject")]
    )
    return (
        (
            _number("Anomaly score", judgement.anomaly_score),
            charts.scale(
                judgement.anomaly_score,
                marks,
                name="anomaly score",
                start="normal",
                end="anomalous",
            ),
        ),
        (
            _number("Confidence", judgement.confidence),
            charts.scale(
                judgement.confidence,
                [(least, "needed")],
                name="confidence",
                start="unsure",
                end="sure",
            ),
        ),
    )


def _number(name: str, value: float | None) -> str:
    return f"{name} {'none' if value is None else f'{value:.2f}'}"


def _past(one: Inspected) -> Happened:
    final = one.outcome.final if one.outcome else None
    told = final.value if final else "waiting"
    if one.outcome and one.outcome.rule:
        told += f", {one.outcome.rule}"
    return Happened(one.opened_at, told, f"attempt {one.intake.attempt} at {one.intake.station}")


def _trail(review_id: str, history: History, *, blind: bool) -> list[Happened]:
    """What became of a review so far; of an audit that waits again, not what was found."""
    told = []
    for event in history.events:
        said = event.payload
        if said.get("id") != review_id:
            continue
        if event.type == projections.REVIEW_OPENED:
            told.append(Happened(event.at, "opened"))
        elif event.type == projections.REVIEW_DECIDED:
            if blind:
                told.append(Happened(event.at, f"{event.actor}: decided"))
                continue
            found = said["disposition"] or said["finding"]
            rule = f", {said['rule']}" if said["rule"] else ""
            told.append(Happened(event.at, f"{event.actor}: {found}{rule}", said["comment"] or ""))
        elif event.type == projections.REVIEW_UNDONE:
            why = "" if blind else said["reason"]
            told.append(Happened(event.at, f"{event.actor}: taken back", why))
    return told


def _hours(since: datetime, moment: datetime) -> list[tuple[str, str]]:
    """The hours of a span as the store names them, and as the clock of this machine does."""
    first = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    count = int((moment - first) / timedelta(hours=1)) + 1
    starts = [first + timedelta(hours=n) for n in range(count)]
    form = "%H:%M" if count <= 48 else "%a %H"
    return [(at.isoformat()[:13], at.astimezone().strftime(form)) for at in starts]


def _column(label: str, found: stats.Yield | None) -> charts.Column:
    if found is None:
        return charts.Column(label)
    return charts.Column(label, ok=found.ok, not_ok=found.not_ok, waiting=found.waiting)


def _escalated(found: stats.Yield | None) -> float | None:
    return _share(found.escalated, found.inspections) if found else None


def _interval(groups: Sequence[Audited]) -> charts.Interval | None:
    """The weighted share of what audits found, with its exact 95% interval; None without any."""
    share = promise.share(groups, (1 + promise.SURE) / 2)
    if share.rate is None:
        return None
    hits, of = sum(one.found for one in groups), sum(one.audited for one in groups)
    told = f"{share.rate:.1%} ({share.lower:.1%} to {share.upper:.1%}), {hits} of {of} audited"
    return charts.Interval(share.rate, share.lower, share.upper, told)


def _share(part: int, of: int) -> float | None:
    return part / of if of else None
