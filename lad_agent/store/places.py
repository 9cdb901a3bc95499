"""Where a store lies: what `--store` names, and whether a file can be there."""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from lad_agent.errors import StoreError, StoreReadOnly, UsageError
from lad_agent.store import schema, sqlite
from lad_agent.store.dialects import DIALECTS
from lad_agent.store.schema import State


def url_of(value: str | Path) -> URL:
    """The URL of the database that a path or a URL names.

    Raises:
        UsageError: not a URL of a kind that can be used.
    """
    if isinstance(value, Path) or "://" not in value:
        return URL.create("sqlite", database=str(Path(value).absolute()))
    try:
        url = make_url(value)
    except ArgumentError as error:
        raise UsageError("--store is neither a path nor a SQLAlchemy URL") from error
    if url.get_backend_name() not in DIALECTS:
        raise UsageError(
            f"--store {url.render_as_string(hide_password=True)}: only SQLite and PostgreSQL can "
            "be used; give a path, or postgresql://USER@HOST/DATABASE"
        )
    return url


def file_of(url: URL) -> Path:
    """The database's file; of one on a server the path that stands for it here.

    Raises:
        UsageError: an SQLite database that is no file.
    """
    if url.get_backend_name() != "sqlite":
        return Path.cwd() / (url.database or "lad-agent")
    file = sqlite.database_file(url)
    if file is None:
        raise UsageError("an audit store must be a file; give --store a path")
    return file.absolute()


def check(file: Path, create: bool) -> None:
    """Refuse a place where no store is, or, to `create` one, none can be.

    Raises:
        StoreError: says what is there instead; the subclass where it cannot be reached.
    """
    try:
        if file.is_dir():
            raise StoreError(f"{file}: is a folder; give --store a file")
        if not file.parent.is_dir():
            raise StoreError(f"{file.parent}: no such folder; make it, or give another --store")
        if not create and not file.exists():
            raise schema.refusal(State.EMPTY, str(file))
    except OSError as error:
        raise StoreReadOnly(
            f"{file}: cannot be reached ({error.strerror}); change its rights, "
            "or give another --store"
        ) from error
