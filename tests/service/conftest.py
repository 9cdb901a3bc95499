"""The real service over HTTP: uvicorn in a thread, a real store, a scripted reasoner."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from lad_agent.service import app
from lad_agent.service.passwords import hashed
from lad_agent.service.services import Services, load_recipes
from lad_agent.settings import Settings
from lad_agent.store import access, open_store
from tests.scripted import Scripted, part, write_recipe

API = "/api/v1"
PASSWORD = "correct horse"


@dataclass
class Running:
    """A service that runs, with the folder that all its files lie in."""

    folder: Path
    services: Services
    url: str

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, **options)

    def add_user(self, name: str, role: str, secret: str = "") -> None:
        """A user with PASSWORD, and a token of all scopes where a secret is given."""
        kept, store = hashed(PASSWORD), self.services.store
        store.transact([lambda unit: access.add_user(unit, "s", "root", name, role, kept)])
        if secret:
            self.add_token(name, secret, *access.SCOPES)

    def add_token(self, name: str, secret: str, *scopes: str, days: float | None = None) -> None:
        self.services.store.transact(
            [
                lambda unit: access.issue_token(
                    unit, "s", "root", name, secret=secret, label="", scopes=scopes, days=days
                )
            ]
        )


@contextmanager
def serving(folder: Path, reasoner: Scripted | None = None, **chosen: Any) -> Iterator[Running]:
    """Run a service in `folder` until the end of `with`; then stop it as SIGTERM does."""
    if not (folder / "recipes").exists():
        write_recipe(folder / "recipes" / "screw_bag", **chosen.pop("policy", {}))
    settings = Settings(store=str(folder / "audit.db"), station="line-1", by="otto", **chosen)
    listening = app.listen("127.0.0.1", 0)
    with listening, open_store(settings.store) as store:
        services = Services(
            store, load_recipes(folder / "recipes"), reasoner or Scripted(), settings
        )
        server = app.Server(services)
        loops: list[asyncio.AbstractEventLoop] = []

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve(sockets=[listening])

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            eventually(lambda: server.started or not thread.is_alive())
            assert thread.is_alive()
            yield Running(folder, services, f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            if thread.is_alive():
                loops[0].call_soon_threadsafe(server.handle_exit, signal.SIGTERM, None)
            thread.join(60)
        assert not thread.is_alive()


def eventually(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.02)


def png(number: int, name: str = "posted") -> bytes:
    """A picture that the gate lets pass, of its own bytes for every number."""
    import io

    file = io.BytesIO()
    part(name, number).save(file, "PNG")
    return file.getvalue()


def form(number: int, part_id: str | None = None, **fields: str) -> dict[str, Any]:
    """A form with a picture, as httpx sends it."""
    said = {"recipe": "screw_bag", "part_id": part_id or f"part-{number}", **fields}
    return {"data": said, "files": {"image": ("part.png", png(number), "image/png")}}


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem that an answer is."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:lad-agent:problem:{kind}", body
    assert body["status"] == status
    assert body["detail"]
    return body


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One open service for all tests of a module; its reasoner answers by the image."""
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def client(service: Running) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client
