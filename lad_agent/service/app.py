"""The application: API, pages and what they share. `run` serves it until it is told to stop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lad_agent.errors import UsageError
from lad_agent.service import api, login, pages, probes, problems
from lad_agent.service.inspecting import STOP_AFTER_S
from lad_agent.service.problems import Problem
from lad_agent.service.services import Services

STATIC = Path(__file__).parent / "static"
LINGER_S = 5.0
KEEP_ALIVE_S = 65
"""Longer than clients keep an idle connection, so that none is closed while it is used again."""
FORM_BYTES = 65_536
"""Room for a request's other fields and boundaries, beside the image."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def create_app(services: Services) -> FastAPI:
    """The service over `services`; its life begins and ends with the app's."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        async with services.inspecting.running():
            yield

    app = FastAPI(
        title="lad-agent",
        version=version("lad-agent"),
        description="Inspect parts for logical anomalies, with a reason for every verdict.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
    )
    app.state.services = services
    problems.install(app)
    app.add_middleware(_Headers)
    app.add_middleware(_Limit, most=round(services.settings.max_upload_mb * 1e6) + FORM_BYTES)
    app.include_router(probes.router)
    app.include_router(api.router, prefix="/api/v1")
    app.include_router(login.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


BACKLOG = 2048
"""Connections that wait to be accepted: Uvicorn's own default."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port`; 0 means any free port.

    Raises:
        UsageError: no such address here, taken already, or no right to it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)  # until then another may bind the same port
    except OSError as error:
        listening.close()
        raise UsageError(
            f"{host}:{port}: cannot listen there ({error.strerror}); give another --host or --port"
        ) from error
    return listening


async def run(services: Services, listening: socket.socket, **options: Any) -> None:
    """Serve until SIGINT or SIGTERM; what was accepted is finished, or still open in the store."""
    await Server(services, **options).serve(sockets=[listening])


class Server(uvicorn.Server):
    """Uvicorn, which tells the service to stop before it waits for its requests to end."""

    def __init__(self, services: Services, **options: Any) -> None:
        self._inspecting = services.inspecting
        super().__init__(
            uvicorn.Config(
                create_app(services),
                log_level="warning",
                timeout_graceful_shutdown=round(STOP_AFTER_S),
                timeout_keep_alive=KEEP_ALIVE_S,
                **options,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._inspecting.close()
        super().handle_exit(sig, frame)


class _Limit:
    """No body is read further than `most` bytes, whatever its length claims to be.

    What an early answer has left of the body is read and dropped first, or else the closing
    connection would take the answer with it.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        whole = "content-length" not in headers and "transfer-encoding" not in headers
        read = 0

        async def reading() -> Message:
            nonlocal read, whole
            message = await receive()
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            return message

        async def receiving() -> Message:
            message = await reading()
            if read > self._most:
                raise Problem(413, "too-large", f"no more than {self._most / 1e6:.3g} MB a request")
            return message

        async def sending(message: Message) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while not whole and read <= 2 * self._most:
                        await reading()
            await send(message)

        await self._app(scope, receiving, sending)


class _Headers:
    """Headers that every answer carries, unless its route has set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "http" else send)
