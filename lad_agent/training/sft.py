"""Supervised fine-tuning of a Qwen2.5-VL with TRL, on texts about labelled pictures.

A position of the run means one picture and one text, drawn by (seed, position): a resumed run sees
what an uninterrupted one would have seen, and so does one that more processes share.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import distributed

from lad_agent import images
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.reasoners.processing import IMAGE_TOKEN, pixels, usable_size
from lad_agent.training import bases, callbacks, curves, runs, texts
from lad_agent.training.bases import Base, Memory
from lad_agent.training.config import RunConfig
from lad_agent.training.resuming import resumable
from lad_agent.training.runs import Run
from lad_agent.training.sources import Example, check, open_source
from lad_agent.training.texts import Task, Text

IGNORE = -100
SAMPLE_TOKENS = 256
"""The longest rationale that is written to `samples.jsonl`."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Lessons:
    """What a run learns from, and a few other pictures that it is asked about on the way."""

    examples: tuple[Example, ...]
    asked: tuple[Example, ...]
    tasks: Mapping[str, Task]

    @property
    def products(self) -> list[str]:
        return sorted({example.product for example in self.examples})


@dataclass(frozen=True)
class DryRun:
    """What a dry run tells: memory that the real base would take, seconds a step of the shrunken
    one, and how many pictures there are to learn from."""

    memory: Memory
    seconds: float
    examples: int


def train(config: RunConfig, out: Path, *, resume: bool = False, say: Say = print) -> Path | None:
    """Fine-tune into the run folder `out`; the folder of the model or adapter, None if stopped.

    Raises:
        UsageError: `out` holds another run, or the batch cannot be shared by the processes.
        CheckFailed: the data cannot be trained on, or the loss is no number.
        ModelError, NotFound: the base cannot be used.
        PrerequisiteError: it does not fit into memory, or a checkpoint could not be written.
    """
    base = bases.find(config.base)
    told = say if runs.first_process() else _silent
    if resume and (out / result(config)).is_dir():
        raise UsageError(f"{out}: this run has finished; its result is {out / result(config)}")
    told(bases.licence(base))
    accumulation(config)
    lessons, hashes = learn_from(config, told)
    memory = bases.refuse_too_big(base, config, "sft")
    told(f"{len(lessons.examples)} pictures to learn from; memory: about {memory}")
    run = runs.open_run(out, "sft", config, base=base.fingerprint, data=hashes, resume=resume)
    model, processor = bases.open_base(base, config)
    ask = partial(answers, processor, lessons, config)
    watchers = callbacks.watchers(run, steps=config.sft.steps, ask=ask)
    trainer = trainer_for(model, processor, lessons, config, run.checkpoints, watchers)
    last = runs.last_checkpoint(run)
    with callbacks.guarded(run):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        step = trainer.state.global_step
        folder = save(trainer, base, lessons.products, run) if step == config.sft.steps else None
    if runs.first_process():
        curves.write(run)
    if folder is None:
        told(f"stopped at step {step} of {config.sft.steps}; --resume goes on")
        return None
    lora = f"{base.folder} --adapter {folder}" if folder.name == "adapter" else folder
    told(f"{folder}\n  lad-agent inspect PATH --reasoner {lora}")
    return folder


def dry_run(config: RunConfig, *, say: Say = print) -> DryRun:
    """Build everything, and take two real steps with a shrunken random model of the base's class.

    Raises:
        As `train`, but that memory is only told and no weights are needed.
    """
    base = bases.find(config.base)
    say(bases.licence(base))
    accumulation(config)
    lessons, _ = learn_from(config, say)
    model, processor = bases.shrunken(base, config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(model, processor, lessons, config, Path(folder), (), steps=2)
        begin = time.monotonic()
        trainer.train()
        seconds = (time.monotonic() - begin) / 2
    answers(processor, lessons, config, trainer.model)
    return DryRun(bases.estimate(base, config, "sft"), seconds, len(lessons.examples))


def learn_from(config: RunConfig, say: Say = print) -> tuple[Lessons, dict[str, str]]:
    """The lessons in a configuration's data, and a hash of every product's pictures and labels.

    Raises:
        UsageError: no data is named, or a path is no source.
        CheckFailed: the data cannot be trained on; names every fault.
    """
    if not config.data.paths:
        raise UsageError("no data to learn from: --data PATH (a folder of pictures)")
    report = check.require([open_source(path) for path in config.data.paths])
    for warning in report.warnings:
        say(warning)
    examples = tuple(e for e in report.examples if e.split == "train")
    if not examples:
        raise CheckFailed("no picture is for training: none lies in the split train")
    if all(e.facts is None for e in examples) and len({e.anomalous for e in examples}) == 1:
        kind = "anomalous" if examples[0].anomalous else "good"
        raise CheckFailed(
            f"all {len(examples)} pictures for training are {kind}, and their content is not "
            "known: the model would learn one answer; add a folder with both"
        )
    lines: dict[str, list[str]] = {}
    for e in report.examples:
        lines.setdefault(e.product, []).append(f"{e.sha256} {e.split} {e.kind} {e.rule} {e.cause}")
    hashes = {product: runs.digest(group) for product, group in sorted(lines.items())}
    tasks = texts.tasks(report.examples)
    return Lessons(examples, _asked(report.examples, config), tasks), hashes


def trainer_for(
    model: Any,
    processor: Any,
    lessons: Lessons,
    config: RunConfig,
    checkpoints: Path,
    watchers: Sequence[Any],
    *,
    steps: int | None = None,
) -> Any:
    """TRL's SFTTrainer for a run, ready to train; `steps` cuts a dry run short."""
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    sft = config.sft
    order = texts.order(config.seed, len(lessons.examples), sft.steps * sft.batch)
    rows = Dataset.from_dict({"position": list(range(len(order))), "example": order})
    on_gpu = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        max_steps=steps or sft.steps,
        per_device_train_batch_size=sft.micro,
        gradient_accumulation_steps=accumulation(config),
        learning_rate=sft.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(sft.warmup, sft.steps),
        weight_decay=sft.weight_decay,
        max_grad_norm=1.0,
        seed=config.seed,
        use_cpu=not on_gpu,
        ddp_backend="gloo" if runs.processes() > 1 and not on_gpu else None,
        bf16=config.precision == "bfloat16",
        activation_checkpointing=config.gradient_checkpointing,
        ddp_find_unused_parameters=False,
        # Pictures stand in the prompt: a text cut short would lose them.
        max_length=None,
        train_sampling_strategy="sequential",
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to="none",
        disable_tqdm=True,
        logging_steps=min(config.log_every, sft.steps),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no" if steps else "steps",
        save_steps=config.checkpoint_every,
        save_total_limit=config.keep_checkpoints,
    )
    trainer = resumable(SFTTrainer)(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=processor,
        data_collator=Collator(processor, lessons, config),
        callbacks=list(watchers),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


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
    processor: Any, lessons: Lessons, config: RunConfig, model: Any
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
        inputs = torch.tensor([ids], device=model.device)
        seen = _pixels([text], processor, config.image_size)
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
        said = processor.tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True)
        out.append(
            {
                "image": str(example.image),
                "product": example.product,
                "said": said,
                "wanted": text.completion,
            }
        )
    model.train(training)
    return out


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


def save(trainer: Any, base: Base, products: Sequence[str], run: Run) -> Path:
    """Write the result whole: `adapter` for LoRA, else `model` as a folder that `inspect` opens."""
    lora = run.config.adapter == "lora"
    folder = run.folder / result(run.config)
    part = run.folder / f"{folder.name}.part"
    if not lora and run.config.precision == "bfloat16":
        trainer.model.to(torch.bfloat16)
    trainer.save_model(str(part))
    if runs.first_process():
        (part / "training_args.bin").unlink(missing_ok=True)
        if not lora:
            _complete(part, base, products, run)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    if distributed.is_initialized():
        distributed.barrier()
    return folder


def result(config: RunConfig) -> str:
    """The name of the folder that a run's result lies in."""
    return "adapter" if config.adapter == "lora" else "model"


def _complete(part: Path, base: Base, products: Sequence[str], run: Run) -> None:
    """The card, and the second witness where the tower that it reads is as it was."""
    if run.config.tower == "frozen":
        for name in ("witness.json", "witness.safetensors"):
            if (base.folder / name).exists():
                shutil.copyfile(base.folder / name, part / name)
    card_of_base = base.folder / "model_card.json"
    card = json.loads(card_of_base.read_text(encoding="utf-8")) if card_of_base.exists() else {}
    if "products" in card:
        card["products"] = sorted({*card["products"], *products})
    card |= {
        "name": run.folder.name,
        "made_by": f"lad-agent train {run.stage}",
        "licence": bases.licence(base),
        "image_size": run.config.image_size,
        "trained_on": list(products),
        "configuration": run.config.model_dump(mode="json"),
        "last_metrics": runs.last_metrics(run),
    }
    runs.write_whole(part / "model_card.json", json.dumps(card, indent=1) + "\n")


def _asked(examples: Sequence[Example], config: RunConfig) -> tuple[Example, ...]:
    """Pictures for validation if there are any, good and anomalous ones by turns."""
    mixed = sorted(examples, key=lambda e: e.sha256)
    others = [e for e in mixed if e.split == "validation"] or mixed
    pools = [[e for e in others if e.anomalous is side] for side in (False, True)]
    longest = max(map(len, pools))
    turns = [pool[n] for n in range(longest) for pool in pools if n < len(pool)]
    return tuple(turns[: config.samples])


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


def _silent(text: str) -> None:
    """Of several processes one speaks."""
