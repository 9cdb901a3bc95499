"""GRPO with TRL: the reasoner learns from nothing but verdicts and the form of its answers.

Prompts come by position: the same position gives the same prompt in any run, so that a resumed run
sees what an uninterrupted one would have seen. Half of them are anomalous. Groups whose answers
are all right or all wrong teach nothing; `pool` chooses prompts by trying them first.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import distributed
from transformers import GenerationConfig, TrainerCallback

from lad_agent import images as pictures
from lad_agent import protocol, rationale
from lad_agent.errors import UsageError
from lad_agent.reasoners.processing import usable_size
from lad_agent.training import bases, held_out, runs, stage, synloco, texts
from lad_agent.training.bases import Base
from lad_agent.training.config import Grpo, RunConfig
from lad_agent.training.lessons import Lessons, kept_reviews, learn_from
from lad_agent.training.rewards import REWARDS, Case, accuracy
from lad_agent.training.sources import Example, Finding
from lad_agent.training.stage import DryRun, Plan, Say
from lad_agent.training.tower import read_once
from lad_agent.training.watch import Step, done, trouble

ASKED_FROM = 10**9
"""The position of the first of SynLOCO's prompts that only samples of rationales are taken from."""


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
    config: RunConfig,
    out: Path,
    *,
    findings: Iterable[Finding] = (),
    resume: bool = False,
    say: Say = print,
) -> Path | None:
    """Run GRPO into the run folder `out`; the folder of the model or adapter, None if stopped.

    The prompts are about the pictures in `config.data`, and in `findings` where it asks for
    reviews; without any, and for the pocket alone, about SynLOCO's own.

    Raises:
        UsageError: `out` holds another run, the numbers of prompts, answers and processes do not
            fit each other, or there is nothing to learn from.
        CheckFailed: the data cannot be trained on, or the answers have collapsed, are cut off, or
            teach nothing (`watch`).
        ModelError, NotFound: the base cannot be used.
        PrerequisiteError: it does not fit into memory, or a checkpoint could not be written.
    """
    if resume and config.data.reviews:
        findings = kept_reviews(out)
    make = partial(_plan, config, findings)
    return stage.train("grpo", config, out, make, resume=resume, say=say)


def dry_run(config: RunConfig, *, findings: Iterable[Finding] = (), say: Say = print) -> DryRun:
    """Build everything, and take two real steps with a shrunken random model of the base's class.

    Raises:
        As `train`, but that memory is only told and no weights are needed.
    """
    return stage.dry_run("grpo", config, partial(_plan, config, findings), say=say)


def about(lessons: Lessons, config: RunConfig, processor: Any) -> Prompts:
    """Prompts about labelled pictures, as an inspection asks; where a picture's content is known,
    its rules are changed in `sft.texts.other_rules` of them."""
    return partial(_about, lessons, config, usable_size(config.image_size, processor))


def trainer_for(
    prompts: Prompts,
    config: RunConfig,
    model: Any,
    processor: Any,
    folder: Path,
    watchers: Sequence[TrainerCallback] = (),
) -> Any:
    """TRL's GRPOTrainer, ready to train; checkpoints go to `folder`/checkpoints.

    `model` learns what requires a gradient; where `beta` is above 0 and it has no LoRA, TRL opens
    the folder that it was loaded from once more, as the reference to hold it to. Processes of a
    torch.distributed group share the groups of a step.
    """
    from trl import GRPOConfig, GRPOTrainer

    section = config.grpo
    feed = Feed(prompts, section, folder)
    shared = stage.arguments(
        config,
        folder,
        micro_batches=_micro_batches(section, runs.processes()),
        log_every=1,
        **section.model_dump(),
    )
    arguments = GRPOConfig(
        **shared,
        num_generations=section.num_generations,
        max_completion_length=section.max_completion,
        temperature=section.temperature,
        beta=section.beta,
        # Every token of a step weighs the same: no reward for long answers or short ones.
        loss_type="dapo",
        reward_weights=list(section.rewards.values()),
        shuffle_dataset=False,
        lr_scheduler_type="constant_with_warmup",
        weight_decay=0.0,
    )
    trainer = stage.trainer_of(
        GRPOTrainer,
        watchers,
        model=model,
        reward_funcs=[_reward(name, tells=not n) for n, name in enumerate(section.rewards)],
        args=arguments,
        train_dataset=feed.dataset(),
        processing_class=processor,
    )
    for net in (model, trainer.ref_model):
        if net is not None:
            read_once(net)
    if section.pool:
        trainer.add_callback(Refresh(feed, processor))
    return trainer


class Feed:
    """Which prompt comes as the k-th, and the pools it is taken from.

    The pool that was chosen after step n x `refresh` is used LAG steps later: batches are fetched
    ahead of their step, and a resumed run must fetch the same. Pools are kept in `pools.jsonl`.
    """

    LAG = 2

    def __init__(self, prompts: Prompts, config: Grpo, out: Path) -> None:
        self.prompts, self.config, self.path = prompts, config, out / "pools.jsonl"
        self.pools = self._kept()
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
        """Choose the pool that goes with `step`, unless it is chosen already.

        Every process tries the same prompts with the same draws, so that none waits for another
        and a model whose layers are shared out can answer; the first one's choice is kept.
        """
        number = step // self.config.refresh
        if number < len(self.pools):
            return
        tried = self._next_untried()
        positions, alive, end = choose(model, processor, self.prompts, self.config, tried)
        if runs.first_process():
            entry = {"step": step, "from": tried, "to": end, "alive": alive, "positions": positions}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            runs.add_line(self.path, entry)
        if distributed.is_initialized():
            distributed.barrier()
        self.pools = self._kept()

    def _kept(self) -> list[list[int]]:
        return [entry["positions"] for entry in runs.read_lines(self.path)]

    def _next_untried(self) -> int:
        return max((int(entry["to"]) for entry in runs.read_lines(self.path)), default=0)

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

    Returns them (`config.pool`, filled up with other ones after four times as many were tried, or
    more where one verdict is rare), the share that was mixed, and the first position not tried.
    """
    mixed: dict[bool, list[int]] = {True: [], False: []}
    other: dict[bool, list[int]] = {True: [], False: []}
    half, at = config.pool // 2, start

    def wanted() -> bool:
        few = min(len(mixed[side] + other[side]) for side in (False, True)) < half
        trying = at < start + 4 * config.pool
        return few or (trying and min(map(len, mixed.values())) < half)

    while wanted():
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


def right(
    model: Any, processor: Any, prompts: Sequence[Prompt], config: Grpo, seed: int
) -> list[float]:
    """Share of right verdicts among `num_generations` sampled answers to each prompt."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        told = _answers(model, processor, prompts, config, draws=config.num_generations)
    return [
        sum(accuracy(text, prompt.case) for text in own) / len(own)
        for prompt, own in zip(prompts, told, strict=True)
    ]


@torch.no_grad()
def _answers(
    model: Any, processor: Any, prompts: Sequence[Prompt], config: Grpo, *, draws: int
) -> list[list[str]]:
    """`draws` sampled answers to each prompt, or the greedy one where it is 0."""
    inputs = processor(
        text=[
            processor.apply_chat_template(p.messages, add_generation_prompt=True, tokenize=False)
            for p in prompts
        ],
        images=[list(p.images()) for p in prompts],
        padding=True, padding_side="left", return_tensors="pt",
    ).to(model.device)  # fmt: skip
    sampling = {
        "do_sample": True, "temperature": config.temperature, "num_return_sequences": draws,
        "top_k": 0, "top_p": 1.0,
    }  # fmt: skip
    training = model.training
    model.eval()
    made = model.generate(
        **inputs,
        # A shipped model brings penalties and cut-offs of its own, which would bend the draws.
        generation_config=GenerationConfig(
            max_new_tokens=config.max_completion,
            repetition_penalty=1.0,
            eos_token_id=processor.tokenizer.eos_token_id,
            pad_token_id=processor.tokenizer.pad_token_id,
            **(sampling if draws else {"do_sample": False}),
        ),
    )
    model.train(training)
    said = processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    size = max(draws, 1)
    return [said[row * size : (row + 1) * size] for row in range(len(prompts))]


def _plan(config: RunConfig, findings: Iterable[Finding], base: Base, say: Say) -> Plan:
    _micro_batches(config.grpo, runs.processes())
    if base.adapter and config.adapter == "full" and config.grpo.beta:
        raise UsageError(
            f"{config.base}: full training of a LoRA run has no reference to hold to; "
            "set grpo.beta to 0, or adapter to lora"
        )
    lessons, watch = _lessons(config, findings, say), Watch(config.grpo)

    def prompts(run: RunConfig, processor: Any) -> Prompts:
        return about(lessons, run, processor) if lessons else _of_synloco(run)

    def trainer(
        run: RunConfig, model: Any, processor: Any, folder: Path, watchers: Sequence[Any]
    ) -> Any:
        stream = prompts(run, processor)
        return trainer_for(stream, run, model, processor, folder, [watch, *watchers])

    def ask(run: RunConfig, processor: Any, model: Any) -> Sequence[Mapping[str, Any]]:
        if lessons is None:
            stream = _of_synloco(run)
            unseen = [stream(ASKED_FROM + number) for number in range(run.samples)]
            return _say_of(processor, unseen, run.grpo, model)
        shown = lessons.asked[: run.samples]
        said = _say_of(processor, _asked(lessons, shown, run, processor), run.grpo, model)
        return [{"image": str(e.image), **entry} for e, entry in zip(shown, said, strict=True)]

    return Plan(
        lessons.products if lessons else list(synloco.PRODUCTS),
        lessons.hashes if lessons else {},
        lessons.task_hashes if lessons else {},
        lessons.pictures if lessons else bases.PICTURES,
        lessons.reviews if lessons else [],
        lessons.learned if lessons else [],
        trainer,
        ask,
        lambda: watch.reason,
        lambda: watch.done,
    )


def _say_of(
    processor: Any, prompts: Sequence[Prompt], config: Grpo, model: Any
) -> list[Mapping[str, Any]]:
    """What the model says to prompts, for `samples.jsonl`."""
    if not prompts:
        return []
    told = _answers(model, processor, prompts, config, draws=0)
    return [
        {
            "product": prompt.case.product,
            "said": said,
            "wanted": "yes" if prompt.case.anomalous else "no",
        }
        for prompt, (said,) in zip(prompts, told, strict=True)
    ]


def _lessons(config: RunConfig, findings: Iterable[Finding], say: Say) -> Lessons | None:
    """What to learn from; None for SynLOCO's own pictures."""
    if config.base == "pocket" and not config.data.paths and not config.data.reviews:
        if config.data.held_out is not None:
            held_out.pictures(config.data.held_out)  # what is wrong with them is told at once
        return None
    return learn_from(config, findings, say)


def _of_synloco(config: RunConfig) -> Prompts:
    from lad_agent.training.pocket.prompts import prompts

    return prompts(config.seed)


def _asked(
    lessons: Lessons, shown: Sequence[Example], config: RunConfig, processor: Any
) -> list[Prompt]:
    """A prompt about each picture, every other one under changed rules where its content is
    known."""
    size = usable_size(config.image_size, processor)
    out = []
    for number, example in enumerate(shown):
        rng = np.random.default_rng([config.seed, 3, number])
        out.append(_of(lessons, example, rng, size, other_rules=number % 2))
    return out


def _about(lessons: Lessons, config: RunConfig, size: int, position: int) -> Prompt:
    rng = np.random.default_rng([config.seed, 4, position])
    example = lessons.examples[int(rng.integers(len(lessons.examples)))]
    return _of(lessons, example, rng, size, other_rules=config.sft.texts.other_rules)


def _of(
    lessons: Lessons,
    example: Example,
    rng: np.random.Generator,
    size: int,
    *,
    other_rules: float,
) -> Prompt:
    task = lessons.tasks[example.product]
    text = texts.inspection(rng, example, task, other_rules=other_rules)
    answer = protocol.parse(text.completion)
    assert answer is not None  # texts are written by the protocol
    broken = rationale.named_fault(answer.rationale)[0] or example.rule

    def images() -> list[Image.Image]:
        return [
            pictures.prepare(pictures.read(path).image, text.region, size) for path in text.images
        ]

    rule = broken if answer.anomalous else None
    return Prompt(text.messages, images, Case(task.product, text.rules, answer.anomalous, rule))


def _reward(name: str, *, tells: bool) -> Callable[..., list[float]]:
    """TRL's form of a reward; one that `tells` also logs what `watch` looks at."""
    reward = REWARDS[name]

    def scored(
        completions: list[list[dict[str, str]]],
        case: list[Case],
        k: list[int],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        if tells:
            right = [accuracy(text, own) for text, own in zip(texts, case, strict=True)]
            for metric, value in shares(texts, right, k).items():
                log_metric(metric, value)
        return [reward(text, own) for text, own in zip(texts, case, strict=True)]

    scored.__name__ = name
    return scored


def shares(texts: Sequence[str], right: Sequence[float], k: Sequence[int]) -> dict[str, float]:
    """Shares of well-formed answers, of yes among them, of groups (equal `k`) that are dead: whose
    accuracy is all alike, however their form differs, and of those that are solved: all right."""
    answers = [answer for answer in map(protocol.parse, texts) if answer is not None]
    groups: dict[int, set[float]] = {}
    for value, own in zip(right, k, strict=True):
        groups.setdefault(own, set()).add(value)
    return {
        "well_formed": len(answers) / len(texts),
        "yes": sum(answer.anomalous for answer in answers) / len(answers) if answers else 0.5,
        "dead": sum(len(values) == 1 for values in groups.values()) / len(groups),
        "solved": sum(values == {1.0} for values in groups.values()) / len(groups),
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


class Refresh(TrainerCallback):  # type: ignore[misc]
    """Chooses a pool before the first step, and a new one every `refresh` steps."""

    def __init__(self, feed: Feed, processor: Any) -> None:
        self.feed, self.processor = feed, processor

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        self.feed.refill(getattr(model, "module", model), self.processor, state.global_step)

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        step, config = state.global_step, self.feed.config
        if step % config.refresh == 0 and step < config.steps:
            self.feed.refill(getattr(model, "module", model), self.processor, step)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Ends a run that teaches nothing (`reason` says why) or has nothing left to teach (`done`
    does), with a checkpoint.

    Where anything is rewarded beside verdict and form, groups of one verdict still teach: only what
    has collapsed is stopped then.

    A run that was stopped and is resumed is given as many steps again, as far as it has them left;
    at its last step those before the stop count too.
    """

    def __init__(self, config: Grpo) -> None:
        self.refresh = config.refresh if config.pool else 0
        weighed = {name for name, weight in config.rewards.items() if weight}
        self.by_verdict = weighed <= {"accuracy", "structure"}
        self.steps: list[Step] = []
        self.since = 0
        self.reason: str | None = None
        self.done: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = [self._step(logs) for logs in state.log_history if "solved" in logs]
        before = trouble(self.steps)
        if state.global_step >= state.max_steps:
            self.reason = before
        elif before is not None:
            self.since = len(self.steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "solved" not in logs:
            return
        self.steps.append(self._step(logs))
        last = state.global_step >= state.max_steps
        seen = self.steps if last else self.steps[self.since :]
        self.reason, self.done = trouble(seen), done(seen, refresh=self.refresh)
        if self.reason is not None or self.done is not None:
            control.should_save = control.should_training_stop = True

    def _step(self, logs: Mapping[str, Any]) -> Step:
        cut = float(logs.get("completions/clipped_ratio", 0.0))
        dead, solved = (float(logs[name]) * self.by_verdict for name in ("dead", "solved"))
        return Step(float(logs["well_formed"]), cut, float(logs["yes"]), dead, solved)
