"""Inspections as the tests need them, and a look at all tables at once."""

from pathlib import Path
from typing import Any

from sqlalchemy import select

from lad_agent.inspection import Intake, ReviewDecision
from lad_agent.judgement import Decision, Disposition, Finding, Judgement, Reason, Result
from lad_agent.store import AuditStore, operations
from lad_agent.store.models import PROJECTIONS

OK = Decision(Result.OK)
NOT_OK = Decision(Result.NOT_OK)
DOUBT = Decision(Result.NOT_DECIDABLE, Reason.LOW_CONFIDENCE)
CONFORMING = ReviewDecision(finding=Finding.CONFORMING, by="anna")
SCRAP = ReviewDecision(
    finding=Finding.NONCONFORMING,
    disposition=Disposition.SCRAP,
    rule="R1",
    comment="one washer",
    by="anna",
)
HOSTILE = "'; DROP TABLE events; --\x00\n\t\"\\ \u202e<script>é\U0001f600\udcff\uffff0000 {0} %s"


def intake(part: str = "p1", **changed: Any) -> Intake:
    fields: dict[str, Any] = {
        "part_id": part,
        "station": "line-1",
        "image": f"/images/{part}.png",
        "image_sha256": "ab" * 32,
        "product": "screw_bag",
        "task_version": "task",
        "recipe_version": "recipe",
        "recipe_path": "/nowhere/recipe.yaml",
        "model": "pocket@1",
        "actor": "otto",
    }
    return Intake(**fields | changed)


def judgement(**changed: Any) -> Judgement:
    fields: dict[str, Any] = {
        "anomalous": False,
        "anomaly_score": 0.125,
        "confidence": 0.875,
        "rationale": "R1 washers at B2, D4: 2 of 2 ok",
        "rule": None,
        "places": ("B2", "D4"),
        "raw_text": "<think>R1 washers at B2, D4: 2 of 2 ok</think><answer>no</answer>",
        "well_formed": True,
        "weakest_token": 0.75,
        "mean_logprob": -0.0625,
        "sum_logprob": -2.5,
        "image_quality": 0.625,
        "model": "pocket@1",
        "tokens": 40,
        "elapsed_s": 0.25,
    }
    return Judgement(**fields | changed)


def write_image(folder: Path, name: str = "part.png", content: bytes = b"pixels") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def change_user(store: AuditStore, by: str, name: str, role: str, *, active: bool) -> None:
    """See `operations.change_user`."""
    store.transact(
        [lambda unit: operations.change_user(unit, "line-1", by, name, role, active=active)]
    )


def tables(store: AuditStore) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every projection."""
    with store._connection() as connection:
        return {
            table.__tablename__: sorted(
                (tuple(row) for row in connection.execute(select(table.__table__))), key=repr
            )
            for table in PROJECTIONS
        }
