"""Prompts for the pocket's GRPO: SynLOCO pictures under rules that do not give them away."""

from functools import partial
from typing import cast

import numpy as np
from PIL import Image

from lad_agent import protocol, rationale
from lad_agent.rationale import Facts
from lad_agent.training import synloco
from lad_agent.training.grpo import Prompt, Prompts
from lad_agent.training.pocket import rules
from lad_agent.training.pocket.architecture import IMAGE_SIZE
from lad_agent.training.pocket.data import KINDS, REFERENCES, SHARES, reference
from lad_agent.training.rewards import Case


def prompts(seed: int) -> Prompts:
    """An endless stream of prompts; each depends on the seed and its position alone."""
    return partial(_prompt, seed)


def _prompt(seed: int, position: int) -> Prompt:
    rng = np.random.default_rng([seed, position, 0x6E90])
    product = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    kind = cast(synloco.Kind, str(rng.choice(list(KINDS), p=list(KINDS.values()))))
    drawn = synloco.plan(product, seed + 3, position, "train", kind)
    # Cells do not matter to rules: any will do where only the numbers are known yet.
    facts = Facts(product, {n: ["A1"] * c for n, c in drawn.counts.items()}, drawn.attributes)
    asked, chosen = rules.for_picture(rng, facts)
    bad = [clause for clause in rationale.clauses(asked, chosen, facts) if not clause.ok]
    number = int(rng.integers(REFERENCES))

    def images() -> tuple[Image.Image, Image.Image]:
        sample = synloco.sample(product, seed + 3, position, "train", IMAGE_SIZE, kind)
        normal = reference(asked, seed + 2, number)
        return Image.fromarray(normal), Image.fromarray(sample.photo.image)

    rule = next((clause.rule for clause in bad), None)
    return Prompt(
        protocol.messages(asked, chosen),
        images,
        Case(asked, tuple(chosen), bool(bad), rule),
    )
