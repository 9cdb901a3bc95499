"""Which database a URL or a connection speaks to. Each has one module, with the same functions."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine

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

    def errors_explained(self, store: str) -> AbstractContextManager[None]: ...


DIALECTS: dict[str, Dialect] = {"sqlite": sqlite, "postgresql": postgres}


def of(connection: Connection) -> Dialect:
    """The module of the database that `connection` speaks to."""
    return DIALECTS[connection.dialect.name]
