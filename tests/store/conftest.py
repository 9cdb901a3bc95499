"""Stores to test with: SQLite in a file, and PostgreSQL on a server that the suite starts."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from lad_agent.store import AuditStore, open_store
from lad_agent.store.heads import Signing
from lad_agent.store.signing import generate
from tests.store import server

_numbers = count()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AuditStore]:
    """A new store in an SQLite file."""
    with open_store(tmp_path / "audit.db", busy_timeout_s=2.0) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be made, on each database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/audit.db"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def each_store(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AuditStore]:
    """A new store, on each database in turn; what lies beside it lies in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    with open_store(store_url, busy_timeout_s=2.0) as opened:
        yield opened


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    """A key of our own, by whose schedule no head is ever due."""
    return Signing(generate(tmp_path / "line.key"), "line-1", "olga", every_events=10**9)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A server for this run, on a socket of its own; its folder."""
    programs = server.programs()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail(server.MISSING)
        pytest.skip(server.MISSING)
    with server.running(programs) as folder:
        yield folder


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A new, empty database."""
    name = f"audit{next(_numbers)}"
    server.administer(postgres_server, f"CREATE DATABASE {name}")
    yield f"postgresql://postgres@/{name}?host={postgres_server}"
    server.administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")
