"""Signing in and out by page."""

from functools import cache
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from lad_agent.service import auth
from lad_agent.service.problems import Problem

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}

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
        answer = _page(request, _within(next), name=name, told=error.detail)
        answer.status_code = error.status_code
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


def _page(request: Request, next: str, *, name: str = "", told: str = "") -> Response:
    content = {"csrf": auth.csrf_token(request), "next": next, "name": name, "told": told}
    text = _room().get_template("login.html").render(version=version("lad-agent"), **content)
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), headers=HEADERS)


@cache
def _room() -> Environment:
    return Environment(
        loader=PackageLoader("lad_agent.service"), autoescape=True, undefined=StrictUndefined
    )
