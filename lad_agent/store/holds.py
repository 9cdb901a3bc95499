"""Holds and alarms: who sent all parts to people, why, and until when.

An alarm stands until a person answers it, by releasing its product: then the watch begins anew.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from lad_agent.errors import UsageError
from lad_agent.store import projections
from lad_agent.store.models import AlarmRow, HoldRow
from lad_agent.store.operations import Unit, new_id


@dataclass(frozen=True)
class Hold:
    """A hold that is on; `product` None: for all products."""

    id: str
    product: str | None
    reason: str
    on_at: str
    on_by: str


@dataclass(frozen=True)
class Broken:
    """What is not as the calibration made at `calibrated_at` has promised, or was made from.

    It is about parts of `product` that `model` judged against `recipe_version`. `what` is a
    promised quantity (escape_rate, overkill_rate), or what has drifted (confidence,
    anomaly_score); `detail` says in words by how much. With `hold` the recipe asks for a hold.
    """

    product: str
    recipe_version: str
    model: str
    calibrated_at: str
    what: str
    detail: str
    hold: bool = False


@dataclass(frozen=True)
class Alarm:
    """An alarm that stands; see `Broken`. `recipe_version` None: raised by an older version."""

    id: str
    product: str
    recipe_version: str | None
    model: str
    calibrated_at: str
    what: str
    detail: str
    raised_at: str

    def __str__(self) -> str:
        return f"{self.product}: {self.what}: {self.detail}"


def put_hold(unit: Unit, station: str, by: str, reason: str, product: str | None = None) -> str:
    """From now on every part (of `product`, if given) goes to people; returns the hold's id.

    Raises:
        UsageError: such a hold is on already.
    """
    for hold in _on(unit, product):
        raise UsageError(f"on hold already, by {hold.on_by} since {hold.on_at}")
    hold_id = new_id()
    unit.happened(
        projections.HOLD_ON,
        {"id": hold_id, "product": product, "reason": reason},
        station=station,
        actor=by,
        inspection_id=None,
    )
    return hold_id


def release_hold(unit: Unit, station: str, by: str, product: str | None = None) -> int:
    """End the hold of `product`, or the one of all products, and answer its alarms, or all.

    Returns how many alarms were answered.

    Raises:
        UsageError: no such hold is on, and no alarm stands.
    """
    query = select(AlarmRow.id).where(AlarmRow.answered_at.is_(None)).order_by(AlarmRow.id)
    if product is not None:
        query = query.where(AlarmRow.product == product)
    ended, answered = _on(unit, product), unit.connection.scalars(query).all()
    if not ended and not answered:
        raise UsageError(f"no hold is on for {product or 'all products'}, and no alarm stands")
    events = [(projections.HOLD_RELEASED, hold.id) for hold in ended]
    events += [(projections.ALARM_ANSWERED, alarm_id) for alarm_id in answered]
    for type, which in events:
        unit.happened(type, {"id": which}, station=station, actor=by, inspection_id=None)
    return len(answered)


def raise_alarms(unit: Unit, station: str, by: str, found: Sequence[Broken]) -> list[Alarm]:
    """Record what is broken and stands in no alarm yet; put the holds that the recipes ask for.

    Returns the new alarms.
    """
    standing = [Alarm(*row) for row in unit.connection.execute(_STANDING)]
    new = []
    for one in not_raised(found, standing):
        payload = {"id": new_id(), **asdict(one)}
        del payload["hold"]
        unit.happened(
            projections.ALARM_RAISED, payload, station=station, actor=by, inspection_id=None
        )
        new.append(payload["id"])
        if one.hold and not _on(unit, one.product):
            put_hold(unit, station, by, f"alarm, {one.what}: {one.detail}", one.product)
    return [Alarm(*row) for row in unit.connection.execute(_STANDING) if row.id in new]


def holds(session: Session) -> list[Hold]:
    """The holds that are on, the oldest first."""
    return [Hold(*row) for row in session.execute(_HOLDS)]


def alarms(session: Session) -> list[Alarm]:
    """The alarms that stand, the oldest first."""
    return [Alarm(*row) for row in session.execute(_STANDING)]


def not_raised(found: Sequence[Broken], standing: Sequence[Alarm]) -> list[Broken]:
    """What is broken and stands in no alarm yet."""
    told = {_about(alarm) for alarm in standing}
    return [one for one in found if _about(one) not in told]


def why_held(session: Session, product: str) -> str | None:
    """Why every part of `product` goes to people now, in words; None: no hold is on."""
    for hold in session.execute(_HOLDS):
        if hold.product in (None, product):
            return f"by {hold.on_by} since {hold.on_at}: {hold.reason}"
    return None


def _about(one: Broken | Alarm) -> tuple[str | None, ...]:
    return one.product, one.recipe_version, one.model, one.calibrated_at, one.what


def _on(unit: Unit, product: str | None) -> list[Hold]:
    return [Hold(*row) for row in unit.connection.execute(_HOLDS) if row.product == product]


_HOLDS = (
    select(HoldRow.id, HoldRow.product, HoldRow.reason, HoldRow.on_at, HoldRow.on_by)
    .where(HoldRow.released_at.is_(None))
    .order_by(HoldRow.id)
)
_STANDING = (
    select(
        AlarmRow.id,
        AlarmRow.product,
        AlarmRow.recipe_version,
        AlarmRow.model,
        AlarmRow.calibrated_at,
        AlarmRow.what,
        AlarmRow.detail,
        AlarmRow.raised_at,
    )
    .where(AlarmRow.answered_at.is_(None))
    .order_by(AlarmRow.id)
)
