"""What stands until a person sees to it: holds, alarms, and results that others were not told."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from lad_agent.store import holds, outbox
from lad_agent.store.holds import Alarm, Hold
from lad_agent.store.outbox import SinkState


@dataclass(frozen=True)
class Standing:
    """Holds that are on and alarms that nobody has answered, the oldest first; all sinks."""

    holds: tuple[Hold, ...]
    alarms: tuple[Alarm, ...]
    sinks: tuple[SinkState, ...]


def standing(session: Session) -> Standing:
    """What stands now."""
    return Standing(
        tuple(holds.holds(session)), tuple(holds.alarms(session)), tuple(outbox.sinks(session))
    )
