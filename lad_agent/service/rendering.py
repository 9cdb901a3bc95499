"""How pages are made from their templates, and what every page forbids."""

from functools import cache
from importlib.metadata import version
from typing import Any
from urllib.parse import urlencode

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from lad_agent.service import shown
from lad_agent.service.shown import Filters

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
}
"""Nothing foreign and nothing inline runs in a page."""


def html(template: str, status: int = 200, /, **content: Any) -> HTMLResponse:
    """The page of a template with its content."""
    text = _room().get_template(template).render(**content)
    # A part's name may be a file name that is no UTF-8.
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), status, HEADERS)


def query(wanted: Filters, **changed: Any) -> str:
    """The filters, some of them changed, as the query of a link."""
    chosen = {name: value for name, value in {**wanted.__dict__, **changed}.items() if value}
    return "?" + urlencode(chosen, errors="replace") if chosen else ""


@cache
def _room() -> Environment:
    room = Environment(
        loader=PackageLoader("lad_agent.service"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    room.globals.update(query=query, version=version("lad-agent"), reasons=shown.REASONS)
    room.filters.update(
        local_time=shown.local_time,
        ago=shown.ago,
        words=lambda text: str(text).replace("_", " "),
        percent=lambda share: "–" if share is None else f"{share:.1%}",
    )
    return room
