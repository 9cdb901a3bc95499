"""A PostgreSQL server of one's own, for tests and benchmarks: begun here, ended here."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

MISSING = "PostgreSQL's server is missing (initdb, postgres): apt install postgresql"

DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, which Debian keeps off the path; None without."""
    found = shutil.which("initdb")
    there = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return there[-1].parent if there else Path(found).resolve().parent if found else None


@contextmanager
def running(programs: Path, *, durable: bool = False) -> Iterator[str]:
    """A new server on a socket of its own; its folder. Only a `durable` one waits for the disk."""
    # The server refuses root, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="lad-pg-", dir="/tmp") as folder:
        user = unprivileged()
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        initdb: list[str | Path] = [programs / "initdb", "-D", data, "-U", "postgres"]
        flags = ["-A", "trust", "-N", "--encoding=UTF8", "--locale=C"]
        subprocess.run([*initdb, *flags], user=user, cwd=folder, check=True, capture_output=True)
        settings = ["listen_addresses=", f"fsync={'on' if durable else 'off'}"]
        options = [part for one in (*settings, "max_connections=50") for part in ("-c", one)]
        with Path(folder, "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, *options],
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


def administer(server: str, statement: str) -> None:
    """Run one statement as the server's owner, outside of a transaction."""
    url = f"postgresql+psycopg://postgres@/postgres?host={server}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def unprivileged() -> str | None:
    """Whom the server runs as, where this process is root's; None where it is not."""
    if os.geteuid() != 0:
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _wait(folder: str) -> None:
    for _ in range(300):
        try:
            return administer(folder, "SELECT 1")
        except OperationalError:
            time.sleep(0.1)
    raise TimeoutError(Path(folder, "log").read_text())
