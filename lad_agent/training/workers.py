"""Processes that share work, and end when the one that started them does, killed or not."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor


def pool(
    workers: int, prepare: Callable[..., None] | None = None, *arguments: object
) -> ProcessPoolExecutor:
    """That many processes, each started anew; in each `prepare(*arguments)` is called first."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _begin, (prepare, arguments))


def end_with_parent() -> None:
    """End this process, from now on, when the one that started it ends, killed or not."""
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _begin(prepare: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    end_with_parent()
    if prepare is not None:
        prepare(*arguments)


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
