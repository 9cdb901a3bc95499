"""The second witness: the object head of the pocket's tower, kept after dense pretraining.

It reads the same visual tokens as the language model, through linear layers of its own: which
product, how many parts of each noun, the value of each attribute, and which nouns stand in which
cell. It can only contradict: a part that the rationale and the witness see differently goes to a
person.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lad_agent import rationale
from lad_agent.cells import CELLS
from lad_agent.rationale import NOTHING, Facts
from lad_agent.recipe import Rule

MOST = 15
"""The largest number of parts of one noun that the heads can tell."""

SURE = 0.97
"""How probable a product must be to the witness, which doubts it where something hides a part. Of
plain validation pictures within the ranges of training 1% lie below, of no product more than 2%."""


@dataclass(frozen=True)
class Vocabulary:
    """What the heads can name; the order is that of their outputs."""

    products: tuple[str, ...]
    nouns: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]


class ObjectHead(nn.Module):
    """Linear heads over merged visual tokens [batch, cells, width].

    `cells` [.., nouns x 2] are logits of at least one and at least two parts of a noun in a
    cell; `position` [.., cells] names the cell itself; `product` and `counts`
    [.., nouns x (MOST + 1)] read the mean token, `attributes` the mean weighted by `attention`.
    """

    def __init__(self, width: int, words: Vocabulary) -> None:
        super().__init__()
        self.words = words
        self.cells = nn.Linear(width, 2 * len(words.nouns))
        self.position = nn.Linear(width, len(CELLS))
        self.product = nn.Linear(width, len(words.products))
        self.counts = nn.Linear(width, len(words.nouns) * (MOST + 1))
        with warnings.catch_warnings():
            # A product may have no attributes, and these heads no outputs.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.attention = nn.Linear(width, len(words.attributes))
            self.attributes = nn.Linear(width, sum(len(v) for v in words.attributes.values()))

    def attribute_logits(self, features: Tensor) -> list[Tensor]:
        """Logits [batch, values] of each attribute, pooled over cells by its own attention."""
        share = self.attention(features).softmax(1)
        sizes = [len(values) for values in self.words.attributes.values()]
        split = self.attributes(features).split(sizes, -1)
        return [(share[..., column, None] * logits).sum(1) for column, logits in enumerate(split)]

    def read(
        self, features: Tensor, nouns: Mapping[str, Sequence[str]], sure: float = 0.0
    ) -> list[Facts]:
        """What the heads see in each picture; `nouns` maps a product to its nouns.

        A product less probable than `sure` is not named: there is nothing, to them.
        A count is the one that count head and cells together make most probable: the first leans
        to numbers it has met often, the second counts twice what lies on the border of two cells.
        Its cells are the noun's most probable ones, as many as that.
        """
        mean = features.mean(1)
        most, product = self.product(mean).softmax(-1).max(-1)
        cells = self.cells(features).unflatten(-1, (-1, 2)).sigmoid()
        summed = number_of_parts(cells.transpose(1, 2).flatten(2))
        counts = self.counts(mean).unflatten(-1, (-1, MOST + 1)).softmax(-1)
        counts = (counts * summed).argmax(-1).tolist()
        values = [logits.argmax(-1).tolist() for logits in self.attribute_logits(features)]
        out = []
        for row, (number, probable) in enumerate(zip(product.tolist(), most.tolist(), strict=True)):
            name = self.words.products[number] if probable >= sure else NOTHING
            places = {}
            for noun in nouns.get(name, ()):
                index = self.words.nouns.index(noun)
                wanted = counts[row][index]
                order = cells[row, :, index, :].flatten().topk(min(wanted, 2 * len(CELLS)))
                places[noun] = [CELLS[i // 2] for i in sorted(order.indices.tolist())]
            attributes = {
                subject: options[value[row]]
                for (subject, options), value in zip(
                    self.words.attributes.items(), values, strict=True
                )
            }
            out.append(Facts(name, places, attributes))
        return out


def number_of_parts(present: Tensor) -> Tensor:
    """How many of independent events happen, from their probabilities [.., events].

    Probabilities [.., MOST + 1] of 0, 1, .. and MOST or more: the Poisson binomial distribution,
    one event after the other.
    """
    out = torch.zeros(*present.shape[:-1], MOST + 1, dtype=present.dtype, device=present.device)
    out[..., 0] = 1.0
    for event in present.unbind(-1):
        more = out.roll(1, -1)
        more[..., 0] = 0.0
        more[..., -1] += out[..., -1]
        out = torch.lerp(out, more, event[..., None])
    return out


@dataclass(frozen=True)
class Witness:
    """The heads with what each product's picture can show."""

    head: ObjectHead
    nouns: Mapping[str, tuple[str, ...]]

    def facts(self, features: Tensor) -> list[Facts]:
        """What the heads see, from visual tokens [batch, cells, width]; no product but where they
        are sure of it."""
        with torch.inference_mode():
            return self.head.read(features.to(self.head.position.weight), self.nouns, SURE)

    def contradiction(
        self, seen: Facts, product: str, rules: Sequence[Rule], text: str
    ) -> str | None:
        """How the heads' facts contradict a rationale, in words; None where they agree."""
        said = rationale.read(text)
        if not said:
            return None
        if said[0].ok != (seen.product == product):
            if seen.product == NOTHING:
                return "the object head is not sure of the product"
            return f"the object head sees {seen.product}"
        claims = {statement.rule: statement for statement in said[1:]}
        for rule in rules:
            form = rationale.read_rule(rule.text)
            claim = claims.get(rule.id)
            if form is None or claim is None:
                continue
            own = rationale.clause(rule.id, form, seen)
            if own.ok != claim.ok:
                return f"{rule.id}: the object head counts {own.observed}, not {claim.observed}"
        return None


def load_witness(folder: Path) -> Witness | None:
    """The witness kept with the model in `folder`, None where it keeps none."""
    described = folder / "witness.json"
    if not described.exists():
        return None
    data = json.loads(described.read_text(encoding="utf-8"))
    words = Vocabulary(
        tuple(data["products"]),
        tuple(data["nouns"]),
        {name: tuple(values) for name, values in data["attributes"].items()},
    )
    head = ObjectHead(data["width"], words)
    head.load_state_dict(load_file(folder / "witness.safetensors"))
    nouns = {product: tuple(names) for product, names in data["product_nouns"].items()}
    return Witness(head.eval(), nouns)
