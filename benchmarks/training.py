"""Samples a second of each trainer beside a bare PyTorch loop over the same model and data.

    python -m benchmarks.training [--steps 20] [--base pocket]

The trainers have all that a run has: metrics, TensorBoard, progress, samples of rationales and
checkpoints. The last two come once, at the end, and count by the shipped intervals: a checkpoint's
time is shared out over as many steps as lie between two. The bare loops are what one would write by
hand: the same batches, the same forward and backward passes, AdamW, clipping; no logs, no
checkpoints, no resuming. The first steps of each are not counted, of the others the mean. A sample
is a text for SFT, an answer for GRPO. Read the share that is lost: absolute numbers belong to the
machine. Exit code 5 where more than 15% is.
"""

import argparse
import copy
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from lad_agent.errors import CheckFailed
from lad_agent.training import bases, callbacks, grpo, lessons, sft, texts
from lad_agent.training.config import RunConfig, Stage, changed, load
from lad_agent.training.lessons import Lessons
from lad_agent.training.rewards import REWARDS
from lad_agent.training.runs import Run
from lad_agent.training.synloco import dataset
from lad_agent.training.tower import read_once

WARM = 3
"""Steps that are not counted."""

MOST = 0.15
"""Share of a bare loop's samples a second that a trainer may lose."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--base", default="pocket")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as place:
        dataset.write(Path(place), "screw_bag", count=16, seed=1, train=32)
        steps = {"steps": WARM + chosen.steps, "warmup": 0}
        config = changed(
            load("pocket"),
            base=chosen.base,
            data={"paths": [Path(place) / "screw_bag"]},
            sft=steps,
            grpo={**steps, "prompts": 4, "micro": 32},
        )
        learned = lessons.learn_from(config, say=lambda text: None)
        rows = [
            ("sft", config.sft.batch, *_sft(learned, config, Path(place))),
            ("grpo", 32, *_grpo(learned, config, Path(place))),
        ]
    report(rows)


def report(rows: Sequence[tuple[str, int, float, float]]) -> None:
    """Print a row a stage: its name, samples a step, the trainer's and the bare loop's seconds a
    step; exits with 5 where more than `MOST` is lost."""
    print("| stage | trainer, samples/s | bare loop, samples/s | lost |\n|---|---|---|---|")
    slow = []
    for name, samples, trainer, bare in rows:
        lost = 1 - bare / trainer
        print(f"| {name} | {samples / trainer:.2f} | {samples / bare:.2f} | {lost:.1%} |")
        if lost > MOST:
            slow.append(f"{name} loses {lost:.1%}, more than {MOST:.0%}")
    if slow:
        print("; ".join(slow), file=sys.stderr)
        sys.exit(CheckFailed.exit_code)


class Clock(TrainerCallback):  # type: ignore[misc]
    """When each step ended, and how long the samples and the checkpoint at the end took.

    As the first of a trainer's callbacks it counts the others' work to the step that comes next.
    """

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.asked = self.saved = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = time.perf_counter() - self.ends[-1] - self.asked

    def timing(self, ask: callbacks.Ask) -> callbacks.Ask:
        """`ask`, and how long it took."""

        def timed(model: Any) -> Sequence[Mapping[str, Any]]:
            begin = time.perf_counter()
            told = ask(model)
            self.asked += time.perf_counter() - begin
            return told

        return timed

    def seconds(self) -> float:
        """The mean step, those at the beginning left out."""
        return (self.ends[-1] - self.ends[WARM - 1]) / (len(self.ends) - WARM)

    def seconds_of_a_run(self, config: RunConfig) -> float:
        """A step with its share of the samples and of the checkpoint."""
        often = self.asked / config.samples_every + self.saved / config.checkpoint_every
        return self.seconds() + often


def _sft(learned: Lessons, config: RunConfig, place: Path) -> tuple[float, float]:
    """Seconds a step of the trainer, and of the bare loop."""
    model, processor = bases.open_base(bases.find(config.base), config)
    ask = partial(sft.answers, learned, config, processor)
    make = partial(sft.trainer_for, learned, model=model, processor=processor)
    trainer = _as_in_a_run("sft", config, place / "sft", ask, make)
    bare = Clock()
    model, processor = bases.open_base(bases.find(config.base), config)
    collator = sft.Collator(processor, learned, config)
    section = config.sft
    order = texts.order(config.seed, len(learned.examples), section.steps * section.batch)
    model.train()
    for _ in _steps(model, section.steps, section.learning_rate, bare):
        begin = len(bare.ends) * section.batch
        rows = [{"position": k, "example": order[k]} for k in range(begin, begin + section.batch)]
        for at in range(0, section.batch, section.micro):
            batch = collator(rows[at : at + section.micro])
            inputs = {name: value.to(model.device) for name, value in batch.items()}
            loss = model(**inputs, use_cache=False).loss
            (loss * section.micro / section.batch).backward()
    return trainer, bare.seconds()


def _grpo(learned: Lessons, config: RunConfig, place: Path) -> tuple[float, float]:
    """Seconds a step of the trainer, and of the bare loop."""
    model, processor = bases.open_base(bases.find(config.base), config)
    # The pictures that GRPO's own samples are about, but one by one.
    ask = partial(sft.answers, learned, config, processor)
    prompts = grpo.about(learned, config, processor)
    make = partial(grpo.trainer_for, prompts, model=model, processor=processor)
    trainer = _as_in_a_run("grpo", config, place / "grpo", ask, make)
    bare = Clock()
    model, processor = bases.open_base(bases.find(config.base), config)
    prompts = grpo.about(learned, config, processor)
    feed = grpo.Feed(prompts, config.grpo, place / "bare")
    reference = copy.deepcopy(model).eval()
    for net in (model, reference):
        read_once(net)
    section = config.grpo
    model.train()
    for _ in _steps(model, section.steps, section.learning_rate, bare):
        begin = len(bare.ends) * section.prompts
        asked = [prompts(feed.position(k)) for k in range(begin, begin + section.prompts)]
        _learn_from_answers(model, reference, processor, asked, config)
    return trainer, bare.seconds()


def _as_in_a_run(
    stage: Stage, config: RunConfig, folder: Path, ask: callbacks.Ask, make: Callable[..., Any]
) -> float:
    """Seconds a step of the trainer that `make` gives, with the callbacks of a run in `folder`."""
    steps = getattr(config, stage).steps
    once = changed(config, samples_every=steps, checkpoint_every=steps)
    run, clock = Run(folder, stage, once), Clock()
    run.checkpoints.mkdir(parents=True)
    watchers = callbacks.watchers(run, steps=steps, ask=clock.timing(ask))
    with callbacks.guarded(run, watchers):
        make(config=once, folder=folder, watchers=[clock, *watchers]).train()
    return clock.seconds_of_a_run(config)


def _learn_from_answers(
    model: Any, reference: Any, processor: Any, asked: list[grpo.Prompt], config: RunConfig
) -> None:
    """Draw groups of answers, reward them, and add the gradient of GRPO's loss."""
    section, count = config.grpo, config.grpo.num_generations
    each = [prompt for prompt in asked for _ in range(count)]
    said = [
        processor.apply_chat_template(p.messages, add_generation_prompt=True, tokenize=False)
        for p in each
    ]
    inputs = processor(
        text=said, images=[list(p.images()) for p in each], padding=True, return_tensors="pt"
    ).to(model.device)
    begin = inputs["input_ids"].shape[1]
    model.eval()
    with torch.no_grad():
        drawn = model.generate(
            **inputs,
            do_sample=True, temperature=section.temperature, top_k=0, top_p=1.0,
            repetition_penalty=1.0, max_new_tokens=section.max_completion,
        )  # fmt: skip
    model.train()
    answers = drawn[:, begin:]
    ended = (answers == processor.tokenizer.eos_token_id).cumsum(1)
    kept = (ended == 0) | ((ended == 1) & (answers == processor.tokenizer.eos_token_id))
    spoken = processor.batch_decode(answers, skip_special_tokens=True)
    rewards = torch.tensor(
        [
            sum(weight * REWARDS[name](text, p.case) for name, weight in section.rewards.items())
            for text, p in zip(spoken, each, strict=True)
        ],
        device=model.device,
    ).view(-1, count)
    advantage = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    inputs["input_ids"] = drawn
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], kept.long()], 1)
    inputs["mm_token_type_ids"] = (drawn == processor.image_token_id).long()
    own = _log_probabilities(model, inputs, answers)
    with torch.no_grad():
        held = _log_probabilities(reference, inputs, answers)
    ratio = torch.exp(own - own.detach())
    apart = torch.exp(held - own) - (held - own) - 1
    loss = section.beta * apart - ratio * advantage.view(-1, 1)
    ((loss * kept).sum() / kept.sum()).backward()


def _log_probabilities(model: Any, inputs: Any, answers: torch.Tensor) -> torch.Tensor:
    """Of each token of the answers, [rows, tokens]."""
    length = answers.shape[1]
    logits = model(**inputs, use_cache=False, logits_to_keep=length + 1).logits[:, :-1]
    picked: torch.Tensor = logits.log_softmax(-1).gather(-1, answers[..., None])[..., 0]
    return picked


def _steps(model: Any, count: int, learning_rate: float, clock: Clock) -> Iterator[int]:
    """Steps of AdamW, around gradients that the caller adds."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=learning_rate)
    for step in range(count):
        yield step
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.ends.append(time.perf_counter())


if __name__ == "__main__":
    main()
