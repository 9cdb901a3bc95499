"""Stores to test with: SQLite in a file, and PostgreSQL on a server that the suite starts."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from lad_agent.store import AuditStore, open_store
from lad_agent.store.heads import Signing
from lad_agent.store.signing import generate

DEBIAN = Path("/usr/lib/postgresql")
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
    programs = _programs()
    if programs is None:
        missing = "PostgreSQL's server is missing (initdb, postgres): apt install postgresql"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with _server(programs) as folder:
        yield folder


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A new, empty database."""
    name = f"audit{next(_numbers)}"
    _administer(postgres_server, f"CREATE DATABASE {name}")
    yield f"postgresql://postgres@/{name}?host={postgres_server}"
    _administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def _programs() -> Path | None:
    """Debian keeps them off the path."""
    found = shutil.which("initdb")
    there = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return there[-1].parent if there else Path(found).resolve().parent if found else None


@contextmanager
def _server(programs: Path) -> Iterator[str]:
    # The server refuses root, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="lad-pg-", dir="/tmp") as folder:
        user = _unprivileged()
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        initdb = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"]
        flags = ["--encoding=UTF8", "--locale=C"]
        subprocess.run([*initdb, *flags], user=user, cwd=folder, check=True, capture_output=True)
        quick = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50"]
        with Path(folder, "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, *quick],
                user=user,
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        try:
            _wait(folder)
            yield folder
        finally:
            server.terminate()
            server.wait(30)


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _wait(folder: str) -> None:
    for _ in range(300):
        try:
            return _administer(folder, "SELECT 1")
        except OperationalError:
            time.sleep(0.1)
    raise TimeoutError(Path(folder, "log").read_text())


def _administer(server: str, statement: str) -> None:
    url = f"postgresql+psycopg://postgres@/postgres?host={server}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
