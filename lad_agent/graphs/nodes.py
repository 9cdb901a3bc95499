"""The steps of an inspection. Each returns plain values; the interrupt stands alone in its node."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import interrupt
from PIL import Image
from pydantic import ValidationError

from lad_agent import images, policy
from lad_agent.errors import ReasonerError, ReasonerTimeout, UnreadableInput, UsageError
from lad_agent.graphs import state as states
from lad_agent.graphs.ports import Store
from lad_agent.graphs.state import Context, State
from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Reason, Result
from lad_agent.reasoners.base import Question
from lad_agent.recipe import Recipe

Update = dict[str, Any]

log = logging.getLogger(__name__)

_ANSWER = ReviewDecision.model_json_schema()
"""The form in which an inbox asks for the answer to a pause."""


async def read(state: State, runtime: Runtime[Context]) -> Update:
    """Decode the image and hold it against the gate; what fails goes to a person."""
    context = runtime.context
    recipe = context.recipes[state["recipe_version"]]
    try:
        picture, reason = await asyncio.to_thread(_look, state, recipe, context.max_pixels)
    except UnreadableInput as error:
        return _undecided(Reason.UNREADABLE, str(error))
    reasoner = context.reasoner
    if reasoner and reasoner.products is not None and recipe.product not in reasoner.products:
        known = ", ".join(sorted(reasoner.products))
        return _undecided(
            Reason.PRODUCT_NOT_IN_MODEL, f"{recipe.product}; the model was made for {known}"
        )
    if reason is not None:
        return _undecided(reason, None)
    context.pictures[state["inspection_id"]] = picture
    return {}


async def judge(state: State, runtime: Runtime[Context]) -> Update:
    """Ask the reasoner, for no longer than the policy allows; a failure goes to a person."""
    context = runtime.context
    recipe = context.recipes[state["recipe_version"]]
    limit = recipe.policy.time_limit_s
    try:
        picture = await _picture(state, context, recipe)
        if context.reasoner is None:
            return _undecided(Reason.REASONER_FAILED, "no reasoner is open")
        question = Question(recipe, picture, state["image_sha256"] or "")
        async with asyncio.timeout(limit):
            found = await context.reasoner.judge(question)
    except UnreadableInput as error:
        return _undecided(Reason.UNREADABLE, str(error))
    except (ReasonerTimeout, TimeoutError) as error:
        return _undecided(Reason.TIMED_OUT, str(error) or f"no answer within {limit:g} s")
    except ReasonerError as error:
        return _undecided(Reason.REASONER_FAILED, str(error))
    except Exception as error:
        # Whatever breaks while one part is judged must not take the batch with it.
        log.exception("inspection %s: the reasoner failed", state["inspection_id"])
        return _undecided(Reason.REASONER_FAILED, f"{type(error).__name__}: {error}"[:500])
    return {"judgement": found.model_dump(mode="json")}


async def decide(state: State, runtime: Runtime[Context]) -> Update:
    """From judgement to result, by the recipe's policy and calibration, unless a hold is on."""
    judgement = states.judgement(state)
    if judgement is None:
        return _undecided(Reason.REASONER_FAILED, "no judgement was made")
    recipe = runtime.context.recipes[state["recipe_version"]]
    draw = policy.audit_draw(state["image_sha256"] or "", state["recipe_version"])
    hold = await runtime.context.store.hold(recipe.product)
    judgement, made = policy.decide_by_recipe(judgement, recipe, draw, hold)
    return {
        "judgement": judgement.model_dump(mode="json"),
        "result": made.result.value,
        "reason": made.reason.value if made.reason else None,
        "audit": made.audit,
        "detail": made.detail,
    }


async def escalate(state: State, runtime: Runtime[Context]) -> Update:
    """Record NotDecidable and open the review; the pause is the next node's."""
    review_id = await runtime.context.store.escalate(
        state["inspection_id"], states.decision(state), states.judgement(state)
    )
    return {"review_id": review_id}


async def await_review(state: State, runtime: Runtime[Context]) -> Update:
    """Wait until the store holds a person's decision; only the store's counts.

    An answer that is a decision is taken into the store, where the first one stands: the node may
    run again from its top on every resume. Any other answer waits on.
    """
    store, refused = runtime.context.store, None
    while await store.review_decision(state["inspection_id"]) is None:
        answer = interrupt(_request(state, refused), response_schema=_ANSWER)
        refused = await _take(store, state["review_id"], answer)
    return {}


async def record(state: State, runtime: Runtime[Context]) -> Update:
    """Complete the inspection: with its result, or with what the review has found."""
    store = runtime.context.store
    if state["review_id"] is not None:
        await store.apply_review(state["inspection_id"])
    else:
        await store.record(state["inspection_id"], states.decision(state), states.judgement(state))
    return {}


async def _picture(state: State, context: Context, recipe: Recipe) -> Image.Image:
    kept = context.pictures.pop(state["inspection_id"], None)
    if kept is not None:
        return kept
    picture, _ = await asyncio.to_thread(_look, state, recipe, context.max_pixels)
    return picture


def _look(state: State, recipe: Recipe, max_pixels: int) -> tuple[Image.Image, Reason | None]:
    path = Path(state["image"])
    found = images.look(path, recipe, max_pixels=max_pixels)
    if found.sha256 != state["image_sha256"]:
        raise UnreadableInput(f"{path}: changed since it was taken in; inspect it again")
    return found.picture, found.reason


def _undecided(reason: Reason, detail: str | None) -> Update:
    return {"result": Result.NOT_DECIDABLE.value, "reason": reason.value, "detail": detail}


async def _take(store: Store, review_id: str | None, answer: object) -> str | None:
    """Take the answer to a pause into the store, if it is a decision; else why it is refused."""
    if review_id is None or not isinstance(answer, dict):
        return "no decision in the store yet"
    try:
        await store.decide_review(review_id, ReviewDecision.model_validate(answer))
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except UsageError as error:
        return str(error)
    return None


def _request(state: State, refused: str | None) -> dict[str, Any]:
    """The pause in the form that LangGraph's inboxes show; `refused` is the last answer's fault."""
    judgement = state["judgement"] or {}
    args = {
        "inspection_id": state["inspection_id"],
        "review_id": state["review_id"],
        "image": state["image"],
        "reason": state["reason"],
        "detail": state["detail"],
        "rationale": judgement.get("rationale"),
        "refused": refused,
    }
    description = f"{Path(state['image']).name}: {state['reason']}; lad-agent review decide"
    return {
        "action_requests": [{"name": "decide_review", "args": args, "description": description}],
        "review_configs": [{"action_name": "decide_review", "allowed_decisions": ["respond"]}],
    }
