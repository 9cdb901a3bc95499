"""Lines of `results.jsonl` beside their truth, one an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lad_agent.errors import UsageError
from lad_agent.judgement import Judgement, Result
from lad_agent.training.evaluation import jsonl
from lad_agent.training.evaluation.truth import Truth, read_truth

DRAWN = ("confidence", "weakest_token", "agreement", "anomaly_score", "decision_score")
"""Sources of confidence that are drawn as curves."""
SOURCES = (*DRAWN, "mean_logprob", "sum_logprob", "evidence", "image_quality")
"""All sources of confidence; see `confidences`."""
_EVIDENCE = {"consistent": 1.0, "unchecked": 0.5, "contradicted": 0.0}


@dataclass(frozen=True)
class Judged:
    """One result beside its truth; `confidences` are its sources of confidence, by name."""

    truth: Truth
    anomalous: bool | None
    score: float
    result: str
    rule: str | None
    well_formed: bool
    evidence: str
    rationale: str = ""
    confidences: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, truth: Truth, judgement: Judgement, result: Result) -> Judged:
        """A judgement and what a policy makes of it, without rationale and confidences."""
        score = judgement.decision_score
        return cls(
            truth=truth,
            anomalous=judgement.anomalous,
            score=0.5 if score is None else score,
            result=result.value,
            rule=judgement.rule,
            well_formed=judgement.well_formed,
            evidence=judgement.evidence,
        )

    @property
    def right(self) -> bool:
        """Whether the verdict is the truth; no verdict is wrong."""
        return self.anomalous == self.truth.anomalous


@dataclass(frozen=True)
class Joined:
    """Results with a truth, in the order of their image hashes, and how many lines were not used.

    `repeated` are earlier attempts at an image that was judged again.
    """

    judged: tuple[Judged, ...]
    without_truth: int
    repeated: int


def join(results: Path, truth: Path) -> Joined:
    """Join `results` (a results.jsonl) with the truth under the folder `truth`.

    An image counts once: the line with the highest `attempt`, of these the newest (ids grow with
    time), of these the last in the file.

    Raises:
        UsageError: a file is missing or not of its form, or no image of the results has a truth.
    """
    known = read_truth(truth)
    last: dict[str, tuple[tuple[int, str], Judged]] = {}
    without_truth = repeated = 0
    for line in jsonl.read(results, lambda entry: _line(entry, known)):
        if line is None:
            without_truth += 1
            continue
        digest, age, judged = line
        repeated += digest in last
        if digest not in last or age >= last[digest][0]:
            last[digest] = (age, judged)
    if not last:
        raise UsageError(f"{results}: none of its images has a truth under {truth}")
    judged_once = tuple(judged for _, (_, judged) in sorted(last.items(), key=lambda one: one[0]))
    return Joined(judged_once, without_truth, repeated)


def _line(
    entry: Mapping[str, Any], known: Mapping[str, Truth]
) -> tuple[str, tuple[int, str], Judged] | None:
    digest = entry.get("image_sha256") or ""
    truth = known.get(digest)
    if truth is None:
        return None
    anomalous = entry.get("anomalous")
    if anomalous is not None and not isinstance(anomalous, bool):
        raise ValueError(f"anomalous is {anomalous!r}, neither true, false nor null")
    score = _share(entry, "decision_score")
    judged = Judged(
        truth=truth,
        anomalous=anomalous,
        score=0.5 if score is None else score,
        result=Result(entry["result"]).value,
        rule=entry.get("rule"),
        well_formed=bool(entry.get("well_formed")),
        evidence=str(entry.get("evidence", "unchecked")),
        rationale=str(entry.get("rationale") or ""),
        confidences=confidences(entry),
    )
    return digest, (int(entry.get("attempt", 1)), str(entry.get("id", ""))), judged


def confidences(told: Mapping[str, Any]) -> dict[str, float]:
    """What a judgement's values say about being right, those of `SOURCES` that are there.

    All from 0 to 1: a score s as 0.5 + |s - 0.5|, a log-probability as the probability, evidence as
    1 where it is consistent, 0.5 where nothing could be checked and 0 where it contradicts.

    Raises:
        ValueError: one is no number in its range.
    """
    found = {name: _confidence(told, name) for name in SOURCES}
    return {name: value for name, value in found.items() if value is not None}


def _confidence(told: Mapping[str, Any], name: str) -> float | None:
    if name == "evidence":
        return _EVIDENCE.get(str(told.get(name)))
    if name.endswith("_logprob"):
        value = told.get(name)
        if value is not None and not -math.inf < value <= 0:
            raise ValueError(f"{name} is {value}, not a number below 0")
        return None if value is None else math.exp(value)
    share = _share(told, name)
    return 0.5 + abs(share - 0.5) if share is not None and name.endswith("_score") else share


def _share(entry: Mapping[str, Any], name: str) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, not a number from 0 to 1")
    return float(value)
