"""The last stage of the pocket: tower, heads and language model learn together.

The stages before it teach the tower from labels of cells, and the language model from a tower that
stands still. Here the loss of the rationale reaches the tower too, which learns to see what the
text has to tell. The labels of the cells stay in the loss, so that the heads stay a witness.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, nn
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from lad_agent import rationale
from lad_agent.rationale import NOTHING, Facts
from lad_agent.reasoners.witness import ObjectHead
from lad_agent.training import synloco
from lad_agent.training.pocket import data, dense, photometric, rules, sft
from lad_agent.training.pocket.architecture import TOKENS
from lad_agent.training.pocket.data import Pictures
from lad_agent.training.pocket.dense import DenseConfig
from lad_agent.training.pocket.optimizers import MuonAndAdamW
from lad_agent.training.pocket.vision import visual_tokens
from lad_agent.training.synloco.scene import DAMAGE

PARTS = 2
"""Parts of a process's share of a step, each padded to its own longest text."""
DENSE_SHARE = 0.2
"""Weight of the heads' losses beside that of the text."""
LOGGED = 20
"""Steps that one line of the log is the mean of."""
REFRESH = 100
"""Steps after which there are other references, so that none is learned by heart. Their tokens are
read once, without a gradient."""


def train(
    model: Qwen2_5_VLForConditionalGeneration,
    head: ObjectHead,
    processor: Any,
    pictures: Pictures,
    config: DenseConfig,
    checkpoint: Path,
    log: Callable[[Mapping[str, float]], None],
    references_seed: int,
) -> None:
    """Train model and heads; go on from `checkpoint` where it exists.

    A step is of `batch` prompts, each about a picture of its own. Pictures, texts and their
    exposure depend on seed and step alone, so a resumed run sees the same ones. Within a
    torch.distributed group the processes share each step and average their gradients; the first
    one saves and logs.
    """
    rank, world = dense.place()
    language = model.model.language_model
    net = nn.ModuleDict({"tower": model.model.visual, "head": head, "language": language})
    hidden = nn.ModuleList([model.model.visual, language.layers])
    optimizer = MuonAndAdamW(net, hidden, config.learning_rate)
    done = dense.resume(checkpoint, net, optimizer)
    labels = dense.targets(pictures.facts, head.words)
    weights = balanced(pictures.facts)
    sums: defaultdict[str, float] = defaultdict(float)
    for step in range(done, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * dense.schedule(step, config)
        if step == done or step % REFRESH == 0:
            known = _references(model, references_seed, step // REFRESH)
        drawn = _drawn(config, step, pictures, weights, known, processor)
        optimizer.zero_grad(set_to_none=True)
        for part in shares(drawn, rank, world):
            values = losses(model, head, processor, pictures, labels, part, config.seed)
            total = sum(values.values(), torch.zeros(())) * (len(part) * world / config.batch)
            total.backward()  # type: ignore[no-untyped-call]
            for name, value in values.items():
                sums[name] += value.item() * len(part) / (config.batch * LOGGED)
        dense.average_gradients(optimizer, world)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % LOGGED == 0:
            told = _sum(sums, world)
            sums.clear()
            if rank == 0:
                log({"step": step + 1, **told})
        if rank == 0 and ((step + 1) % config.save_every == 0 or step + 1 == config.steps):
            dense.save(checkpoint, net, optimizer, step + 1)


def load(model: Qwen2_5_VLForConditionalGeneration, head: ObjectHead, checkpoint: Path) -> None:
    """Load what `train` has left in `checkpoint`."""
    parts = {"tower": model.model.visual, "head": head, "language": model.model.language_model}
    tensors = load_file(checkpoint)
    for name, part in parts.items():
        part.load_state_dict(dense.under(tensors, f"net.{name}."))


@dataclass(frozen=True)
class Drawn:
    """One prompt of a step: the picture it is about, its place in the order, its text."""

    picture: int
    position: int
    sample: sft.Sample
    length: int


def shares(drawn: Sequence[Drawn], rank: int, world: int) -> list[list[Drawn]]:
    """The parts of a step that one process takes: as many tokens as the others, little padding.

    Prompts by length, dealt in turns, one half from the long ones and one from the short ones.
    """
    by_length = sorted(drawn, key=lambda one: (one.length, one.position))
    size = -(-len(by_length) // PARTS)
    halves = [by_length[start : start + size] for start in range(0, len(by_length), size)]
    return [half[rank::world] for half in halves if half[rank::world]]


def losses(
    model: Qwen2_5_VLForConditionalGeneration,
    head: ObjectHead,
    processor: Any,
    pictures: Pictures,
    labels: dense.Targets,
    part: Sequence[Drawn],
    seed: int,
) -> dict[str, Tensor]:
    """Cross-entropy of the texts, and the heads' losses by their weight."""
    rows = np.array([one.picture for one in part])
    positions = [one.position for one in part]
    pixels = photometric.exposures(seed, positions, pictures.take(rows))
    features = visual_tokens(model, pixels)
    seen = dense.losses(head, features, labels.take(torch.from_numpy(rows)))
    inputs = sft.collate([one.sample for one in part], processor.tokenizer)
    tokens = [
        tokens
        for one, query in zip(part, features, strict=True)
        for tokens in _shown(one.sample, query)
    ]
    if tokens:
        inputs["mm_encoder_outputs"] = {
            "image": BaseModelOutputWithPooling(pooler_output=tuple(tokens))
        }
    return {
        "text": model(**inputs).loss,
        **{name: DENSE_SHARE * value for name, value in seen.items()},
    }


def _shown(sample: sft.Sample, query: Tensor) -> list[Tensor]:
    """The tokens of a prompt's images, those of its picture with their gradient."""
    kept = [image.to(torch.float32) for image in sample.images[:-1]]
    return [*kept, query] if sample.images else []


def balanced(facts: Sequence[Facts]) -> npt.NDArray[np.float64]:
    """How often each picture comes up, as shares of 1: of every product good ones, those that break
    one rule of parts, and those that are damaged and else good as often as each other.

    The tower's pictures have damage three times as often, to learn from. A model that cannot tell
    leans to what is more common.
    """
    kinds = [(one.product, _broken(one)) for one in facts]
    groups = Counter((product, _group(broken)) for product, broken in kinds)
    weights = np.ones(len(facts))
    for row, (product, broken) in enumerate(kinds):
        group = _group(broken)
        damaged = groups[product, "damaged"]
        if group is not None and damaged:
            weights[row] = damaged / groups[product, group]
    return np.asarray(weights / weights.sum(), np.float64)


def _group(broken: frozenset[str]) -> str | None:
    """What a picture of these broken rules is balanced as; None for all that break more."""
    if not broken:
        return "good"
    if len(broken) > 1:
        return None
    return "damaged" if DAMAGE in broken else "one rule"


_forms = cache(rules.forms)


def _broken(facts: Facts) -> frozenset[str]:
    """The subjects of the shipped rules that a picture breaks; of no product's picture none."""
    if facts.product == NOTHING:
        return frozenset()
    said = (rationale.clause("R1", form, facts) for form in _forms(facts.product))
    return frozenset(clause.subject for clause in said if not clause.ok)


def _drawn(
    config: DenseConfig,
    step: int,
    pictures: Pictures,
    weights: npt.NDArray[np.float64],
    references: dict[str, Tensor],
    processor: Any,
) -> list[Drawn]:
    chance = np.random.default_rng([config.seed, step])
    rows = chance.choice(len(pictures), config.batch, p=weights)
    blank = torch.zeros(TOKENS, next(iter(references.values())).shape[-1])
    out = []
    for offset, row in enumerate(rows.tolist()):
        position = step * config.batch + offset
        facts = sft.Features(blank[None], (pictures.facts[row],))
        rng = np.random.default_rng([config.seed, position])
        sample = sft.text(rng, 0, "rules", facts, references, processor)
        text = sample.prompt + sample.completion
        out.append(Drawn(row, position, sample, len(text)))
    return out


def _references(
    model: Qwen2_5_VLForConditionalGeneration, seed: int, turn: int
) -> dict[str, Tensor]:
    """Tokens of the references of each product, others each turn."""
    numbers = range(turn * data.REFERENCES, (turn + 1) * data.REFERENCES)
    out = {}
    for product in synloco.PRODUCTS:
        normal = Pictures((np.stack([_exposed(product, seed, n) for n in numbers]),), (), ())
        out[product] = sft.tokens(model, normal, np.arange(len(numbers)))
    return out


def _exposed(product: str, seed: int, number: int) -> data.Pixels:
    rng = np.random.default_rng([seed, number, 2])
    return photometric.exposed(rng, data.reference(product, seed, number))


def _sum(sums: Mapping[str, float], world: int) -> dict[str, float]:
    """The sums of all processes."""
    values = torch.tensor([sums[name] for name in sorted(sums)])
    if world > 1:
        distributed.all_reduce(values)
    return dict(zip(sorted(sums), values.tolist(), strict=True))
