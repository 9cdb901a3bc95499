"""Exercises in looking up a pairing: text alone, and no picture.

What goes with a key stands in the rule's own table, and nothing in a picture gives it away. In the
prompts of inspections it is asked for too rarely: after 7,400 steps a model still repeated what it
saw. Given some 40,000 of these it looks up, if the value follows the key at once.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from lad_agent import rationale
from lad_agent.rationale import Facts, Fit, Form
from lad_agent.recipe import Rule
from lad_agent.training.pocket import rules

QUESTIONS = 6
"""Clauses an exercise."""
OWN_TABLES = 0.7
"""Share of exercises in the tables of a product's own rules, their values shuffled; the rest pair
any two attributes."""

Piece = tuple[str, bool]
"""Some of a completion's text, and whether it is taught: what is seen cannot be known here."""


def drawn(
    rng: np.random.Generator, forms: Sequence[Form], values: Mapping[str, Sequence[str]]
) -> tuple[Rule, tuple[Piece, ...]]:
    """A pairing among the attributes of `forms`, two at least, and clauses about drawn values."""
    own = [form for form in forms if isinstance(form, Fit)]
    if own and rng.random() < OWN_TABLES:
        form = rules.shuffled(own[int(rng.integers(len(own)))], rng)
    else:
        subject, other = map(str, rng.choice(rules.attributes(forms), 2, replace=False))
        form = rules.paired(rng, subject, other, Facts(""), values, holds=False)
    rule = Rule(id=f"R{rng.integers(1, 10)}", text=rationale.write_rule(form))
    pieces: list[Piece] = [("<think>", False)]
    for number in range(QUESTIONS):
        _, key = form.pairs[int(rng.integers(len(form.pairs)))]
        seen, _ = form.pairs[int(rng.integers(len(form.pairs)))]
        facts = Facts("", {}, {form.subject: seen, form.other: key})
        said = str(rationale.clause(rule.id, form, facts))
        wanted = f" {form.wanted(key)}"
        key_told, _, rest = said.partition(f" fits{wanted}")
        seen_told, _, end = rest.rpartition(" of ")
        pieces += [(f"{'; ' if number else ''}{key_told} fits", False), (wanted, True)]
        last = number == QUESTIONS - 1
        end = f" {end}</think>" if last else f" {end}"
        pieces += [(f"{seen_told} of", False), (end, True)]
    return rule, tuple(pieces)


def unseen(prompt: str) -> str:
    """A prompt without its picture."""
    return re.sub(r"<\|vision_start\|>.*?<\|vision_end\|>", "", prompt)
