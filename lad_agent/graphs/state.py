"""What travels between the nodes: plain values alone, so that every checkpoint can be read back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from PIL import Image

from lad_agent.graphs.ports import Store
from lad_agent.images import MAX_PIXELS
from lad_agent.judgement import Decision, Judgement, Reason, Result
from lad_agent.reasoners.base import Reasoner
from lad_agent.recipe import Recipe


class State(TypedDict):
    """One inspection on its way; `inspection_id` is the thread's id too.

    `judgement` is `Judgement` as JSON values. `result` is null until it is decided.
    """

    inspection_id: str
    image: str
    image_sha256: str | None
    recipe_version: str
    judgement: dict[str, Any] | None
    result: str | None
    reason: str | None
    detail: str | None
    audit: bool
    review_id: str | None


@dataclass(frozen=True)
class Context:
    """What the nodes work with; never part of a checkpoint.

    `recipes` is by recipe version. `pictures` holds each prepared picture from its reading to its
    judging; where one is missing it is read again. No reasoner is needed to resume a review.
    """

    store: Store
    reasoner: Reasoner | None = None
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    max_pixels: int = MAX_PIXELS
    pictures: dict[str, Image.Image] = field(default_factory=dict)


def start(inspection_id: str, image: str, image_sha256: str | None, recipe_version: str) -> State:
    """The state that an inspection starts from; every key is set, so nothing old survives."""
    return State(
        inspection_id=inspection_id,
        image=image,
        image_sha256=image_sha256,
        recipe_version=recipe_version,
        judgement=None,
        result=None,
        reason=None,
        detail=None,
        audit=False,
        review_id=None,
    )


def decision(state: State) -> Decision:
    """The decision that the state holds."""
    result, reason = state["result"] or Result.NOT_DECIDABLE, state["reason"]
    return Decision(
        Result(result), Reason(reason) if reason else None, state["audit"], state["detail"]
    )


def judgement(state: State) -> Judgement | None:
    """The judgement that the state holds, None where there was none."""
    found = state["judgement"]
    return Judgement.model_validate(found) if found is not None else None
