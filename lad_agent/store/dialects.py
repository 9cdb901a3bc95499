"""Which database a URL or a connection speaks to. Each has one module, with the same functions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from lad_agent.errors import StoreError
from lad_agent.store import postgres, sqlite


class Dialect(Protocol):
    """What a database's module offers; see `sqlite` and `postgres`."""

    TRIGGERS: dict[str, str]
    TRIGGERS_0001: dict[str, str]

    def engine(self, url: URL, *, busy_timeout_s: float) -> Engine: ...

    def prepare(self, engine: Engine) -> None: ...

    def create_triggers(self, connection: Connection, triggers: dict[str, str]) -> None: ...

    def raw_rows(
        self, connection: Connection, query: str, size: int
    ) -> Iterator[list[tuple[Any, ...]]]: ...

    def explained(self, error: BaseException, store: str) -> StoreError: ...


DIALECTS: dict[str, Dialect] = {"sqlite": sqlite, "postgresql": postgres}


def of(connection: Connection) -> Dialect:
    """The module of the database that `connection` speaks to."""
    return DIALECTS[connection.dialect.name]


@contextmanager
def errors_explained(dialect: Dialect, store: str) -> Iterator[None]:
    """Turn every error of the database into a `StoreError` that names `store` and the remedy."""
    try:
        yield
    except DBAPIError as error:
        raise dialect.explained(error.orig or error, store) from error
    except (SQLAlchemyError, sqlite.DriverError) as error:
        raise dialect.explained(error, store) from error
