"""Thresholds chosen on parts that fitted nothing; too few, too bad and too good are refused."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lad_agent import confidence, recipe
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.judgement import Result
from lad_agent.policy import decide_by_recipe
from lad_agent.recipe import Recipe
from lad_agent.software import versions
from lad_agent.training.calibration import Asked, Costs, Made, Part, choose, text, values
from lad_agent.training.calibration.choosing import side
from tests.scripted import write_recipe
from tests.training.calibration.synthetic import part, parts


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe.load(write_recipe(tmp_path_factory.mktemp("recipe")))


@pytest.fixture(scope="module")
def many() -> list[Part]:
    return parts(700, 700)


@pytest.fixture(scope="module")
def made(many: list[Part], loaded: Recipe) -> Made:
    return choose(many, loaded, Asked(overkill=0.05))


def test_a_threshold_that_was_set_by_hand_does_not_end_without_a_word(
    many: list[Part], loaded: Recipe
) -> None:
    strict = replace(loaded, policy=loaded.policy.model_copy(update={"reject_confidence": 0.95}))
    found = choose(many, strict, Asked(escape=0.05))
    assert found.policy.reject_confidence is None
    words = "reject_confidence 0.95 ends, which was set by hand: verdicts of bad stand by "
    assert sum(note.startswith(words) for note in found.calibration.notes) == 1
    for told in (choose(many, strict, Asked(overkill=0.05)), choose(many, loaded, Asked(0.05))):
        assert not any("set by hand" in note for note in told.calibration.notes)


def test_no_part_both_fits_and_chooses(many: list[Part], made: Made) -> None:
    calibration = made.calibration
    assert calibration.fitted_on.good + calibration.chosen_on.good == 700
    assert calibration.fitted_on.bad + calibration.chosen_on.bad == 700
    assert 340 < calibration.fitted_on.good + calibration.fitted_on.bad < 500
    chosen = {p.example.sha256 for p in made.parts}
    assert len(chosen) == calibration.chosen_on.good + calibration.chosen_on.bad


def test_the_split_is_by_content_whatever_the_order(many: list[Part], loaded: Recipe, made: Made) -> None:  # fmt: skip  # noqa: E501
    again = choose(many[::-1], loaded, Asked(overkill=0.05))
    assert again.calibration.data_sha256 == made.calibration.data_sha256
    assert again.calibration.fitted_on == made.calibration.fitted_on
    assert again.changes["pass_confidence"] == pytest.approx(
        made.changes["pass_confidence"], abs=1e-3
    )
    other = choose(many, loaded, Asked(overkill=0.05, seed=1))
    assert {p.example.sha256 for p in other.parts} != {p.example.sha256 for p in made.parts}


def test_the_promises_hold_on_the_parts_and_the_words_say_so(made: Made) -> None:
    escapes, overkill = made.calibration.promises
    assert (escapes.quantity, escapes.of) == ("escape_rate", made.calibration.chosen_on.bad)
    assert escapes.seen == made.count(bad=True, result=Result.OK)
    assert overkill.seen == made.count(bad=False, result=Result.NOT_OK)
    told = text(made)
    assert f"of {overkill.of} good parts {overkill.seen} rejected, " in told
    assert f"; of {escapes.of} bad parts {escapes.seen} passed, " in told
    assert "promise: at most 1.0% escapes, 95% sure; at most 5.0% overkill, 95% sure" in told
    assert "zero-miss point: at confidence " in told
    assert "logistic, fitted on" in told or "isotonic, fitted on" in told
    assert values(made)["good"]["NotOK"] == overkill.seen


def test_the_recipe_decides_as_the_calibration_counted(
    many: list[Part], made: Made, loaded: Recipe
) -> None:
    calibrated = replace(loaded, policy=made.policy, calibration=made.calibration)
    by_hash = {p.example.sha256: p for p in many}
    for judged, result in zip(made.parts, made.results, strict=True):
        original = by_hash[judged.example.sha256].judgement
        again, decision = decide_by_recipe(original, calibrated)
        assert (again, decision.result) == (judged.judgement, result)


def test_the_fewest_go_to_people_that_the_promise_allows(made: Made, loaded: Recipe) -> None:
    passing = [p for p in made.parts if side(p.judgement, made.policy) is Result.OK]
    least = made.changes["pass_confidence"] or 0
    lower = max(
        p.judgement.confidence or 0 for p in passing if (p.judgement.confidence or 0) < least
    )
    seen = sum(p.bad and (p.judgement.confidence or 0) >= lower for p in passing)
    assert seen > made.calibration.promises[0].seen


def test_a_useful_confidence_is_learned(many: list[Part], made: Made) -> None:
    sure = {True: [], False: []}  # type: dict[bool, list[float]]
    for judged in made.parts:
        sure[judged.right].append(judged.judgement.confidence or 0)
    mean = {right: sum(found) / len(found) for right, found in sure.items()}
    assert mean[True] > 0.9 > 0.7 > mean[False]


def test_where_the_promise_takes_all_parts_none_fit(loaded: Recipe) -> None:
    sharp = [part(f"g{n}", False, False, 0.9) for n in range(350)]
    sharp += [part(f"b{n}", True, True, 0.9) for n in range(300)]
    made = choose(sharp, loaded, Asked())
    assert made.calibration.confidence_model is None
    assert made.calibration.fitted_on.good == made.calibration.fitted_on.bad == 0
    assert "of 350 good parts 0 rejected, 0 to people" in text(made)
    assert "of 300 bad parts 0 passed" in text(made)
    assert "the promise takes all parts; with some 29 good and 427 bad parts one is" in text(made)


def test_with_too_few_errors_nothing_is_fitted_and_no_part_is_taken_back(loaded: Recipe) -> None:
    made = choose(parts(600, 600, wrong=0.0), loaded, Asked())
    assert made.calibration.confidence_model is None
    assert made.calibration.fitted_on == confidence.Counts(good=0, bad=0)
    assert 300 < made.calibration.chosen_on.bad < 500
    assert "it takes 10 right and 10 wrong verdicts" in text(made)


def test_pictures_of_a_validation_are_told(loaded: Recipe) -> None:
    found = [
        replace(p, example=replace(p.example, split="validation" if n < 7 else "test"))
        for n, p in enumerate(parts(100, 100))
    ]
    told = text(choose(found, loaded, Asked(0.05, fit_share=0)))
    assert "in-sample: 7 pictures are for validation" in told


def test_with_good_parts_only_escapes_are_unknown_and_more_go_to_people(loaded: Recipe) -> None:
    made = choose(parts(200, 0), loaded, Asked(overkill=0.2))
    assert made.calibration.chosen_on == confidence.Counts(good=200, bad=0)
    assert made.calibration.confidence_model is None
    assert [p.quantity for p in made.calibration.promises] == ["overkill_rate"]
    assert "escape: unknown" in made.promised
    assert "escape: unknown" in text(made)
    passing = [p for p in made.parts if side(p.judgement, made.policy) is Result.OK]
    assert made.count(bad=False, result=Result.OK) <= len(passing) / 2
    assert made.results.count(Result.NOT_DECIDABLE) > made.before.count(Result.NOT_DECIDABLE)


def test_equally_sure_good_parts_alone_pass_by_no_more_than_half(loaded: Recipe) -> None:
    same = [part(f"g{n}", False, False, 0.9) for n in range(60)]
    made = choose(same, loaded, Asked(overkill=0.2))
    assert set(made.results) == {Result.NOT_DECIDABLE}
    surer = [part(f"s{n}", False, False, 0.95) for n in range(20)]
    assert choose([*same, *surer], loaded, Asked(overkill=0.2)).results.count(Result.OK) == 20


def test_good_parts_of_whom_all_are_as_sure_as_can_be_choose_nothing(loaded: Recipe) -> None:
    same = [part(f"g{n}", False, False, 1.0) for n in range(60)]
    words = "60 of 60 good parts are as sure as can be.*lad-agent hold on screw_bag"
    with pytest.raises(CheckFailed, match=words):
        choose(same, loaded, Asked(overkill=0.2))


def test_good_parts_alone_take_no_promise_about_escapes_back(made: Made, loaded: Recipe) -> None:
    signed = replace(loaded, policy=made.policy, calibration=made.calibration)
    words = "promises at most 1.0% escapes, 95% sure, which good parts alone would take back"
    with pytest.raises(CheckFailed, match=words):
        choose(parts(200, 0), signed, Asked(overkill=0.2))
    # Made for another task it is in force no longer, and its threshold on another scale.
    other = replace(signed, task_version="other")
    plain = choose(parts(200, 0), replace(loaded, task_version="other"), Asked(overkill=0.2))
    again = choose(parts(200, 0), other, Asked(overkill=0.2))
    assert again.changes == plain.changes


def test_nobody_knows_what_a_calibration_that_cannot_be_read_has_promised(loaded: Recipe) -> None:
    policy = loaded.policy.model_copy(update={"pass_confidence": 0.999, "reject_confidence": 0.999})
    damaged = replace(loaded, policy=policy, damaged=True)
    with pytest.raises(CheckFailed, match="cannot be read, and may promise escapes"):
        choose(parts(200, 0), damaged, Asked(overkill=0.2))
    again, plain = (choose(parts(700, 700), one, Asked(0.05)) for one in (damaged, loaded))
    assert "whatever it promised ends, unless it is promised here" in text(again)
    # Its thresholds are on a scale of its own.
    assert (again.before, again.changes) == (plain.before, plain.changes)


def test_a_promise_that_is_not_asked_for_again_ends_with_a_word(made: Made, loaded: Recipe) -> None:
    signed = replace(loaded, policy=made.policy, calibration=made.calibration)
    again = choose(parts(700, 700), signed, Asked(), by="ana")
    assert again.changes["reject_confidence"] is None
    assert "promise of at most 5.0% overkill, 95% sure ends: it was not asked for" in text(again)
    assert "ends" not in text(choose(parts(700, 700), signed, Asked(overkill=0.05)))
    assert again.calibration.by == "ana"
    assert again.calibration.software == versions("scikit-learn", "scipy")
    assert versions().keys() | {"scikit-learn", "scipy"} == again.calibration.software.keys()


def test_good_parts_alone_never_make_a_recipe_milder(loaded: Recipe) -> None:
    strict = replace(loaded, policy=loaded.policy.model_copy(update={"min_confidence": 0.95}))
    made = choose(parts(200, 0), strict, Asked(overkill=0.2))
    assert made.changes["pass_confidence"] >= 0.95
    assert made.results.count(Result.OK) <= made.before.count(Result.OK)


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        (0, 400, r"20 more good parts \(there are 0, 20 are needed\)"),
        (
            5,
            5,
            r"15 more good .* and 294 more bad parts \(there are 5, 299 are needed for at most",
        ),
        (400, 298, "1 more bad parts"),
        (0, 0, "20 more good .* and 299 more bad"),
        (
            10,
            0,
            r"49 more good parts \(there are 10, 59 are needed for at most 5.0% overkill, 95% sure",
        ),
    ],
)
def test_too_few_are_refused_with_how_many_more(
    loaded: Recipe, good: int, bad: int, words: str
) -> None:
    with pytest.raises(CheckFailed, match=words):
        choose(parts(good, bad), loaded, Asked())


def test_all_scores_equal_promise_nothing(loaded: Recipe) -> None:
    same = [part(f"g{n}", False, False, 0.8) for n in range(300)]
    same += [part(f"b{n}", True, n % 10 > 0, 0.8) for n in range(300)]
    words = "30 of 300 bad parts would pass as the surest of all; mend the model.*label fresh parts"
    with pytest.raises(CheckFailed, match=words):
        choose(same, loaded, Asked(fit_share=0))
    assert choose(same, loaded, Asked(escape=0.134, fit_share=0)).count(bad=True, result=Result.OK)


def test_parts_without_a_verdict_go_to_people_and_count(loaded: Recipe) -> None:
    found = [part(f"g{n}", False, False, 0.9) for n in range(100)]
    found += [part(f"b{n}", True, None if n < 50 else True, 0.9) for n in range(100)]
    made = choose(found, loaded, Asked(escape=0.05, fit_share=0))
    assert made.count(bad=True, result=Result.NOT_DECIDABLE) == 50
    assert made.calibration.promises[0].of == 100


def test_a_reasoner_that_never_says_good_passes_nothing(loaded: Recipe) -> None:
    found = [part(f"{bad}{n}", bad, True, 0.9) for bad in (False, True) for n in range(100)]
    made = choose(found, loaded, Asked(escape=0.05))
    assert made.changes["pass_confidence"] == 1.0
    assert made.results.count(Result.OK) == 0
    assert made.zero is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"escape": 0.0}, "promise of 0 escape cannot be kept"),
        ({"escape": 1.0}, "promise of 1 escape"),
        ({"overkill": -0.1}, "overkill cannot be kept"),
        ({"escape": float("nan")}, "promise of nan"),
        ({"sure": 1.0}, "certainty of 1"),
        ({"sure": 0.2}, "certainty of 0.2"),
        ({"fit_share": 1.0}, "fit share of 1"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(asked: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Asked(**asked)  # type: ignore[arg-type]


def test_the_zero_miss_point_by_hand(loaded: Recipe) -> None:
    found = [part(f"g{n}", False, False, 0.5 + n / 100) for n in range(40)]
    found += [part(f"b{n}", True, True, 0.9) for n in range(58)]
    found += [part("b58", True, False, 0.7), part("b59", True, False, 0.75)]
    made = choose(found, loaded, Asked(0.1, fit_share=0))
    assert made.zero is not None
    # The good ones from 0.76 on are surer than the surest bad one; 0.95 = 1 - 0.0487^(1/60)
    assert (made.zero.threshold, made.zero.good_passed) == (0.76, 14)
    assert made.zero.bound == pytest.approx(1 - 0.05 ** (1 / 60))
    assert "zero-miss point: at confidence 0.76" in text(made)
    none = [part(f"g{n}", False, False, 0.5) for n in range(40)]
    none += [part(f"b{n}", True, n > 0, 0.9) for n in range(60)]
    assert choose(none, loaded, Asked(0.1, fit_share=0)).zero is None


def test_costs_choose_by_hand(loaded: Recipe) -> None:
    """Ten good at 0.9, ten at 0.6; bad ones said to be good: one at 0.6, one at 0.3."""
    found = [part(f"g{n}", False, False, 0.9 if n < 10 else 0.6) for n in range(20)]
    found += [part(f"b{n}", True, True, 0.9) for n in range(18)]
    found += [part("b18", True, False, 0.6), part("b19", True, False, 0.3)]
    cheap_review = Asked(None, costs=Costs(1000, 0, 1, 0.5), fit_share=0)
    dear_review = Asked(None, costs=Costs(10, 0, 9, 0.5), fit_share=0)
    # a miss of 1000 against ten reviews of 1, then of 10 against ten reviews of 9
    cheap, dear = (choose(found, loaded, asked) for asked in (cheap_review, dear_review))
    assert cheap.changes["pass_confidence"] == 0.9
    assert dear.changes["pass_confidence"] == 0.6
    # ten good ones and two bad ones reviewed; then one missed and one reviewed
    assert cheap.spent(cheap.results) == pytest.approx(0.5 * 10 / 20 + 0.5 * 2 / 20)
    assert dear.spent(dear.results) == pytest.approx(0.5 * (10 + 9) / 20)
    assert "cost: 0.475 a part where 50% are bad; " in text(dear)
    assert "in-sample: the costs" in text(choose(found, loaded, dear_review))


def test_costs_that_want_people_for_all_are_refused(loaded: Recipe) -> None:
    found = [part(f"g{n}", False, False, 0.5) for n in range(20)]
    found += [part(f"b{n}", True, False, 0.9) for n in range(20)]
    with pytest.raises(CheckFailed, match="a person for every part said to be good"):
        choose(found, loaded, Asked(None, costs=Costs(1000, 1, 1, 0.5), fit_share=0))


@pytest.mark.parametrize(
    "wrong", [(-1, 1, 1, 0.1), (0, 0, 1, 0.1), (1, 1, 1, 0.0), (1, 1, float("nan"), 0.1)]
)
def test_costs_that_mean_nothing_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(UsageError):
        Costs(*wrong)


def test_costs_never_loosen_a_promise(many: list[Part], loaded: Recipe, made: Made) -> None:
    asked = Asked(costs=Costs(1, 1, 100, 0.01), overkill=0.05)
    assert choose(many, loaded, asked).changes["pass_confidence"] == made.changes["pass_confidence"]


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6), wrong=st.floats(0.0, 0.25), skill=st.floats(2, 4))
def test_whatever_the_reasoner_a_promise_is_within_its_bound(
    loaded: Recipe, seed: int, wrong: float, skill: float
) -> None:
    try:
        made = choose(parts(60, 80, seed=seed, wrong=wrong, skill=skill), loaded, Asked(0.1))
    except CheckFailed:
        assume(False)
    [promise] = made.calibration.promises
    assert promise.seen == made.count(bad=True, result=Result.OK)
    assert promise.seen / promise.of < 0.1
    assert all(0 <= (p.judgement.confidence or 0) <= 1 for p in made.parts)
    assert confidence.Calibration.model_validate_json(made.calibration.model_dump_json())
