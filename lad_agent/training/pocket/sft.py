"""Supervised fine-tuning of the language model on the frozen tower's tokens, with TRL.

Three stages. Look-ups: text alone, what a table pairs with a value. Captions: list what is in one
picture, with no rules to copy from, until the listing is as good as the tower's own head. Rules:
the very messages of an inspection, reference and all, with rules independent of the picture. The
tower's tokens are computed once a picture and handed to the model as `mm_encoder_outputs`;
everything else is what serving does.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from torch import Tensor, distributed
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from lad_agent import protocol, rationale
from lad_agent.cells import CELLS
from lad_agent.rationale import NOTHING, Facts, Form
from lad_agent.reasoners.witness import ObjectHead
from lad_agent.recipe import Rule
from lad_agent.training import runs
from lad_agent.training.callbacks import Checkpoints
from lad_agent.training.pocket import lookups, rules
from lad_agent.training.pocket.architecture import PATCHES_A_SIDE, TOKENS
from lad_agent.training.pocket.data import Pictures
from lad_agent.training.pocket.lookups import Piece
from lad_agent.training.pocket.optimizers import MuonAndAdamW
from lad_agent.training.pocket.vision import visual_tokens
from lad_agent.training.pocket.vocabulary import ATTRIBUTES
from lad_agent.training.synloco import PRODUCTS

IGNORE = -100
Stage = Literal["lookups", "captions", "rules"]
LOOKUPS = 0.15
"""Share of exercises in looking up among other prompts, so that it is kept."""
PAIRED = tuple(p for p in PRODUCTS if len(rules.attributes(rules.forms(p))) > 1)
"""The products with attributes to pair."""


@dataclass(frozen=True)
class SftConfig:
    """Optimisation of the language model; steps are of `batch` prompts."""

    stage: Stage
    steps: int
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: int = 100
    decay_share: float = 0.5
    seed: int = 0
    save_every: int = 300


@dataclass(frozen=True)
class Features:
    """Visual tokens of pictures, float16 [n, 49, width], with what is in them."""

    tokens: Tensor
    facts: tuple[Facts, ...]


NO_PICTURES = Features(torch.zeros(1, TOKENS, 1), (Facts(NOTHING),))
"""In place of pictures where texts are of none."""


@dataclass(frozen=True)
class Sample:
    """One training text: prompt, completion and the visual tokens of its images, in order.

    Of a completion whose `pieces` are given only those are taught that say so.
    """

    prompt: str
    completion: str
    images: tuple[Tensor, ...]
    pieces: tuple[Piece, ...] = ()


@torch.inference_mode()
def tokens(
    model: Qwen2_5_VLForConditionalGeneration, pictures: Pictures, rows: npt.NDArray[np.int64]
) -> Tensor:
    """The tower's tokens of the pictures at `rows`: float16 [rows, 49, width]."""
    return torch.cat(
        [
            visual_tokens(model, pictures.take(rows[start : start + 64])).to(torch.float16)
            for start in range(0, len(rows), 64)
        ]
    )


def shared_tokens(
    model: Qwen2_5_VLForConditionalGeneration, pictures: Pictures, rows: npt.NDArray[np.int64]
) -> Tensor:
    """`tokens`, of which every process of a torch.distributed group makes its share; rows in equal
    shares."""
    if not distributed.is_initialized():
        return tokens(model, pictures, rows)
    shares = np.split(rows, distributed.get_world_size())
    own = tokens(model, pictures, shares[distributed.get_rank()])
    parts = [torch.empty_like(own) for _ in shares]
    distributed.all_gather(parts, own)
    return torch.cat(parts)


def sample(
    rng: np.random.Generator,
    row: int,
    stage: Stage,
    queries: Features,
    references: dict[str, Tensor],
    processor: Any,
) -> Sample:
    """The text of one picture, drawn anew each time it comes up."""
    facts, query = queries.facts[row], queries.tokens[row]
    if stage == "captions":
        names = rules.subjects(facts.product) if facts.product != NOTHING else ["washers"]
        names = [names[i] for i in rng.permutation(len(names))] if rng.random() < 0.5 else names
        if rng.random() < 0.5:
            names = names[: int(rng.integers(1, len(names) + 1))]
        return described(facts, names, query, processor)
    product, chosen = rules.for_picture(rng, facts)
    if rng.random() < 0.03:
        product, chosen = facts.product if facts.product != NOTHING else "screw_bag", []
    shown = 0 if not chosen and rng.random() < 0.5 else 1
    images = (*any_of(rng, references[product], shown), query)
    return inspected(product, chosen, facts, images, processor)


def any_of(rng: np.random.Generator, pool: Tensor, number: int) -> list[Tensor]:
    """So many of the pool, each drawn from all of it."""
    return [pool[int(rng.integers(len(pool)))] for _ in range(number)]


def described(facts: Facts, names: Sequence[str], query: Tensor, processor: Any) -> Sample:
    """A picture, and what is seen of `names`."""
    messages = protocol.caption_messages(names)
    return _asked(messages, protocol.caption_text(caption(facts, names)), (query,), processor)


def inspected(
    product: str,
    chosen: Sequence[Rule],
    facts: Facts,
    images: tuple[Tensor, ...],
    processor: Any,
) -> Sample:
    """A picture under rules, the last of `images`, after the references: verdict and reasons."""
    statements = rationale.clauses(product, chosen, facts)
    anomalous = any(not statement.ok for statement in statements)
    messages = protocol.messages(product, chosen, len(images) - 1)
    completion = protocol.answer_text(rationale.write(statements), anomalous)
    return _asked(messages, completion, images, processor)


def _asked(
    messages: list[dict[str, Any]], completion: str, images: tuple[Tensor, ...], processor: Any
) -> Sample:
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return Sample(prompt, completion, images)


def text(
    rng: np.random.Generator,
    row: int,
    stage: Stage,
    queries: Features,
    references: dict[str, Tensor],
    processor: Any,
) -> Sample:
    """A text about a picture, or an exercise in looking up."""
    share = 1.0 if stage == "lookups" else LOOKUPS
    if rng.random() < share:
        product = str(rng.choice(PAIRED))
        return exercise(rng, product, rules.forms(product), ATTRIBUTES, processor)
    return sample(rng, row, stage, queries, references, processor)


def exercise(
    rng: np.random.Generator,
    product: str,
    forms: Sequence[Form],
    values: Mapping[str, Sequence[str]],
    processor: Any,
) -> Sample:
    """Text alone: a pairing of the product's, and what it wants of values that are drawn."""
    rule, pieces = lookups.drawn(rng, forms, values)
    told = "".join(text for text, _ in pieces)
    asked = _asked(protocol.messages(product, [rule], 0), told, (), processor)
    return replace(asked, prompt=lookups.unseen(asked.prompt), pieces=pieces)


def caption(facts: Facts, names: Sequence[str]) -> str:
    """What is seen of `names`, e.g. `product: screw bag; washers at B2, D4: 2; nuts: 0`."""
    out = [f"product: {facts.product.replace('_', ' ')}"]
    if facts.product == NOTHING:
        return out[0]
    for name in names:
        if name in facts.places:
            cells = sorted(facts.places[name], key=CELLS.index)
            out.append(f"{name}{rationale.at(cells)}: {len(cells)}")
        else:
            out.append(f"{name}: {facts.attributes[name]}")
    return "; ".join(out)


Draw = Callable[
    [np.random.Generator, int, Stage, Features, dict[str, Tensor], Any],
    Sample,
]
"""One text, as `text` draws it."""


class Collator:
    """From picture numbers to a batch: texts drawn by (seed, position), right-padded."""

    def __init__(
        self,
        stage: Stage,
        queries: Features,
        references: dict[str, Tensor],
        processor: Any,
        seed: int,
        draw: Draw = text,
    ) -> None:
        self.stage: Stage = stage
        self.queries, self.references = queries, references
        self.processor, self.seed, self.draw = processor, seed, draw

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        samples = []
        for row in rows:
            rng = np.random.default_rng([self.seed, row["position"]])
            samples.append(
                self.draw(
                    rng, row["picture"], self.stage, self.queries, self.references, self.processor
                )
            )
        return collate(samples, self.processor.tokenizer)


def collate(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Token ids, labels on completions alone, and the visual tokens in the model's own form."""
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    wide = "<|image_pad|>" * TOKENS
    prompts = tokenizer(
        [s.prompt.replace("<|image_pad|>", wide) for s in samples], add_special_tokens=False
    )["input_ids"]
    taught = [_taught(sample, tokenizer) for sample in samples]
    texts = [p + ids + [end] for p, (ids, _) in zip(prompts, taught, strict=True)]
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), pad)
    labels = torch.full((len(texts), longest), IGNORE)
    mask = torch.zeros(len(texts), longest, dtype=torch.long)
    for row, (text, prompt, (_, told)) in enumerate(zip(texts, prompts, taught, strict=True)):
        ids[row, : len(text)] = torch.tensor(text)
        labels[row, len(prompt) : len(text)] = torch.tensor([*told, end])
        mask[row, : len(text)] = 1
    seen = tuple(tokens.to(torch.float32) for s in samples for tokens in s.images)
    texts_alone = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if not seen:
        return texts_alone
    grid = torch.tensor([[1, PATCHES_A_SIDE, PATCHES_A_SIDE]]).repeat(len(seen), 1)
    return {
        **texts_alone,
        "mm_token_type_ids": (ids == image).long(),
        "image_grid_thw": grid,
        "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=seen)},
    }


def _taught(sample: Sample, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """The completion's tokens, and the same as labels."""
    ids: list[int] = []
    labels: list[int] = []
    for text, told in sample.pieces or ((sample.completion, True),):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += tokens
        labels += tokens if told else [IGNORE] * len(tokens)
    return ids, labels


@torch.no_grad()
def ground(model: Qwen2_5_VLForConditionalGeneration, head: ObjectHead, tokenizer: Any) -> None:
    """Start the embeddings of cells, nouns and values from the head's weights for them.

    The head reads the very tokens that the language model attends to: a word whose embedding
    points where its evidence lies is found, and copied, from the first step on. Scaled to the
    length of a fresh embedding.
    """
    table = model.model.language_model.embed_tokens.weight
    length = table.norm(dim=1).median()
    words: dict[str, list[Tensor]] = {}
    for cell, row in zip(CELLS, head.position.weight, strict=True):
        words.setdefault(cell, []).append(row)
    for noun, row in zip(head.words.nouns, head.cells.weight[0::2], strict=True):
        words.setdefault(noun.split()[0], []).append(row)
    values = [v for options in head.words.attributes.values() for v in options]
    for value, row in zip(values, head.attributes.weight, strict=True):
        words.setdefault(value, []).append(row)
    for product, row in zip(head.words.products, head.product.weight, strict=True):
        words.setdefault(product.split("_")[0], []).append(row)
    for word, rows in words.items():
        ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            mean = torch.stack(rows).mean(0)
            table[ids[0]] = mean / mean.norm() * length


def train(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Any,
    queries: Features,
    references: dict[str, Tensor],
    config: SftConfig,
    directory: Path,
    callbacks: Sequence[Any] = (),
    draw: Draw = text,
) -> list[dict[str, float]]:
    """Run one stage with TRL's SFTTrainer; goes on from the last whole checkpoint in `directory`.

    Returns the trainer's log. The tower's parameters are left as they are. Within a
    torch.distributed group the processes share the prompts of each step. `draw` makes the texts.
    """
    from transformers import PrinterCallback
    from trl import SFTConfig as TrlConfig
    from trl import SFTTrainer

    from lad_agent.training.resuming import resumable

    for parameter in model.model.visual.parameters():
        parameter.requires_grad_(False)
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    order = np.random.default_rng([config.seed, 1]).integers(
        0, len(queries.facts), config.steps * config.batch
    )
    rows = Dataset.from_dict({"position": list(range(len(order))), "picture": order.tolist()})
    arguments = TrlConfig(
        output_dir=str(directory),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch // world,
        learning_rate=config.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        warmup_steps=config.warmup,
        lr_scheduler_kwargs={"num_decay_steps": int(config.steps * config.decay_share)},
        max_grad_norm=1.0,
        seed=config.seed,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        ddp_find_unused_parameters=False,
        max_length=None,
        report_to="none",
        logging_steps=20,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        disable_tqdm=True,
    )
    language = model.model.language_model
    optimizer = MuonAndAdamW(language, language.layers, config.learning_rate)
    trainer = resumable(SFTTrainer)(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=processor,
        data_collator=Collator(config.stage, queries, references, processor, config.seed, draw),
        callbacks=[Checkpoints(), *callbacks],
        optimizers=(optimizer, None),
    )
    trainer.remove_callback(PrinterCallback)
    if runs.first_process():
        _mark_older(directory)
        runs.drop_half_written(directory)
    if distributed.is_initialized():
        distributed.barrier()
    last = runs.last_checkpoint(directory)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    return list(trainer.state.log_history)


def _mark_older(directory: Path) -> None:
    """In a folder from before checkpoints were marked, mark those that are whole: transformers
    writes trainer_state.json last."""
    if runs.last_checkpoint(directory) is None:
        for path in runs.half_written(directory):
            with suppress(OSError, ValueError):
                json.loads((path / "trainer_state.json").read_bytes())
                (path / runs.WHOLE).touch()
