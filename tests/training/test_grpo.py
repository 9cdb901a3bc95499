"""GRPO: prompts by position, pools by difficulty, and a trainer that sees pictures."""

import itertools
import json
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration, TrainerControl, TrainerState

from lad_agent import protocol
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.reasoners.checkpoint import load_checkpoint
from lad_agent.recipe import Rule
from lad_agent.training import bases, callbacks, grpo, runs, watch
from lad_agent.training.config import Data, Grpo, RunConfig, changed, dump
from lad_agent.training.grpo import Prompt
from lad_agent.training.pocket import architecture
from lad_agent.training.pocket import prompts as pocket
from lad_agent.training.rewards import Case
from lad_agent.training.sources import open_source
from tests.reasoners import toy
from tests.training.conftest import Steps, own_pictures

ROOT = Path(__file__).parents[2]
RULES = (Rule(id="R1", text="exactly 2 nuts"),)
CONFIG = Grpo(
    steps=2, prompts=2, num_generations=2, micro=4, max_completion=16, warmup=0, learning_rate=1e-3
)


def run_config(section: Grpo = CONFIG, **keys: Any) -> RunConfig:
    """A run that saves every step."""
    given = {"base": "pocket", "adapter": "full", "checkpoint_every": 1, "samples": 0}
    return RunConfig.model_validate({**given, "grpo": section.model_dump(), **keys})


def fit(
    model: Any, processor: Any, stream: grpo.Prompts, section: Grpo, folder: Path, **keys: Any
) -> Any:
    """Train without a run around it; returns the trainer."""
    watch = grpo.Watch(section)
    config = run_config(section, **keys)
    trainer = grpo.trainer_for(stream, config, model, processor, folder, [watch])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer.train()
    return trainer, watch


@pytest.fixture(scope="module")
def processor() -> Any:
    return architecture.processor()


@pytest.fixture(scope="module")
def folder(processor: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pocket, untrained."""
    folder = tmp_path_factory.mktemp("base")
    architecture.model(processor.tokenizer, seed=0, width=64, layers=1).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def model(folder: Path) -> Any:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)


def prompts(position: int) -> Prompt:
    """Every third one is anomalous; its picture is white, the others are black."""
    anomalous = position % 3 == 0
    colour = (255, 255, 255) if anomalous else (0, 0, 0)

    def images() -> Sequence[Image.Image]:
        return [Image.new("RGB", (196, 196), "grey"), Image.new("RGB", (196, 196), colour)]

    messages = protocol.messages("screw_bag", RULES)
    return Prompt(messages, images, Case("screw_bag", RULES, anomalous))


def test_every_other_prompt_is_anomalous() -> None:
    drawn = list(itertools.islice(grpo.balanced(prompts, itertools.count()), 20))
    assert [prompts(p).case.anomalous for p in drawn] == [False, True] * 10
    assert len(set(drawn)) == 20


def test_a_run_without_pools_takes_its_prompts_by_turns(tmp_path: Path) -> None:
    feed = grpo.Feed(prompts, CONFIG.model_copy(update={"pool": 0}), tmp_path)
    taken = [feed.position(k) for k in range(8)]
    assert [prompts(position).case.anomalous for position in taken] == [False, True] * 4


def test_prompts_of_the_pocket_depend_on_their_position_alone() -> None:
    one, two = pocket.prompts(5), pocket.prompts(5)
    for position in (7, 3):
        a, b = one(position), two(position)
        assert (a.messages, a.case) == (b.messages, b.case)
        assert [i.tobytes() for i in a.images()] == [i.tobytes() for i in b.images()]
    assert len({str(one(n).messages) for n in range(20)}) == 20


def test_the_pockets_prompts_hold_both_verdicts_of_every_product() -> None:
    cases = [pocket.prompts(1)(n).case for n in range(300)]
    assert len({(case.product, case.anomalous) for case in cases}) == 10
    for case in cases:
        assert (case.rule is not None) <= case.anomalous


@pytest.mark.parametrize(
    ("texts", "right", "expected"),
    [
        (["yes", "no"], [1, 0], {"well_formed": 1.0, "yes": 0.5, "dead": 0.0, "solved": 0.0}),
        (["yes", "yes"], [1, 1], {"well_formed": 1.0, "yes": 1.0, "dead": 1.0, "solved": 1.0}),
        (["no", ""], [0, 0], {"well_formed": 0.5, "yes": 0.0, "dead": 1.0, "solved": 0.0}),
    ],
)
def test_a_group_is_dead_by_its_accuracy_alone(
    texts: list[str], right: list[float], expected: dict[str, float]
) -> None:
    """In the last row form differs: the summed reward varies, and still no verdict is taught."""
    answers = [f"<think>a</think><answer>{text}</answer>" if text else "" for text in texts]
    assert grpo.shares(answers, right, [4, 4]) == expected


@pytest.mark.parametrize(
    ("change", "world"),
    [({"micro": 3}, 1), ({"prompts": 3, "micro": 4}, 1), ({"prompts": 1, "micro": 1}, 2)],
)
def test_numbers_that_do_not_fit_are_refused(change: dict[str, int], world: int) -> None:
    """In the last case the one group would be split between two processes."""
    with pytest.raises(UsageError, match="micro"):
        grpo._micro_batches(CONFIG.model_copy(update=change), world)
    assert grpo._micro_batches(CONFIG, 1) == 1


def test_metrics_tell_what_the_answers_are_like(model: Any, processor: Any, tmp_path: Path) -> None:
    trainer, _ = fit(model, processor, prompts, CONFIG, tmp_path)
    steps = [entry for entry in trainer.state.log_history if "dead" in entry]
    assert len(steps) == CONFIG.steps
    for entry in steps:
        assert {
            "rewards/accuracy/mean", "rewards/accuracy/std", "rewards/structure/mean", "kl",
            "entropy", "completions/clipped_ratio", "well_formed", "yes", "dead", "solved",
        } <= set(entry)  # fmt: skip
        assert entry["dead"] == 1.0  # an untrained model has no right answer
        assert entry["completions/clipped_ratio"] > 0.5


@pytest.mark.parametrize("rewards", [{"accuracy": 1.0, "structure": 0.5}, {"structure": 1.0}])
def test_a_run_that_teaches_nothing_is_stopped(
    rewards: dict[str, float],
    model: Any,
    processor: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is rewarded, what the answers are like is looked at; a checkpoint is left."""
    monkeypatch.setattr(watch, "WINDOW", 2)
    section = CONFIG.model_copy(update={"steps": 50, "rewards": rewards})
    trainer, seen = fit(model, processor, prompts, section, tmp_path, checkpoint_every=200)
    assert trainer.state.global_step == 2
    kept = [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")]
    assert kept == ["checkpoint-2"]
    assert "max_completion" in seen.reason or "fine-tune first" in seen.reason


def test_a_picture_left_out_stops_the_run(model: Any, processor: Any, tmp_path: Path) -> None:
    def one_short(position: int) -> Prompt:
        whole = prompts(position)
        return replace(whole, images=lambda: list(whole.images())[:1])

    with pytest.raises(ValueError, match="images"):
        fit(model, processor, one_short, CONFIG, tmp_path)


def test_the_loss_is_computed_with_the_pictures(model: Any, processor: Any, tmp_path: Path) -> None:
    """Of every answer's prompt both are there: none is dropped on the way."""
    seen: list[dict[str, Any]] = []

    def note(module: Any, arguments: Any, given: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            seen.append(given)

    model.register_forward_pre_hook(note, with_kwargs=True)
    read: list[int] = []
    model.model.visual.register_forward_pre_hook(
        lambda module, arguments, given: read.append(len(given["grid_thw"])), with_kwargs=True
    )
    fit(model, processor, prompts, CONFIG.model_copy(update={"steps": 1}), tmp_path)
    (given,) = seen
    assert given["image_grid_thw"].tolist() == [[1, 14, 14]] * 8
    assert set(read) == {3}  # the reference, black and white, once each
    reference, query = given["pixel_values"].unflatten(0, (4, 2, 196)).mean((2, 3)).T
    assert len(set(reference.tolist())) == 1
    # Two answers about a good part, black, and two about an anomalous one, white, in any order.
    assert sorted((query > reference).tolist()) == [False, False, True, True]


def test_the_loss_pays_for_no_length(model: Any, processor: Any, tmp_path: Path) -> None:
    """Every token weighs the same: of a right answer and a wrong one neither is made to count
    less by being long, as where each answer's mean is taken."""
    trainer, _ = fit(model, processor, prompts, CONFIG.model_copy(update={"steps": 1}), tmp_path)
    mask = torch.tensor([[1] * 12, [1] * 3 + [0] * 9])
    losses = []
    for advantages in ([1.0, 0.0], [0.0, 1.0]):
        losses.append(_loss(trainer, processor, mask, torch.tensor(advantages)))
    assert losses[0] == pytest.approx(4 * losses[1])


def _loss(trainer: Any, processor: Any, mask: torch.Tensor, advantages: torch.Tensor) -> float:
    """Of two answers of random tokens to one prompt in text alone, with no step away from it."""
    text = processor.tokenizer("exactly 2 nuts", return_tensors="pt")
    trainer.beta, trainer.model_kwarg_keys = 0.0, set()
    trainer.current_gradient_accumulation_steps = 1
    found: torch.Tensor = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": text["input_ids"].repeat(2, 1),
            "prompt_mask": text["attention_mask"].repeat(2, 1),
            "completion_ids": torch.ones_like(mask) * text["input_ids"][0, 0],
            "completion_mask": mask,
            "advantages": advantages,
            "num_items_in_batch": mask.sum(),
        },
    )
    return found.item()


# --- pools


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions that end in 5 or 6 are answered now rightly, now wrongly."""
    tried: list[int] = []

    def right(
        model: Any, processor: Any, batch: Sequence[Prompt], config: Grpo, seed: int
    ) -> list[float]:
        tried.extend(range(seed, seed + len(batch)))
        return [0.5 if p % 10 in (5, 6) else 1.0 for p in range(seed, seed + len(batch))]

    monkeypatch.setattr(grpo, "right", right)
    return tried


def test_mixed_prompts_are_chosen_and_both_verdicts_kept(shares: list[int]) -> None:
    config = CONFIG.model_copy(update={"pool": 8, "prompts": 4})
    chosen, alive, end = grpo.choose(None, None, prompts, config, 40)
    assert [prompts(p).case.anomalous for p in chosen] == [False, True] * 4
    assert sum(p % 10 in (5, 6) for p in chosen) >= 4
    assert 0.0 < alive < 0.5
    assert end == 40 + len(shares) <= 40 + 4 * config.pool
    assert min(chosen) >= 40


def test_a_pool_has_both_verdicts_however_rare_one_is(shares: list[int]) -> None:
    def rarely(position: int) -> Prompt:
        one = prompts(position)
        return replace(one, case=replace(one.case, anomalous=position % 50 == 49))

    config = CONFIG.model_copy(update={"pool": 4})
    chosen, _, end = grpo.choose(None, None, rarely, config, 0)
    assert [rarely(p).case.anomalous for p in chosen] == [False, True] * 2
    assert end == 100


def test_every_process_takes_part_and_the_first_one_writes(
    shares: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"pool": 4})
    monkeypatch.setenv("RANK", "1")
    grpo.Feed(prompts, config, tmp_path).refill(None, None, 0)
    there = list(shares)
    assert there
    assert not (tmp_path / "pools.jsonl").exists()
    monkeypatch.setenv("RANK", "0")
    feed = grpo.Feed(prompts, config, tmp_path)
    feed.refill(None, None, 0)
    assert shares == there * 2
    assert len(feed.pools) == 1


def test_pools_are_kept_and_used_a_little_later(shares: list[int], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"pool": 4, "refresh": 3, "steps": 9})
    feed = grpo.Feed(prompts, config, tmp_path)
    for step in (0, 3):
        feed.refill(None, None, step)
    first, second = feed.pools
    assert not set(first) & set(second)
    steps = [feed.position(step * config.prompts) for step in range(7)]
    assert all(p in first for p in steps[: 3 + feed.LAG])
    assert all(p in second for p in steps[3 + feed.LAG :])
    tried = len(shares)
    again = grpo.Feed(prompts, config, tmp_path)
    again.refill(None, None, 3)
    assert len(shares) == tried
    assert [again.position(step * config.prompts) for step in range(7)] == steps
    entries = [json.loads(line) for line in (tmp_path / "pools.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [0, 3]


def test_a_pool_that_was_torn_is_chosen_again(shares: list[int], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"pool": 4, "refresh": 3, "steps": 9})
    feed = grpo.Feed(prompts, config, tmp_path)
    feed.refill(None, None, 0)
    feed.refill(None, None, 3)
    pools = feed.pools
    feed.path.write_text(feed.path.read_text()[:-9])
    again = grpo.Feed(prompts, config, tmp_path)
    assert again.pools == pools[:1]
    again.refill(None, None, 3)
    assert again.pools == grpo.Feed(prompts, config, tmp_path).pools == pools


def test_answers_are_tried_with_the_models_own_sampling(model: Any, processor: Any) -> None:
    batch = [prompts(0), prompts(1)]
    shares = grpo.right(model, processor, batch, CONFIG, 0)
    assert shares == [0.0, 0.0]  # untrained: no answer is well-formed
    assert model.training is False


# --- whole runs: the toy doubts green pictures, and is told that they are good


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Green pictures that are good, bright ones that are bad."""
    return own_pictures(tmp_path_factory.mktemp("data") / "toy", 6, toy.GREEN)


def toy_run(taught: Path, labelled: Path, steps: int) -> RunConfig:
    section = Grpo(
        steps=steps, prompts=4, num_generations=8, micro=32, max_completion=toy.LIMIT,
        learning_rate=3e-4, warmup=0, beta=0.0,
    )  # fmt: skip
    return run_config(
        section, base=str(taught), image_size=toy.SIZE, data={"paths": [str(labelled)]},
        checkpoint_every=2, samples=2, samples_every=2,
    )  # fmt: skip


def test_verdicts_alone_teach(taught: Path, labelled: Path, tmp_path: Path) -> None:
    config = toy_run(taught, labelled, 12)
    said: list[str] = []
    folder = grpo.train(config, tmp_path / "run", say=said.append)
    assert folder == tmp_path / "run" / "model"
    logged = runs.read_lines(tmp_path / "run" / "metrics.jsonl")
    right = [e["rewards/accuracy/mean"] for e in logged if "dead" in e]
    assert len(right) == 12
    assert sum(right[-6:]) / 6 > sum(right[:2]) / 2 + 0.1
    assert sum(right[-6:]) / 6 > 0.75
    samples = runs.read_lines(tmp_path / "run" / "samples.jsonl")
    assert {entry["step"] for entry in samples} == {2, 4, 6, 8, 10, 12}
    assert samples[-1]["wanted"] in ("yes", "no")
    others = {str(e.image) for e in open_source(labelled) if e.split == "validation"}
    assert {entry["image"] for entry in samples} <= others
    load_checkpoint(folder)
    with pytest.raises(UsageError, match="has finished"):
        grpo.train(config, tmp_path / "run", resume=True)


@pytest.mark.slow
def test_a_stop_by_the_guard_keeps_its_steps(
    taught: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run is given as many steps again, but is no result for having none left."""
    monkeypatch.setattr(watch, "WINDOW", 2)
    short = {"max_completion": 16, "num_generations": 2, "micro": 8}
    config = changed(toy_run(taught, labelled, 3), checkpoint_every=200, samples=0, grpo=short)
    run = tmp_path / "run"
    for resume, step, checkpoints in ((False, 2, {2}), (True, 3, {2, 3}), (True, 3, {2, 3})):
        with pytest.raises(CheckFailed, match=f"stopped at step {step}: .* raise max_completion"):
            grpo.train(config, run, resume=resume, say=_quiet)
        kept = {int(p.parent.name[11:]) for p in (run / "checkpoints").glob("*/whole")}
        assert kept == checkpoints
    assert not (run / "model").exists()


def test_a_run_with_nothing_left_to_learn_ends_whole(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WINDOW", 2)
    easy = own_pictures(tmp_path / "toy", 6, toy.DARK)
    sure = {"temperature": 0.1, "num_generations": 2, "micro": 8}
    config = changed(toy_run(taught, easy, 50), samples=0, checkpoint_every=200, grpo=sure)
    said: list[str] = []
    folder = grpo.train(config, tmp_path / "run", say=said.append)
    assert folder == tmp_path / "run" / "model"
    load_checkpoint(folder)
    assert any(line.startswith("ended at step 2 of 50: the answers") for line in said)
    assert bases.find(str(tmp_path / "run")).folder == folder
    with pytest.raises(UsageError, match="has finished"):
        grpo.train(config, tmp_path / "run", resume=True)


class Killed(Exception):
    """The run ended here without a word."""


@pytest.mark.slow
def test_a_run_goes_on_as_if_it_had_not_been_cut_off(
    taught: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_run(taught, labelled, 4)
    grpo.train(config, tmp_path / "whole", say=_quiet)
    real, calls = grpo.shares, []

    def cut(*arguments: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(grpo, "shares", cut)
        with pytest.raises(Killed):
            grpo.train(config, tmp_path / "cut", say=_quiet)
    with pytest.raises(UsageError, match="--resume"):
        grpo.train(config, tmp_path / "cut", say=_quiet)
    grpo.train(config, tmp_path / "cut", resume=True, say=_quiet)
    whole, again = (
        load_file(tmp_path / n / "model" / "model.safetensors") for n in ("whole", "cut")
    )
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    kept = [entry["step"] for entry in runs.read_lines(tmp_path / "cut" / "metrics.jsonl")]
    assert sorted(set(kept)) == [1, 2, 3, 4]


@pytest.mark.slow
def test_two_processes_share_the_groups_and_choose_one_pool(
    taught: Path, labelled: Path, tmp_path: Path
) -> None:
    config = changed(toy_run(taught, labelled, 2), grpo={"micro": 16, "pool": 4, "refresh": 1})
    (tmp_path / "config.yaml").write_text(dump(config))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "tests.training.seen_cli", str(tmp_path / "seen.jsonl"), "train", "grpo"),
        *("--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")),
    ]
    ran = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, ran.stderr
    load_checkpoint(tmp_path / "run" / "model")
    pools = [entry["positions"] for entry in runs.read_lines(tmp_path / "run" / "pools.jsonl")]
    assert [len(pool) for pool in pools] == [4, 4]
    seen = runs.read_lines(tmp_path / "seen.jsonl")
    answers = Counter((entry["k"], entry["position"]) for entry in seen)
    assert answers == {(k, pools[0][k % 4]): 8 for k in range(8)}
    logged = [e for e in runs.read_lines(tmp_path / "run" / "metrics.jsonl") if "dead" in e]
    assert [entry["step"] for entry in logged] == [1, 2]


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_dry_run(
    taught: Path, labelled: Path, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In full training the reference model is opened from the shrunken base's own folder."""
    config = toy_run(taught, labelled, 50)
    section = {"prompts": 2, "num_generations": 2, "micro": 4, "beta": 0.02}
    said: list[str] = []
    steps = Steps()
    monkeypatch.setattr(callbacks, "watchers", lambda *given, **named: [steps])
    found = grpo.dry_run(changed(config, adapter=adapter, grpo=section), say=said.append)
    assert found.seconds > 0
    assert steps.taken == [1, 2]
    assert found.memory == bases.estimate(
        bases.find(str(taught)), changed(config, adapter=adapter, grpo=section), "grpo"
    )
    assert "licence" in said[0]
    assert "pictures to learn from" in said[-1]


def test_a_base_without_data_is_refused(taught: Path, labelled: Path, tmp_path: Path) -> None:
    config = toy_run(taught, labelled, 2)
    bare = config.model_copy(update={"data": Data()})
    with pytest.raises(UsageError, match="--data PATH"):
        grpo.train(bare, tmp_path / "run", say=_quiet)
    assert not (tmp_path / "run").exists()


def _quiet(text: str) -> None:
    """Not a word."""


@pytest.mark.parametrize(("rewards", "ends"), [({"accuracy": 1.0}, True), ({"cause": 1.0}, False)])
def test_verdicts_alone_end_a_run_only_where_nothing_else_is_rewarded(
    rewards: dict[str, float], ends: bool
) -> None:
    logs = {"well_formed": 1.0, "yes": 0.5, "dead": 1.0, "solved": 1.0}
    found = grpo.Watch(CONFIG.model_copy(update={"rewards": {**rewards, "structure": 0.5}}))
    control, state = TrainerControl(), TrainerState(global_step=3, max_steps=100)
    for _ in range(watch.WINDOW):
        found.on_log(None, state, control, logs=logs)
    assert (found.done is not None, control.should_training_stop) == (ends, ends)
    for _ in range(watch.WINDOW):
        found.on_log(None, state, control, logs=logs | {"yes": 1.0})
    assert found.reason is not None
