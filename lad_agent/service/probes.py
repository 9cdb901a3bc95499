"""For whoever watches the service: is it alive, is it ready, and how does it do."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from lad_agent.service.auth import User, needs
from lad_agent.service.problems import RESPONSES, Problem
from lad_agent.service.services import services
from lad_agent.service.standing import standing
from lad_agent.store import access

router = APIRouter(tags=["probes"], responses=RESPONSES)


@router.get("/healthz")
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def ready(request: Request) -> dict[str, str]:
    """The store answers, and parts are accepted."""
    found = services(request)
    found.store.ask(access.has_users)
    if not found.inspecting.ready:
        raise Problem(503, "stopping", "the service is starting or stopping")
    return {"status": "ready", "model": found.reasoner.fingerprint}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request, _user: Annotated[User, Depends(needs("viewer"))]) -> Response:
    """Figures in Prometheus's text format."""
    found = services(request)
    text = found.metrics.text(found.store.ask(standing), found.recipes)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
