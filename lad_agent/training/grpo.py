"""GRPO with TRL: the reasoner learns from nothing but verdicts and the form of its answers.

Prompts come by position: the same position gives the same prompt in any run, so that a resumed run
sees what an uninterrupted one would have seen. Half of them are anomalous. Groups whose answers
are all right or all wrong teach nothing; `pool` chooses prompts by trying them first.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from torch import distributed
from transformers import TrainerCallback

from lad_agent import protocol
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.training.config import Grpo
from lad_agent.training.rewards import REWARDS, Case, accuracy
from lad_agent.training.watch import Step, trouble


@dataclass(frozen=True)
class Prompt:
    """Messages, their pictures (opened when asked for, in the messages' order) and the truth."""

    messages: list[dict[str, Any]]
    images: Callable[[], Sequence[Image.Image]]
    case: Case


Prompts = Callable[[int], Prompt]
"""A prompt by its position in an endless stream."""


def balanced(prompts: Prompts, positions: Iterable[int]) -> Iterator[int]:
    """`positions` in an order in which every other prompt is anomalous; what is left over waits."""
    waiting: dict[bool, list[int]] = {True: [], False: []}
    turn = False
    for position in positions:
        waiting[prompts(position).case.anomalous].append(position)
        while waiting[turn]:
            yield waiting[turn].pop(0)
            turn = not turn


def train(
    model: Any,
    processor: Any,
    prompts: Prompts,
    config: Grpo,
    out: Path,
    callbacks: Sequence[TrainerCallback] = (),
    *,
    seed: int = 0,
    save_every: int = 50,
    peft: Any = None,
    cpu: bool | None = None,
) -> list[dict[str, float]]:
    """Run GRPO in the folder `out`, going on from its last checkpoint. Returns the trainer's log.

    `model` is what a checkpoint folder held (TRL opens that folder again for the reference that
    `beta` holds it to); `peft` a LoRA configuration, or None to train every weight that requires
    a gradient. Within a torch.distributed group the processes share the groups of a step.

    Raises:
        UsageError: the numbers of prompts, answers and processes do not fit each other.
        CheckFailed: the answers have collapsed, are cut off, or teach nothing (`watch`).
    """
    from transformers import PrinterCallback
    from transformers.trainer_utils import get_last_checkpoint
    from trl import GRPOConfig as TrlConfig
    from trl import GRPOTrainer

    world = distributed.get_world_size() if distributed.is_initialized() else 1
    use_cpu = not torch.cuda.is_available() if cpu is None else cpu
    last = get_last_checkpoint(str(out)) if out.exists() else None
    done = int(last.rsplit("-", 1)[1]) if last else 0
    feed = Feed(prompts, config, out)
    watcher = _Watcher()
    arguments = TrlConfig(
        output_dir=str(out),
        max_steps=config.steps,
        per_device_train_batch_size=config.micro,
        gradient_accumulation_steps=_micro_batches(config, world),
        num_generations=config.num_generations,
        max_completion_length=config.max_completion,
        temperature=config.temperature,
        beta=config.beta,
        loss_type="dapo",
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup,
        adam_beta2=0.98,
        weight_decay=0.0,
        max_grad_norm=1.0,
        reward_weights=list(config.rewards.values()),
        shuffle_dataset=False,
        seed=seed,
        use_cpu=use_cpu,
        bf16=not use_cpu,
        activation_checkpointing=not use_cpu,
        report_to="none",
        logging_steps=1,
        save_steps=save_every,
        save_total_limit=2,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[_reward(name) for name in config.rewards],
        args=arguments,
        train_dataset=feed.dataset(),
        processing_class=processor,
        peft_config=peft,
        callbacks=[watcher, *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    if config.pool:
        feed.refill(trainer.model, processor, done)
        trainer.add_callback(_Refresher(feed, processor))
    with warnings.catch_warnings():
        # TRL asks transformers for things under their old names.
        warnings.simplefilter("ignore", FutureWarning)
        trainer.train(resume_from_checkpoint=last)
    if watcher.reason:
        raise CheckFailed(f"{out}: stopped at step {trainer.state.global_step}: {watcher.reason}")
    return list(trainer.state.log_history)


class Feed:
    """Which prompt comes as the k-th, and the pools it is taken from.

    The pool that was chosen after step n x `refresh` is used LAG steps later: batches are fetched
    ahead of their step, and a resumed run must fetch the same. Pools are kept in `pools.jsonl`.
    """

    LAG = 2

    def __init__(self, prompts: Prompts, config: Grpo, out: Path) -> None:
        self.prompts, self.config, self.path = prompts, config, out / "pools.jsonl"
        self.pools = [entry["positions"] for entry in self._kept()]
        self.order = balanced(prompts, count())
        self.drawn: list[int] = []
        self.row = lru_cache(maxsize=4 * config.prompts)(self._row)

    def dataset(self) -> Dataset:
        """Rows in TRL's form, one a prompt of the run, made when they are asked for."""
        rows = Dataset.from_dict({"k": list(range(self.config.steps * self.config.prompts))})
        return rows.with_transform(self.rows)

    def rows(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        """The rows of prompts `k`."""
        rows = [self.row(k) for k in batch["k"]]
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}

    def __getstate__(self) -> dict[str, Any]:
        """What datasets hashes to tell this transform from others."""
        return {"path": str(self.path), "config": self.config}

    def position(self, k: int) -> int:
        """The position of the k-th prompt of the run."""
        if not self.config.pool:
            while len(self.drawn) <= k:
                self.drawn.append(next(self.order))
            return self.drawn[k]
        step = k // self.config.prompts
        pool = self.pools[max(0, (step - self.LAG) // self.config.refresh)]
        return int(pool[k % len(pool)])

    def refill(self, model: Any, processor: Any, step: int) -> None:
        """Choose the pool that goes with `step`, unless it is chosen already."""
        number = step // self.config.refresh
        if number < len(self.pools):
            return
        if _rank() == 0:
            tried = self._next_untried()
            positions, alive, end = choose(model, processor, self.prompts, self.config, tried)
            entry = {"step": step, "from": tried, "to": end, "alive": alive, "positions": positions}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        if distributed.is_initialized():
            distributed.barrier()
        self.pools = [entry["positions"] for entry in self._kept()]

    def _kept(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def _next_untried(self) -> int:
        return max((int(entry["to"]) for entry in self._kept()), default=0)

    def _row(self, k: int) -> dict[str, Any]:
        prompt = self.prompts(self.position(k))
        return {
            "k": k,
            "prompt": prompt.messages,
            "images": list(prompt.images()),
            "case": prompt.case,
        }


def choose(
    model: Any, processor: Any, prompts: Prompts, config: Grpo, start: int
) -> tuple[list[int], float, int]:
    """Positions from `start` on whose answers are now right, now wrong, half of them anomalous.

    Returns them (`config.pool`, filled up with other ones after four times as many were tried),
    the share that was mixed, and the first position not tried.
    """
    mixed: dict[bool, list[int]] = {True: [], False: []}
    other: dict[bool, list[int]] = {True: [], False: []}
    half, at = config.pool // 2, start
    while at < start + 4 * config.pool and min(map(len, mixed.values())) < half:
        batch = [prompts(position) for position in range(at, at + config.prompts)]
        for position, prompt, share in zip(
            range(at, at + len(batch)),
            batch,
            right(model, processor, batch, config, at),
            strict=True,
        ):
            kind = mixed if 0.0 < share < 1.0 else other
            kind[prompt.case.anomalous].append(position)
        at += len(batch)
    found = sum(map(len, mixed.values()))
    sides = [(mixed[side] + other[side])[:half] for side in (False, True)]
    return [p for pair in zip(*sides, strict=False) for p in pair], found / (at - start), at


@torch.inference_mode()
def right(
    model: Any, processor: Any, prompts: Sequence[Prompt], config: Grpo, seed: int
) -> list[float]:
    """Share of right verdicts among `num_generations` sampled answers to each prompt."""
    texts = [
        processor.apply_chat_template(p.messages, add_generation_prompt=True, tokenize=False)
        for p in prompts
    ]
    inputs = processor(
        text=texts, images=[list(p.images()) for p in prompts],
        padding=True, padding_side="left", return_tensors="pt",
    ).to(model.device)  # fmt: skip
    training = model.training
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        answers = model.generate(
            **inputs,
            do_sample=True,
            temperature=config.temperature,
            num_return_sequences=config.num_generations,
            max_new_tokens=config.max_completion,
        )
    model.train(training)
    told = processor.batch_decode(
        answers[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    shares = []
    for row, prompt in enumerate(prompts):
        own = told[row * config.num_generations : (row + 1) * config.num_generations]
        shares.append(sum(accuracy(text, prompt.case) for text in own) / len(own))
    return shares


def _reward(name: str) -> Callable[..., list[float]]:
    """TRL's form of a reward; that of accuracy also logs what `watch` looks at."""
    if name not in REWARDS:
        raise UsageError(f"no reward {name!r}; known: {', '.join(REWARDS)}")
    reward = REWARDS[name]

    def scored(
        completions: list[list[dict[str, str]]],
        case: list[Case],
        k: list[int],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        values = [reward(text, own) for text, own in zip(texts, case, strict=True)]
        if name == "accuracy":
            for metric, value in shares(texts, values, k).items():
                log_metric(metric, value)
        return values

    scored.__name__ = name
    return scored


def shares(texts: Sequence[str], right: Sequence[float], k: Sequence[int]) -> dict[str, float]:
    """Shares of well-formed answers, of yes among them, and of groups (equal `k`) that are dead:
    whose accuracy is all alike, however their form differs."""
    answers = [answer for answer in map(protocol.parse, texts) if answer is not None]
    groups: dict[int, set[float]] = {}
    for value, own in zip(right, k, strict=True):
        groups.setdefault(own, set()).add(value)
    return {
        "well_formed": len(answers) / len(texts),
        "yes": sum(answer.anomalous for answer in answers) / len(answers) if answers else 0.5,
        "dead": sum(len(values) == 1 for values in groups.values()) / len(groups),
    }


def _micro_batches(config: Grpo, world: int) -> int:
    """Micro-batches a process takes for one step; groups are never split between processes."""
    answers = config.prompts * config.num_generations
    own, rest = divmod(answers, world)
    if rest or own % config.micro or own % config.num_generations:
        raise UsageError(
            f"{config.prompts} prompts x {config.num_generations} answers cannot be shared by "
            f"{world} processes in micro-batches of {config.micro}; let micro divide a process's "
            "answers, and whole groups fall to each"
        )
    return own // config.micro


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


class _Refresher(TrainerCallback):  # type: ignore[misc]
    """Chooses a new pool every `refresh` steps."""

    def __init__(self, feed: Feed, processor: Any) -> None:
        self.feed, self.processor = feed, processor

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        step, config = state.global_step, self.feed.config
        if step % config.refresh == 0 and step < config.steps:
            self.feed.refill(getattr(model, "module", model), self.processor, step)


class _Watcher(TrainerCallback):  # type: ignore[misc]
    """Stops a run that teaches nothing."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.reason: str | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "dead" not in logs:
            return
        cut = float(logs.get("completions/clipped_ratio", 0.0))
        self.steps.append(
            Step(float(logs["well_formed"]), cut, float(logs["yes"]), float(logs["dead"]))
        )
        self.reason = trouble(self.steps)
        control.should_training_stop = control.should_training_stop or self.reason is not None
