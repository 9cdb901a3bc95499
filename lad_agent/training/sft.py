"""Supervised fine-tuning of a Qwen2.5-VL with TRL, on texts about labelled pictures.

A position of the run means one picture and one text, drawn by (seed, position): a resumed run sees
what an uninterrupted one would have seen, and so does one that more processes share.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from lad_agent import images
from lad_agent.errors import UsageError
from lad_agent.reasoners.processing import IMAGE_TOKEN, pixels, usable_size
from lad_agent.training import runs, stage, texts
from lad_agent.training.bases import Base
from lad_agent.training.config import RunConfig
from lad_agent.training.lessons import Lessons, kept_reviews, learn_from
from lad_agent.training.sources import Finding
from lad_agent.training.stage import DryRun, Plan, Say
from lad_agent.training.texts import Text

IGNORE = -100
SAMPLE_TOKENS = 256
"""The longest rationale that is written to `samples.jsonl`."""


def train(
    config: RunConfig,
    out: Path,
    *,
    findings: Iterable[Finding] = (),
    resume: bool = False,
    say: Say = print,
) -> Path | None:
    """Fine-tune into the run folder `out`; the folder of the model or adapter, None if stopped.

    `findings` are learned from where `config.data.reviews` asks for them; a resumed run keeps to
    those that it began with.

    Raises:
        UsageError: `out` holds another run, or the batch cannot be shared by the processes.
        CheckFailed: the data cannot be trained on, or the loss is no number.
        ModelError, NotFound: the base cannot be used.
        PrerequisiteError: it does not fit into memory, or a checkpoint could not be written.
    """
    if resume and config.data.reviews:
        findings = kept_reviews(out)
    make = partial(_plan, config, findings)
    return stage.train("sft", config, out, make, resume=resume, say=say)


def dry_run(config: RunConfig, *, findings: Iterable[Finding] = (), say: Say = print) -> DryRun:
    """Build everything, and take two real steps with a shrunken random model of the base's class.

    Raises:
        As `train`, but that memory is only told and no weights are needed.
    """
    return stage.dry_run("sft", config, partial(_plan, config, findings), say=say)


def trainer_for(
    lessons: Lessons,
    config: RunConfig,
    model: Any,
    processor: Any,
    folder: Path,
    watchers: Sequence[Any] = (),
) -> Any:
    """TRL's SFTTrainer, ready to train; checkpoints go to `folder`/checkpoints."""
    from trl import SFTConfig, SFTTrainer

    sft = config.sft
    order = texts.order(config.seed, len(lessons.examples), sft.steps * sft.batch)
    shared = stage.arguments(
        config,
        folder,
        micro_batches=accumulation(config),
        log_every=config.log_every,
        **sft.model_dump(),
    )
    arguments = SFTConfig(
        **shared,
        lr_scheduler_type="cosine",
        weight_decay=sft.weight_decay,
        # Pictures stand in the prompt: a text cut short would lose them.
        max_length=None,
        train_sampling_strategy="sequential",
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_first_step=True,
        logging_nan_inf_filter=False,
    )
    return stage.trainer_of(
        SFTTrainer,
        watchers,
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"position": list(range(len(order))), "example": order}),
        processing_class=processor,
        data_collator=Collator(processor, lessons, config),
    )


class Collator:
    """From positions to a batch: each text drawn by (seed, position), its pictures read anew."""

    def __init__(self, processor: Any, lessons: Lessons, config: RunConfig) -> None:
        self.processor, self.lessons, self.config = processor, lessons, config

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        drawn = []
        for row in rows:
            rng = np.random.default_rng([self.config.seed, 2, row["position"]])
            example = self.lessons.examples[row["example"]]
            task = self.lessons.tasks[example.product]
            drawn.append(texts.draw(rng, example, task, self.config.sft.texts))
        return collate(drawn, self.processor, self.config.image_size)


def collate(drawn: Sequence[Text], processor: Any, image_size: int) -> dict[str, Any]:
    """Right-padded token ids with labels on the completions alone, and the pictures' patches.

    Raises:
        UnreadableInput: a picture cannot be read; nothing stands in for it.
    """
    tokenizer = processor.tokenizer
    seen = _pixels(drawn, processor, image_size)
    prompts = _tokens([_prompt(t, processor) for t in drawn], processor, image_size)
    completions = tokenizer([t.completion for t in drawn], add_special_tokens=False)["input_ids"]
    rows = [
        (prompt, [*completion, tokenizer.eos_token_id])
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    shape = len(rows), max(len(prompt) + len(completion) for prompt, completion in rows)
    ids = torch.full(shape, tokenizer.pad_token_id)
    labels = torch.full(shape, IGNORE)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, (prompt, completion) in enumerate(rows):
        begin, end = len(prompt), len(prompt) + len(completion)
        ids[row, :end] = torch.tensor(prompt + completion)
        labels[row, begin:end] = torch.tensor(completion)
        mask[row, :end] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "mm_token_type_ids": (ids == processor.image_token_id).long(),
        "pixel_values": seen["pixel_values"],
        "image_grid_thw": seen["image_grid_thw"],
    }


@torch.no_grad()
def answers(
    lessons: Lessons, config: RunConfig, processor: Any, model: Any
) -> list[dict[str, Any]]:
    """What the model says of the pictures it is asked about, every other one under changed rules
    where its content is known."""
    out = []
    training = model.training
    model.eval()
    for number, example in enumerate(lessons.asked):
        rng = np.random.default_rng([config.seed, 3, number])
        task = lessons.tasks[example.product]
        text = texts.inspection(rng, example, task, other_rules=number % 2)
        (ids,) = _tokens([_prompt(text, processor)], processor, config.image_size)
        seen = _pixels([text], processor, config.image_size)
        out.append(
            {
                "image": str(example.image),
                "product": example.product,
                "said": answer(model, processor, ids, seen),
                "wanted": text.completion,
            }
        )
    model.train(training)
    return out


@torch.no_grad()
def answer(model: Any, processor: Any, prompt: Sequence[int], seen: Mapping[str, Tensor]) -> str:
    """What the model says to a prompt of these token ids, the most probable token each time.

    `seen` holds its pictures as the image processor makes them: pixel_values, image_grid_thw.
    """
    inputs = torch.tensor([prompt], device=model.device)
    made = model.generate(
        input_ids=inputs,
        attention_mask=torch.ones_like(inputs),
        mm_token_type_ids=(inputs == processor.image_token_id).long(),
        pixel_values=seen["pixel_values"].to(model.device),
        image_grid_thw=seen["image_grid_thw"].to(model.device),
        do_sample=False,
        use_cache=True,
        max_new_tokens=SAMPLE_TOKENS,
    )
    said: str = processor.tokenizer.decode(made[0, len(prompt) :], skip_special_tokens=True)
    return said


def accumulation(config: RunConfig) -> int:
    """Micro-batches that each process takes for one step.

    Raises:
        UsageError: the batch cannot be shared out evenly.
    """
    world = runs.processes()
    count, rest = divmod(config.sft.batch, config.sft.micro * world)
    if rest or not count:
        raise UsageError(
            f"sft.batch {config.sft.batch} is no multiple of {world} "
            f"process{'es' if world > 1 else ''} x sft.micro {config.sft.micro}"
        )
    return count


def _plan(config: RunConfig, findings: Iterable[Finding], base: Base, say: Say) -> Plan:
    accumulation(config)
    lessons = learn_from(config, findings, say)
    return Plan(
        lessons.products,
        lessons.hashes,
        lessons.task_hashes,
        lessons.pictures,
        lessons.reviews,
        lessons.learned,
        partial(trainer_for, lessons),
        partial(answers, lessons),
    )


def _prompt(text: Text, processor: Any) -> str:
    prompt: str = processor.apply_chat_template(
        text.messages, add_generation_prompt=True, tokenize=False
    )
    return prompt


def _tokens(prompts: Sequence[str], processor: Any, image_size: int) -> list[list[int]]:
    """Token ids of prompts, with as many image tokens a picture as the model makes of it."""
    image = processor.image_processor
    side = usable_size(image_size, processor) // (image.patch_size * image.merge_size)
    wide = [prompt.replace(IMAGE_TOKEN, IMAGE_TOKEN * side**2) for prompt in prompts]
    ids: list[list[int]] = processor.tokenizer(wide, add_special_tokens=False)["input_ids"]
    return ids


def _pixels(drawn: Sequence[Text], processor: Any, image_size: int) -> Any:
    size = usable_size(image_size, processor)
    pictures = [
        images.prepare(images.read(path).image, text.region, size)
        for text in drawn
        for path in text.images
    ]
    return pixels(processor, pictures, size)
