"""One coroutine, two ways to call it: what lets the same steps run under `invoke` and `ainvoke`."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.runtime import get_runtime

T = TypeVar("T")


def blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the event loop that `invoke` and `stream` use, and wait for it.

    All calls share one loop in a thread of its own, because a reasoner is bound to the loop that
    it is first used in: close one that was used by `invoke` with `blocking(reasoner.aclose())`.
    """
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


def both(step: Callable[..., Coroutine[Any, Any, T]]) -> Runnable[Any, T]:
    """A node or a route, `step(state)` or `step(state, runtime)`, for sync and async graphs."""
    with_runtime = "runtime" in inspect.signature(step).parameters

    def call(state: Any) -> Coroutine[Any, Any, T]:
        return step(state, get_runtime()) if with_runtime else step(state)

    def run(state: Any) -> T:
        return blocking(call(state))

    async def arun(state: Any) -> T:
        return await call(state)

    return RunnableLambda(run, arun, name=step.__name__)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="lad-agent-inspections", daemon=True).start()
    return loop
