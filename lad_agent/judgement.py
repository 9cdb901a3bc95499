"""What passes between the rooms: the reasoner's judgement, the decision, and the result's names.

`Result` follows OPC 40001-101 `ResultEvaluation`; findings and dispositions follow ISO 9001
nonconformance practice.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Result(StrEnum):
    """OPC 40001-101 ResultEvaluation: OK 1, NotOK 2, NotDecidable 3."""

    OK = "OK"
    NOT_OK = "NotOK"
    NOT_DECIDABLE = "NotDecidable"


class Finding(StrEnum):
    """What a person found; labels for training and calibration come from it."""

    CONFORMING = "conforming"
    NONCONFORMING = "nonconforming"


class Disposition(StrEnum):
    """What becomes of a nonconforming part; never a label."""

    USE_AS_IS = "use-as-is"
    REWORK = "rework"
    SCRAP = "scrap"
    RETURN = "return-to-vendor"


class Reason(StrEnum):
    """Why a part is NotDecidable."""

    UNREADABLE = "unreadable"
    TOO_DARK = "too-dark"
    TOO_BRIGHT = "too-bright"
    BLURRED = "blurred"
    TOO_SMALL = "too-small"
    NOISE = "noise"
    PRODUCT_NOT_IN_MODEL = "product-not-in-model"
    OTHER_PRODUCT = "other-product"
    MALFORMED = "malformed-answer"
    EVIDENCE_CONTRADICTS = "evidence-contradicts"
    LOW_CONFIDENCE = "low-confidence"
    CALIBRATION_VOID = "calibration-void"
    ON_HOLD = "on-hold"
    SCORE_BETWEEN = "score-between-thresholds"
    TIMED_OUT = "timed-out"
    REASONER_FAILED = "reasoner-failed"


FAILURES = frozenset({Reason.UNREADABLE, Reason.TIMED_OUT, Reason.REASONER_FAILED})
"""Reasons that tell of something broken, not of a part in doubt: nothing was judged."""


Evidence = Literal["consistent", "contradicted", "unchecked"]


class Judgement(BaseModel):
    """The reasoner's answer about one image.

    `anomalous` is its yes/no, null only when the answer is not well-formed. `anomaly_score` is
    P(yes) against P(no) at the answer's position, averaged over the rationales drawn; `confidence`
    is kept apart: the probability of the weakest token of the greedy rationale, joined by the
    agreement of further answers where there are any (`samples` of them: sampled, or under other
    references), halved where the evidence contradicts. All in [0, 1]. `mean_logprob` and
    `sum_logprob` are over the tokens of the greedy rationale, natural logarithms; `image_quality`
    is how far the picture was from the gate's nearest limit (see `lad_agent.images.headroom`). None
    where the answer is not well-formed, and in records of before they were kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    anomalous: bool | None
    anomaly_score: float | None = Field(default=None, ge=0.0, le=1.0)
    confidence: float | None = Field(default=None, ge=0.0, le=1.0)
    rationale: str = ""
    rule: str | None = None
    places: tuple[str, ...] = ()
    raw_text: str = ""
    well_formed: bool
    weakest_token: float | None = Field(default=None, ge=0.0, le=1.0)
    mean_logprob: float | None = Field(default=None, le=0.0)
    sum_logprob: float | None = Field(default=None, le=0.0)
    samples: int = Field(default=0, ge=0)
    agreement: float | None = Field(default=None, ge=0.0, le=1.0)
    evidence: Evidence = "unchecked"
    evidence_detail: str | None = None
    seen_product: str | None = None
    model: str
    tokens: int = Field(default=0, ge=0)
    elapsed_s: float = Field(default=0.0, ge=0.0)
    image_quality: float | None = Field(default=None, ge=0.0, le=1.0)

    @property
    def decision_score(self) -> float | None:
        """0.5 + (anomaly_score - 0.5) x confidence: what AUROC and curves are drawn from."""
        if self.anomaly_score is None or self.confidence is None:
            return None
        return 0.5 + (self.anomaly_score - 0.5) * self.confidence


@dataclass(frozen=True)
class Decision:
    """A result, why it is NotDecidable (else None), and whether a blind audit is opened.

    `detail` says in words what `reason` names, where there is more to say.
    """

    result: Result
    reason: Reason | None = None
    audit: bool = False
    detail: str | None = None
