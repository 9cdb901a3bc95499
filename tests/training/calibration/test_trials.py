"""Many calibrations held to fresh parts: the promise keeps its word, the naive threshold not."""

import pytest

from lad_agent import recipe
from lad_agent.errors import UsageError
from lad_agent.recipe import Recipe
from lad_agent.training.calibration import Asked
from lad_agent.training.calibration.trials import run
from tests.scripted import write_recipe
from tests.training.calibration.synthetic import parts


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe.load(write_recipe(tmp_path_factory.mktemp("recipe")))


def test_promises_are_kept_on_fresh_parts_and_naive_thresholds_are_not(loaded: Recipe) -> None:
    wrong = 0.3
    pool, fresh = parts(1000, 4000, wrong=wrong), parts(500, 3000, seed=1, wrong=wrong)
    found = run(pool, fresh, loaded, Asked(0.1, fit_share=0), sets=40, good=25, bad=100)
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
        run(pool, pool[:1], loaded, Asked(0.1), sets=1, good=20, bad=30)
    with pytest.raises(UsageError, match="2 sets of 30 bad parts take 60; the pool has 40"):
        run(pool, parts(9, 9, seed=1), loaded, Asked(0.1), sets=2, good=10, bad=30)
    with pytest.raises(UsageError, match="give escape"):
        run(pool, [], loaded, Asked(None, 0.1), sets=1, good=1, bad=1)
