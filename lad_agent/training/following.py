"""What is shown of a run in stages while it goes on, and kept beside `metrics.jsonl`.

The processes that train append to that file, and say nothing; the one that has started them follows
it: a bar on a terminal, plain lines in a log, and TensorBoard.
"""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from lad_agent.training import callbacks, runs

POLLED_S = 0.5
"""Seconds between two looks at the file."""
_NO_LOSSES = ("stage", "step", "seconds", "learning_rate", "mean_token_accuracy", "grad_norm")

Say = Callable[[str], None]


class Following:
    """Shows one stage of the run in `folder`; use as a context manager."""

    def __init__(self, folder: Path, stage: str, say: Say) -> None:
        self.folder, self.stage, self.say = folder, stage, say
        self.measured = False
        self.at = 0
        self.board: Any = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.bar = callbacks.bar(Console(stderr=True, highlight=False))
        self.task = self.bar.add_task(stage, total=None)

    def __enter__(self) -> Self:
        # Here, not in the thread, which would import beside the training.
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter
        self.at = self._metrics.stat().st_size
        self.bar.start()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self.bar.stop()
        try:
            self._read()
        finally:
            if self.board is not None:
                self.board.close()

    def shards(self, what: str, size: int) -> Callable[[int, int], None]:
        """Tells how many shards of `size` pictures are made, of how many."""

        def made(done: int, total: int) -> None:
            completed, wanted = done * size, total * size
            self.bar.update(self.task, description=what, completed=completed, total=wanted)
            self._log(f"{what}: {done} of {total} shards of {size}")

        return made

    @property
    def _metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def _follow(self) -> None:
        while not self.ended.wait(POLLED_S):
            self._read()

    def _read(self) -> None:
        with self._metrics.open("rb") as file:
            file.seek(self.at)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.at += len(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            if entry.get("stage") == self.stage:
                self._show(entry)

    def _show(self, entry: Mapping[str, Any]) -> None:
        told = {name: value for name, value in entry.items() if name not in ("stage", "seconds")}
        self._log(f"{self.stage}: " + " ".join(f"{k} {_cell(v)}" for k, v in told.items()))
        if "steps" in entry:
            self.bar.update(self.task, total=entry["steps"])
        if "step" not in entry:
            return
        loss = sum(value for name, value in entry.items() if name not in _NO_LOSSES)
        said = f"{self.stage}  loss {loss:.3g}"
        self.bar.update(self.task, description=said, completed=entry["step"])
        if self.board is None:
            self.board = self.writer(log_dir=str(self.folder / "tensorboard"))
        for name, value in runs.named(entry).items():
            if name != f"{self.stage}/step":
                self.board.add_scalar(name, value, entry["step"])
        self.measured = True

    def _log(self, text: str) -> None:
        if self.bar.disable:
            self.say(text)


def _cell(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
