"""A calibration in a quality engineer's words, and as plain values."""

import math
from dataclasses import asdict
from typing import Any

from lad_agent.confidence import percent
from lad_agent.judgement import Result
from lad_agent.training.calibration.choosing import Made


def text(made: Made) -> str:
    """What became of the parts, what is promised, and what the promise is valid for."""
    counts, calibration = made.calibration.chosen_on, made.calibration
    told = [
        f"of {counts.good} good parts {_became(made, bad=False)}"
        + (f"; of {counts.bad} bad parts {_became(made, bad=True)}" if counts.bad else ""),
        f"promise: {made.promised}",
    ]
    if made.zero is not None:
        told.append(
            f"zero-miss point: at confidence {made.zero.threshold:.6g} none of {counts.bad} bad "
            f"parts passes and {made.zero.good_passed} of {counts.good} good ones do; at most "
            f"{math.ceil(1e4 * made.zero.bound) / 1e4:.2%} escapes, {percent(made.zero.sure)} sure"
        )
    spent = made.spent(made.results)
    if spent is not None and made.costs is not None:
        told.append(
            f"cost: {spent:.4g} a part where {percent(made.costs.bad_share)} are bad; "
            f"{made.spent(made.before):.4g} with the recipe as it was, {made.costs.review:.4g} "
            "with a person for every part"
        )
    told += [
        f"to people: {_escalated(made.results)} of these parts, {_escalated(made.before)} with "
        "the recipe as it was",
        f"confidence: {_confidence(made)}",
        f"valid for: {calibration.valid_for}",
        *(f"note: {note}" for note in calibration.notes),
    ]
    return "\n".join(told)


def values(made: Made) -> dict[str, Any]:
    """The same as plain values, for `--json`."""
    return {
        "calibration": made.calibration.model_dump(
            mode="json", exclude={"confidence_model", "reference"}
        ),
        "confidence_model": made.calibration.confidence_model.kind
        if made.calibration.confidence_model
        else None,
        "policy": made.changes,
        "good": {result.value: made.count(bad=False, result=result) for result in Result},
        "bad": {result.value: made.count(bad=True, result=result) for result in Result},
        "escape": "unknown" if not made.calibration.chosen_on.bad else _seen(made),
        "escalated_before": made.before.count(Result.NOT_DECIDABLE),
        "cost_a_part": made.spent(made.results),
        "zero_miss": asdict(made.zero) if made.zero else None,
        "valid_for": made.calibration.valid_for,
        "notes": list(made.calibration.notes),
    }


def _became(made: Made, *, bad: bool) -> str:
    harmed, other = (Result.OK, Result.NOT_OK) if bad else (Result.NOT_OK, Result.OK)
    verbs = {Result.OK: "passed", Result.NOT_OK: "rejected"}
    first = f"{made.count(bad=bad, result=harmed)} {verbs[harmed]}"
    people = f"{made.count(bad=bad, result=Result.NOT_DECIDABLE)} to people"
    return f"{first}, {people}, {made.count(bad=bad, result=other)} {verbs[other]}"


def _seen(made: Made) -> float:
    return made.count(bad=True, result=Result.OK) / made.calibration.chosen_on.bad


def _escalated(results: tuple[Result, ...]) -> str:
    return f"{results.count(Result.NOT_DECIDABLE) / len(results):.1%}"


def _confidence(made: Made) -> str:
    model, on = made.calibration.confidence_model, made.calibration.fitted_on
    if model is None:
        return "raw"
    return f"{model.kind}, fitted on {on.good} good and {on.bad} bad parts that chose no threshold"
