"""Prompt out, answer in: the one source of messages and answers for training and serving.

Messages are in the chat format of transformers' processors: one or more normal reference images,
the rules with their ids, then the query image last, so that everything before it is a prefix
shared by all inspections of a recipe. The answer is

    <think>rationale</think><answer>yes|no</answer>

with yes meaning anomalous, as in LAD-Reasoner (arXiv 2504.12749).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lad_agent.recipe import Rule

SYSTEM = (
    "Check the query against every rule and the reference. "
    "Reply <think>findings</think><answer>yes</answer> if it is anomalous, else answer no."
)

Message = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A well-formed answer: `anomalous` is its verdict, `rationale` what stands in think."""

    anomalous: bool
    rationale: str


def messages(product: str, rules: Sequence[Rule], references: int = 1) -> list[Message]:
    """System and user message for one inspection; images are placeholders, references first.

    The caller hands the images to the processor in the same order: references, then query.
    """
    content: list[Message] = [_text(f"Product: {_words(product)}\nReference:")]
    content += [{"type": "image"} for _ in range(references)]
    lines = [f"{rule.id} {rule.text}" for rule in rules] or ["none"]
    content += [_text("Rules:\n" + "\n".join(lines) + "\nQuery:"), {"type": "image"}]
    return [{"role": "system", "content": [_text(SYSTEM)]}, {"role": "user", "content": content}]


def caption_messages(subjects: Sequence[str]) -> list[Message]:
    """Messages that ask what is in one picture, with no rules and no reference (training only)."""
    content = [_text("List: " + ", ".join(subjects) + "\nQuery:"), {"type": "image"}]
    return [{"role": "system", "content": [_text(SYSTEM)]}, {"role": "user", "content": content}]


def answer_text(rationale: str, anomalous: bool) -> str:
    """The completion that training supervises; the inverse of `parse`.

    >>> answer_text("R1 nuts: 0 of 2 bad", True)
    '<think>R1 nuts: 0 of 2 bad</think><answer>yes</answer>'
    """
    return f"<think>{rationale}</think><answer>{'yes' if anomalous else 'no'}</answer>"


def caption_text(listing: str) -> str:
    """The completion of a caption: what is seen, and no verdict."""
    return f"<think>{listing}</think>"


_ANSWER = re.compile(
    r"\s*<think>(?P<think>.*?)</think>\s*<answer>\s*(?P<verdict>yes|no)\s*</answer>\s*",
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
_TAG = re.compile(r"<\s*/?\s*(?:think|answer)\b", re.IGNORECASE)


def parse(text: str) -> Answer | None:
    """Read an answer strictly: exactly one think block, then exactly one answer of yes or no.

    White space around the blocks and upper or lower case are forgiven, nothing else. Anything
    else is None: a malformed answer never yields a verdict.
    """
    match = _ANSWER.fullmatch(text)
    if match is None or _TAG.search(match["think"]) or not match["think"].strip():
        return None
    return Answer(match["verdict"].lower() == "yes", match["think"].strip())


def verdict_span(text: str) -> tuple[int, int] | None:
    """Character span of the verdict word in a well-formed answer, else None."""
    match = _ANSWER.fullmatch(text)
    return match.span("verdict") if match and parse(text) else None


def spells(token: str) -> bool | None:
    """Whether a decoded token spells yes (True) or no (False), in any case or spacing.

    >>> [spells(t) for t in ("yes", " No", "not", "")]
    [True, False, None, None]
    """
    return {"yes": True, "no": False}.get(token.strip().lower())


def anomaly_score(logprobs: Mapping[str, float]) -> float | None:
    """P(yes) against P(no) from the log-probabilities of decoded tokens at the verdict.

    All spellings are summed: yes / (yes + no). None where neither has any probability.
    """
    mass = {True: 0.0, False: 0.0}
    for token, logprob in logprobs.items():
        side = spells(token)
        if side is not None and not math.isnan(logprob):
            mass[side] += math.exp(logprob)
    total = mass[True] + mass[False]
    return mass[True] / total if total > 0.0 else None


def _text(text: str) -> Message:
    return {"type": "text", "text": text}


def _words(product: str) -> str:
    return product.replace("_", " ")
