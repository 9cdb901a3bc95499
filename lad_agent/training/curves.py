"""A run's metrics drawn: one small panel a metric, or one a stage where there are several."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lad_agent.errors import NotFound
from lad_agent.training import runs
from lad_agent.training.runs import Run

COLUMNS = 3
_NOT_DRAWN = ("step", "seconds", "epoch", "num_tokens")
_NO_LOSSES = ("learning_rate", "grad_norm")
_SMOOTHED = 40
"""Points that a loss is told by, each the mean of those around it."""

Points = list[tuple[int, float]]


def write(run: Run, path: Path | None = None) -> Path | None:
    """Draw `metrics.jsonl` into the PNG `path`, else the run's `curves.png`; None where nothing was
    measured."""
    found = series(runs.read_lines(run.metrics))
    if not found:
        return None
    rows = -(-len(found) // COLUMNS)
    figure = _figure(4 * COLUMNS, 2.4 * rows, f"{run.stage}: {run.folder.name}")
    for panel, (name, points) in enumerate(found.items(), 1):
        axes = figure.add_subplot(rows, COLUMNS, panel)
        axes.plot(*zip(*points, strict=True), linewidth=1)
        _finish(axes, name)
    path = path or run.folder / "curves.png"
    figure.savefig(path, dpi=110)
    return path


def write_stages(folder: Path, path: Path) -> None:
    """Draw the losses of a run of several stages, a panel each, into the PNG `path`.

    `folder` is that of `train pocket` or `train product`. Of captions and rules the share of tokens
    that are wrong stands beside the loss. A panel says how many minutes its stage took.

    Raises:
        NotFound: no such run, or nothing was measured yet.
    """
    entries = runs.read_lines(folder / "metrics.jsonl")
    found = {stage: series(own) for stage, own in _by_stage(entries)}
    if not found:
        rounds = sorted(folder.glob("round-*"))
        told = f"each round has its own: {rounds[0]}" if rounds else "nothing was measured yet"
        raise NotFound(f"{folder}: holds no metrics of its own; {told}")
    spent: dict[str, float] = {}
    for entry in entries:
        if "spent" in entry:
            spent[entry["name"]] = spent.get(entry["name"], 0.0) + entry["spent"]
    figure = _figure(
        4.4 * len(found), 3.6, f"{folder.name}, {sum(spent.values()) / 60:.0f} minutes"
    )
    for panel, (stage, measured) in enumerate(found.items(), 1):
        axes = figure.add_subplot(1, len(found), panel)
        for name, points in losses(measured).items():
            axes.plot(*zip(*_smooth(points), strict=True), linewidth=1.2, label=name)
        axes.set_yscale("log")
        axes.set_xlabel("step", fontsize=8)
        axes.legend(fontsize=8)
        took = f", {spent[stage] / 60:.0f} minutes" if stage in spent else ""
        _finish(axes, f"{stage}{took}")
    figure.savefig(path, dpi=110)


def series(entries: Sequence[Mapping[str, Any]]) -> dict[str, Points]:
    """(step, value) pairs of every metric that is drawn.

    >>> series([{"step": 1, "loss": 2.0, "seconds": 0.1}, {"step": 2, "loss": 1.5}])
    {'loss': [(1, 2.0), (2, 1.5)]}
    """
    out: dict[str, Points] = {}
    for entry in entries:
        for name, value in entry.items():
            if name not in _NOT_DRAWN and isinstance(value, int | float):
                out.setdefault(name, []).append((entry["step"], value))
    return out


def losses(measured: Mapping[str, Points]) -> dict[str, Points]:
    """What of a stage's metrics shall fall.

    >>> losses({"loss": [(1, 2.0)], "mean_token_accuracy": [(1, 0.75)], "grad_norm": [(1, 9.0)]})
    {'loss': [(1, 2.0)], 'tokens wrong': [(1, 0.25)]}
    """
    out = {}
    for name, points in measured.items():
        if name == "mean_token_accuracy":
            out["tokens wrong"] = [(step, 1.0 - value) for step, value in points]
        elif name not in _NO_LOSSES:
            out[name] = points
    return out


def _by_stage(
    entries: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """The entries of each stage; where it went on after a stop, the later of two of one step."""
    held: dict[str, dict[int, Mapping[str, Any]]] = {}
    for entry in entries:
        if "stage" in entry and "step" in entry:
            held.setdefault(entry["stage"], {})[entry["step"]] = entry
    for stage, by_step in held.items():
        yield stage, [by_step[step] for step in sorted(by_step)]


def _smooth(points: Points) -> Points:
    parts = np.array_split(np.array(points), min(_SMOOTHED, len(points)))
    return [(int(part[-1, 0]), float(part[:, 1].mean())) for part in parts]


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
