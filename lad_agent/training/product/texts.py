"""What a model is taught to say about a kit's pictures, and the words it needs for it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from lad_agent import rationale
from lad_agent.rationale import Count, Fit
from lad_agent.training.pocket import rules
from lad_agent.training.pocket.sft import (
    LOOKUPS,
    Features,
    Sample,
    Stage,
    any_of,
    described,
    exercise,
    inspected,
)
from lad_agent.training.product.kit import Kit

OWN_RULES = 0.3
"""Share of prompts with the recipe's very rules; in all others some are changed, or left out."""


def draw(
    kit: Kit,
    rng: np.random.Generator,
    row: int,
    stage: Stage,
    queries: Features,
    references: dict[str, Tensor],
    processor: Any,
) -> Sample:
    """A text about a picture; of a kit with pairings an exercise in looking up now and then."""
    if stage == "rules" and _pairs(kit) and rng.random() < LOOKUPS:
        return exercise(rng, kit.product, kit.forms, kit.values, processor)
    return sample(kit, rng, row, stage, queries, references, processor)


def sample(
    kit: Kit,
    rng: np.random.Generator,
    row: int,
    stage: Stage,
    queries: Features,
    references: dict[str, Tensor],
    processor: Any,
) -> Sample:
    """The text of one picture, drawn anew each time it comes up: a caption, or an inspection."""
    facts, query = queries.facts[row], queries.tokens[row]
    if stage == "captions":
        names = [*kit.nouns, *kit.things]
        if rng.random() < 0.5:
            names = [names[i] for i in rng.permutation(len(names))]
            names = names[: int(rng.integers(1, len(names) + 1))]
        return described(facts, names, query, processor)
    chosen = list(kit.recipe.rules)
    if rng.random() >= OWN_RULES:
        chosen = rules.mixed(rng, kit.forms, facts, kit.values)
    images = (*any_of(rng, references[kit.product], kit.recipe.references_shown), query)
    return inspected(kit.product, chosen, facts, images, processor)


def _pairs(kit: Kit) -> bool:
    return any(isinstance(form, Fit) for form in kit.forms)


def words(kit: Kit) -> Iterator[str]:
    """All that prompts and rationales can say of the kit, as it stands in them."""
    yield f" {kit.product.replace('_', ' ')}"
    for noun in kit.nouns:
        yield f" {noun}"
        yield f" {rationale.write_rule(Count(noun, 1))}"
    for subject, values in kit.values.items():
        yield f" {subject} {' '.join(values)}"
    for number, rule in enumerate(kit.recipe.rules, 1):
        yield from (f" {rule.text}", f" {rule.id}", rule.id, f" R{number}", f"R{number}")
