"""What may happen to an inspection, each as one step of a transaction: check, then append.

Every step is safe to repeat: after a crash the same step under the same id changes nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uuid_utils
from sqlalchemy import Connection, bindparam, select
from sqlalchemy.engine import RowMapping

from lad_agent.errors import Conflict, NeedsReason, NotFound, UsageError
from lad_agent.inspection import (
    MEANINGS,
    Intake,
    Opened,
    ReviewDecision,
    contrary,
    idempotency_key,
)
from lad_agent.judgement import Decision, Disposition, Finding, Judgement, Result
from lad_agent.recipe import judging, of_version
from lad_agent.store import outbox, projections
from lad_agent.store.ledger import Ledger, Payload, now, timestamp
from lad_agent.store.models import (
    ClaimRow,
    InForce,
    Inspection,
    JudgementRow,
    ModelRow,
    RecipeRow,
    ReviewRow,
    UserRow,
)
from lad_agent.store.tallies import Tally


@dataclass
class Unit:
    """One transaction: its connection, its ledger, and what it knows to be there already."""

    connection: Connection
    ledger: Ledger
    known: set[tuple[str, str]] = field(default_factory=set)
    in_force: dict[tuple[str, str, str], str | None] = field(default_factory=dict)
    sinks: tuple[str, ...] | None = None
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.connection)

    def happened(
        self, type: str, payload: Payload, *, station: str, actor: str, inspection_id: str | None
    ) -> None:
        """Append an event, write what it changes, and the messages that tell of it."""
        if inspection_id is not None and type in projections.COUNTED:
            self.tally.changing(inspection_id, new=type == projections.OPENED)
        entry = self.ledger.append(
            type, payload, station=station, actor=actor, inspection_id=inspection_id
        )
        projections.apply(self.connection, entry)
        outbox.add(self, entry)

    def write(self) -> None:
        """Write what was gathered so far; must be called once more before the commit."""
        self.ledger.write()
        self.tally.write()


def take_in(unit: Unit, intake: Intake) -> Opened:
    """Make the open row of an inspection, or find it by its idempotency key."""
    key = idempotency_key(intake)
    found = unit.connection.execute(_BY_KEY, {"key": key}).one_or_none()
    if found is not None:
        return Opened(found.id, complete=found.recorded_at is not None, found=True)
    _see_recipe(unit, intake)
    _see_model(unit, intake)
    _put_in_force(unit, intake)
    inspection_id = new_id()
    payload = intake.model_dump(exclude={"station", "actor"}) | {"key": key}
    unit.happened(
        projections.OPENED,
        payload,
        station=intake.station,
        actor=intake.actor,
        inspection_id=inspection_id,
    )
    return Opened(inspection_id, complete=False, found=False)


def record(
    unit: Unit,
    inspection_id: str,
    decision: Decision,
    judgement: Judgement | None,
    kept: str | None = None,
) -> None:
    """Complete an inspection that is OK or NotOK; opens a blind audit where the decision asks.

    `kept` is the copy of the image that the audit's reviewer will see.

    Raises:
        NotFound: no such inspection.
        ValueError: NotDecidable, which goes to `escalate`.
    """
    if decision.result is Result.NOT_DECIDABLE:
        raise ValueError("a NotDecidable part is escalated, never recorded without a review")
    row = _inspection(unit, inspection_id)
    if row["recorded_at"] is not None:
        return
    _complete(unit, row, decision, judgement)
    if decision.audit:
        _open_review(unit, row, "audit", kept)


def escalate(
    unit: Unit,
    inspection_id: str,
    decision: Decision,
    judgement: Judgement | None,
    kept: str | None,
) -> str:
    """Record an inspection as NotDecidable and open its review; returns the review's id.

    Raises:
        NotFound: no such inspection.
        ValueError: a decision that is OK or NotOK, or that is recorded already.
    """
    if decision.result is not Result.NOT_DECIDABLE:
        raise ValueError("only a NotDecidable part is escalated")
    row = _inspection(unit, inspection_id)
    if row["recorded_at"] is None:
        _complete(unit, row, decision, judgement)
        return _open_review(unit, row, "escalation", kept)
    review_id = unit.connection.scalar(
        select(ReviewRow.id).where(
            ReviewRow.inspection_id == inspection_id, ReviewRow.kind == "escalation"
        )
    )
    if review_id is None:
        raise ValueError(f"inspection {inspection_id} is recorded as {row['result']} already")
    return review_id


def decide_review(unit: Unit, review_id: str, decision: ReviewDecision) -> None:
    """Take a person's decision; the first one stands.

    Raises:
        NotFound: no such review.
        Conflict: decided already (says by whom and when), or in another's hand.
        UsageError: an incomplete decision.
        NeedsReason: it goes against the reasoner, and does not say why.
    """
    review = _open_one(unit, review_id, decision.by)
    row = _inspection(unit, review["inspection_id"])
    _check_decision(unit, row, decision)
    _check_reason(unit, review, decision)
    unit.happened(
        projections.REVIEW_DECIDED,
        {
            "id": review_id,
            "meaning": MEANINGS[review["kind"]],
            **decision.model_dump(mode="json", exclude={"by"}),
        },
        station=row["station"],
        actor=decision.by,
        inspection_id=row["id"],
    )


def claim_review(unit: Unit, review_id: str, by: str, lease_s: float) -> str:
    """Take an open review in hand for `lease_s` seconds, or longer; returns until when.

    Raises:
        NotFound: no such review.
        Conflict: decided already, or in another's hand (says whose and until when).
    """
    review = _open_one(unit, review_id, by)
    until = timestamp(datetime.now(UTC) + timedelta(seconds=lease_s))
    _review_event(unit, projections.REVIEW_CLAIMED, review, by, {"until": until})
    return until


def release_review(unit: Unit, review_id: str, by: str) -> None:
    """Put a claimed review back; nothing where `by` does not have it.

    Raises:
        NotFound: no such review.
    """
    review = _review(unit, review_id)
    claim = unit.connection.execute(_CLAIM, {"id": review_id}).mappings().one_or_none()
    if claim is not None and claim["by"] == by:
        _review_event(unit, projections.REVIEW_RELEASED, review, by, {})


def undo_review(unit: Unit, review_id: str, by: str, reason: str) -> None:
    """Take a decision back: the review waits again, and the part with it where it was escalated.

    The decision stays in the ledger.

    Raises:
        NotFound: no such review.
        Conflict: it is not decided.
        UsageError: name or reason are missing.
    """
    review = _review(unit, review_id)
    if not by.strip() or not reason.strip():
        raise UsageError("to take a decision back needs a name and a reason")
    if review["decided_at"] is None:
        raise Conflict(f"review {review_id} is not decided; there is nothing to take back")
    _review_event(unit, projections.REVIEW_UNDONE, review, by, {"reason": reason})


def change_user(unit: Unit, station: str, by: str, name: str, role: str, *, active: bool) -> None:
    """Record that a person has this role from now on, or no right any more; no secret goes in."""
    wanted = {"name": name, "role": role, "active": active}
    row = unit.connection.execute(select(UserRow.__table__).where(UserRow.name == name))
    found = row.mappings().one_or_none()
    if found is None or any(found[field] != value for field, value in wanted.items()):
        unit.happened(
            projections.USER_CHANGED, wanted, station=station, actor=by, inspection_id=None
        )


def exported(unit: Unit, station: str, by: str, what: Mapping[str, Any]) -> None:
    """Record that data left the store: `what` says which, how many, in what form and its hash."""
    unit.happened(projections.EXPORTED, dict(what), station=station, actor=by, inspection_id=None)


def apply_review(unit: Unit, inspection_id: str) -> None:
    """Close an escalated inspection whose review is decided.

    Raises:
        NotFound: no such inspection.
        Conflict: its review is still open, or open again.
    """
    row = _inspection(unit, inspection_id)
    if row["closed_at"] is not None:
        return
    if row["final"] is None:
        raise Conflict(f"inspection {inspection_id} still waits for a person's decision")
    unit.happened(
        projections.CLOSED,
        {"final": row["final"]},
        station=row["station"],
        actor=row["actor"],
        inspection_id=inspection_id,
    )


def new_id() -> str:
    """A UUIDv7: ids made later sort later."""
    return str(uuid_utils.uuid7())


def _see_recipe(unit: Unit, intake: Intake) -> None:
    if _known(unit, RecipeRow.recipe_version, intake.recipe_version):
        return
    payload = {
        "recipe_version": intake.recipe_version,
        "task_version": intake.task_version,
        "product": intake.product,
        "path": intake.recipe_path,
        "content": _recipe_content(intake),
    }
    unit.happened(
        projections.RECIPE_SEEN,
        payload,
        station=intake.station,
        actor=intake.actor,
        inspection_id=None,
    )


def _recipe_content(intake: Intake) -> dict[str, Any] | None:
    """What the recipe said that was judged against; None where that is not known any more."""
    recipe = of_version(Path(intake.recipe_path), intake.recipe_version)
    if recipe is None:
        return None
    content = {
        "rules": [rule.model_dump() for rule in recipe.rules],
        "references": list(recipe.reference_sha256),
        "region": recipe.region.model_dump(),
        "image_size": recipe.image_size,
        "policy": recipe.policy.model_dump(),
        **judging(),
    }
    if len(recipe.references) > 1:
        content["references_shown"] = recipe.references_shown
    if recipe.calibration is not None:
        content["calibration"] = recipe.calibration.model_dump(mode="json")
    return content


def _see_model(unit: Unit, intake: Intake) -> None:
    if not _known(unit, ModelRow.model, intake.model):
        unit.happened(
            projections.MODEL_SEEN,
            {"model": intake.model},
            station=intake.station,
            actor=intake.actor,
            inspection_id=None,
        )


def _put_in_force(unit: Unit, intake: Intake) -> None:
    """Record where a station judges a product with another recipe, policy or model than before."""
    changes = (("recipe", intake.recipe_version), ("model", intake.model))
    for what, value in changes:
        before = _in_force(unit, intake.station, intake.product, what)
        if before == value:
            continue
        unit.in_force[intake.station, intake.product, what] = value
        type = projections.MODEL_CHANGED if what == "model" else projections.RECIPE_CHANGED
        if what == "recipe" and before is not None:
            task = select(RecipeRow.task_version).where(RecipeRow.recipe_version == before)
            if unit.connection.scalar(task) == intake.task_version:
                type = projections.THRESHOLD_CHANGED
        unit.happened(
            type,
            {"product": intake.product, "value": value, "before": before},
            station=intake.station,
            actor=intake.actor,
            inspection_id=None,
        )


def _in_force(unit: Unit, station: str, product: str, what: str) -> str | None:
    which = (station, product, what)
    if which not in unit.in_force:
        wanted = {"station": station, "product": product, "what": what}
        unit.in_force[which] = unit.connection.scalar(_IN_FORCE, wanted)
    return unit.in_force[which]


def _known(unit: Unit, column: Any, value: str) -> bool:
    what = (str(column), value)
    if what in unit.known:
        return True
    unit.known.add(what)
    return unit.connection.scalar(select(column).where(column == value)) is not None


def _complete(unit: Unit, row: RowMapping, decision: Decision, judgement: Judgement | None) -> None:
    if judgement is not None:
        unit.happened(
            projections.JUDGED,
            judgement.model_dump(mode="json"),
            station=row["station"],
            actor=row["actor"],
            inspection_id=row["id"],
        )
    unit.happened(
        projections.RECORDED,
        asdict(decision),
        station=row["station"],
        actor=row["actor"],
        inspection_id=row["id"],
    )


def _open_review(unit: Unit, row: RowMapping, kind: str, kept: str | None) -> str:
    review_id = new_id()
    unit.happened(
        projections.REVIEW_OPENED,
        {"id": review_id, "kind": kind, "kept": kept},
        station=row["station"],
        actor=row["actor"],
        inspection_id=row["id"],
    )
    return review_id


def _review(unit: Unit, review_id: str) -> RowMapping:
    review = unit.connection.execute(_REVIEW, {"id": review_id}).mappings().one_or_none()
    if review is None:
        raise NotFound(f"no review {review_id!r}; lad-agent review list shows them")
    return review


def _open_one(unit: Unit, review_id: str, by: str) -> RowMapping:
    """A review that is not decided, nor in the hand of another than `by`."""
    review = _review(unit, review_id)
    if review["decided_at"] is not None:
        raise Conflict(_already_decided(review))
    claim = unit.connection.execute(_CLAIM, {"id": review_id}).mappings().one_or_none()
    if claim is not None and claim["by"] != by and claim["until"] > now():
        raise Conflict(
            f"review {review_id} is in the hand of {claim['by']} until {claim['until']}; "
            "take another, or ask for it"
        )
    return review


def _review_event(
    unit: Unit, type: str, review: RowMapping, by: str, payload: dict[str, Any]
) -> None:
    unit.happened(
        type,
        {"id": review["id"], **payload},
        station=_inspection(unit, review["inspection_id"])["station"],
        actor=by,
        inspection_id=review["inspection_id"],
    )


def _check_decision(unit: Unit, row: RowMapping, decision: ReviewDecision) -> None:
    if not decision.by.strip():
        raise UsageError("a decision needs the name of who decides")
    if decision.finding is Finding.CONFORMING:
        if decision.disposition is not None or decision.rule is not None:
            raise UsageError("a conforming part has neither disposition nor broken rule")
        return
    if decision.disposition is None:
        raise UsageError(f"a nonconforming part needs a disposition: {', '.join(Disposition)}")
    content = unit.connection.scalar(
        select(RecipeRow.content).where(RecipeRow.recipe_version == row["recipe_version"])
    )
    ids = [rule["id"] for rule in content["rules"]] if content else []
    if decision.rule is not None and ids and decision.rule not in ids:
        raise UsageError(f"the recipe has no rule {decision.rule!r}; it has {', '.join(ids)}")


def _check_reason(unit: Unit, review: RowMapping, decision: ReviewDecision) -> None:
    said = unit.connection.scalar(_SAID, {"id": review["inspection_id"]})
    if decision.finding is contrary(review["kind"], said) and not (decision.comment or "").strip():
        raise NeedsReason("this goes against the reasoner: say why in a comment")


def _already_decided(review: RowMapping) -> str:
    found = review["finding"]
    if review["disposition"]:
        found = f"{found}, {review['disposition']}"
    return (
        f"review {review['id']} was decided by {review['decided_by']} "
        f"at {review['decided_at']} ({found}); the first decision stands"
    )


def _inspection(unit: Unit, inspection_id: str) -> RowMapping:
    row = unit.connection.execute(_BY_ID, {"id": inspection_id}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no inspection {inspection_id!r}; lad-agent audit list shows them")
    return row


# Built once: half of a step's time would go into building them again.
_BY_KEY = select(Inspection.id, Inspection.recorded_at).where(Inspection.key == bindparam("key"))
_BY_ID = select(Inspection.__table__).where(Inspection.id == bindparam("id"))
_REVIEW = select(ReviewRow.__table__).where(ReviewRow.id == bindparam("id"))
_SAID = select(JudgementRow.anomalous).where(JudgementRow.inspection_id == bindparam("id"))
_CLAIM = select(ClaimRow.__table__).where(ClaimRow.review_id == bindparam("id"))
_IN_FORCE = select(InForce.value).where(
    InForce.station == bindparam("station"),
    InForce.product == bindparam("product"),
    InForce.what == bindparam("what"),
)
