"""One inspection from intake to result: the plain types that graph, store and front doors share."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lad_agent.judgement import Disposition, Finding, Judgement, Reason, Result

ReviewKind = Literal["escalation", "audit"]

MEANINGS: dict[str, str] = {
    "escalation": "review: decides about a part that was not decidable",
    "audit": "audit: judges a decided part anew, without sight of the result",
}
"""What a person's name under a review means, by its kind; stands with the decision."""


class Intake(BaseModel):
    """What is known before the image is judged; makes the open row.

    `image_sha256` is the hash of the file's bytes, null only where the file cannot be opened.
    `key` (see `idempotency_key`) finds the row again on a second run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    part_id: str
    station: str
    lot: str | None = None
    attempt: int = 1
    image: str
    image_sha256: str | None
    product: str
    task_version: str
    recipe_version: str
    recipe_path: str
    model: str
    actor: str


class ReviewDecision(BaseModel):
    """A person's decision about one part; `rule` names the one that broke, where nonconforming."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: Finding
    disposition: Disposition | None = None
    rule: str | None = None
    comment: str | None = None
    by: str


class Outcome(BaseModel):
    """One line of `results.jsonl`. Fields may be added, never renamed.

    `result` is the reasoner's and policy's; `final` is the result after review (null while a
    review is open).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    part_id: str
    station: str
    lot: str | None
    image: str
    image_sha256: str | None
    product: str
    task_version: str
    recipe_version: str
    result: Result
    anomalous: bool | None
    anomaly_score: float | None
    confidence: float | None
    decision_score: float | None
    weakest_token: float | None
    samples: int
    agreement: float | None
    rationale: str
    rule: str | None
    places: tuple[str, ...]
    well_formed: bool
    reason: Reason | None
    model: str
    elapsed_s: float
    evidence: str
    final: Result | None
    attempt: int
    mean_logprob: float | None = None
    sum_logprob: float | None = None
    image_quality: float | None = None


@dataclass(frozen=True)
class Opened:
    """A row made or found at intake; `complete` when its result is already recorded."""

    id: str
    complete: bool
    found: bool


def contrary(kind: ReviewKind, anomalous: bool | None) -> Finding | None:
    """The finding that goes against the reasoner, and so must say why; None where it said nothing.

    None for an audit too: it is blind, and being asked for a reason would tell.
    """
    if kind == "audit" or anomalous is None:
        return None
    return Finding.CONFORMING if anomalous else Finding.NONCONFORMING


def idempotency_key(intake: Intake) -> str:
    """The same for every run over the same image of the same part, recipe, model and attempt.

    A file that could not be opened has no hash; its path stands in.
    """
    content = [
        intake.part_id,
        intake.image_sha256 or f"path:{intake.image}",
        intake.recipe_version,
        intake.model,
        intake.attempt,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


__all__ = [
    "MEANINGS",
    "Intake",
    "Judgement",
    "Opened",
    "Outcome",
    "ReviewDecision",
    "ReviewKind",
    "contrary",
    "idempotency_key",
]
