"""What all scenes of `benchmarks.kill` share: where they are played, and what they come to."""

import multiprocessing
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text

from lad_agent.store import AuditStore

KINDS = ("lost", "twice", "broken", "stuck")
"""What can be wrong: work that is gone, done again, not as the ledger says, or never finished."""

CONTEXT = multiprocessing.get_context("forkserver")

Fault = tuple[str, str]


@dataclass(frozen=True)
class Place:
    """Where a scene is played: a folder, the value of `--store`, and the parts to inspect."""

    folder: Path
    store: str
    parts: Path


@dataclass
class Tally:
    """What a scene came to; `midst` counts kills that met the child at work."""

    kills: int = 0
    midst: int = 0
    faults: list[Fault] = field(default_factory=list)


def twice(audit: AuditStore) -> list[Fault]:
    """What happened to an inspection more than once."""
    rows = audit.ask(lambda session: session.execute(_TWICE).all())
    return [("twice", f"{row.type} of {row.inspection_id}") for row in rows]


_TWICE = text(
    "SELECT inspection_id, type FROM events WHERE inspection_id IS NOT NULL "
    "GROUP BY inspection_id, type HAVING count(*) > 1"
)
