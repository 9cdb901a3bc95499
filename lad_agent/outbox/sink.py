"""What a sink is, and what it answers."""

from dataclasses import dataclass
from typing import Protocol

from lad_agent.store.outbox import Message


@dataclass(frozen=True)
class Delivered:
    """The message has arrived: the sink keeps it now."""


@dataclass(frozen=True)
class Refused:
    """The sink would not have this message; those of other parts may go on."""

    error: str


@dataclass(frozen=True)
class Away:
    """The sink takes nothing now, and said or did not say when to ask again."""

    error: str
    retry_after_s: float | None = None


Answer = Delivered | Refused | Away


class Sink(Protocol):
    """Somewhere that results go.

    `name` is what the store knows it by, `target` where it is, in words that hold no secret.
    """

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> str: ...

    async def deliver(self, message: Message) -> Answer:
        """Tell it one message, which it may have been told before; returns soon, never raises."""
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...
