"""What other systems are told of a result: OPC UA's names for it, in one JSON object.

`data` is a ResultDataType of OPC 40001-101 (UA for Machinery, Result Transfer), whose names
machine vision (OPC 40100-1) has too: `ResultMetaData` says what a line must know,
`ResultContent` holds the fields of `results.jsonl` and the review, if it is told of one.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lad_agent.inspection import Outcome
from lad_agent.judgement import FAILURES, Result

EVALUATIONS: Mapping[Result | None, int] = {
    Result.OK: 1,
    Result.NOT_OK: 2,
    Result.NOT_DECIDABLE: 3,
    None: 3,
}
"""ResultEvaluation of OPC 40001-101, by the final result; none stands while a person is awaited."""

COMPLETED, FAILED = 1, 4
"""ResultState of OPC 40100-1."""


def body(
    type: str,
    sequence: int,
    at: str,
    outcome: Outcome,
    *,
    opened_at: str,
    recorded_at: str,
    detail: str | None,
    review: Mapping[str, Any] | None,
) -> str:
    """The message about an event of the ledger, as ASCII JSON.

    `type`, `sequence` and `at` are the event's; a greater `sequence` is newer. Times are UTC in
    ISO 8601, `ProcessingDuration` is in milliseconds, as OPC UA has it.
    """
    meta = {
        "ResultId": outcome.id,
        "IsPartial": False,
        "IsSimulated": False,
        "ResultState": FAILED if outcome.reason in FAILURES else COMPLETED,
        "StepId": outcome.station,
        "PartId": outcome.part_id,
        "InternalRecipeId": outcome.recipe_version,
        "ProductId": outcome.product,
        "InternalConfigurationId": outcome.model,
        "JobId": outcome.lot,
        "CreationTime": recorded_at,
        "ProcessingTimes": {
            "StartTime": opened_at,
            "EndTime": recorded_at,
            "ProcessingDuration": _milliseconds(opened_at, recorded_at),
        },
        "ResultEvaluation": EVALUATIONS[outcome.final],
        "ResultEvaluationDetails": _details(outcome, detail),
    }
    content = {**outcome.model_dump(mode="json"), "detail": detail, "review": review}
    told = {
        "type": type,
        "timestamp": at,
        "sequence": sequence,
        "data": {
            "ResultMetaData": {name: value for name, value in meta.items() if value is not None},
            "ResultContent": [content],
        },
    }
    return json.dumps(told, separators=(",", ":"))


def _details(outcome: Outcome, detail: str | None) -> str | None:
    """Why the part waits for a person, or which rule it breaks; none where it is OK."""
    if outcome.final is None and outcome.reason is not None:
        return f"{outcome.reason.value}: {detail}" if detail else outcome.reason.value
    return outcome.rule if outcome.final is Result.NOT_OK else None


def _milliseconds(begin: str, end: str) -> float:
    took = datetime.fromisoformat(end) - datetime.fromisoformat(begin)
    return round(1000 * took.total_seconds(), 3)
