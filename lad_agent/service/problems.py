"""Errors as RFC 9457 problem details: one form for whatever goes wrong, here or further down."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException as PlainHTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from lad_agent.errors import (
    Conflict,
    LadAgentError,
    NeedsReason,
    NotFound,
    PrerequisiteError,
    UsageError,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Details(BaseModel):
    """What went wrong. `type` names the kind for programs, `detail` says it for people."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str


class Problem(HTTPException):
    """Answers the request with `status`; `more` stands beside the usual fields."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(status, detail, headers)
        self.kind, self.more = kind, more


RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What went wrong, and what to do.",
        "content": {
            MEDIA_TYPE: {
                "schema": Details.model_json_schema(),
                "example": {
                    "type": "urn:lad-agent:problem:queue-full",
                    "title": "Queue full",
                    "status": 429,
                    "detail": "256 parts are under way; send this one again in 1 s",
                    "instance": "/api/v1/inspections",
                },
            }
        },
    }
}
"""For every route: any error has this form."""


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem."""
    app.add_exception_handler(LadAgentError, _own)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(PlainHTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _fault)


def faults(errors: Any) -> list[dict[str, str]]:
    """pydantic's errors as `where` and `what`; never what was sent, which may be a secret."""
    return [
        {"where": ".".join(str(part) for part in error["loc"]), "what": error["msg"]}
        for error in errors
    ]


def invalid(errors: Any) -> Problem:
    """The problem of a body or parameter that is not as documented."""
    found = faults(errors)
    told = "; ".join(f"{fault['where']}: {fault['what']}" for fault in found[:3])
    return Problem(422, "invalid", told, errors=found)


async def _problem(request: Request, error: Problem) -> Response:
    path = request.url.path
    body = {
        "type": f"urn:lad-agent:problem:{error.kind}",
        "title": error.kind.replace("-", " ").capitalize(),
        "status": error.status_code,
        "detail": error.detail,
        "instance": path,
        **error.more,
    }
    return JSONResponse(body, error.status_code, error.headers, media_type=MEDIA_TYPE)


async def _own(request: Request, error: Exception) -> Response:
    found, kind = next(
        (status, kind) for error_type, status, kind in _STATUS if isinstance(error, error_type)
    )
    if found >= 500:
        log.error("%s", error)
    return await _problem(request, Problem(found, kind, str(error)))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _problem(request, invalid(error.errors()))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlainHTTPException)
    if isinstance(error, Problem):
        return await _problem(request, error)
    kind = _KINDS.get(error.status_code, "http-error")
    headers = dict(error.headers) if error.headers else None
    if error.status_code == 405 and (methods := _methods(request)):
        headers = {"Allow": ", ".join(methods)}
    return await _problem(
        request, Problem(error.status_code, kind, str(error.detail), headers=headers)
    )


def _methods(request: Request) -> list[str]:
    """The methods that a documented path knows: FastAPI tells those of its first route alone."""
    paths = request.app.openapi()["paths"]
    for template in sorted(paths, key=lambda path: path.count("{")):
        if compile_path(template)[0].match(request.url.path):
            return sorted(method.upper() for method in paths[template])
    return []


async def _gone(request: Request, error: Exception) -> Response:
    """The client left while it was sending: nothing was taken in, nobody reads this."""
    log.info("%s: the client left while it was sending", request.url.path)
    return Response(status_code=400)


async def _fault(request: Request, error: Exception) -> Response:
    return await _problem(
        request, Problem(500, "fault", "a fault of the service; its log says more")
    )


_STATUS = (
    (NotFound, 404, "not-found"),
    (Conflict, 409, "conflict"),
    (NeedsReason, 422, "needs-reason"),
    (UsageError, 422, "invalid"),
    (PrerequisiteError, 503, "unavailable"),
    (LadAgentError, 500, "fault"),
)
_KINDS = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
}
