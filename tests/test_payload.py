"""What a line is told of a part, in OPC UA's names."""

import json
from typing import Any

import pytest

from lad_agent import payload
from lad_agent.inspection import Outcome
from lad_agent.judgement import Reason, Result

TIMES = {"opened_at": "2026-05-31T08:00:00.000000Z", "recorded_at": "2026-05-31T08:00:01.250000Z"}


def outcome(**changed: Any) -> Outcome:
    fields: dict[str, Any] = {
        "id": "0190",
        "part_id": "bag-17",
        "station": "line-1",
        "lot": "L7",
        "image": "/images/17.png",
        "image_sha256": "ab" * 32,
        "product": "screw_bag",
        "task_version": "task",
        "recipe_version": "recipe",
        "result": Result.OK,
        "anomalous": False,
        "anomaly_score": 0.01,
        "confidence": 0.99,
        "decision_score": 0.015,
        "weakest_token": 0.99,
        "samples": 0,
        "agreement": None,
        "rationale": "R1 washers at B2, D4: 2 of 2 ok",
        "rule": None,
        "places": ("B2", "D4"),
        "well_formed": True,
        "reason": None,
        "model": "pocket@1",
        "elapsed_s": 0.25,
        "evidence": "consistent",
        "final": Result.OK,
        "attempt": 1,
    }
    return Outcome(**fields | changed)


def told(one: Outcome, *, detail: str | None = None, review: Any = None) -> Any:
    text = payload.body(
        "inspection.recorded", 7, TIMES["recorded_at"], one, **TIMES, detail=detail, review=review
    )
    assert text.isascii()
    return json.loads(text)


def test_a_result_in_the_names_of_opc_ua() -> None:
    found = told(outcome())
    assert (found["type"], found["sequence"]) == ("inspection.recorded", 7)
    assert found["data"]["ResultMetaData"] == {
        "ResultId": "0190",
        "IsPartial": False,
        "IsSimulated": False,
        "ResultState": 1,
        "StepId": "line-1",
        "PartId": "bag-17",
        "InternalRecipeId": "recipe",
        "ProductId": "screw_bag",
        "InternalConfigurationId": "pocket@1",
        "JobId": "L7",
        "CreationTime": TIMES["recorded_at"],
        "ProcessingTimes": {
            "StartTime": TIMES["opened_at"],
            "EndTime": TIMES["recorded_at"],
            "ProcessingDuration": 1250.0,
        },
        "ResultEvaluation": 1,
    }
    (content,) = found["data"]["ResultContent"]
    assert content.keys() == Outcome.model_fields.keys() | {"detail", "review"}
    assert content["places"] == ["B2", "D4"]


@pytest.mark.parametrize(
    ("changed", "evaluation", "state", "details"),
    [
        ({"result": Result.NOT_OK, "final": Result.NOT_OK, "rule": "R1"}, 2, 1, "R1"),
        (
            {"result": Result.NOT_DECIDABLE, "final": None, "reason": Reason.BLURRED},
            3,
            1,
            "blurred: why",
        ),
        (
            {"result": Result.NOT_DECIDABLE, "final": None, "reason": Reason.UNREADABLE},
            3,
            4,
            "unreadable: why",
        ),
        ({"result": Result.NOT_DECIDABLE, "final": Result.OK, "reason": Reason.NOISE}, 1, 1, None),
    ],
)
def test_the_evaluation_is_that_of_the_final_result(
    changed: dict[str, Any], evaluation: int, state: int, details: str | None
) -> None:
    meta = told(outcome(**changed), detail="why")["data"]["ResultMetaData"]
    assert (meta["ResultEvaluation"], meta["ResultState"]) == (evaluation, state)
    assert meta.get("ResultEvaluationDetails") == details


def test_every_result_has_an_evaluation() -> None:
    assert {payload.EVALUATIONS[result] for result in Result} == {1, 2, 3}
