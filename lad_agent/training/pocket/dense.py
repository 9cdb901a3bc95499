"""Dense pretraining of the vision tower: which object is where, in every cell at once.

The text loss hardly reaches a tower that starts from nothing: counting stays at chance after a
hundred thousand samples. Labels for each of 49 cells, and counts for the whole, teach it in
minutes. The heads are kept as the second witness (`lad_agent.reasoners.witness`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration

from lad_agent.cells import CELLS
from lad_agent.rationale import Facts
from lad_agent.reasoners.witness import MOST, ObjectHead, Vocabulary
from lad_agent.training import synloco
from lad_agent.training.pocket import photometric, vocabulary
from lad_agent.training.pocket.architecture import MERGE
from lad_agent.training.pocket.data import Pictures
from lad_agent.training.pocket.optimizers import MuonAndAdamW
from lad_agent.training.pocket.vision import visual_tokens

IGNORE = -100
RARE = -5.0
"""Bias at the start of heads that mostly say no: the first steps are not spent on learning it."""
WORDS = Vocabulary(vocabulary.PRODUCT_NAMES, vocabulary.NOUNS, vocabulary.ATTRIBUTES)


@dataclass(frozen=True)
class DenseConfig:
    """Optimisation of the tower; steps are of `batch` pictures."""

    steps: int = 6000
    batch: int = 16
    learning_rate: float = 2.5e-3
    warmup: int = 200
    decay_share: float = 0.5
    seed: int = 0
    save_every: int = 500


@dataclass(frozen=True)
class Targets:
    """Labels of n pictures: cells [n, 49, nouns, 2] in {0, 1}, classes elsewhere, -100 unknown."""

    cells: Tensor
    product: Tensor
    counts: Tensor
    attributes: Tensor

    def take(self, rows: Tensor) -> "Targets":
        """The labels of some pictures."""
        return Targets(
            self.cells[rows], self.product[rows], self.counts[rows], self.attributes[rows]
        )


def targets(facts: Sequence[Facts], words: Vocabulary = WORDS) -> Targets:
    """Labels for `facts`; counts and attributes of other products' nouns are unknown."""
    cells = torch.zeros(len(facts), len(CELLS), len(words.nouns), 2, dtype=torch.uint8)
    product = torch.zeros(len(facts), dtype=torch.long)
    counts = torch.full((len(facts), len(words.nouns)), IGNORE)
    attributes = torch.full((len(facts), len(words.attributes)), IGNORE)
    names = list(words.attributes)
    for row, fact in enumerate(facts):
        product[row] = words.products.index(fact.product)
        for noun, places in fact.places.items():
            column = words.nouns.index(noun)
            counts[row, column] = min(len(places), MOST)
            for cell in set(places):
                at = CELLS.index(cell)
                cells[row, at, column, 0] = 1
                cells[row, at, column, 1] = places.count(cell) > 1
        for name, value in fact.attributes.items():
            attributes[row, names.index(name)] = words.attributes[name].index(value)
    return Targets(cells, product, counts, attributes)


def train(
    model: Qwen2_5_VLForConditionalGeneration,
    pictures: Pictures,
    config: DenseConfig,
    checkpoint: Path,
    log: Callable[[Mapping[str, float]], None],
    head: ObjectHead | None = None,
) -> ObjectHead:
    """Train tower and heads; go on from `checkpoint` where it exists. Returns the heads.

    `head`, by default new ones for SynLOCO's words, says what the pictures can show.

    The pictures of a step and their exposure depend on seed and step alone, so a resumed run sees
    the same ones.
    Within a torch.distributed group the processes share the pictures of each step and average
    their gradients; the first one saves and logs.
    """
    rank, world = place()
    torch.manual_seed(config.seed)
    width = model.config.text_config.hidden_size
    head = head or ObjectHead(width, WORDS)
    cover = nn.Linear(width, MERGE**2 * len(head.words.nouns))
    for layer in (head.cells, cover):
        nn.init.constant_(layer.bias, RARE)
    net = nn.ModuleDict({"tower": model.model.visual, "head": head, "cover": cover})
    optimizer = _optimizer(net, config)
    done = resume(checkpoint, net, optimizer)
    labels = targets(pictures.facts, head.words)
    for step in range(done, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(step, config)
        rng = np.random.default_rng([config.seed, step])
        rows = rng.integers(0, len(pictures), config.batch)[rank::world]
        positions = range(step * config.batch, (step + 1) * config.batch)[rank::world]
        shown = photometric.exposures(config.seed, positions, pictures.take(rows))
        features = visual_tokens(model, shown)
        parts = losses(head, features, labels.take(torch.from_numpy(rows)))
        parts["cover"] = cover_loss(cover(features), torch.from_numpy(pictures.cover(rows)))
        loss = sum(parts.values(), torch.zeros(()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(optimizer, world)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0 and rank == 0:
            values = {name: part.item() for name, part in parts.items()}
            log({"step": step, **values})
        if rank == 0 and ((step + 1) % config.save_every == 0 or step + 1 == config.steps):
            save(checkpoint, net, optimizer, step + 1)
    return head


def place() -> tuple[int, int]:
    """Rank and number of the processes that train together."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def finished(checkpoint: Path, config: DenseConfig) -> bool:
    """Whether `checkpoint` is that of a training run to its last step."""
    if not checkpoint.exists():
        return False
    with safe_open(checkpoint, "pt") as file:
        return int(file.get_tensor("step")) >= config.steps


def load(
    model: Qwen2_5_VLForConditionalGeneration, checkpoint: Path, words: Vocabulary = WORDS
) -> ObjectHead:
    """Load the tower of `checkpoint` into `model`; returns the heads."""
    tensors = load_file(checkpoint)
    head = ObjectHead(model.config.text_config.hidden_size, words)
    model.model.visual.load_state_dict(under(tensors, "net.tower."))
    head.load_state_dict(under(tensors, "net.head."))
    return head


def cover_loss(logits: Tensor, cover: Tensor) -> Tensor:
    """Cross-entropy with how much of each patch each noun covers, uint8 [batch, 49, 4 x nouns].

    What a patch shows is learned in a few hundred steps, where a centre lies and how many there
    are only after it: this loss gives the tower its first features, and is then thrown away.
    """
    share = cover.float() / 255
    return (
        0.04
        * functional.binary_cross_entropy_with_logits(logits, share, reduction="sum")
        / len(logits)
    )


def losses(head: ObjectHead, features: Tensor, labels: Targets) -> dict[str, Tensor]:
    """Cross-entropies of one batch: cells, position, product, counts, attributes."""
    mean = features.mean(1)
    cells = head.cells(features).unflatten(-1, (-1, 2))
    position = head.position(features).flatten(0, 1)
    counts = head.counts(mean).unflatten(-1, (-1, MOST + 1)).flatten(0, 1)
    attributes = [
        functional.cross_entropy(logits, labels.attributes[:, column], ignore_index=IGNORE)
        for column, logits in enumerate(head.attribute_logits(features))
        if (labels.attributes[:, column] != IGNORE).any()
    ]
    places = torch.arange(len(CELLS)).repeat(len(features))
    return {
        "cells": 0.15
        * functional.binary_cross_entropy_with_logits(cells, labels.cells.float(), reduction="sum")
        / len(features),
        "position": 0.2 * functional.cross_entropy(position, places),
        "product": 0.3 * functional.cross_entropy(head.product(mean), labels.product),
        "counts": functional.cross_entropy(counts, labels.counts.flatten(), ignore_index=IGNORE),
        "attributes": torch.stack(attributes).mean() if attributes else torch.zeros(()),
    }


@torch.inference_mode()
def measure(
    model: Qwen2_5_VLForConditionalGeneration,
    head: ObjectHead,
    pictures: Pictures,
    limit: int,
    nouns: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, float]:
    """Share of pictures of each product read wholly right by the heads: counts and attributes.

    `nouns` maps a product to its nouns, by default those of SynLOCO.
    """
    right: dict[str, list[bool]] = {}
    nouns = nouns or {product: synloco.classes(product) for product in synloco.PRODUCTS}
    for start in range(0, min(limit, len(pictures)), 100):
        rows = np.arange(start, min(start + 100, limit, len(pictures)))
        seen = head.read(visual_tokens(model, pictures.take(rows)), nouns)
        for row, own in zip(rows.tolist(), seen, strict=True):
            fact = pictures.facts[row]
            same = own.product == fact.product and all(
                len(own.places[noun]) == len(fact.places[noun]) for noun in fact.places
            )
            same = same and all(own.attributes[k] == v for k, v in fact.attributes.items())
            right.setdefault(fact.product, []).append(same)
    return {product: float(np.mean(values)) for product, values in sorted(right.items())}


def schedule(step: int, config: DenseConfig) -> float:
    """Linear warm-up, then constant, then linear decay to 2% in the last `decay_share`."""
    warm = min(1.0, (step + 1) / config.warmup)
    left = (config.steps - step) / (config.steps * config.decay_share)
    return warm * min(1.0, max(0.02, left))


def average_gradients(optimizer: torch.optim.Optimizer, world: int) -> None:
    if world == 1:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:  # a process may have drawn no picture with attributes
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
    distributed.all_reduce(flat)
    flat /= world
    start = 0
    for parameter in parameters:
        parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


def _optimizer(net: nn.ModuleDict, config: DenseConfig) -> torch.optim.Optimizer:
    return MuonAndAdamW(net, net["tower"], config.learning_rate)


def save(path: Path, net: nn.ModuleDict, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors["step"] = torch.tensor(step)
    part = path.with_suffix(".part")
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, part)
    part.replace(path)


def resume(path: Path, net: nn.ModuleDict, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    tensors = load_file(path)
    net.load_state_dict(under(tensors, "net."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in under(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({**whole, "state": state})
    return int(tensors["step"])


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
