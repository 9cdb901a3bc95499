"""What versions judged: an event whenever they change at a station, so that a replay can tell."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from lad_agent.store.ledger import read
from lad_agent.store.models import Event
from lad_agent.store.projections import SOFTWARE_SEEN

if TYPE_CHECKING:
    from lad_agent.store.operations import Unit


def see(unit: "Unit", station: str, actor: str, versions: Mapping[str, str]) -> None:
    """Note what a station judges with from now on, if it is not what it judged with before."""
    if in_force(unit.connection, station) == versions:
        return
    unit.happened(
        SOFTWARE_SEEN,
        {"versions": dict(versions)},
        station=station,
        actor=actor,
        inspection_id=None,
    )


def in_force(
    connection: Connection, station: str, before: int | None = None
) -> dict[str, str] | None:
    """The versions last seen at a station, up to event number `before`; None if none ever were."""
    query = (
        select(Event.canonical)
        .where(Event.station == station, Event.type == SOFTWARE_SEEN)
        .order_by(Event.seq.desc())
        .limit(1)
    )
    if before is not None:
        query = query.where(Event.seq < before)
    found = connection.scalar(query)
    if found is None:
        return None
    versions: dict[str, str] = read(found)["payload"]["versions"]
    return versions
