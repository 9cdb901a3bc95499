"""The decision: a pure function in which doubt never passes a part."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_agent.judgement import Decision, Judgement, Reason, Result
from lad_agent.policy import audit_draw, decide, decide_by_recipe
from lad_agent.recipe import Policy, load
from tests.scripted import write_recipe

POLICY = Policy(pass_below=0.3, reject_above=0.7, min_confidence=0.6, audit_rate=0.1)

SHARES = st.floats(0, 1)


def _said(anomalous: bool | None = False, **changes: object) -> Judgement:
    given_ = {
        "anomalous": anomalous,
        "anomaly_score": 0.9 if anomalous else 0.1,
        "confidence": 0.95,
        "well_formed": True,
        "evidence": "consistent",
        "model": "m",
    }
    return Judgement(**(given_ | changes))  # type: ignore[arg-type]


def test_a_sure_good_part_is_ok_and_a_sure_bad_one_not() -> None:
    assert decide(_said(False), POLICY) == Decision(Result.OK)
    assert decide(_said(True), POLICY) == Decision(Result.NOT_OK)


@pytest.mark.parametrize(
    ("judgement", "reason"),
    [
        (_said(None, well_formed=False), Reason.MALFORMED),
        (_said(None), Reason.MALFORMED),
        (_said(anomaly_score=None), Reason.MALFORMED),
        (_said(confidence=None), Reason.MALFORMED),
        (_said(True, seen_product="juice_bottle"), Reason.OTHER_PRODUCT),
        (_said(evidence="contradicted"), Reason.EVIDENCE_CONTRADICTS),
        (_said(True, evidence="contradicted"), Reason.EVIDENCE_CONTRADICTS),
        (_said(confidence=0.59), Reason.LOW_CONFIDENCE),
        (_said(anomaly_score=0.31), Reason.SCORE_BETWEEN),
        (_said(True, anomaly_score=0.69), Reason.SCORE_BETWEEN),
        (_said(False, anomaly_score=0.9), Reason.SCORE_BETWEEN),
        (_said(True, anomaly_score=0.1), Reason.SCORE_BETWEEN),
    ],
)
def test_doubt_goes_to_a_person(judgement: Judgement, reason: Reason) -> None:
    assert decide(judgement, POLICY, draw=0.0) == Decision(Result.NOT_DECIDABLE, reason)


def test_at_the_thresholds_it_is_decided() -> None:
    assert decide(_said(False, anomaly_score=0.3), POLICY).result is Result.OK
    assert decide(_said(True, anomaly_score=0.7), POLICY).result is Result.NOT_OK
    assert decide(_said(False, confidence=0.6), POLICY).result is Result.OK


def test_unchecked_evidence_is_recorded_and_does_not_decide() -> None:
    assert decide(_said(False, evidence="unchecked"), POLICY).result is Result.OK


def test_on_hold_what_would_be_decided_goes_to_a_person(tmp_path: Path) -> None:
    recipe = load(write_recipe(tmp_path, audit_rate=1.0))
    for said in (_said(False), _said(True)):
        assert decide_by_recipe(said, recipe)[1].result is not Result.NOT_DECIDABLE
        held = Decision(Result.NOT_DECIDABLE, Reason.ON_HOLD, detail="by anna")
        assert decide_by_recipe(said, recipe, 0.0, "by anna") == (said, held)
    doubtful = _said(False, confidence=0.1)
    assert decide_by_recipe(doubtful, recipe, hold="")[1].reason is Reason.LOW_CONFIDENCE


def test_only_decided_parts_are_audited() -> None:
    assert decide(_said(False), POLICY, draw=0.099).audit
    assert not decide(_said(False), POLICY, draw=0.1).audit
    assert not decide(_said(False, confidence=0.1), POLICY, draw=0.0).audit


@given(
    score=SHARES,
    confidence=SHARES,
    anomalous=st.sampled_from([True, False, None]),
    well_formed=st.booleans(),
    evidence=st.sampled_from(["consistent", "contradicted", "unchecked"]),
    seen=st.sampled_from([None, "pushpins"]),
    bounds=st.tuples(SHARES, SHARES).map(sorted),
    least=SHARES,
)
def test_ok_needs_every_sign_of_a_good_part(
    score: float,
    confidence: float,
    anomalous: bool | None,
    well_formed: bool,
    evidence: str,
    seen: str | None,
    bounds: list[float],
    least: float,
) -> None:
    policy = Policy(pass_below=bounds[0], reject_above=bounds[1], min_confidence=least)
    judgement = _said(
        anomalous,
        anomaly_score=score,
        confidence=confidence,
        well_formed=well_formed,
        evidence=evidence,
        seen_product=seen,
    )
    made = decide(judgement, policy)
    if made.result is Result.OK:
        assert anomalous is False
        assert well_formed
        assert score <= bounds[0]
        assert confidence >= least
        assert evidence != "contradicted"
        assert seen is None
    assert (made.reason is None) == (made.result is not Result.NOT_DECIDABLE)


def test_the_audit_draw_is_the_same_everywhere_and_uniform() -> None:
    draws = [audit_draw(f"{n:064x}", "v1") for n in range(4000)]
    assert draws[0] == audit_draw("0" * 64, "v1")
    assert draws[0] != audit_draw("0" * 64, "v2")
    assert all(0 <= draw < 1 for draw in draws)
    assert abs(sum(draw < 0.1 for draw in draws) / 4000 - 0.1) < 0.02
