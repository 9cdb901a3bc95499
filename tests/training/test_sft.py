"""Texts from pictures, and fine-tuning the toy for a few real steps: stopped, resumed, shared."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from lad_agent import images, protocol, rationale
from lad_agent.errors import CheckFailed, PrerequisiteError, UnreadableInput, UsageError
from lad_agent.rationale import Facts
from lad_agent.reasoners.checkpoint import load_checkpoint
from lad_agent.recipe import Region, Rule
from lad_agent.training import bases, callbacks, runs, sft, texts
from lad_agent.training.config import Data, RunConfig, Texts, changed, dump
from lad_agent.training.lessons import learn_from
from lad_agent.training.sources import Example, Finding
from lad_agent.training.texts import Task, Text
from tests.cli.conftest import cli  # noqa: F401 - a fixture
from tests.reasoners import toy
from tests.training.conftest import Steps, own_pictures

pytestmark = pytest.mark.usefixtures("_one_thread")

FACTS = Facts("toy", {"lamps": ["A1", "B2"], "nuts": []}, {"colour": "red", "cap": "blue"})
RULES = (
    Rule(id="R1", text="exactly 2 lamps"),
    Rule(id="R2", text="colour is red"),
    Rule(id="R3", text="cap fits colour: blue for red, green for amber"),
)
TASK = Task("toy", RULES, Region(), (Path("g.png"),), {"colour": ("amber", "red")})
SHOWN = Example(Path("q.png"), "0" * 64, "toy", "train", "good", facts=FACTS)
AT = datetime(2026, 5, 31, 8, 30, tzinfo=UTC)
BAD = Example(Path("b.png"), "1" * 64, "toy", "train", "bad", cause="missing_nut", rule="R2")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder: 12 good and 12 bad pictures."""
    return own_pictures(tmp_path_factory.mktemp("data") / "toy", 12, toy.DARK)


@pytest.fixture(scope="module")
def config(small: Path, pictures: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "base": str(small),
            "adapter": "lora",
            "image_size": toy.SIZE,
            "data": {"paths": [str(pictures)]},
            "log_every": 1,
            "checkpoint_every": 2,
            "samples_every": 2,
            "samples": 2,
            "sft": {"steps": 4, "batch": 4, "micro": 2, "learning_rate": 0.01, "warmup": 0},
        }
    )


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """An uninterrupted run, and what it said."""
    out, said = tmp_path_factory.mktemp("runs") / "whole", list[str]()
    assert sft.train(config, out, say=said.append) == out / "adapter"
    return out, said


def _weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], within: float = 0.0) -> bool:
    return a.keys() == b.keys() and all(
        torch.allclose(a[name], b[name], rtol=0, atol=within) for name in a
    )


# --- texts


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_inspections_of_known_content_are_true_and_consistent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    text = texts.inspection(rng, SHOWN, TASK, other_rules=1.0)
    answer = protocol.parse(text.completion)
    assert answer is not None
    asked = text.messages[1]["content"][-2]["text"].splitlines()[1:-1]
    rules = [Rule(id=line.split()[0], text=line.split(maxsplit=1)[1]) for line in asked]
    assert answer.rationale == rationale.write(rationale.clauses("toy", rules, FACTS))
    told, why = rationale.check_evidence(answer.rationale, answer.anomalous, "toy", rules)
    assert (told, why) == ("consistent", None)


def test_changed_rules_give_both_answers_to_one_picture() -> None:
    answers = []
    for seed in range(200):
        text = texts.inspection(np.random.default_rng(seed), SHOWN, TASK, other_rules=1.0)
        answer = protocol.parse(text.completion)
        assert answer is not None
        answers.append(answer.anomalous)
    assert 0.3 < sum(answers) / len(answers) < 0.6


def test_unchanged_rules_are_the_message_of_serving() -> None:
    text = texts.inspection(np.random.default_rng(0), SHOWN, TASK)
    assert text.messages == protocol.messages("toy", RULES, 1)
    assert text.images == (Path("g.png"), Path("q.png"))
    assert text.completion.endswith("<answer>no</answer>")


def test_a_label_says_no_more_than_it_knows() -> None:
    text = texts.inspection(np.random.default_rng(0), BAD, TASK, other_rules=1.0)
    assert text.messages == protocol.messages("toy", RULES, 1)
    assert text.completion == protocol.answer_text("R2 is broken: missing nut", True)
    answer = protocol.parse(text.completion)
    assert answer is not None
    assert rationale.check_evidence(answer.rationale, True, "toy", RULES)[0] == "unchecked"
    good = replace(BAD, kind="good", cause=None, rule=None)
    assert "holds" in texts.label_rationale(good, TASK)
    unknown = replace(BAD, rule=None, cause=None)
    assert texts.label_rationale(unknown, TASK) == "a rule is broken"
    older = replace(BAD, rule="R9")
    assert texts.label_rationale(older, TASK) == "a rule is broken: missing nut"


def test_masks_say_where_faults_are(tmp_path: Path) -> None:
    """Two spots and a speck in one mask, one spot in another, and one beyond the region."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, boxes in (
        ("0", [(70, 35, 80, 45), (140, 140, 150, 150), (200, 20, 201, 21)]),
        ("1", [(170, 100, 176, 106)]),
        ("2", [(230, 0, 280, 10)]),
    ):
        layer = Image.new("L", (280, 210))
        for box in boxes:
            layer.paste(7, box)
        layer.save(folder / f"{name}.png")
    region = Region(right=0.75)  # 210 x 210 px, cells of 30 px
    marked = replace(BAD, mask=folder)
    assert texts.fault_cells(marked, region) == ("B3", "D6", "E5")
    assert texts.fault_cells(BAD, region) == ()
    said = "R2 is broken: missing nut at B3, D6, E5"
    assert texts.label_rationale(marked, replace(TASK, region=region)) == said
    assert rationale.named_fault(said) == ("R2", ("B3", "D6", "E5"))
    task = texts.tasks([marked])["toy"]
    assert task.masked
    captions = Texts(caption=1, question=0, inspection=0)
    good = replace(BAD, kind="good", cause=None, rule=None)
    for shown, where, listing in (
        (marked, replace(task, region=region), "faults at B3, D6, E5: 3; fault: missing nut"),
        (good, task, "faults: 0; fault: none"),
    ):
        text = texts.draw(np.random.default_rng(0), shown, where, captions)
        assert text.completion == f"<think>product: toy; {listing}</think>", text.completion
    # One fault that no mask shows: asked of the others alone, the question would tell the answer.
    black = tmp_path / "black.png"
    Image.new("L", (280, 210)).save(black)
    for unseen in (BAD, replace(BAD, mask=black)):
        mixed = texts.tasks([marked, unseen, good])["toy"]
        for shown in (marked, good, unseen):
            text = texts.draw(np.random.default_rng(0), shown, mixed, captions)
            assert "faults" not in text.completion


def test_the_label_answers_where_rules_do_not() -> None:
    """Content is known, but no rule or one in free text says what is wrong with it."""
    free = Rule(id="R1", text="the lamps look new")
    for rules in ((), (free, *RULES[1:])):
        task = replace(TASK, rules=rules)
        for kind in ("good", "bad"):
            shown = replace(SHOWN, kind=kind, cause=None)
            text = texts.inspection(np.random.default_rng(0), shown, task, other_rules=1.0)
            answer = protocol.answer_text(texts.label_rationale(shown, task), shown.anomalous)
            assert text.completion == answer
            assert texts.answers([shown], {"toy": task}, other_rules=1.0) == {shown.anomalous}


def test_which_answers_are_possible() -> None:
    tasks = {"toy": TASK}
    assert texts.answers([SHOWN], tasks, other_rules=0.0) == {False}
    assert texts.answers([SHOWN], tasks, other_rules=0.1) == {False, True}
    assert texts.answers([BAD], tasks, other_rules=1.0) == {True}
    assert texts.answers([SHOWN, SHOWN, BAD], tasks, other_rules=0.0) == {False, True}
    alone = replace(TASK, rules=RULES[1:2], values={"colour": ("red",)})  # cannot be off
    assert texts.answers([SHOWN], {"toy": alone}, other_rules=1.0) == {False}


def test_a_picture_is_not_its_own_reference() -> None:
    alone = replace(TASK, references=(SHOWN.image,))
    text = texts.inspection(np.random.default_rng(0), SHOWN, alone)
    assert text.images == (SHOWN.image,)
    assert text.messages == protocol.messages("toy", RULES, 0)


def test_a_prompt_shows_as_many_references_as_an_inspection(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{n}.png" for n in range(3))
    two = replace(TASK, references=paths, references_shown=2)
    seen = set()
    for seed in range(40):
        text = texts.inspection(np.random.default_rng(seed), SHOWN, two)
        *references, query = text.images
        assert query == SHOWN.image
        assert len(set(references)) == 2
        assert text.messages == protocol.messages("toy", RULES, 2)
        seen.add(tuple(references))
    assert len(seen) == 6
    few = replace(two, references=paths[:1])
    assert texts.inspection(np.random.default_rng(0), SHOWN, few).images == (paths[0], SHOWN.image)


def test_captions_and_questions() -> None:
    captions = Texts(caption=1, question=0, inspection=0)
    questions = Texts(caption=0, question=1, inspection=0)
    asked = set()
    for seed in range(40):
        whole = texts.draw(np.random.default_rng(seed), SHOWN, TASK, captions)
        assert all(name in whole.completion for name in ("lamps at A1, B2: 2", "nuts: 0", "red"))
        part = texts.draw(np.random.default_rng(seed), SHOWN, TASK, questions)
        asked.add(part.messages[1]["content"][0]["text"])
        assert part.images == (SHOWN.image,)
    assert len(asked) > 8
    label = texts.draw(np.random.default_rng(0), BAD, TASK, captions)
    assert label.completion == "<think>product: toy; fault: missing nut</think>"


def test_tasks_find_recipe_and_references(pictures: Path, tmp_path: Path) -> None:
    image = pictures / "good" / "000.png"
    found = texts.tasks([replace(SHOWN, image=image)])["toy"]
    assert (found.rules, found.references) == (toy.RULES, (image,))
    assert found.values == {"cap": ("blue",), "colour": ("red",)}
    bare = texts.tasks([replace(BAD, image=tmp_path / "x.png")])["toy"]
    assert (bare.rules, bare.references, bare.references_shown) == ((), (), 1)
    toy.write_recipe(tmp_path, references=2)
    with (tmp_path / "recipe.yaml").open("a") as file:
        file.write("references_shown: 2\n")
    two = texts.tasks([replace(BAD, image=tmp_path / "x.png")])["toy"]
    assert two.references_shown == len(two.references) == 2


@given(examples=st.integers(1, 30), count=st.integers(1, 100), seed=st.integers(0, 1000))
def test_order_shows_each_picture_equally_often(examples: int, count: int, seed: int) -> None:
    order = texts.order(seed, examples, count)
    seen = np.bincount(order, minlength=examples)
    assert len(order) == count
    assert seen.max() - seen.min() <= 1
    assert texts.order(seed, examples, count + 1)[:count] == order


# --- batches


def test_a_batch_supervises_the_completion_and_holds_every_picture(
    small: Path, pictures: Path
) -> None:
    processor = load_checkpoint(small, device="cpu").processor
    good, bad = pictures / "good" / "000.png", pictures / "bad" / "no_lamp" / "000.png"
    two = Text(protocol.messages("toy", RULES), "<think>a</think>", (good, bad), Region())
    one = Text(protocol.caption_messages(["lamps"]), "<think>longer</think>", (bad,), Region())
    batch = sft.collate([two, one], processor, toy.SIZE)
    tokens = processor.tokenizer
    for row, text in enumerate((two, one)):
        kept = batch["labels"][row] != sft.IGNORE
        assert tokens.decode(batch["labels"][row][kept]) == f"{text.completion}<|im_end|>"
        assert bool((batch["input_ids"][row][kept] == batch["labels"][row][kept]).all())
        assert not bool(batch["mm_token_type_ids"][row][kept].any())
    assert batch["image_grid_thw"].tolist() == [[1, 4, 4]] * 3
    assert int(batch["mm_token_type_ids"].sum()) == 3 * 4
    first, second, third = batch["pixel_values"].split(16)
    assert float(first.mean()) < float(second.mean())
    assert bool((second == third).all())


def test_a_picture_that_is_gone_is_not_replaced(small: Path, tmp_path: Path) -> None:
    processor = load_checkpoint(small, device="cpu").processor
    text = Text(protocol.caption_messages(["x"]), "y", (tmp_path / "gone.png",), Region())
    with pytest.raises(UnreadableInput, match=r"gone\.png: no such file"):
        sft.collate([text], processor, toy.SIZE)


# --- runs


def test_a_run_leaves_everything(whole: tuple[Path, list[str]], config: RunConfig) -> None:
    out, said = whole
    assert "licence unknown" in said[0]
    entries = runs.read_lines(out / "metrics.jsonl")
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    assert entries[-1]["loss"] < entries[0]["loss"]
    samples = runs.read_lines(out / "samples.jsonl")
    assert [(s["step"], Path(s["image"]).parent.name) for s in samples] == [
        (2, "good"), (2, "no_lamp"), (4, "good"), (4, "no_lamp"),
    ]  # fmt: skip
    assert {s["wanted"][-12:] for s in samples} == {"yes</answer>", ">no</answer>"}
    assert list((out / "tensorboard").glob("events.*"))
    assert (out / "curves.png").stat().st_size > 10_000
    assert (out / "config.yaml").read_text() == dump(config)
    checkpoints = {path.name for path in (out / "checkpoints").glob("checkpoint-*")}
    assert checkpoints == {"checkpoint-2", "checkpoint-4"}
    assert not (out / "adapter" / "training_args.bin").exists()


def test_the_adapter_serves(whole: tuple[Path, list[str]], small: Path) -> None:
    loaded = load_checkpoint(small, device="cpu", adapter=whole[0] / "adapter")
    assert loaded.fingerprint != load_checkpoint(small, device="cpu").fingerprint


def test_finished_runs_are_not_run_again(whole: tuple[Path, list[str]], config: RunConfig) -> None:
    with pytest.raises(UsageError, match="has finished"):
        sft.train(config, whole[0], resume=True)
    with pytest.raises(UsageError, match="--resume goes on"):
        sft.train(config, whole[0])


class _AtStep(TrainerCallback):  # type: ignore[misc]
    """Does something after one step."""

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.act()


def _with(monkeypatch: pytest.MonkeyPatch, *more: TrainerCallback) -> None:
    own = callbacks.watchers
    monkeypatch.setattr(callbacks, "watchers", lambda *a, **k: [*more, *own(*a, **k)])


def test_sigterm_saves_and_resume_ends_where_an_uninterrupted_run_does(
    whole: tuple[Path, list[str]],
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        _with(patched, _AtStep(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        assert sft.train(config, tmp_path / "run", say=said.append) is None
    assert signal.getsignal(signal.SIGTERM) == before
    assert said[-1] == "stopped at step 3 of 4; --resume goes on"
    assert not (tmp_path / "run" / "adapter").exists()
    sft.train(config, tmp_path / "run", resume=True, say=said.append)
    assert _same(_weights(tmp_path / "run"), _weights(whole[0]))
    for name in ("metrics.jsonl", "samples.jsonl"):
        own, other = (runs.read_lines(out / name) for out in (tmp_path / "run", whole[0]))
        assert [e["step"] for e in own] == [e["step"] for e in other]
        assert [e.get("loss", e.get("said")) for e in own] == [
            e.get("loss", e.get("said")) for e in other
        ]


def test_a_stopped_run_ends_the_command_with_the_code_of_sigterm(
    config: RunConfig,
    cli: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, out = tmp_path / "mine.yaml", tmp_path / "run"
    mine.write_text(dump(config))
    with monkeypatch.context() as patched:
        _with(patched, _AtStep(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        ran = cli("train", "sft", "--config", mine, "--out", out)
    assert (ran.code, "--resume goes on" in ran.out) == (143, True), ran


def test_a_loss_that_is_no_number_ends_the_run(
    config: RunConfig, small: Path, tmp_path: Path
) -> None:
    shutil.copytree(small, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(weights)
    next(t for n, t in tensors.items() if n.endswith("norm.weight"))[:] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    broken = changed(config, base=str(tmp_path / "broken"))
    with pytest.raises(CheckFailed, match=r"loss is no number at step 1; lower sft.learning_rate"):
        sft.train(broken, tmp_path / "run", say=lambda text: None)


def test_a_run_that_fails_gives_back_what_it_held(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM and the terminal; on resume TensorBoard is told to forget what comes again."""
    own, made = callbacks.watchers, list[Any]()

    def fail() -> None:
        next(one for one in made if isinstance(one, TensorBoardCallback)).tb_writer.flush()
        raise CheckFailed("no good")

    def watchers(*arguments: Any, **keys: Any) -> list[Any]:
        made.extend(own(*arguments, **keys))
        return [*made, _AtStep(4, fail)]

    before, run = signal.getsignal(signal.SIGTERM), tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(callbacks, "watchers", watchers)
        patched.setattr(sys.stderr, "isatty", lambda: True)
        with pytest.raises(CheckFailed, match="no good"):
            sft.train(config, run, say=lambda text: None)
    assert signal.getsignal(signal.SIGTERM) == before
    bar = next(one.bar for one in made if isinstance(one, callbacks.Progress))
    assert not bar.disable
    assert not bar.live.is_started
    sft.train(config, run, resume=True, say=lambda text: None)
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3, 4]


def test_full_training_goes_on_from_its_weights(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers alone would load nothing, warn of it, and go on from the base."""
    full = changed(config, adapter="full", samples=0)
    sft.train(full, tmp_path / "whole", say=lambda text: None)
    with monkeypatch.context() as patched:
        _with(patched, _AtStep(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        assert sft.train(full, tmp_path / "run", say=lambda text: None) is None
    sft.train(full, tmp_path / "run", resume=True, say=lambda text: None)
    one, two = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "run")
    )
    assert _same(one, two)


def test_a_full_disk_at_a_checkpoint_leaves_the_one_before(
    whole: tuple[Path, list[str]],
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"

    def fill() -> None:
        # What must be written second is already there, and no file: the write fails half-way.
        (run / "checkpoints" / "checkpoint-4" / "optimizer.pt").mkdir(parents=True)

    with monkeypatch.context() as patched:
        _with(patched, _AtStep(3, fill))
        said = r"checkpoint-4 could not be written.*checkpoint-2 is whole: free room, then --resume"
        with pytest.raises(PrerequisiteError, match=said):
            sft.train(config, run)
    sft.train(config, run, resume=True)
    assert _same(_weights(run), _weights(whole[0]))


def test_two_processes_learn_what_one_does(config: RunConfig, tmp_path: Path) -> None:
    # Dropout is drawn by each process for itself.
    plain = changed(config, samples=0, lora={"dropout": 0.0})
    assert sft.train(plain, tmp_path / "one", say=lambda text: None)
    (tmp_path / "config.yaml").write_text(dump(plain))
    (tmp_path / "told.py").write_text(
        "import atexit, gc\n"
        "from torch import distributed, nn\n"
        "from lad_agent.cli import app\n"
        "leave = distributed.destroy_process_group\n"
        "def told():\n"
        "    kind = nn.parallel.DistributedDataParallel\n"
        "    print('models held:', sum(isinstance(o, kind) for o in gc.get_objects()))\n"
        "    leave()\n"
        "distributed.destroy_process_group = told\n"
        "atexit.register(lambda: print('group held:', distributed.is_initialized()))\n"
        "app.main()\n"
    )
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", "2", str(tmp_path / "told.py"), "train", "sft"),
        *("--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    # Held at the exit, it ended a process by SIGABRT now and then.
    assert ran.stdout.count("group held: False") == 2
    # One that let go of the group after it could wait for ever.
    assert ran.stdout.count("models held: 0") == 2
    assert ran.stdout.count("pictures to learn from") == 1
    one, two = (
        [(e["loss"], e["grad_norm"]) for e in runs.read_lines(tmp_path / name / "metrics.jsonl")]
        for name in ("one", "run")
    )
    assert len(one) == 4
    assert np.allclose(one, two, rtol=1e-3)
    assert _same(_weights(tmp_path / "run"), _weights(tmp_path / "one"), within=1e-3)


def test_full_training_makes_a_model_folder(config: RunConfig, tmp_path: Path) -> None:
    full = changed(config, adapter="full", samples=0, sft={"steps": 1}, checkpoint_every=1)
    folder = sft.train(full, tmp_path / "run", say=lambda text: None)
    assert folder == tmp_path / "run" / "model"
    card = json.loads((folder / "model_card.json").read_text())
    assert card["trained_on"] == ["toy"]
    assert "products" not in card
    base = load_file(Path(config.base) / "model.safetensors")
    made = load_file(folder / "model.safetensors")
    moved = {name for name in base if not torch.equal(base[name], made[name])}
    assert moved
    assert not any("visual" in name for name in moved)
    load_checkpoint(folder, device="cpu")


def test_too_little_memory_is_said_before_anything_is_written(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "free_memory", lambda: 1_000_000)
    with pytest.raises(PrerequisiteError, match="are free"):
        sft.train(config, tmp_path / "run", say=lambda text: None)
    assert not (tmp_path / "run").exists()


def test_reviews_are_learned_from_beside_pictures_that_show_a_step_back(
    config: RunConfig, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run keeps to the findings that it began with."""
    held = own_pictures(tmp_path / "held" / "toy", 2, toy.DARK, first=200, striped=True)
    asked = changed(config, samples=0).model_copy(update={"data": Data(reviews=True)})
    findings = [
        Finding(path, "toy", good, None if good else "R1", "ana", AT, images.file_sha256(path),
                pictures / "recipe.yaml", f"review-{number}")
        for good, name in ((True, "good"), (False, "bad"))
        for number, path in enumerate(sorted((pictures / name).rglob("*.png"))[:3])
    ]  # fmt: skip
    with pytest.raises(UsageError, match="--held-out PATH"):
        sft.train(asked, tmp_path / "run", findings=findings, say=lambda text: None)
    judged = asked.model_copy(update={"data": Data(reviews=True, held_out=held)})
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        _with(patched, _AtStep(2, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        assert sft.train(judged, run, findings=findings, say=lambda text: None) is None
    kept = runs.read_lines(run / "reviews.jsonl")
    assert [line["review"] for line in kept] == [finding.review for finding in findings]
    said: list[str] = []
    assert sft.train(judged, run, findings=findings[:2], resume=True, say=said.append)
    assert "6 pictures to learn from" in " ".join(said)
    assert runs.read_lines(run / "reviews.jsonl") == kept
    assert (run / "held_out.json").is_file()


def test_dry_run(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    steps = Steps()
    monkeypatch.setattr(callbacks, "watchers", lambda *given, **named: [steps])
    found = sft.dry_run(config, say=said.append)
    assert steps.taken == [1, 2]
    assert found.seconds > 0
    assert found.memory.total > 0
    assert 0 < int(said[1].split()[0]) < 24
    assert "pictures to learn from" in said[1]
    assert "licence" in said[0]


def test_memory_counts_every_reference_that_is_shown(
    config: RunConfig, pictures: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(pictures, tmp_path / "toy")
    toy.write_recipe(own, references=3)
    with (own / "recipe.yaml").open("a") as file:
        file.write("references_shown: 3\n")
    run, said = changed(config, data={"paths": [own]}), list[str]()
    told = sft.dry_run(run, say=said.append).memory
    assert told == bases.estimate(bases.find(config.base), run, "sft", pictures=4)
    sft.train(changed(run, sft={"steps": 1}), tmp_path / "run", say=said.append)
    assert f"memory: about {told}" in said


# --- bad input


def test_batch_that_cannot_be_shared(config: RunConfig, tmp_path: Path) -> None:
    odd = changed(config, sft={"batch": 5})
    with pytest.raises(UsageError, match=r"sft\.batch 5 is no multiple of 1 process x sft\.micro"):
        sft.train(odd, tmp_path / "run", say=lambda text: None)


def test_no_data(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data PATH"):
        learn_from(changed(config, data={"paths": []}))


def test_pictures_for_training_of_one_class(config: RunConfig, tmp_path: Path) -> None:
    lines = ["image,label,split"]
    for number in range(4):
        toy.picture(toy.DARK, number, 64).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'good' if number else 'bad'},{'train' if number else 'test'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(CheckFailed, match="all 3 pictures for training are good"):
        learn_from(changed(config, data={"paths": [tmp_path]}))


def test_an_unreadable_picture_stops_the_run_before_it_starts(
    config: RunConfig, tmp_path: Path
) -> None:
    data = tmp_path / "toy"
    for name in ("good", "bad/x"):
        (data / name).mkdir(parents=True)
        Image.new("RGB", (64, 64), "red" if name == "good" else "blue").save(data / name / "a.png")
    (data / "good" / "b.png").write_bytes(b"no picture")
    with pytest.raises(CheckFailed, match=r"b\.png"):
        sft.train(changed(config, data={"paths": [data]}), tmp_path / "run", say=lambda text: None)
    assert not (tmp_path / "run").exists()
