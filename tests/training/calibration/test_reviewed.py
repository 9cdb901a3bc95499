"""Findings of reviews as parts: a random sample of the line, whatever became of its parts."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from lad_agent import recipe
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.inspection import Outcome
from lad_agent.judgement import Finding, Reason, Result
from lad_agent.policy import audit_draw
from lad_agent.recipe import Recipe
from lad_agent.training.calibration import Reviewed, of_reviews
from tests.scripted import write_recipe


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe.load(write_recipe(tmp_path_factory.mktemp("recipe"), "tray"))


def _one(
    loaded: Recipe, number: int, *, bad: bool | None = False, rate: float | None = 1.0, **more: Any
) -> Reviewed:
    """One reviewed part: OK if it is good, escalated if it is bad, waiting if `bad` is None."""
    told: dict[str, Any] = {
        "id": f"{number:08d}", "part_id": f"p{number}", "station": "s", "lot": None,
        "image": f"/line/{number}.png", "image_sha256": hashlib.sha256(b"%d" % number).hexdigest(),
        "product": "tray", "task_version": loaded.task_version,
        "recipe_version": loaded.recipe_version,
        "result": Result.NOT_DECIDABLE if bad else Result.OK, "anomalous": bool(bad),
        "anomaly_score": 0.1, "confidence": 0.5, "decision_score": 0.3, "weakest_token": 0.95,
        "samples": 0, "agreement": None, "rationale": "R1 washers at A1, B2: 2 of 2 ok",
        "rule": None, "places": (), "well_formed": True,
        "reason": Reason.LOW_CONFIDENCE if bad else None, "model": "scripted", "elapsed_s": 0.1,
        "evidence": "consistent", "final": None, "attempt": 1, "mean_logprob": -0.01,
        "sum_logprob": -0.2, "image_quality": 0.5,
    }  # fmt: skip
    finding = {True: Finding.NONCONFORMING, False: Finding.CONFORMING, None: None}[bad]
    policy = None if rate is None else loaded.policy.model_copy(update={"audit_rate": rate})
    return Reviewed(Outcome(**told | more), finding, "R1" if bad else None, policy)


def test_what_was_drawn_is_taken_whether_it_was_escalated_or_audited(loaded: Recipe) -> None:
    """People saw all the doubtful and few of the sure ones; the sample holds both at one rate."""
    line = [_one(loaded, n, bad=n % 2 == 1, rate=0.2) for n in range(500)]
    parts, notes = of_reviews(line, loaded)
    drawn = {
        one.outcome.image_sha256: one
        for one in line
        if audit_draw(one.outcome.image_sha256 or "", loaded.recipe_version) < 0.2
    }
    assert {part.example.sha256 for part in parts} == set(drawn)
    assert 70 < len(parts) < 130
    assert 0.35 < sum(part.bad for part in parts) / len(parts) < 0.65
    assert notes == []
    for part in parts:
        assert part.bad == (drawn[part.example.sha256].finding is Finding.NONCONFORMING)
        assert part.judgement.weakest_token == 0.95


def test_at_an_audit_rate_of_1_every_reviewed_part_is_taken(loaded: Recipe) -> None:
    parts, _ = of_reviews([_one(loaded, n, bad=n > 5) for n in range(12)], loaded)
    assert len(parts) == 12
    assert {part.example.rule for part in parts if part.bad} == {"R1"}


def test_a_rate_that_has_changed_gives_one_sample_at_the_newest(loaded: Recipe) -> None:
    """A lot that was seen whole would count five times as much as those seen by the fifth."""
    lot = [_one(loaded, n, bad=True, rate=1.0) for n in range(200)]
    rare = [_one(loaded, n, bad=False, rate=0.1) for n in range(200, 400)]
    now = [_one(loaded, n, bad=False, rate=0.2) for n in range(400, 600)]
    parts, notes = of_reviews([*lot, *rare, *now], loaded)
    below = [audit_draw(one.outcome.image_sha256 or "", loaded.recipe_version) for one in lot]
    assert sum(part.bad for part in parts) == sum(draw < 0.2 for draw in below) > 20
    assert all(int(part.example.image.stem) not in range(200, 400) for part in parts)
    assert len(parts) < 130
    left = (
        200
        - sum(part.bad for part in parts)
        + sum(
            audit_draw(one.outcome.image_sha256 or "", loaded.recipe_version) < 0.1 for one in rare
        )
    )
    assert notes == [f"{left} reviewed parts that another audit rate than 0.2 has drawn"]


def test_parts_without_a_picture_an_answer_or_a_known_rate(loaded: Recipe) -> None:
    gated = _one(
        loaded, 1, bad=True, anomalous=None, anomaly_score=None, confidence=None,
        weakest_token=None, mean_logprob=None, sum_logprob=None, well_formed=False,
        reason=Reason.TOO_DARK,
    )  # fmt: skip
    unread = _one(loaded, 2, bad=True, image_sha256=None, reason=Reason.UNREADABLE)
    unknown = _one(loaded, 3, rate=None)
    [part], _ = of_reviews([gated, unread, unknown, _one(loaded, 4, product="other")], loaded)
    assert (part.bad, part.judgement.anomalous) == (True, None)


def test_what_is_left_out_is_told(loaded: Recipe) -> None:
    line = [
        _one(loaded, 0),
        _one(loaded, 1, bad=None, task_version="older"),
        _one(loaded, 2, samples=4, agreement=1.0),
        _one(loaded, 3, mean_logprob=None, sum_logprob=None),
        _one(loaded, 4, bad=None, model="older", id="0"),
        _one(loaded, 5, part_id="p0"),
        _one(loaded, 6, bad=None),
        _one(loaded, 7),
        _one(loaded, 8, id="00", reason=Reason.TIMED_OUT),
    ]
    parts, notes = of_reviews(line, loaded)
    assert [part.example.image.name for part in parts] == ["5.png"]
    assert notes == [
        "3 reviewed parts that were judged for another task, by other draws, or by an older "
        "version",
        "1 reviewed parts that were judged by another model than scripted",
        "2 reviewed parts that came after one that waits for a person yet: decide it first",
        "1 parts that were not judged, because of a time-out or a failure",
        "1 earlier pictures of parts that were photographed again",
    ]


def test_where_no_bad_part_was_judged_good_ones_alone_promise_nothing(loaded: Recipe) -> None:
    line = [_one(loaded, n) for n in range(30)]
    late = [_one(loaded, n, bad=True, reason=Reason.TIMED_OUT) for n in range(30, 33)]
    with pytest.raises(CheckFailed, match="none of the 3 bad parts was judged"):
        of_reviews([*line, *late], loaded)
    parts, notes = of_reviews([*line, *late, _one(loaded, 40, bad=True)], loaded)
    assert sum(part.bad for part in parts) == 1
    assert notes == ["3 parts that were not judged, because of a time-out or a failure"]


@pytest.mark.parametrize("way", [{"other_references": 4}, {"sample_below": 0.5}, {"samples": 9}])
def test_parts_of_another_way_of_asking_are_left_out(loaded: Recipe, way: dict[str, Any]) -> None:
    """Four answers that were drawn are not four under other references, though both are four."""
    other = _one(loaded, 0, weakest_token=0.4, samples=loaded.policy.more_answers)
    assert len(of_reviews([other, _one(loaded, 1)], loaded)[0]) == 2
    assert other.policy is not None
    changed = replace(other, policy=other.policy.model_copy(update=way))
    parts, [note] = of_reviews([changed, _one(loaded, 1)], loaded)
    assert [part.example.image.name for part in parts] == ["1.png"]
    assert note.startswith("1 reviewed parts that were judged for another task, by other draws")


def test_parts_that_wait_are_no_matter_of_chance(loaded: Recipe) -> None:
    """All that was escalated is decided, no audit of what passed: that promises nothing."""
    line = [_one(loaded, n, bad=True if n % 10 else None) for n in range(400)]
    with pytest.raises(CheckFailed, match=r"p0, the oldest part of tray .* waits for a person"):
        of_reviews(line, loaded)
    decided = [_one(loaded, n, bad=bool(n % 10)) for n in range(40)]
    assert len(of_reviews(decided + line[40:], loaded)[0]) == 40


def test_of_several_attempts_the_last_one_counts(loaded: Recipe) -> None:
    digest = "ab" * 32
    first = _one(loaded, 1, bad=True, image_sha256=digest, anomaly_score=0.2)
    second = _one(loaded, 2, bad=True, image_sha256=digest, anomaly_score=0.3, attempt=2)
    [part], _ = of_reviews([second, first], loaded)
    assert part.judgement.anomaly_score == 0.3


def test_findings_that_contradict_are_refused(loaded: Recipe) -> None:
    line = [_one(loaded, n, bad=n == 1, image_sha256="ab" * 32) for n in (1, 2)]
    with pytest.raises(UsageError, match=r"/line/2\.png: found conforming in one review"):
        of_reviews(line, loaded)


@pytest.mark.parametrize("rate", [0.0, None])
def test_without_a_random_sample_there_is_nothing_to_calibrate_on(
    loaded: Recipe, rate: float | None
) -> None:
    with pytest.raises(CheckFailed, match="raise audit_rate in the recipe"):
        of_reviews([_one(loaded, n, rate=rate) for n in range(40)], loaded)
