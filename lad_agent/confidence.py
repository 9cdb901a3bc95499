"""What a calibration knows: P(the verdict is right), and for what it was made. Plain JSON.

Made by `lad-agent calibrate` (`lad_agent.training.calibration`), kept beside the recipe, applied
here without any library of learning.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lad_agent.judgement import Judgement

if TYPE_CHECKING:
    from lad_agent.recipe import Policy, Recipe

FEATURES = (
    "raw_confidence",
    "weakest_token",
    "mean_logprob",
    "sum_logprob",
    "margin",
    "agreement",
    "decided_at_once",
    "evidence_consistent",
    "image_quality",
    "says_anomalous",
)
"""What a judgement shows about its own verdict; see `features`."""

EITHER_WAY = frozenset({"says_anomalous"})
"""Of these the more may mean the less sure; of all others more never does."""

ASKING = ("samples", "sample_below", "other_references")
"""Values of a policy that say how more is asked where a part is in doubt; others, and confidence
means something else."""

KEPT_ORDER = 0.001
"""Share of the raw confidence in a learned one, which may say the same of many: its order stays."""

_LEAST = 1e-6

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Logistic(_Strict):
    """P(right) = (1 - kept_order) / (1 + exp(-z)) + kept_order x raw confidence, where
    z = intercept + sum of weight x (feature - centre) / scale; `kept_order` is 0 in files of older
    versions.

    With other `features` than `FEATURES` it is of another version: read, but void.
    """

    kind: Literal["logistic"] = "logistic"
    features: tuple[str, ...] = FEATURES
    centre: tuple[float, ...]
    scale: tuple[Annotated[float, Field(gt=0)], ...]
    weights: tuple[float, ...]
    intercept: float
    kept_order: Share = 0.0

    @model_validator(mode="after")
    def _one_each(self) -> Logistic:
        if not len(self.centre) == len(self.scale) == len(self.weights) == len(self.features):
            raise ValueError("centre, scale and weights want a number for each feature")
        return self


class Isotonic(_Strict):
    """P(right) = (1 - kept_order) x curve + kept_order x raw confidence, where the curve is
    straight lines over the raw confidence, between points that never fall.
    """

    kind: Literal["isotonic"] = "isotonic"
    x: tuple[Share, ...] = Field(min_length=1)
    y: tuple[Share, ...] = Field(min_length=1)
    kept_order: Share = KEPT_ORDER

    @model_validator(mode="after")
    def _rising(self) -> Isotonic:
        rising = all(a < b for a, b in zip(self.x, self.x[1:], strict=False))
        if len(self.x) != len(self.y) or not rising or list(self.y) != sorted(self.y):
            raise ValueError("x must rise, y must not fall, and both be of one length")
        return self


ConfidenceModel = Annotated[Logistic | Isotonic, Field(discriminator="kind")]


class Promise(_Strict):
    """At most `at_most` of the parts of one class meet `quantity`, with the certainty `sure`.

    Of `of` parts of that class (anomalous for escapes, good for overkill) `seen` met it at the
    threshold that was chosen on them.
    """

    quantity: Literal["escape_rate", "overkill_rate"]
    at_most: Share
    sure: Share
    seen: int = Field(ge=0)
    of: int = Field(ge=1)

    def __str__(self) -> str:
        what = "escapes" if self.quantity == "escape_rate" else "overkill"
        return f"at most {percent(self.at_most, 1)} {what}, {percent(self.sure)} sure"


class Counts(_Strict):
    """How many parts of each class."""

    good: int = Field(ge=0)
    bad: int = Field(ge=0)


class Reference(_Strict):
    """101 quantiles over the good parts of the calibration, for drift to be measured against."""

    confidence: tuple[Share, ...] = Field(min_length=101, max_length=101)
    anomaly_score: tuple[Share, ...] = Field(min_length=101, max_length=101)


class Calibration(_Strict):
    """One calibration: what it holds for, what it was made from, what it promises.

    `model` is the reasoner's fingerprint. `samples`, `other_references` and `sample_below` are the
    recipe's way of asking more where it is in doubt. `data_sha256` hashes content and label of
    every part; `fitted_on` are those that the confidence model was fitted on, `chosen_on` the
    others, on which the thresholds were chosen; `kinds` counts the others by defect. `by` is
    who answers for it, `software` the versions it was made with, `source` says where the parts
    came from, `costs` what was weighed where costs chose, `notes` what a reader of the numbers
    must know, `thresholds` those that the promises were made for (all empty in files of older
    versions). `confidence_model` is null where the raw confidence was kept.
    """

    format: Literal[1] = 1
    product: str
    task_version: str
    model: str
    samples: int
    sample_below: float
    other_references: int | None = None
    made_at: str
    data_sha256: str
    seed: int
    fit_share: float | None = None
    by: str | None = None
    software: dict[str, str] | None = None
    source: str | None = None
    costs: dict[str, float] | None = None
    notes: tuple[str, ...] = ()
    fitted_on: Counts
    chosen_on: Counts
    kinds: dict[str, int]
    confidence_model: ConfidenceModel | None
    promises: tuple[Promise, ...]
    thresholds: dict[str, float] | None = None
    reference: Reference

    @property
    def mix(self) -> str:
        """The parts that chose the thresholds, by defect: `40 good, 150 logical`."""
        return ", ".join(f"{number} {kind}" for kind, number in self.kinds.items())

    @property
    def valid_for(self) -> str:
        """What the promises hold for, in words."""
        return (
            f"{self.product} of task {self.task_version}, judged by {self.model}, camera, light "
            f"and layout as in its pictures, and this mix: {self.mix}"
        )


def thresholds(policy: Policy) -> dict[str, float]:
    """All that decides how sure a verdict must be to stand, by name."""
    return {
        "pass_confidence": policy.least_confidence(anomalous=False),
        "reject_confidence": policy.least_confidence(anomalous=True),
        "pass_below": policy.pass_below,
        "reject_above": policy.reject_above,
    }


def loosened(calibration: Calibration, promise: Promise, policy: Policy) -> str | None:
    """Which threshold lets more stand than the one that a promise was made for, in words."""
    now, made = thresholds(policy), calibration.thresholds or {}
    passing, rejecting = ("pass_confidence", "pass_below"), ("reject_confidence", "reject_above")
    for name in passing if promise.quantity == "escape_rate" else rejecting:
        sign = -1 if name == "pass_below" else 1
        if name in made and sign * now[name] < sign * made[name]:
            return f"made for {name} {made[name]:g}, which is {now[name]:g} now"
    return None


def standing(calibration: Calibration, promise: Promise, policy: Policy) -> str:
    """A promise in words, with the threshold that was loosened since it was made, if one was."""
    told = loosened(calibration, promise, policy)
    return f"{promise}, {told}" if told else str(promise)


def percent(share: float, decimals: int = 0) -> str:
    """A share as it was asked for: `decimals` at least, and never rounded to something else.

    >>> percent(0.01, 1), percent(0.0005, 1), percent(0.95), percent(0.995)
    ('1.0%', '0.05%', '95%', '99.5%')
    """
    shortest, exact = f"{share:.{decimals}%}", f"{100 * share:.10g}%"
    return exact if len(exact) > len(shortest) else shortest


def raw(judgement: Judgement) -> float | None:
    """The confidence before any calibration.

    The weakest token's probability w; with n more answers, drawn or under other references, of
    which a share a agrees with the verdict, (w + n a) / (n + 1), each answer one vote. Evidence
    that contradicts the verdict is one word against another and halves it.
    """
    if judgement.weakest_token is None:
        return None
    agreed = (judgement.agreement or 0.0) * judgement.samples
    sure = (judgement.weakest_token + agreed) / (judgement.samples + 1)
    return sure / 2 if judgement.evidence == "contradicted" else sure


def features(judgement: Judgement) -> tuple[float, ...] | None:
    """The numbers named by `FEATURES`; None where there is no verdict to have confidence in.

    The raw confidence and the probabilities of the weakest token, the mean token and the whole
    rationale are log-odds: nearly all are near 1, and differ there. `margin` is how far the score
    is from 0.5, doubled; `agreement` is 1 where no more answers were asked for, and
    `decided_at_once` says that none were. Evidence that contradicts sends a part to a person
    whatever the confidence.
    """
    plain = raw(judgement)
    if (
        judgement.anomalous is None
        or plain is None
        or judgement.weakest_token is None
        or judgement.mean_logprob is None
        or judgement.sum_logprob is None
        or judgement.anomaly_score is None
        or judgement.image_quality is None
    ):
        return None
    return (
        _log_odds(_log(plain)),
        _log_odds(_log(judgement.weakest_token)),
        _log_odds(judgement.mean_logprob),
        _log_odds(judgement.sum_logprob),
        2 * abs(judgement.anomaly_score - 0.5),
        1.0 if judgement.agreement is None else judgement.agreement,
        float(judgement.samples == 0),
        float(judgement.evidence == "consistent"),
        judgement.image_quality,
        float(judgement.anomalous),
    )


def calibrated(judgement: Judgement, model: Logistic | Isotonic | None) -> Judgement:
    """The judgement with P(right) as its confidence; without a model, with the raw one.

    A verdict that does not show what the model asks for has a confidence of 0.
    """
    plain = raw(judgement)
    if judgement.anomalous is None or judgement.anomaly_score is None:
        return judgement
    if model is None:
        if plain is None:
            return judgement
        sure = plain
    elif plain is None or (learned := _learned(judgement, plain, model)) is None:
        sure = 0.0
    else:
        sure = (1 - model.kept_order) * learned + model.kept_order * plain
    return judgement.model_copy(update={"confidence": min(1.0, max(0.0, sure))})


def void(calibration: Calibration, recipe: Recipe, model: str) -> str | None:
    """Why a calibration does not hold for this recipe and reasoner, in words; None where it does.

    Other thresholds do not void it: the confidence keeps its meaning.
    """
    return void_for(calibration, recipe.task_version, recipe.policy, model)


def void_for(calibration: Calibration, task_version: str, policy: Policy, model: str) -> str | None:
    """As `void`, of a recipe of which no more is known than its task and policy."""
    fitted = calibration.confidence_model
    if isinstance(fitted, Logistic) and fitted.features != FEATURES:
        return "calibrated by another version, from other features; run lad-agent calibrate again"
    for what, made, now in (
        ("task", calibration.task_version, task_version),
        ("model", calibration.model, model),
        *((name, getattr(calibration, name), getattr(policy, name)) for name in ASKING),
    ):
        if made != now:
            return f"calibrated for {what} {made}, this is {now}; run lad-agent calibrate again"
    return None


def _learned(judgement: Judgement, plain: float, model: Logistic | Isotonic) -> float | None:
    if isinstance(model, Isotonic):
        return _between(plain, model.x, model.y)
    found = features(judgement)
    if found is None:
        return None
    parts = zip(found, model.centre, model.scale, model.weights, strict=True)
    return _sigmoid(model.intercept + sum(w * (f - c) / s for f, c, s, w in parts))


def _log(share: float) -> float:
    return math.log(max(share, _LEAST))


def _log_odds(logprob: float) -> float:
    """ln(p / (1 - p)) from ln(p)."""
    below = min(logprob, -_LEAST)
    return below - math.log(-math.expm1(below))


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def _between(value: float, x: Sequence[float], y: Sequence[float]) -> float:
    right = bisect.bisect_right(x, value)
    if right == 0 or right == len(x):
        return y[min(right, len(x) - 1)]
    left = right - 1
    share = (value - x[left]) / (x[right] - x[left])
    return y[left] + share * (y[right] - y[left])
