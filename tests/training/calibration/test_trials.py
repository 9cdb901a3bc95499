"""Many calibrations held to fresh parts: the promise keeps its word, the naive threshold not."""

import pytest

from lad_agent import recipe
from lad_agent.confidence import calibrated
from lad_agent.errors import UsageError
from lad_agent.judgement import Result
from lad_agent.policy import decide
from lad_agent.recipe import Recipe
from lad_agent.training.calibration import Asked, choose
from lad_agent.training.calibration.trials import run
from tests.scripted import write_recipe
from tests.training.calibration.synthetic import parts


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe.load(write_recipe(tmp_path_factory.mktemp("recipe")))


def test_promises_are_kept_on_fresh_parts_and_naive_thresholds_are_not(loaded: Recipe) -> None:
    wrong = 0.3
    pool, fresh = parts(1000, 4000, wrong=wrong), parts(500, 3000, seed=1, wrong=wrong)
    asked = Asked(0.1, fit_share=0)
    found = run(pool, {"fresh": fresh}, loaded, asked, sets=40, good=25, bad=100)["fresh"]
    assert found.promised is not None
    assert found.promised.made + found.refused == 40
    assert found.promised.interval[1] >= 0.95
    assert found.promised.kept > found.naive.kept
    assert found.naive.interval[1] < 0.95
    assert found.naive.worst > 0.1
    assert found.promised.escape_rate < found.naive.escape_rate
    assert found.promised.coverage < found.naive.coverage


def test_the_same_parts_on_both_sides_are_refused(loaded: Recipe) -> None:
    pool = parts(30, 40)
    with pytest.raises(UsageError, match="in the pool and among the fresh parts"):
        run(pool, {"same": pool[:1]}, loaded, Asked(0.1), sets=1, good=20, bad=30)
    with pytest.raises(UsageError, match="2 sets of 30 bad parts take 60; the pool has 40"):
        run(pool, {"fresh": parts(9, 9, seed=1)}, loaded, Asked(0.1), sets=2, good=10, bad=30)
    with pytest.raises(UsageError, match="give escape"):
        run(pool, {}, loaded, Asked(None, 0.1), sets=1, good=1, bad=1)


def test_what_is_measured_is_what_the_policy_decides(loaded: Recipe) -> None:
    pool, fresh = parts(300, 300), parts(200, 200, seed=1)
    asked = Asked(0.1, 0.2, seed=3)
    found = run(pool, {"fresh": fresh}, loaded, asked, sets=1, good=300, bad=300)["fresh"]
    made = choose(pool, loaded, asked)
    model = made.calibration.confidence_model
    assert model is not None
    results = [decide(calibrated(part.judgement, model), made.policy).result for part in fresh]
    passed = sum(p.bad and r is Result.OK for p, r in zip(fresh, results, strict=True))
    decided = sum(r is not Result.NOT_DECIDABLE for r in results)
    assert found.promised is not None
    assert found.promised.escape_rate == pytest.approx(passed / 200)
    assert found.promised.coverage == pytest.approx(decided / 400)


def test_another_mix_of_parts_is_measured_by_itself(loaded: Recipe) -> None:
    """What the promise is not about: errors that look surer than those it was made on."""
    fresh = {"as before": parts(100, 2000, seed=1), "shifted": parts(100, 2000, seed=2, skill=-2)}
    found = run(
        parts(400, 2000), fresh, loaded, Asked(0.05, fit_share=0), sets=10, good=25, bad=150
    )
    assert found["as before"].promised is not None
    assert found["shifted"].promised is not None
    assert found["shifted"].promised.escape_rate > found["as before"].promised.escape_rate
    assert found["shifted"].refused == found["as before"].refused
