"""From judgement to result: a pure function of (judgement, policy). Doubt never passes a part."""

import hashlib

from lad_agent import confidence
from lad_agent.judgement import Decision, Judgement, Reason, Result
from lad_agent.recipe import Policy, Recipe

OF_THRESHOLDS = frozenset({Reason.LOW_CONFIDENCE, Reason.SCORE_BETWEEN})
"""Reasons that other thresholds would take away."""


def decide_by_recipe(
    judgement: Judgement, recipe: Recipe, draw: float = 1.0, hold: str | None = None
) -> tuple[Judgement, Decision]:
    """Decide one part by a recipe, and the judgement with the confidence that decided.

    Where the recipe is calibrated, its confidence model speaks first. A calibration made for
    another task, model or way of drawing is void: its thresholds mean nothing then, so a person
    decides. Under a `hold` (why, in words) a person decides about every part.
    """
    judged, made = _decide_free(judgement, recipe, draw)
    if hold is not None and made.result is not Result.NOT_DECIDABLE:
        made = Decision(Result.NOT_DECIDABLE, Reason.ON_HOLD, detail=hold)
    return judged, made


def decide(judgement: Judgement, policy: Policy, draw: float = 1.0) -> Decision:
    """Decide one part; `draw` in [0, 1) is its seeded audit draw (see `audit_draw`).

    In this order a part is NotDecidable: a malformed answer, another product seen, evidence that
    contradicts, confidence below `min_confidence` (in its place `pass_confidence` for a verdict of
    good and `reject_confidence` for one of bad, where set), a score strictly between the
    thresholds, a score on the other side of the thresholds than the stated verdict. Else it is OK
    at or below `pass_below` and NotOK at or above `reject_above`.
    """
    reason = _doubt(judgement, policy)
    if reason is not None:
        return Decision(Result.NOT_DECIDABLE, reason)
    result = Result.NOT_OK if judgement.anomalous else Result.OK
    return Decision(result, audit=draw < policy.audit_rate)


def audit_draw(image_sha256: str, recipe_version: str) -> float:
    """Uniform in [0, 1), the same for the same image and recipe on every machine."""
    digest = hashlib.sha256(f"audit\0{image_sha256}\0{recipe_version}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _decide_free(judgement: Judgement, recipe: Recipe, draw: float) -> tuple[Judgement, Decision]:
    if recipe.calibration is None:
        return judgement, decide(judgement, recipe.policy, draw)
    why = confidence.void(recipe.calibration, recipe, judgement.model)
    if why is None:
        judged = confidence.calibrated(judgement, recipe.calibration.confidence_model)
        return judged, decide(judged, recipe.policy, draw)
    doubt = _doubt(judgement, recipe.policy)
    if doubt is not None and doubt not in OF_THRESHOLDS:
        return judgement, Decision(Result.NOT_DECIDABLE, doubt)
    return judgement, Decision(Result.NOT_DECIDABLE, Reason.CALIBRATION_VOID, detail=why)


def _doubt(judgement: Judgement, policy: Policy) -> Reason | None:
    score, sure = judgement.anomaly_score, judgement.confidence
    if not judgement.well_formed or judgement.anomalous is None:
        return Reason.MALFORMED
    if score is None or sure is None:
        return Reason.MALFORMED
    if judgement.seen_product is not None:
        return Reason.OTHER_PRODUCT
    if judgement.evidence == "contradicted":
        return Reason.EVIDENCE_CONTRADICTS
    if sure < policy.least_confidence(judgement.anomalous):
        return Reason.LOW_CONFIDENCE
    passes, rejects = score <= policy.pass_below, score >= policy.reject_above
    if judgement.anomalous and not rejects:
        return Reason.SCORE_BETWEEN
    if not judgement.anomalous and not passes:
        return Reason.SCORE_BETWEEN
    return None
