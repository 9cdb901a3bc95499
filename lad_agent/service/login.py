"""Signing in and out by page."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from lad_agent.service import auth
from lad_agent.service.problems import Problem
from lad_agent.service.rendering import html

router = APIRouter(include_in_schema=False)


@router.get("/login")
def form(request: Request, next: str = "/") -> Response:
    """Ask for name and password."""
    return _page(request, _within(next))


@router.post("/login", dependencies=[Depends(auth.check_csrf)])
def login(
    request: Request,
    name: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=200)],
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Sign in and go on to the page that was asked for."""
    response = RedirectResponse(_within(next), 303)
    try:
        auth.sign_in(request, response, name, password)
    except Problem as error:
        answer = _page(
            request, _within(next), status=error.status_code, name=name, told=error.detail
        )
        answer.headers.update(error.headers or {})
        return answer
    return response


@router.post("/logout", dependencies=[Depends(auth.check_csrf)])
def logout(request: Request) -> Response:
    """Sign out."""
    response = RedirectResponse("/login", 303)
    auth.sign_out(request, response)
    return response


def _within(path: str) -> str:
    """A path of this service: what else a link names is not followed."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def _page(
    request: Request, next: str, *, status: int = 200, name: str = "", told: str = ""
) -> Response:
    csrf = auth.csrf_token(request)
    return html("login.html", status, csrf=csrf, next=next, name=name, told=told)
