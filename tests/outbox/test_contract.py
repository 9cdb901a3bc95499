"""Every sink passes the contract of sinks: see docs/results-out.md."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from lad_agent.outbox.webhook import Webhook
from tests.contract.sink import Does, Far, Heard, SinkContract
from tests.outbox.receiver import SECRET, Got, Receiver, receiving


class Hooked:
    """A webhook and its receiver, over HTTP."""

    refuses = True
    secret = "T0K3N"

    def __init__(self) -> None:
        self._receiver = Receiver(self._answer)
        self._next: Iterator[Does] = iter(())
        self._heard: list[Heard] = []
        self._server = ExitStack()
        self._server.enter_context(receiving(self._receiver))
        self._port = int(self._receiver.url.split(":")[2].partition("/")[0])
        self._is_there = True

    def open(self) -> Webhook:
        return Webhook(self._receiver.url, SECRET, timeout_s=5.0)

    def heard(self) -> Sequence[Heard]:
        return list(self._heard)

    def plan(self, next: Sequence[Does]) -> None:
        self._next = iter(next)

    def be_there(self, there: bool) -> None:
        self._is_there = there
        self._server.close()
        if there:
            self._server.enter_context(receiving(self._receiver, self._port))

    def _answer(self, got: Got) -> tuple[int, Mapping[str, str], float]:
        if not self._is_there:
            return 0, {}, 0.0  # over a connection from before it went
        does = next(self._next, "take")
        if does in ("take", "lose"):
            self._heard.append(Heard(got.id, got.body.decode()))
        status = {"take": 204, "refuse": 422, "fail": 503, "lose": 0}[does]
        return status, {}, 0.0


@contextmanager
def webhook() -> Iterator[Far]:
    far = Hooked()
    try:
        yield far
    finally:
        far.be_there(False)


# A further sink joins by its line here, and by a `Far` for its far side.
@pytest.mark.parametrize("kind", [webhook], ids=lambda kind: kind.__name__)
class TestSinks(SinkContract):
    @pytest.fixture
    def far(self, kind: Callable[[], AbstractContextManager[Far]]) -> Iterator[Far]:
        with kind() as far:
            yield far
