"""Labelled pictures through the reasoner, as `lad-agent inspect` asks it, without a record."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from lad_agent import images
from lad_agent.errors import ReasonerTimeout, UnreadableInput, UsageError
from lad_agent.judgement import Judgement
from lad_agent.reasoners import Question, Reasoner
from lad_agent.recipe import Recipe
from lad_agent.training.calibration.parts import Part, left_unjudged
from lad_agent.training.sources import Example


async def judge(
    examples: Sequence[Example],
    recipe: Recipe,
    reasoner: Reasoner,
    *,
    in_flight: int,
    on_done: Callable[[int], None] = lambda done: None,
) -> tuple[list[Part], list[str]]:
    """Judge every picture, `in_flight` at once; `on_done` hears how many are done.

    A picture that the gate stops has no verdict, as on the line. One that is not judged in time is
    left out: how many comes second, in words.

    Raises:
        UsageError: the model was not made for the recipe's product.
        CheckFailed: no bad part was judged in time, though there are some.
        UnreadableInput, ReasonerError: one picture could not be read or judged.
    """
    if reasoner.products is not None and recipe.product not in reasoner.products:
        known = ", ".join(sorted(reasoner.products))
        raise UsageError(f"the model was not made for {recipe.product}; it knows {known}")
    parts: dict[int, Part | None] = {}
    waiting = iter(enumerate(examples))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(in_flight, len(examples))):
                group.create_task(_work(waiting, parts, recipe, reasoner, on_done))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    judged = [part for _, part in sorted(parts.items()) if part is not None]
    lost = [examples[index] for index, part in parts.items() if part is None]
    return judged, left_unjudged(lost, judged)


def question(example: Example, recipe: Recipe) -> Question | None:
    """What a reasoner is asked about a picture; None where the gate stops it.

    Raises:
        UnreadableInput: the picture cannot be read, or has changed since it was listed.
    """
    found = images.look(example.image, recipe)
    if found.sha256 != example.sha256:
        raise UnreadableInput(f"{example.image}: changed while it was read; start again")
    return Question(recipe, found.picture, found.sha256) if found.reason is None else None


async def _work(
    waiting: Iterator[tuple[int, Example]],
    parts: dict[int, Part | None],
    recipe: Recipe,
    reasoner: Reasoner,
    on_done: Callable[[int], None],
) -> None:
    for index, example in waiting:
        judgement = await _judged(example, recipe, reasoner)
        parts[index] = None if judgement is None else Part(example, judgement)
        on_done(len(parts))


async def _judged(example: Example, recipe: Recipe, reasoner: Reasoner) -> Judgement | None:
    asked = await asyncio.to_thread(question, example, recipe)
    if asked is None:
        return Judgement(anomalous=None, well_formed=False, model=reasoner.fingerprint)
    try:
        async with asyncio.timeout(recipe.policy.time_limit_s):
            return await reasoner.judge(asked)
    except (ReasonerTimeout, TimeoutError):
        return None
