"""One stage of training, whatever trainer runs it: from a base and data to a result in a run's
folder. `sft` and `grpo` say what is learned and how; all that both need stands here."""

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from lad_agent import atomic
from lad_agent.errors import TrainingEnded, UsageError
from lad_agent.training import bases, callbacks, curves, held_out, lessons, runs
from lad_agent.training.bases import Base, Memory
from lad_agent.training.config import RunConfig, Stage, changed
from lad_agent.training.resuming import resumable
from lad_agent.training.runs import Run
from lad_agent.training.sources import Example

Say = Callable[[str], None]

DRY_STEPS = 2
DRY_ANSWER = 32
"""Tokens of an answer in a dry run: a random model hardly ever ends one."""


@dataclass(frozen=True)
class Plan:
    """What a stage is about to do.

    `products` are those it learns, `data` and `tasks` hold a hash for each, of its pictures and of
    what is asked and known of them; `pictures` is how many stand in the largest prompt; `reviews`
    are the pictures whose label is a person's finding, `learned` the content hashes of all that
    are learned from.
    `trainer(config, model, processor, folder, watchers)` is TRL's trainer, ready to train, with
    its checkpoints in `folder`/checkpoints;
    `ask(config, processor, model)` one entry for `samples.jsonl` a picture. `stopped` tells after
    training why the run gave itself up, `done` why it ended before its last step because there was
    nothing left to learn, if it did.
    """

    products: Sequence[str]
    data: Mapping[str, str]
    tasks: Mapping[str, str]
    pictures: int
    reviews: Sequence[Example]
    learned: Collection[str]
    trainer: Callable[[RunConfig, Any, Any, Path, Sequence[Any]], Any]
    ask: Callable[[RunConfig, Any, Any], Sequence[Mapping[str, Any]]]
    stopped: Callable[[], str | None] = lambda: None
    done: Callable[[], str | None] = lambda: None


Make = Callable[[Base, Say], Plan]
"""What a stage makes of its base; it is told to say what the data is like."""


@dataclass(frozen=True)
class DryRun:
    """What a dry run tells of the real base: memory, and seconds a step on this device."""

    memory: Memory
    seconds: float


def train(
    stage: Stage, config: RunConfig, out: Path, make: Make, *, resume: bool, say: Say
) -> Path | None:
    """Train into the run folder `out`; the folder of the model or adapter, None if stopped.

    A run that was ended while it judged the held-out pictures is resumed by judging them.

    Raises:
        UsageError: `out` holds another run, or findings are learned from and nothing shows whether
            that helped.
        CheckFailed: the pictures cannot be trained on.
        TrainingEnded: the loss is no number, or the run taught nothing.
        ModelError, NotFound: the base cannot be used.
        PrerequisiteError: it does not fit into memory, or a checkpoint could not be written.
    """
    if config.data.reviews and config.data.held_out is None:
        raise UsageError(
            "learning from reviews: name labelled pictures that will show a step back, "
            "--held-out PATH"
        )
    base = bases.find(config.base)
    told = say if runs.first_process() else _silent
    compared = out / "held_out.json"
    whole = config.data.held_out is None or compared.exists()
    if resume and whole and (out / result(config)).is_dir():
        raise UsageError(f"{out}: this run has finished; its result is {out / result(config)}")
    told(bases.licence(base))
    plan = make(base, told)
    told(f"memory: about {bases.refuse_too_big(base, config, stage, plan.pictures)}")
    folder = _fit(stage, config, out, base, plan, resume=resume, say=told)
    if folder is None:
        return None
    if config.data.held_out is not None and runs.first_process():
        figures = held_out.compare(base, bases.find(str(out)), config.data.held_out)
        atomic.write(compared, json.dumps(figures, indent=1) + "\n")
        told(held_out.table(figures))
    lora = f"{base.folder} --adapter {folder}" if folder.name == "adapter" else folder
    told(f"{folder}\n  lad-agent inspect PATH --reasoner {lora}")
    return folder


def dry_run(stage: Stage, config: RunConfig, make: Make, *, say: Say) -> DryRun:
    """The whole run in two real steps, in a folder that is thrown away, from a shrunken random
    model of the base's class.

    Raises:
        As `train`, but that memory is only told and no weights are needed.
    """
    base = bases.find(config.base)
    say(bases.licence(base))
    plan = make(base, say)
    short = {
        "sft": {"steps": DRY_STEPS},
        "grpo": {
            "steps": DRY_STEPS,
            "max_completion": min(DRY_ANSWER, config.grpo.max_completion),
            "pool": 0,
        },
    }
    with tempfile.TemporaryDirectory() as place:
        with callbacks.without_bars():
            small = bases.shrunken(base, config, Path(place) / "base")
        out = Path(place) / "run"
        brief = changed(config, samples=min(1, config.samples), **{stage: short[stage]})
        _fit(stage, brief, out, small, plan, say=_silent)
    given = base, config, stage, plan.pictures
    return DryRun(bases.estimate(*given), bases.seconds_a_step(*given))


def arguments(
    config: RunConfig, folder: Path, *, micro_batches: int, log_every: int, **section: Any
) -> dict[str, Any]:
    """What TRL's configurations share: of the run, and of its `section` (steps, micro, warmup,
    learning_rate)."""
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder / "checkpoints"),
        "max_steps": section["steps"],
        "per_device_train_batch_size": section["micro"],
        "gradient_accumulation_steps": micro_batches,
        "learning_rate": section["learning_rate"],
        "warmup_steps": min(section["warmup"], section["steps"]),
        "max_grad_norm": 1.0,
        "seed": config.seed,
        "use_cpu": not on_gpu,
        "ddp_backend": "gloo" if runs.processes() > 1 and not on_gpu else None,
        "bf16": config.precision == "bfloat16",
        "activation_checkpointing": config.gradient_checkpointing,
        "ddp_find_unused_parameters": False,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": min(log_every, section["steps"]),
        "save_strategy": "steps",
        "save_steps": config.checkpoint_every,
        "save_total_limit": config.keep_checkpoints,
    }


def trainer_of(kind: type[Any], watchers: Sequence[Any], **given: Any) -> Any:
    """A trainer of TRL's class `kind` that goes on from its checkpoints and prints nothing."""
    from transformers import PrinterCallback

    trainer = resumable(kind)(callbacks=list(watchers), **given)
    trainer.remove_callback(PrinterCallback)
    return trainer


def result(config: RunConfig) -> str:
    """The name of the folder that a run's result lies in."""
    return "adapter" if config.adapter == "lora" else "model"


def _fit(
    stage: Stage,
    config: RunConfig,
    out: Path,
    base: Base,
    plan: Plan,
    *,
    resume: bool = False,
    say: Say,
) -> Path | None:
    """Bind the folder, train, save, unless it holds the result already. Model and trainer are let
    go before anything else is loaded."""
    run = runs.open_run(
        out,
        stage,
        config,
        base=base.fingerprint,
        made_by=runs.made_by(base.adapter or base.folder),
        data=plan.data,
        tasks=plan.tasks,
        resume=resume,
    )
    if (out / result(config)).is_dir():
        return out / result(config)
    if runs.first_process():
        lessons.keep_reviews(plan.reviews, run)
        lessons.keep_learned(plan.learned, run)
    model, processor = bases.open_base(base, config)
    steps = getattr(config, stage).steps
    watchers = callbacks.watchers(run, steps=steps, ask=partial(plan.ask, config, processor))
    last = runs.last_checkpoint(run.checkpoints)
    with callbacks.guarded(run, watchers), warnings.catch_warnings():
        # TRL asks transformers for things under their old names.
        warnings.simplefilter("ignore", FutureWarning)
        trainer = plan.trainer(config, model, processor, out, watchers)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        step, reason, done = trainer.state.global_step, plan.stopped(), plan.done()
        whole = reason is None and (step == steps or done is not None)
        folder = _save(trainer, base, plan, run) if whole else None
    if distributed.is_initialized():
        # The trainer's model holds it too. Where that is the last one to let go, it waits, with the
        # interpreter's lock, for a thread of the group that may be waiting for this lock. A group
        # that a process holds at its exit can end it by SIGABRT.
        del trainer
        distributed.destroy_process_group()
    if runs.first_process():
        curves.write(run)
    if reason is not None:
        raise TrainingEnded(f"{out}: stopped at step {step}: {reason}")
    if folder is None:
        say(f"stopped at step {step} of {steps}; --resume goes on")
    elif step < steps:
        say(f"ended at step {step} of {steps}: {done}")
    return folder


def _save(trainer: Any, base: Base, plan: Plan, run: Run) -> Path:
    """Write the result whole: `adapter` for LoRA, else `model` as a folder that `inspect` opens."""
    lora = run.config.adapter == "lora"
    folder = run.folder / result(run.config)
    part = run.folder / f"{folder.name}.part"
    if not lora and run.config.precision == "bfloat16":
        trainer.model.to(torch.bfloat16)
    trainer.save_model(str(part))
    if runs.first_process():
        (part / "training_args.bin").unlink(missing_ok=True)
        _complete(part, base, plan, run)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    if distributed.is_initialized():
        distributed.barrier()
    return folder


def _complete(part: Path, base: Base, plan: Plan, run: Run) -> None:
    """The card, and a model's second witness where the tower that it reads is as it was."""
    lora = run.config.adapter == "lora"
    if run.config.tower == "frozen" and not lora:
        for name in ("witness.json", "witness.safetensors"):
            if (base.folder / name).exists():
                shutil.copyfile(base.folder / name, part / name)
    card = {} if lora else bases.card(base)
    if "products" in card:
        card["products"] = sorted({*card["products"], *plan.products})
    card |= {
        "name": run.folder.name,
        "made_by": f"lad-agent train {run.stage}",
        "run": str(run.folder.resolve()),
        "base": Base(base.folder, None if lora else base.adapter).fingerprint,
        "licence": bases.licence(base),
        "image_size": run.config.image_size,
        "trained_on": list(plan.products),
        "reviews": len(plan.reviews),
        "configuration": run.config.model_dump(mode="json"),
        "last_metrics": runs.last_metrics(run),
    }
    atomic.write(part / "model_card.json", json.dumps(card, indent=1) + "\n")


def _silent(text: str) -> None:
    """Of several processes one speaks."""
