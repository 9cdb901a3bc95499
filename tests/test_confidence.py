"""The confidence model as plain JSON: applied by hand, void where it must be, decided with."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lad_agent import confidence, images, recipe
from lad_agent.confidence import (
    Calibration,
    Counts,
    Isotonic,
    Logistic,
    Promise,
    Reference,
    loosened,
    thresholds,
)
from lad_agent.judgement import Judgement, Reason, Result
from lad_agent.policy import decide, decide_by_recipe
from lad_agent.reasoners.base import Drawn, Question, judgement
from lad_agent.recipe import Policy, Recipe
from tests.scripted import part, write_recipe

SHARES = st.floats(0, 1)
LOGISTIC = Logistic(
    centre=(0.0,) * 10, scale=(2.0, *(1.0,) * 9), weights=(4.0, *(0.0,) * 9), intercept=1.0
)
OLDER = LOGISTIC.model_copy(
    update={"features": ("weakest_token",), "centre": (0.0,), "scale": (1.0,), "weights": (1.0,)}
)
ISOTONIC = Isotonic(x=(0.2, 0.6, 0.8), y=(0.1, 0.5, 0.9))


def _said(**changes: Any) -> Judgement:
    told: dict[str, Any] = {
        "anomalous": False, "anomaly_score": 0.1, "confidence": 0.95, "weakest_token": 0.95,
        "mean_logprob": -0.01, "sum_logprob": -0.3, "image_quality": 0.5, "well_formed": True,
        "evidence": "consistent", "model": "m",
    }  # fmt: skip
    return Judgement(**told | changes)


@pytest.fixture
def loaded(tmp_path: Path) -> Recipe:
    return recipe.load(write_recipe(tmp_path))


def _calibration(loaded: Recipe, **changes: Any) -> Calibration:
    told: dict[str, Any] = {
        "product": loaded.product, "task_version": loaded.task_version, "model": "m",
        "samples": loaded.policy.samples, "sample_below": loaded.policy.sample_below,
        "made_at": "2026-01-01T00:00:00+00:00", "data_sha256": "0" * 64, "seed": 0,
        "fitted_on": Counts(good=30, bad=30), "chosen_on": Counts(good=300, bad=300),
        "kinds": {"good": 300, "logical": 300}, "confidence_model": LOGISTIC, "promises": (),
        "reference": Reference(confidence=(0.5,) * 101, anomaly_score=(0.5,) * 101),
    }  # fmt: skip
    return Calibration(**told | changes)


def _with(loaded: Recipe, calibration: Calibration, **policy: float) -> Recipe:
    return replace(loaded, calibration=calibration, policy=loaded.policy.model_copy(update=policy))


def test_raw_is_what_the_reasoner_makes_of_its_sources(loaded: Recipe) -> None:
    draws = [Drawn("<think>a</think><answer>no</answer>", 0.5, -0.3, -0.9, 0.1, 3)] * 2
    draws.append(Drawn("<think>a</think><answer>yes</answer>", 0.5, -0.3, -0.9, 0.9, 3))
    question = Question(loaded, part("a", 1), "0" * 64)
    for n in (0, 3):
        greedy = Drawn("<think>a</think><answer>no</answer>", 0.7, -0.2, -0.6, 0.2, 3)
        made = judgement(question, greedy, draws[:n], model="m", elapsed_s=0)
        assert made.confidence == pytest.approx({0: 0.7, 3: (0.7 + 2) / 4}[n])
        assert (made.mean_logprob, made.sum_logprob) == (-0.2, -0.6)
        assert made.image_quality == images.headroom(question.image)
    assert confidence.raw(_said(weakest_token=None)) is None


def test_evidence_that_contradicts_halves_the_confidence(loaded: Recipe) -> None:
    greedy = Drawn("<think>a</think><answer>no</answer>", 0.8, -0.2, -0.6, 0.2, 3)
    question = Question(loaded, part("a", 1), "0" * 64)
    plain, against = (
        judgement(question, greedy, [], model="m", elapsed_s=0, witness=witness)
        for witness in (None, "R1: the object head counts 3, not 2")
    )
    assert (plain.evidence, plain.confidence) == ("unchecked", 0.8)
    assert (against.evidence, against.confidence) == ("contradicted", 0.4)
    assert against.decision_score == pytest.approx(0.5 - 0.3 * 0.4)
    assert confidence.calibrated(against, None) == against


def test_logistic_by_hand() -> None:
    found = confidence.calibrated(_said(weakest_token=0.8), LOGISTIC)
    assert found.confidence == pytest.approx(1 / (1 + math.exp(-(1 + 4 * math.log(4) / 2))))
    assert found.model_copy(update={"confidence": 0.95}) == _said(weakest_token=0.8)


def test_every_feature_has_its_weight() -> None:
    said = _said(
        weakest_token=0.5, mean_logprob=math.log(0.8), sum_logprob=math.log(0.2), anomaly_score=0.9,
        anomalous=True, samples=4, agreement=0.75, evidence="unchecked", image_quality=0.3,
    )  # fmt: skip
    shown = (math.log(0.7 / 0.3), 0.0, math.log(4), math.log(0.25), 0.8, 0.75, 0.0, 0.0, 0.3, 1.0)
    assert confidence.features(said) == pytest.approx(shown)
    for place, value in enumerate(shown):
        weights = tuple(float(n == place) for n in range(10))
        model = LOGISTIC.model_copy(update={"weights": weights, "scale": (1.0,) * 10})
        expected = 1 / (1 + math.exp(-(1 + value)))
        assert confidence.calibrated(said, model).confidence == pytest.approx(expected)


def test_a_share_of_the_raw_confidence_by_hand() -> None:
    said = _said(weakest_token=0.6)
    plain = confidence.calibrated(said, LOGISTIC).confidence
    assert plain is not None
    model = LOGISTIC.model_copy(update={"kept_order": 0.1})
    assert confidence.calibrated(said, model).confidence == pytest.approx(0.9 * plain + 0.06)


def test_one_of_before_there_was_such_a_share_says_what_it_said() -> None:
    older = LOGISTIC.model_dump()
    del older["kept_order"]
    assert Logistic.model_validate(older).kept_order == 0.0


def test_certainties_and_impossibilities_are_numbers() -> None:
    sure = _said(weakest_token=1.0, mean_logprob=0.0, sum_logprob=0.0)
    not_at_all = _said(weakest_token=0.0, mean_logprob=-50.0, sum_logprob=-1000.0)
    for said in (sure, not_at_all):
        assert all(map(math.isfinite, confidence.features(said) or (math.nan,)))


def test_a_verdict_without_what_the_model_asks_for_is_not_sure() -> None:
    """A record of before these were kept, or a reasoner that gives no log-probabilities."""
    for older in (_said(mean_logprob=None, sum_logprob=None), _said(image_quality=None)):
        assert confidence.calibrated(older, LOGISTIC).confidence == 0.0
        assert confidence.calibrated(older, None).confidence == 0.95
        assert confidence.calibrated(older, ISOTONIC).confidence == pytest.approx(0.9, abs=1e-3)


def test_isotonic_by_hand() -> None:
    for raw, curve in ((0.1, 0.1), (0.4, 0.3), (0.6, 0.5), (0.7, 0.7), (1.0, 0.9)):
        found = confidence.calibrated(_said(weakest_token=raw), ISOTONIC).confidence
        assert found == pytest.approx(0.999 * curve + 0.001 * raw)


def test_without_a_verdict_nothing_changes() -> None:
    said = _said(anomalous=None, well_formed=False)
    for model in (LOGISTIC, ISOTONIC, None):
        assert confidence.calibrated(said, model) == said


def test_a_confidence_that_no_token_shows_is_not_taken_for_a_calibrated_one() -> None:
    """A reasoner of one's own may say how sure it is and show nothing of its tokens."""
    said = _said(confidence=1.0, weakest_token=None)
    for model in (LOGISTIC, ISOTONIC):
        assert confidence.calibrated(said, model).confidence == 0.0
    assert confidence.calibrated(said, None) == said


def test_without_a_model_the_raw_confidence_comes_back() -> None:
    said = _said(confidence=0.123, weakest_token=0.6, samples=4, agreement=0.75)
    assert confidence.calibrated(said, None).confidence == pytest.approx((0.6 + 3) / 5)


@given(first=SHARES, second=SHARES, model=st.sampled_from([LOGISTIC, ISOTONIC, None]))
def test_a_calibrated_confidence_is_a_share_and_keeps_the_order(
    first: float, second: float, model: Logistic | Isotonic | None
) -> None:
    low, high = sorted((first, second))
    a, b = (confidence.calibrated(_said(weakest_token=w), model).confidence for w in (low, high))
    assert a is not None
    assert b is not None
    assert 0 <= a <= b <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "isotonic", "x": [0.5, 0.5], "y": [0.1, 0.2]},
        {"kind": "isotonic", "x": [0.1, 0.5], "y": [0.3, 0.2]},
        {"kind": "isotonic", "x": [0.1, 0.5], "y": [0.3]},
        LOGISTIC.model_dump() | {"weights": (1.0,)},
        LOGISTIC.model_dump() | {"features": ("weakest_token",)},  # and nine weights
        LOGISTIC.model_dump() | {"intercept": math.nan},
        {"kind": "forest"},
    ],
)
def test_a_model_that_cannot_be_applied_is_refused(loaded: Recipe, wrong: dict[str, Any]) -> None:
    whole = _calibration(loaded).model_dump() | {"confidence_model": wrong}
    with pytest.raises(ValidationError):
        Calibration.model_validate(whole)


@pytest.mark.parametrize(
    ("at_most", "sure", "words"),
    [
        (0.01, 0.95, "at most 1.0% escapes, 95% sure"),
        (0.0014, 0.995, "at most 0.14% escapes, 99.5% sure"),
        (0.0005, 0.9999, "at most 0.05% escapes, 99.99% sure"),
    ],
)
def test_a_promise_is_never_rounded_to_a_better_one(
    at_most: float, sure: float, words: str
) -> None:
    made = Promise(quantity="escape_rate", at_most=at_most, sure=sure, seen=0, of=1)
    assert str(made) == words


def test_a_calibration_survives_its_file(loaded: Recipe) -> None:
    made = _calibration(loaded, confidence_model=ISOTONIC)
    assert Calibration.model_validate_json(made.model_dump_json()) == made


def test_a_calibrated_recipe_decides_by_the_calibrated_confidence(loaded: Recipe) -> None:
    sure = confidence.calibrated(_said(weakest_token=0.9), LOGISTIC).confidence or 0
    for threshold, result in ((sure, Result.OK), (sure + 1e-9, Result.NOT_DECIDABLE)):
        calibrated = _with(loaded, _calibration(loaded), pass_confidence=threshold)
        judged, made = decide_by_recipe(_said(weakest_token=0.9), calibrated)
        assert (made.result, judged.confidence) == (result, sure)


def test_each_verdict_has_its_own_threshold() -> None:
    policy = Policy(min_confidence=0.6, pass_confidence=0.99, reject_confidence=0.3)
    bad = {"anomalous": True, "anomaly_score": 0.9}
    assert decide(_said(confidence=0.98), policy).reason is Reason.LOW_CONFIDENCE
    assert decide(_said(confidence=0.3, **bad), policy).result is Result.NOT_OK
    plain = Policy(min_confidence=0.6, reject_confidence=0.3)
    assert decide(_said(confidence=0.5), plain).reason is Reason.LOW_CONFIDENCE


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"task_version": "other"}, "task"),
        ({"model": "other"}, "model"),
        ({"samples": 3}, "samples"),
        ({"sample_below": 0.1}, "sample_below"),
        ({"other_references": 2}, "other_references"),
    ],
)
def test_a_void_calibration_sends_every_part_to_a_person_and_says_why(
    loaded: Recipe, changed: dict[str, Any], word: str
) -> None:
    void = _with(loaded, _calibration(loaded, **changed))
    for said in (_said(), _said(confidence=0.1), _said(anomalous=True, anomaly_score=0.9)):
        judged, made = decide_by_recipe(said, void, 0.0)
        assert judged == said
        assert (made.result, made.reason) == (Result.NOT_DECIDABLE, Reason.CALIBRATION_VOID)
        assert f"calibrated for {word} " in (made.detail or "")
        assert not made.audit
    contradicted = decide_by_recipe(_said(evidence="contradicted"), void)[1]
    assert contradicted.reason is Reason.EVIDENCE_CONTRADICTS


def test_a_file_of_other_features_is_read_and_void(loaded: Recipe) -> None:
    """An older version's calibrations still stand in audit stores, and must not stop a line."""
    written = _calibration(loaded, confidence_model=OLDER).model_dump_json()
    older = _with(loaded, Calibration.model_validate_json(written))
    judged, made = decide_by_recipe(_said(), older)
    assert (judged, made.reason) == (_said(), Reason.CALIBRATION_VOID)
    assert "from other features; run lad-agent calibrate again" in (made.detail or "")


ESCAPES = Promise(quantity="escape_rate", at_most=0.01, sure=0.95, seen=0, of=300)
OVERKILL = Promise(quantity="overkill_rate", at_most=0.05, sure=0.95, seen=0, of=300)


@pytest.mark.parametrize(
    ("now", "promise", "told"),
    [
        ({}, ESCAPES, None),
        ({"pass_confidence": 0.9}, ESCAPES, "made for pass_confidence 0.95, which is 0.9 now"),
        ({"pass_confidence": None}, ESCAPES, "made for pass_confidence 0.95, which is 0.6 now"),
        ({"pass_confidence": 0.96}, ESCAPES, None),
        ({"pass_confidence": 0.9}, OVERKILL, None),
        ({"pass_below": 0.6}, ESCAPES, "made for pass_below 0.5, which is 0.6 now"),
        ({"pass_below": 0.4}, ESCAPES, None),
        ({"reject_confidence": 0.7}, OVERKILL, "made for reject_confidence 0.8, which is 0.7 now"),
        ({"reject_above": 0.4}, OVERKILL, "made for reject_above 0.5, which is 0.4 now"),
        ({"reject_confidence": 0.7, "reject_above": 0.4}, ESCAPES, None),
    ],
)
def test_a_promise_says_which_threshold_was_loosened(
    loaded: Recipe, now: dict[str, float], promise: Promise, told: str | None
) -> None:
    chosen = {"pass_confidence": 0.95, "reject_confidence": 0.8}
    policy = loaded.policy.model_copy(update=chosen)
    made = _calibration(loaded, thresholds=thresholds(policy))
    assert loosened(made, promise, policy.model_copy(update=now)) == told
    assert loosened(_calibration(loaded), promise, policy.model_copy(update=now)) is None


def test_a_new_threshold_voids_nothing(loaded: Recipe) -> None:
    other = _with(loaded, _calibration(loaded), pass_confidence=0.2, min_confidence=0.9)
    assert confidence.void(_calibration(loaded), other, "m") is None
    assert decide_by_recipe(_said(), other)[1].result is Result.OK


@settings(deadline=None)
@given(weakest=SHARES, threshold=SHARES, other=st.booleans())
def test_a_void_calibration_never_decides(
    weakest: float, threshold: float, other: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "void"
    path = folder / "recipe.yaml"
    loaded = recipe.load(path if path.is_file() else write_recipe(folder))
    model = "other" if other else "m"
    made = _with(loaded, _calibration(loaded, model=model), pass_confidence=threshold)
    result = decide_by_recipe(_said(weakest_token=weakest), made)[1].result
    assert not (other and result is not Result.NOT_DECIDABLE)
