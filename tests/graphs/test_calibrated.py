"""A calibrated recipe on the line: its confidence decides and is recorded; void, nothing passes."""

from pathlib import Path

from lad_agent import recipe
from lad_agent.judgement import Reason, Result
from lad_agent.training.calibration import Asked, choose, write
from tests.graphs.conftest import Bench
from tests.scripted import Scripted, bad, good
from tests.training.calibration.synthetic import parts


def _calibrate(bench: Bench) -> None:
    path = Path(bench.recipe.path)
    bench.recipe = write(path, choose(parts(400, 400), recipe.load(path), Asked(0.05)))


async def test_the_calibrated_confidence_decides_and_is_recorded(bench: Bench) -> None:
    _calibrate(bench)
    assert bench.recipe.calibration is not None
    assert bench.recipe.calibration.confidence_model is not None
    [passed] = (await bench.run(bench.items(1), Scripted(good))).done
    assert passed.outcome.result is Result.OK
    assert passed.outcome.weakest_token == 0.99
    assert passed.outcome.confidence not in (None, 0.99)
    assert (passed.outcome.confidence or 0) >= (bench.recipe.policy.pass_confidence or 1)


async def test_another_model_voids_it_and_every_part_goes_to_a_person(bench: Bench) -> None:
    _calibrate(bench)
    for script in (good, bad):
        other = Scripted(script, fingerprint="retrained")
        other.script = lambda q, s=script: s(q).model_copy(update={"model": "retrained"})  # type: ignore[misc]
        items = bench.items(2) if script is good else bench.items(4)[2:]
        report = await bench.run(items, other)
        for done in report.done:
            assert done.outcome.result is Result.NOT_DECIDABLE
            assert done.outcome.reason is Reason.CALIBRATION_VOID
            assert done.detail is not None
            assert "calibrated for model scripted, this is retrained" in done.detail
