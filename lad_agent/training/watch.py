"""What goes wrong in GRPO without a word, told in words: a collapse costs hours, not an error."""

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 10
"""Steps that must all look bad before a run is stopped."""


@dataclass(frozen=True)
class Step:
    """Shares in one optimisation step: of answers that are well-formed, cut off at the token
    limit, or say yes (of the well-formed), of groups whose accuracy is all alike, and of those
    whose answers are all right."""

    well_formed: float
    truncated: float
    yes: float
    dead: float
    solved: float


def trouble(steps: Sequence[Step]) -> str | None:
    """Why the last WINDOW steps teach nothing or the wrong thing, with the remedy; else None.

    >>> fine = Step(well_formed=1.0, truncated=0.0, yes=0.5, dead=0.4, solved=0.3)
    >>> trouble([fine] * 20) is None
    True
    >>> trouble([fine] * 20 + [Step(1.0, 0.0, 1.0, 0.4, 0.3)] * 10)
    'every answer says yes: half of the prompts do not; lower learning_rate or raise beta'
    """
    last = steps[-WINDOW:]
    if len(last) < WINDOW:
        return None
    if all(step.truncated >= 0.9 for step in last):
        return "answers are cut off at the token limit: raise max_completion"
    if all(step.well_formed <= 0.02 for step in last):
        return "no answer is well-formed, so no verdict earns a reward: fine-tune first (train sft)"
    for side, word in ((1.0, "yes"), (0.0, "no")):
        if all(abs(step.yes - side) <= 0.02 and step.well_formed > 0.02 for step in last):
            return (
                f"every answer says {word}: half of the prompts do not; "
                "lower learning_rate or raise beta"
            )
    if all(step.dead >= 0.95 for step in last) and done(last) is None:
        kind = "the form is learned, but the" if last[-1].well_formed > 0.95 else "the"
        return (
            f"{kind} answers of a group are all right or all wrong, which teaches no verdict: "
            "choose prompts by difficulty (pool), or raise temperature or num_generations"
        )
    return None


def done(steps: Sequence[Step], *, refresh: int = 0) -> str | None:
    """That nothing is left to learn: in the last WINDOW steps no group was mixed, and of a hundred
    at least 95 were all right; else None.

    Where prompts come from a pool, chosen anew every `refresh` steps, as many steps more must look
    so: prompts of a newly chosen one too.
    """
    wanted = WINDOW + refresh
    last = steps[-wanted:]
    if len(last) < wanted or any(step.dead < 0.95 for step in last):
        return None
    if sum(step.solved for step in last) < 0.95 * wanted:
        return None
    return f"the answers of the last {wanted} steps are right, which leaves nothing to learn"
