"""What an answer is held against."""

from dataclasses import dataclass

from lad_agent.recipe import Rule


@dataclass(frozen=True)
class Case:
    """A prompt's truth: the verdict, the broken rule where it is known, and the prompt's rules."""

    product: str
    rules: tuple[Rule, ...]
    anomalous: bool
    rule: str | None = None
