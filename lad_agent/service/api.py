"""The REST interface under `/api/v1`: parts in, results out, and the decisions of people."""

import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lad_agent.errors import Conflict, NotFound
from lad_agent.inspection import MEANINGS, Outcome, ReviewDecision, ReviewKind
from lad_agent.judgement import Disposition, Finding, Result
from lad_agent.recipe import Policy, Recipe, Rule
from lad_agent.service import auth, live, posting
from lad_agent.service.auth import User, needs
from lad_agent.service.posting import Open
from lad_agent.service.problems import RESPONSES, Problem
from lad_agent.service.services import Services, services
from lad_agent.store import Inspected, InspectionFilter, Review, ReviewFilter, review_queue
from lad_agent.store import holds as holding

LONGEST_WAIT_S = 60.0

router = APIRouter(responses=RESPONSES)


def _no_number(value: object) -> object:
    """pydantic takes a number for seconds since 1970, which the schema does not promise."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", value.strip(), re.I):
        raise ValueError("write a time, such as 2026-05-31T14:00:00Z")
    return value


Moment = Annotated[datetime | None, BeforeValidator(_no_number)]

Reader = Annotated[User, Depends(needs("viewer"))]
Inspector = Annotated[User, Depends(needs("reviewer", "inspect"))]
Reviewer = Annotated[User, Depends(needs("reviewer"))]
Ready = Annotated[Services, Depends(services)]
Limit = Annotated[int, Query(ge=1, le=500, description="No more than so many.")]
Cursor = Annotated[str | None, Query(max_length=64, description="`next` of the page before.")]
_CALLED_BY_US = [Depends(auth.check_call)]
_ID = Path(max_length=64, examples=["0199d2a4-5b1c-7e2f-8a3b-4c5d6e7f8091"])


class Page(BaseModel):
    """Inspections, the newest first. `next` leads to the page that follows, null at the end."""

    items: list[Outcome | Open]
    next: str | None


class ShownRecipe(BaseModel):
    """A recipe that parts can be inspected by."""

    product: str
    task_version: str
    recipe_version: str
    rules: tuple[Rule, ...]
    references: int
    policy: Policy


class Claim(BaseModel):
    """Who has the review in hand, and nobody else may decide it until then."""

    by: str
    until: str | None = None


class Signature(BaseModel):
    """Who decided, when, and what the name stands for (21 CFR 11.50)."""

    by: str
    at: str
    meaning: str


class Found(BaseModel):
    """What a person found, and what becomes of a nonconforming part."""

    finding: Finding
    disposition: Disposition | None
    rule: str | None
    comment: str | None


class ShownReview(BaseModel):
    """A part that waits for a person, or was decided by one.

    `outcome` is what the reasoner and its policy said; null for an audit, which is blind until it
    is decided.
    """

    id: str
    kind: ReviewKind
    inspection: str
    part_id: str
    product: str
    station: str
    lot: str | None
    opened_at: str
    outcome: Outcome | None
    claim: Claim | None
    decision: Found | None
    signature: Signature | None


class ReviewPage(BaseModel):
    """Reviews, the one that has waited longest first."""

    items: list[ShownReview]
    next: str | None


class ShownHold(BaseModel):
    """A hold that is on: every part of `product` (null: of all of them) goes to people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0199d2a4-5b1c-7e2f-8a3b-4c5d6e7f8091",
                    "product": "screw_bag",
                    "reason": "escapes in lot 7",
                    "on_at": "2026-05-31T08:00:00.000000Z",
                    "on_by": "anna",
                }
            ]
        }
    )

    id: str
    product: str | None
    reason: str
    on_at: str
    on_by: str


class ShownAlarm(BaseModel):
    """An alarm that nobody has answered.

    It is about parts that `model` judged against `recipe_version` (null: not noted); `what` is the
    promised quantity that is broken, or what has drifted since the calibration.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0199d2a4-5b1c-7e2f-8a3b-4c5d6e7f8091",
                    "product": "screw_bag",
                    "recipe_version": "b7c1d0f2a3e4",
                    "model": "pocket@9f2e",
                    "calibrated_at": "2026-05-01T06:00:00+00:00",
                    "what": "escape_rate",
                    "detail": "6 of 40 audited are bad, at least 6.98% of the 200 passed; the "
                    "promise (at most 1.0% escapes, 95% sure) allows 0.25%",
                    "raised_at": "2026-05-31T08:00:00.000000Z",
                }
            ]
        }
    )

    id: str
    product: str
    recipe_version: str | None
    model: str
    calibrated_at: str
    what: str
    detail: str
    raised_at: str


class Decide(BaseModel):
    """A decision. `password` where the service asks for a signature."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"finding": "nonconforming", "disposition": "rework", "rule": "R1"},
                {"finding": "conforming", "comment": "a reflection, no scratch"},
            ]
        },
    )

    finding: Finding
    disposition: Disposition | None = None
    rule: str | None = Field(default=None, max_length=64)
    comment: str | None = Field(default=None, max_length=2000)
    password: str | None = Field(default=None, max_length=200)


class Undo(BaseModel):
    """Why a decision is taken back."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=2000, pattern=r"\S")
    password: str | None = Field(default=None, max_length=200)


class Lease(BaseModel):
    """How long a claim lasts; the setting's time where it is not given."""

    model_config = ConfigDict(extra="forbid")

    minutes: float | None = Field(default=None, gt=0, le=1440)


class SignIn(BaseModel):
    """Who signs in."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=200)
    password: str = Field(max_length=200)


class SignedIn(BaseModel):
    """Who is signed in. `csrf` goes with every later call as `X-CSRF-Token`."""

    name: str
    role: str
    open: bool
    csrf: str


# --- inspections ----------------------------------------------------------------------------------


async def _check_room(request: Request) -> None:
    """Before the store is even asked who calls: most are refused when there is most to do."""
    services(request).inspecting.check_room()


@router.post(
    "/inspections",
    tags=["inspections"],
    status_code=201,
    response_model=Outcome,
    responses={
        201: {"description": "Inspected and recorded; the fields of `results.jsonl`."},
        202: {"model": Open, "description": "Taken in; `Location` is where the result will be."},
    },
    openapi_extra=posting.BODY,
    dependencies=[Depends(_check_room), *_CALLED_BY_US],
)
async def inspect(
    request: Request,
    response: Response,
    user: Inspector,
    found: Ready,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for the result.")
    ] = 0.0,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            description="Sent again with the same body, it is the same inspection.",
        ),
    ] = None,
) -> Response:
    """Inspect one part: an image, or the path of one where the service may read it.

    The same image of the same part, recipe and model is the same inspection, however often it is
    sent.
    """
    accepted = await posting.accept(request, found, user.name, idempotency_key)
    location = str(request.url_for("inspection", inspection_id=accepted.id).path)
    headers = {"Location": location}
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    outcome = await found.inspecting.wait(accepted.id, wait)
    if outcome is None:
        inspected = found.store.inspection(accepted.id)
        return _json(posting.as_open(inspected), 202, headers)
    return _json(outcome, 201, headers)


@router.get("/inspections", tags=["inspections"])
def inspections(
    _user: Reader,
    found: Ready,
    product: Annotated[str | None, Query(max_length=64)] = None,
    result: Result | None = None,
    part_id: Annotated[str | None, Query(max_length=200)] = None,
    station: Annotated[str | None, Query(max_length=100)] = None,
    lot: Annotated[str | None, Query(max_length=100)] = None,
    since: Moment = None,
    complete: Annotated[
        bool | None, Query(description="Only what is recorded, or only what is still open.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page:
    """List inspections, the newest first."""
    wanted = InspectionFilter(
        product=product,
        result=result,
        part_id=part_id,
        station=station,
        lot=lot,
        since=since,
        complete=complete,
    )
    rows = found.store.inspections(wanted, limit=limit + 1, after=cursor)
    return Page(
        items=[_shown(row) for row in rows[:limit]],
        next=rows[limit - 1].id if len(rows) > limit else None,
    )


@router.get("/inspections/{inspection_id}", tags=["inspections"])
def inspection(_user: Reader, found: Ready, inspection_id: Annotated[str, _ID]) -> Outcome | Open:
    """One inspection: the fields of `results.jsonl`, or that it is still open."""
    return _shown(found.store.inspection(inspection_id))


@router.get("/events", tags=["inspections"], response_class=EventSourceResponse)
async def events(
    _user: Reader,
    found: Ready,
    since: Annotated[
        int | None, Query(ge=0, le=2**53, description="Tell what came after this event.")
    ] = None,
    last_event_id: Annotated[str | None, Header(pattern=r"^[0-9]{1,15}$")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Results and decisions as they are recorded, as server-sent events.

    A client that comes again with `Last-Event-ID` goes on where it left.
    """
    start = int(last_event_id) if last_event_id is not None else since
    async for event in live.follow(found.store, start, found.inspecting.closing):
        yield event


# --- recipes --------------------------------------------------------------------------------------


@router.get("/recipes", tags=["recipes"])
def recipes(_user: Reader, found: Ready) -> list[ShownRecipe]:
    """The products that can be inspected."""
    return [_recipe(found.recipes[product]) for product in sorted(found.recipes)]


@router.get("/recipes/{product}", tags=["recipes"])
def recipe(
    _user: Reader, found: Ready, product: Annotated[str, Path(max_length=64)]
) -> ShownRecipe:
    """What a product is inspected by."""
    if product not in found.recipes:
        raise NotFound(posting.no_recipe(product, found.recipes))
    return _recipe(found.recipes[product])


# --- reviews --------------------------------------------------------------------------------------


@router.get("/reviews", tags=["reviews"])
def reviews(
    _user: Reader,
    found: Ready,
    product: Annotated[str | None, Query(max_length=64)] = None,
    kind: ReviewKind | None = None,
    station: Annotated[str | None, Query(max_length=100)] = None,
    since: Moment = None,
    decided: Annotated[
        bool | None, Query(description="Only decided ones, or only those that wait.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ReviewPage:
    """List reviews, the one that has waited longest first."""
    wanted = ReviewFilter(product=product, kind=kind, station=station, since=since, decided=decided)
    rows = found.store.reviews(wanted, limit=limit + 1, after=cursor)
    claims = _claims(found, *rows)
    return ReviewPage(
        items=[_review(row, claims) for row in rows[:limit]],
        next=rows[limit - 1].id if len(rows) > limit else None,
    )


@router.get("/reviews/{review_id}", tags=["reviews"])
def review(_user: Reader, found: Ready, review_id: Annotated[str, _ID]) -> ShownReview:
    """One review as it stands now."""
    shown = found.store.review(review_id)
    return _review(shown, _claims(found, shown))


@router.post("/reviews/{review_id}/claim", tags=["reviews"], dependencies=_CALLED_BY_US)
def claim(
    user: Reviewer, found: Ready, review_id: Annotated[str, _ID], lease: Lease | None = None
) -> Claim:
    """Take a review in hand, or keep it there; 409 says in whose hand it is."""
    minutes = (lease and lease.minutes) or found.settings.lease_minutes
    try:
        until = found.store.claim_review(review_id, user.name, minutes * 60)
    except Conflict as error:
        raise _stale(found, review_id, error) from error
    return Claim(by=user.name, until=until)


@router.delete(
    "/reviews/{review_id}/claim", tags=["reviews"], status_code=204, dependencies=_CALLED_BY_US
)
def release(user: Reviewer, found: Ready, review_id: Annotated[str, _ID]) -> None:
    """Put a review back; nothing where it is not in one's hand."""
    found.store.release_review(review_id, user.name)


@router.post("/reviews/{review_id}/decision", tags=["reviews"], dependencies=_CALLED_BY_US)
def decide(
    request: Request,
    user: Reviewer,
    found: Ready,
    review_id: Annotated[str, _ID],
    said: Decide,
) -> ShownReview:
    """Decide about a part; the first decision stands, 409 says whose it was."""
    auth.check_signature(request, user, said.password)
    decision = ReviewDecision(**said.model_dump(exclude={"password"}), by=user.name)
    try:
        decided = found.store.decide_review(review_id, decision)
    except Conflict as error:
        raise _stale(found, review_id, error) from error
    return _review(decided, {})


@router.post("/reviews/{review_id}/undo", tags=["reviews"], dependencies=_CALLED_BY_US)
def undo(
    request: Request,
    user: Reviewer,
    found: Ready,
    review_id: Annotated[str, _ID],
    said: Undo,
) -> ShownReview:
    """Take a decision back; both stay in the ledger."""
    auth.check_signature(request, user, said.password)
    try:
        waiting = found.store.undo_review(review_id, user.name, said.reason)
    except Conflict as error:
        raise _stale(found, review_id, error) from error
    return _review(waiting, {})


# --- what stands until a person sees to it --------------------------------------------------------


@router.get("/holds", tags=["holds"])
def holds(_user: Reader, found: Ready) -> list[ShownHold]:
    """The holds that are on, the oldest first."""
    return [ShownHold(**asdict(one)) for one in found.store.ask(holding.holds)]


@router.get("/alarms", tags=["holds"])
def alarms(_user: Reader, found: Ready) -> list[ShownAlarm]:
    """The alarms that nobody has answered, the oldest first."""
    return [ShownAlarm(**asdict(one)) for one in found.store.ask(holding.alarms)]


# --- sessions -------------------------------------------------------------------------------------


@router.post("/session", tags=["session"], dependencies=[Depends(auth.check_origin)])
def sign_in(request: Request, response: Response, who: SignIn) -> SignedIn:
    """Sign in; the session is in a cookie."""
    user, csrf = auth.sign_in(request, response, who.name, who.password)
    return SignedIn(name=user.name, role=user.role, open=False, csrf=csrf)


@router.get("/session", tags=["session"])
def session(request: Request, user: Reader) -> SignedIn:
    """Who is asking."""
    return SignedIn(name=user.name, role=user.role, open=user.open, csrf=auth.csrf_token(request))


@router.delete("/session", tags=["session"], status_code=204, dependencies=_CALLED_BY_US)
def sign_out(request: Request, response: Response, _user: Reader) -> None:
    """Sign out."""
    auth.sign_out(request, response)


def _json(content: BaseModel, status: int, headers: dict[str, str]) -> Response:
    return Response(content.model_dump_json(), status, headers, media_type="application/json")


def _shown(row: Inspected) -> Outcome | Open:
    return row.outcome or posting.as_open(row)


def _recipe(found: Recipe) -> ShownRecipe:
    return ShownRecipe(
        product=found.product,
        task_version=found.task_version,
        recipe_version=found.recipe_version,
        rules=found.rules,
        references=len(found.references),
        policy=found.policy,
    )


def _review(found: Review, claims: dict[str, str]) -> ShownReview:
    intake, decision = found.inspected.intake, found.decision
    blind = found.kind == "audit" and decision is None
    holder = claims.get(found.id)
    return ShownReview(
        id=found.id,
        kind=found.kind,
        inspection=found.inspected.id,
        part_id=intake.part_id,
        product=intake.product,
        station=intake.station,
        lot=intake.lot,
        opened_at=found.opened_at,
        outcome=None if blind else found.inspected.outcome,
        claim=Claim(by=holder) if holder else None,
        decision=Found(**decision.model_dump(exclude={"by"})) if decision else None,
        signature=Signature(by=decision.by, at=found.decided_at or "", meaning=MEANINGS[found.kind])
        if decision
        else None,
    )


def _claims(found: Services, *shown: Review) -> dict[str, str]:
    """Whose hand each of these reviews is in."""
    ids = [one.id for one in shown]
    return found.store.ask(lambda session: review_queue.claims(session, ids))


def _stale(found: Services, review_id: str, error: Conflict) -> Problem:
    """Who was first, with the review as it stands now."""
    shown = found.store.review(review_id)
    now = _review(shown, _claims(found, shown))
    return Problem(409, "conflict", str(error), review=now.model_dump(mode="json"))
