"""Samples a second of each trainer beside a bare PyTorch loop over the same model and data.

    python -m benchmarks.training [--steps 20] [--base pocket]

The bare loops are what one would write by hand: the same batches, the same forward and backward
passes, AdamW, clipping; no logs, no checkpoints, no resuming. The first steps of each are not
counted. A sample is a text for SFT, an answer for GRPO. Read the share that is lost: absolute
numbers belong to the machine.
"""

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from lad_agent.training import bases, grpo, lessons, sft, texts
from lad_agent.training.config import RunConfig, changed, load
from lad_agent.training.lessons import Lessons
from lad_agent.training.rewards import REWARDS
from lad_agent.training.synloco import dataset

WARM = 3
"""Steps that are not counted."""


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
    print("| stage | trainer, samples/s | bare loop, samples/s | lost |\n|---|---|---|---|")
    for name, samples, trainer, bare in rows:
        lost = 1 - bare / trainer
        print(f"| {name} | {samples / trainer:.2f} | {samples / bare:.2f} | {lost:.1%} |")


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """The median step, those at the beginning left out."""
        later = self.ends[WARM - 1 :]
        return statistics.median(end - begin for begin, end in pairwise(later))


def _sft(learned: Lessons, config: RunConfig, place: Path) -> tuple[float, float]:
    """Seconds a step of the trainer, and of the bare loop."""
    clock = Clock()
    model, processor = bases.open_base(bases.find(config.base), config)
    sft.trainer_for(learned, config, model, processor, place / "sft", [clock]).train()
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
    return clock.seconds(), bare.seconds()


def _grpo(learned: Lessons, config: RunConfig, place: Path) -> tuple[float, float]:
    """Seconds a step of the trainer, and of the bare loop."""
    clock = Clock()
    model, processor = bases.open_base(bases.find(config.base), config)
    prompts = grpo.about(learned, config, processor)
    grpo.trainer_for(prompts, config, model, processor, place / "grpo", [clock]).train()
    bare = Clock()
    model, processor = bases.open_base(bases.find(config.base), config)
    prompts = grpo.about(learned, config, processor)
    feed = grpo.Feed(prompts, config.grpo, place / "bare")
    reference = copy.deepcopy(model).eval()
    section = config.grpo
    model.train()
    for _ in _steps(model, section.steps, section.learning_rate, bare):
        begin = len(bare.ends) * section.prompts
        asked = [prompts(feed.position(k)) for k in range(begin, begin + section.prompts)]
        _learn_from_answers(model, reference, processor, asked, config)
    return clock.seconds(), bare.seconds()


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
