"""The pages: the review station and the dashboard. Every page works without scripts, only slower.

Whole pages are rendered here; htmx (`hx-boost`) swaps them in place of a reload.
"""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from lad_agent.errors import Conflict, LadAgentError, NotFound, UnreadableInput, UsageError
from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Finding
from lad_agent.service import pictures, shown
from lad_agent.service.auth import (
    User,
    check_csrf,
    check_signature,
    csrf_token,
    current_user,
    needs,
)
from lad_agent.service.pictures import Picture
from lad_agent.service.rendering import HEADERS, html, query
from lad_agent.service.services import services
from lad_agent.service.shown import DECISIONS, Filters
from lad_agent.service.standing import standing
from lad_agent.store import AuditStore, InspectionFilter, Review, review_queue
from lad_agent.store.review_queue import Group, Waiting

COMMENT_LENGTH = 2000
ROWS = 200
SPANS = {8: "8 hours", 24: "24 hours", 168: "7 days"}

_FOREVER = "private, max-age=31536000, immutable"


class _Page(APIRoute):
    """Errors become pages, and every answer says that nothing foreign may run in it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                response = await handle(request)
            except HTTPException as error:
                response = _refused(request, error)
            except RequestValidationError:
                response = _error(422, "This form was not filled in as the page makes it.")
            except (NotFound, UnreadableInput) as error:
                response = _error(404, str(error))
            except UsageError as error:
                response = _error(400, str(error))
            except LadAgentError as error:
                response = _error(503, str(error))
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return handled


router = APIRouter(route_class=_Page, include_in_schema=False, default_response_class=HTMLResponse)

Reader = Annotated[User, Depends(current_user)]
Reviewer = Annotated[User, Depends(needs("reviewer"))]
Wanted = Annotated[Filters, Depends()]
_FROM_THE_PAGE = [Depends(check_csrf)]


@router.get("/")
def home() -> Response:
    """The queue is where everybody begins."""
    return RedirectResponse("/reviews", 303)


@router.get("/reviews")
def queue(request: Request, user: Reader, wanted: Wanted) -> Response:
    """The open reviews in the order they are worked off, with filters and counts."""
    store = _store(request)
    groups = store.ask(review_queue.groups)
    rows = store.ask(lambda session: review_queue.queue(session, wanted.of_store(), limit=ROWS))
    return _page(
        request,
        user,
        "queue.html",
        every=sum(one.number for one in groups),
        rows=rows,
        found=sum(one.number for one in groups if wanted.admits(one)),
        wanted=wanted,
        counts={name: _counts(groups, name, wanted) for name in ("product", "kind", "station")},
    )


@router.get("/reviews/next")
def following(request: Request, user: Reader, wanted: Wanted) -> Response:
    """The first part of the queue that nobody else has in hand."""
    first = _store(request).ask(
        lambda session: review_queue.queue(session, wanted.of_store(), free_for=user.name, limit=1)
    )
    return _to(first[0].id if first else None, wanted)


@router.get("/reviews/{review_id}")
def item(
    request: Request,
    user: Reader,
    wanted: Wanted,
    review_id: str,
    refused: Annotated[bool, Query()] = False,
) -> Response:
    """One part: its picture beside the reference, what the reasoner said, and the decision."""
    review = _store(request).review(review_id)
    return _item(request, user, wanted, review, refused=refused)


@router.post("/reviews/{review_id}/decide", dependencies=_FROM_THE_PAGE)
def decide(
    request: Request,
    user: Reviewer,
    wanted: Wanted,
    review_id: str,
    decision: Annotated[str, Form()],
    rule: Annotated[str, Form()] = "",
    comment: Annotated[str, Form(max_length=COMMENT_LENGTH)] = "",
    password: Annotated[str, Form()] = "",
) -> Response:
    """Take the decision and go on to the next part; refused where another was faster."""
    store = _store(request)
    review = store.review(review_id)
    if decision not in DECISIONS:
        raise UsageError(f"no decision {decision!r}; the page has {', '.join(DECISIONS)}")
    finding, disposition = DECISIONS[decision]
    typed = {"decision": decision, "rule": rule, "comment": comment.strip()}
    after = _neighbours(store, review, wanted, user)[1]
    try:
        check_signature(request, user, password)
        store.decide_review(
            review_id,
            ReviewDecision(
                finding=finding,
                disposition=disposition,
                rule=(rule or None) if finding is Finding.NONCONFORMING else None,
                comment=typed["comment"] or None,
                by=user.name,
            ),
        )
    except Conflict:
        return _to(review_id, wanted, refused=True)
    except UsageError as error:
        return _item(request, user, wanted, review, said=str(error), typed=typed)
    except HTTPException as error:
        return _item(request, user, wanted, review, said=error.detail, typed=typed)
    return _to(after.id if after else None, wanted)


@router.post("/reviews/{review_id}/undo", dependencies=_FROM_THE_PAGE)
def undo(request: Request, user: Reviewer, wanted: Wanted, review_id: str) -> Response:
    """Take one's own decision back and look at the part again; the ledger keeps both."""
    store = _store(request)
    decision = store.review(review_id).decision
    if decision is not None and decision.by == user.name:
        store.undo_review(review_id, user.name, "taken back on the review page")
    return _to(review_id, wanted)


@router.post("/reviews/{review_id}/claim", dependencies=_FROM_THE_PAGE)
def claim(request: Request, user: Reviewer, review_id: str) -> Response:
    """Take the part in hand, or keep it there; the answer says in whose hand it is."""
    lease_s = services(request).settings.lease_minutes * 60
    try:
        until = _store(request).claim_review(review_id, user.name, lease_s)
    except Conflict as error:
        return html("claim.html", held=True, told=str(error))
    return html("claim.html", held=False, told=f"yours until {shown.local_time(until, '%H:%M')}")


@router.post("/reviews/{review_id}/release", dependencies=_FROM_THE_PAGE)
def release(request: Request, user: Reviewer, review_id: str) -> Response:
    """Put the part back for the others."""
    _store(request).release_review(review_id, user.name)
    return Response(status_code=204)


@router.get("/dashboard")
def dashboard(request: Request, user: Reader, hours: Annotated[int, Query()] = 24) -> Response:
    """Yield, escalations and what the audits found, by product and hour."""
    if hours not in SPANS:
        raise NotFound(f"no span of {hours} hours; the page has {', '.join(map(str, SPANS))}")
    store = _store(request)
    moment = datetime.now(UTC)
    plant = store.ask(lambda session: shown.dashboard(session, hours, moment))
    waiting = sum(one.number for one in store.ask(review_queue.groups))
    return _page(
        request,
        user,
        "dashboard.html",
        plant=plant,
        waiting=waiting,
        spans=SPANS,
        standing=store.ask(standing),
        moment=moment,
    )


@router.get("/inspections/{inspection_id}/image", dependencies=[Depends(current_user)])
def image(request: Request, inspection_id: str) -> Response:
    """The picture that was judged."""
    store = _store(request)
    return _picture(request, pictures.inspected(store, store.history(inspection_id)))


@router.get(
    "/inspections/{inspection_id}/references/{number}", dependencies=[Depends(current_user)]
)
def reference(request: Request, inspection_id: str, number: int) -> Response:
    """The reference picture of that number that it was judged against."""
    return _picture(request, pictures.reference(_store(request).history(inspection_id), number))


def _item(
    request: Request,
    user: User,
    wanted: Filters,
    review: Review,
    *,
    said: str = "",
    typed: dict[str, str] | None = None,
    refused: bool = False,
) -> Response:
    store = _store(request)
    history = store.history(review.inspected.id)
    past = store.inspections(InspectionFilter(part_id=review.inspected.intake.part_id), limit=12)
    item = shown.item(review, history, past, pictures.size(store, history))
    before, after = _neighbours(store, review, wanted, user)
    holder = store.ask(lambda session: review_queue.claims(session, [review.id])).get(review.id)
    groups = store.ask(review_queue.groups)
    settings = services(request).settings
    return _page(
        request,
        user,
        "item.html",
        status=422 if said else 200,
        item=item,
        said=said,
        typed=typed or {"decision": "", "rule": item.preselected or "", "comment": ""},
        refused=refused,
        before=before,
        after=after,
        held_by=holder if holder != user.name else None,
        waiting=sum(one.number for one in groups if wanted.admits(one)),
        wanted=wanted,
        comment_length=COMMENT_LENGTH,
        renew_s=round(settings.lease_minutes * 60 * 0.8),
        signing=settings.sign_with_password and not user.open,
    )


def _neighbours(
    store: AuditStore, review: Review, wanted: Filters, user: User
) -> tuple[Waiting | None, Waiting | None]:
    """What comes before and after a review in the queue, and is in nobody else's hand."""
    return store.ask(
        lambda session: review_queue.neighbours(
            session, review.id, wanted.of_store(), free_for=user.name
        )
    )


def _counts(groups: list[Group], name: str, wanted: Filters) -> dict[str, int]:
    """How many open reviews each choice of one filter leaves, the other filters as they are."""
    others = Filters(**{**wanted.__dict__, name: ""})
    counts: dict[str, int] = {}
    for one in groups:
        counts.setdefault(getattr(one, name), 0)
        counts[getattr(one, name)] += one.number * others.admits(one)
    return dict(sorted(counts.items()))


def _to(review_id: str | None, wanted: Filters, **more: Any) -> Response:
    path = f"/reviews/{review_id}" if review_id else "/reviews"
    return RedirectResponse(path + query(wanted, **more), 303)


def _page(
    request: Request,
    user: User,
    template: str,
    *,
    status: int = 200,
    waiting: int = 0,
    **content: Any,
) -> Response:
    """A whole page; `waiting` is how many parts the shift still has before it."""
    store = _store(request)
    moment = datetime.now(UTC)
    decided = store.ask(
        lambda session: review_queue.decisions(session, user.name, moment - shown.SHIFT)
    )
    response = html(
        template,
        status,
        user=user,
        csrf=csrf_token(request),
        shift=shown.shift(decided, moment),
        waiting=waiting,
        here=request.url.path,
        **content,
    )
    if status != 200:
        # The address bar keeps a page that can be loaded again.
        response.headers["HX-Push-Url"] = "false"
    return response


def _refused(request: Request, error: HTTPException) -> Response:
    """Who is not known goes to the login, and from there back to the page, if it was a page."""
    if error.status_code != 401:
        return _error(error.status_code, error.detail)
    wanted = {"next": request.url.path} if request.method == "GET" else {}
    login = "/login" + (f"?{urlencode(wanted)}" if wanted else "")
    if "HX-Request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": login})
    return RedirectResponse(login, 303)


def _error(status: int, told: str) -> Response:
    return html("error.html", status, status=status, told=told)


def _picture(request: Request, picture: Picture) -> Response:
    headers = {"ETag": f'"{picture.sha256}"', "Cache-Control": _FOREVER}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(picture.content, media_type=picture.media_type, headers=headers)


def _store(request: Request) -> AuditStore:
    return services(request).store
