"""What watches a training, whatever trainer runs it: metrics, checkpoints, rationales, progress.

watchers = callbacks.watchers(run, steps=1000, ask=...)
with callbacks.guarded(run, watchers):
    trainer.train(...)
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import distributed
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.utils import logging

from lad_agent.errors import PrerequisiteError, TrainingEnded
from lad_agent.training import runs
from lad_agent.training.runs import Run

EVERY_S = 10.0
"""Seconds between two lines in a log."""

Ask = Callable[[Any], Sequence[Mapping[str, Any]]]
"""From the model to one entry for `samples.jsonl` a picture."""


def watchers(run: Run, *, steps: int, ask: Ask) -> list[TrainerCallback]:
    """Every callback of a run, in the order in which they act.

    `ask` is called in every process, so that a model whose layers are shared out can answer.
    """
    from torch.utils.tensorboard import SummaryWriter

    out: list[TrainerCallback] = [Stop(), Checkpoints(), Rationales(run, ask)]
    if runs.first_process():
        # What an earlier session has measured after its last checkpoint is measured again.
        first = runs.last_step(run) + 1
        board = SummaryWriter(log_dir=str(run.folder / "tensorboard"), purge_step=first)
        out += [Metrics(run), TensorBoardCallback(board), Progress(run.stage, steps)]
    return out


@contextmanager
def guarded(run: Run, watchers: Sequence[TrainerCallback] = ()) -> Iterator[None]:
    """Training and saving go on in here, without transformers' own progress bars; the signal and
    the terminal that `watchers` hold are given back whatever happens.

    Raises:
        PrerequisiteError: a checkpoint could not be written, the disk is full, or the memory ran
            out.
    """
    try:
        with without_bars():
            yield
    except torch.cuda.OutOfMemoryError as error:
        raise PrerequisiteError(
            f"the GPU's memory ran out; lower {run.stage}.micro or set gradient_checkpointing"
        ) from error
    except Exception as error:
        # What a full disk raises depends on who writes: OSError, torch's, safetensors' own.
        torn = runs.half_written(run.checkpoints) if runs.first_process() else []
        if not torn:
            with runs.with_room(run.folder, "--resume"):
                raise
        last = runs.last_checkpoint(run.checkpoints)
        kept = f"{last.name} is whole" if last else "there is no earlier one"
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PrerequisiteError(
            f"{torn[0]} could not be written ({said}); {kept}: free room, then --resume"
        ) from error
    finally:
        for watcher in watchers:
            if isinstance(watcher, Stop | Progress):
                watcher.close()
            elif isinstance(watcher, TensorBoardCallback) and watcher.tb_writer is not None:
                watcher.tb_writer.close()


@contextmanager
def without_bars() -> Iterator[None]:
    """transformers shows no progress of its own in here."""
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


class Stop(TrainerCallback):  # type: ignore[misc]
    """SIGTERM ends the run after the step that is under way, with a checkpoint.

    Processes agree on the step: a checkpoint is written by all of them together.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, self._ask)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        asked = torch.tensor(int(self.asked), device=args.device)
        if distributed.is_initialized():
            distributed.all_reduce(asked, distributed.ReduceOp.MAX)
        if asked.item():
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Hand SIGTERM back."""
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)
            self.before = None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint when all of it is written: only then can a run go on from it."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if distributed.is_initialized():
            distributed.barrier()
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / runs.WHOLE).touch()


class Rationales(TrainerCallback):  # type: ignore[misc]
    """Writes what the model says about the same few pictures, every `samples_every` steps and at
    the end."""

    def __init__(self, run: Run, ask: Ask) -> None:
        self.run, self.ask = run, ask

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        due = state.global_step % self.run.config.samples_every == 0
        if self.run.config.samples and (due or state.global_step == state.max_steps):
            for entry in self.ask(getattr(model, "module", model)):
                if state.is_world_process_zero:
                    runs.add_line(self.run.samples, {"step": state.global_step, **entry})


class Metrics(TrainerCallback):  # type: ignore[misc]
    """Writes `metrics.jsonl`; a loss that is no number ends the run."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        earlier = runs.last_metrics(self.run).get("seconds", 0.0)
        self.begin = time.monotonic() - earlier

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "train_runtime" in logs:
            return
        values = {name: float(v) for name, v in logs.items() if isinstance(v, int | float)}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if "loss" in broken or "grad_norm" in broken:
            raise TrainingEnded(
                f"{self.run.folder}: {broken[0]} is no number at step {state.global_step}; "
                f"lower {self.run.stage}.learning_rate"
            )
        seconds = round(time.monotonic() - self.begin, 3)
        finite = {name: value for name, value in values.items() if name not in broken}
        runs.add_line(self.run.metrics, {"step": state.global_step, "seconds": seconds, **finite})


class Progress(TrainerCallback):  # type: ignore[misc]
    """How far the run is, on stderr: a bar on a terminal, plain lines in a log."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self.told, self.line = -math.inf, ""
        self.console = Console(stderr=True, highlight=False)
        self.bar = bar(self.console)
        self.task = self.bar.add_task(name, total=total)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.start()
        self.bar.update(self.task, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        shown = {k: v for k, v in (logs or {}).items() if k in _SHOWN}
        if not shown or "train_runtime" in logs:
            return
        self.line = "  ".join(f"{_SHOWN[k]} {float(v):.3g}" for k, v in shown.items())
        self.bar.update(self.task, description=f"{self.name}  {self.line}")
        now = time.monotonic()
        if self.bar.disable and (
            now - self.told >= EVERY_S or state.global_step == state.max_steps
        ):
            self.told = now
            said = f"{self.name} {state.global_step} of {self.total}: {self.line}"
            self.console.print(said, markup=False, soft_wrap=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Hand the terminal back."""
        self.bar.stop()


def bar(console: Console) -> Bar:
    """A bar on `console` (of stderr) where that is a terminal, else one that shows nothing."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),
        speed_estimate_period=600.0,
    )


_SHOWN = {
    "loss": "loss",
    "mean_token_accuracy": "tokens right",
    "reward": "reward",
    "well_formed": "well-formed",
    "learning_rate": "rate",
}
