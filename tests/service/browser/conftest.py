"""Debian's Chromium, driven by Playwright, on the real service and a real store.

`make browser` runs a whole shift and writes the pictures of docs/review-station.md; the suite runs
a short one.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from lad_agent.store import AuditStore, open_store
from tests.service import floor

SHORT_SHIFT = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shift", type=int, default=SHORT_SHIFT, help="parts in the shift")
    parser.addoption("--shots", type=Path, default=None, help="folder for the pictures")


@pytest.fixture(scope="session")
def parts(request: pytest.FixtureRequest) -> int:
    """How many parts the shift has."""
    wanted: int = request.config.getoption("shift", SHORT_SHIFT)
    return wanted


@pytest.fixture(scope="session")
def shots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the pages go."""
    wanted = request.config.getoption("shots", None)
    return wanted or tmp_path_factory.mktemp("shots")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        missing = "Chromium is missing: apt install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    # Not for the whole session: while it is open, no other test can start an event loop.
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, as whom CI runs in a container.
        opened = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AuditStore]:
    with open_store(tmp_path / "audit.db") as opened:
        yield opened


@pytest.fixture
def address(store: AuditStore) -> Iterator[str]:
    with floor.served(floor.services(store)) as url:
        yield url


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page of a normal screen. Whatever the browser complains about fails the test."""
    context = browser.new_context(
        base_url=address, viewport={"width": 1440, "height": 900}, color_scheme="light"
    )
    context.set_default_timeout(30_000)
    opened = context.new_page()
    complaints: list[str] = []

    def told(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    opened.on("console", told)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    yield opened
    context.close()
    assert complaints == []
