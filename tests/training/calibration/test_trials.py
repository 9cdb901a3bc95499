"""Many calibrations held to each other's parts: promises keep their word, naive thresholds not."""

from collections.abc import Sequence

import numpy as np
import pytest

from lad_agent import recipe
from lad_agent.confidence import calibrated
from lad_agent.errors import UsageError
from lad_agent.judgement import Result
from lad_agent.policy import decide
from lad_agent.recipe import Recipe
from lad_agent.training.calibration import Asked, Part, choose
from lad_agent.training.calibration.trials import THE_OTHERS, lenient, run
from tests.scripted import write_recipe
from tests.training.calibration.synthetic import part, parts


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe.load(write_recipe(tmp_path_factory.mktemp("recipe")))


def test_promises_are_kept_on_the_others_and_naive_thresholds_are_not(loaded: Recipe) -> None:
    asked = Asked(0.1, fit_share=0)
    found = run(parts(1000, 4000, wrong=0.3), {}, loaded, asked, sets=40, good=25, bad=100)
    others = found[THE_OTHERS]
    assert others.promised.given + others.refused == others.promised.sets == 40
    assert others.learned == 0
    assert others.promised.held_interval[1] >= 0.95
    assert others.promised.held > others.naive.held
    assert others.naive.held_interval[1] < 0.95
    assert others.naive.worst > 0.1
    assert others.promised.harm_rate < others.naive.harm_rate
    assert others.promised.coverage_good < others.naive.coverage_good


def test_a_learned_confidence_keeps_its_promises_too(loaded: Recipe) -> None:
    """Parts that choose the threshold have taught the confidence nothing."""
    asked = Asked(0.1, fit_share=0.3)
    found = run(parts(700, 2200, wrong=0.3), {}, loaded, asked, sets=20, good=35, bad=110)
    others = found[THE_OTHERS]
    assert others.learned > 12
    assert others.promised.given > 10
    assert others.promised.held_interval[1] >= 0.95
    assert others.promised.held > others.naive.held


def test_a_promise_of_overkill_is_held_to_the_good_parts(loaded: Recipe) -> None:
    asked = Asked(None, 0.1, fit_share=0)
    found = run(parts(4000, 1000, wrong=0.3), {}, loaded, asked, sets=40, good=100, bad=25)
    others = found[THE_OTHERS]
    assert others.promised.held_interval[1] >= 0.95
    assert others.promised.held > others.naive.held
    assert others.promised.coverage_bad < others.naive.coverage_bad
    assert others.naive.worst > 0.1


def test_what_is_refused_counts_as_held_and_not_as_kept(loaded: Recipe) -> None:
    """Learn then Test bounds how often a promise is given and broken, over all tries."""
    pool = parts(500, 1200, wrong=0.4, skill=-1.0)
    found = run(pool, {}, loaded, Asked(0.05, fit_share=0), sets=20, good=25, bad=60)
    promised = found[THE_OTHERS].promised
    assert 0 < found[THE_OTHERS].refused < 20
    assert promised.given == 20 - found[THE_OTHERS].refused
    assert promised.held == promised.kept + found[THE_OTHERS].refused
    assert promised.held_interval[0] > promised.kept_interval[0]
    naive = found[THE_OTHERS].naive
    assert (naive.sets, naive.given, naive.held) == (20, 20, naive.kept)


def test_where_the_surest_are_wrong_too_no_threshold_lets_them_pass(loaded: Recipe) -> None:
    """As sure as can be: even a threshold of 1 would let them."""
    sure = [part(f"bad{n}", bad=True, says_bad=False, sure=1.0) for n in range(3)]
    found = [*sure, *(part(f"good{n}", bad=False, says_bad=False, sure=1.0) for n in range(3))]
    least = lenient(found, loaded.policy, 0.01)
    policy = loaded.policy.model_copy(update={"pass_confidence": least})
    assert {decide(one.judgement, policy).result for one in found} == {Result.NOT_DECIDABLE}


def test_a_picture_that_is_there_twice_is_refused(loaded: Recipe) -> None:
    pool = parts(30, 40)
    for twice, elsewhere in (([*pool, pool[0]], {}), (pool, {"same": pool[:1]})):
        with pytest.raises(UsageError, match="twice in the pool, or elsewhere too"):
            run(twice, elsewhere, loaded, Asked(0.1), sets=1, good=20, bad=30)
    with pytest.raises(UsageError, match="2 sets of 30 bad parts take 60; the pool has 40"):
        run(pool, {}, loaded, Asked(0.1), sets=2, good=10, bad=30)
    for neither_or_both in (Asked(None), Asked(0.1, 0.1)):
        with pytest.raises(UsageError, match="one promise to its word; give escape or overkill"):
            run(pool, {}, loaded, neither_or_both, sets=1, good=1, bad=1)


@pytest.mark.parametrize(
    ("wrong", "asked"),
    [
        (0.02, Asked(0.1, seed=3)),
        (0.3, Asked(0.1, seed=3)),
        (0.3, Asked(None, 0.2, seed=3)),
    ],
)
def test_what_is_measured_is_what_the_policy_decides(
    loaded: Recipe, wrong: float, asked: Asked
) -> None:
    pool, elsewhere = parts(300, 300, wrong=wrong), parts(200, 150, seed=1)
    found = run(pool, {"elsewhere": elsewhere}, loaded, asked, sets=2, good=150, bad=150)
    order = np.random.default_rng(asked.seed).permutation(600).tolist()
    of = {is_bad: [pool[i] for i in order if pool[i].bad == is_bad] for is_bad in (False, True)}
    halves = [of[False][n : n + 150] + of[True][n : n + 150] for n in (0, 150)]
    made = [choose(half, loaded, asked) for half in halves]
    models = [one.calibration.confidence_model for one in made]
    assert found[THE_OTHERS].learned == sum(model is not None for model in models)
    assert (wrong == 0.02) == (models == [None, None])

    def expected(n: int, group: Sequence[Part]) -> tuple[float, float, float]:
        results = [decide(calibrated(p.judgement, models[n]), made[n].policy).result for p in group]
        told = [(p.bad, r) for p, r in zip(group, results, strict=True)]
        of = {bad: sum(b == bad for b, _ in told) for bad in (True, False)}
        decided = [b for b, r in told if r is not Result.NOT_DECIDABLE]
        harm = (False, Result.NOT_OK) if asked.escape is None else (True, Result.OK)
        harmed = told.count(harm) / of[harm[0]]
        return harmed, decided.count(False) / of[False], decided.count(True) / of[True]

    groups = {THE_OTHERS: halves[::-1], "elsewhere": [elsewhere, elsewhere]}
    for name, both in groups.items():
        way = found[name].promised
        means = np.mean([expected(n, both[n]) for n in (0, 1)], axis=0)
        told = (way.harm_rate, way.coverage_good, way.coverage_bad)
        assert told == pytest.approx(tuple(means))


def test_another_mix_of_parts_is_measured_by_itself(loaded: Recipe) -> None:
    """What the promise is not about: errors that look surer than those it was made on."""
    shifted = {"shifted": parts(100, 2000, seed=2, skill=-2)}
    asked = Asked(0.05, fit_share=0)
    found = run(parts(400, 2000), shifted, loaded, asked, sets=10, good=25, bad=150)
    others, beyond = found[THE_OTHERS].promised, found["shifted"].promised
    assert beyond.harm_rate > others.harm_rate
    assert found["shifted"].refused == found[THE_OTHERS].refused
