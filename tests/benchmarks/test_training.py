"""What a trainer loses against a bare loop, its own parts included."""

import json
from pathlib import Path

import pytest

from benchmarks import training
from lad_agent.training import lessons, runs
from lad_agent.training.config import changed, load
from lad_agent.training.synloco import dataset


def test_samples_and_checkpoint_count_by_the_shipped_intervals() -> None:
    clock = training.Clock()
    clock.ends = [10.0 + n for n in range(training.WARM)] + [15.0, 16.0]
    last = clock.ends[training.WARM - 1]
    assert clock.seconds() == (16.0 - last) / 2
    assert clock.seconds_of_a_run(load("pocket")) == clock.seconds()
    clock.asked, clock.saved = 2.0, 4.0
    assert clock.seconds_of_a_run(load("pocket")) == clock.seconds() + 2.0 / 100 + 4.0 / 200


@pytest.mark.parametrize(("trainer", "fails"), [(1.10, False), (1.25, True)])
def test_more_than_fifteen_percent_lost_is_a_failure(
    capsys: pytest.CaptureFixture[str], trainer: float, fails: bool
) -> None:
    rows = [("sft", 16, 1.01, 1.0), ("grpo", 32, trainer, 1.0)]
    if fails:
        with pytest.raises(SystemExit) as stopped:
            training.report(rows)
        assert stopped.value.code == 5
    else:
        training.report(rows)
    told = capsys.readouterr()
    assert told.out.splitlines()[2] == "| sft | 15.84 | 16.00 | 1.0% |"
    assert ("grpo loses 20.0%" in told.err) == fails


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_trainer_that_is_timed_is_that_of_a_run(tmp_path: Path) -> None:
    dataset.write(tmp_path, "screw_bag", count=8, seed=1, train=16)
    config = changed(
        load("pocket"),
        data={"paths": [tmp_path / "screw_bag"]},
        samples=1,
        sft={"steps": training.WARM + 1, "warmup": 0, "batch": 2, "micro": 2},
    )
    learned = lessons.learn_from(config, say=lambda text: None)
    trainer, bare = training._sft(learned, config, tmp_path)
    assert min(trainer, bare) > 0.0
    run = tmp_path / "sft"
    last = training.WARM + 1
    assert (run / "checkpoints" / f"checkpoint-{last}" / runs.WHOLE).exists()
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "seconds", "loss"} <= logged[0].keys()
    assert json.loads((run / "samples.jsonl").read_text().splitlines()[-1])["step"] == last
    assert list((run / "tensorboard").iterdir())
