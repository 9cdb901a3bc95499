"""A run's metrics drawn: one small panel a metric, over the steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lad_agent.training import runs
from lad_agent.training.runs import Run

COLUMNS = 3
_NOT_DRAWN = ("step", "seconds", "epoch", "num_tokens")


def write(run: Run) -> Path | None:
    """Draw `metrics.jsonl` into `curves.png`; None where nothing was measured."""
    found = series(runs.read_lines(run.metrics))
    if not found:
        return None
    rows = -(-len(found) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{run.stage}: {run.folder.name}")
    for panel, (name, points) in enumerate(found.items(), 1):
        axes = figure.add_subplot(rows, COLUMNS, panel)
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    path = run.folder / "curves.png"
    figure.savefig(path, dpi=110)
    return path


def series(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs of every metric that is drawn.

    >>> series([{"step": 1, "loss": 2.0, "seconds": 0.1}, {"step": 2, "loss": 1.5}])
    {'loss': [(1, 2.0), (2, 1.5)]}
    """
    out: dict[str, list[tuple[int, float]]] = {}
    for entry in entries:
        for name, value in entry.items():
            if name not in _NOT_DRAWN and isinstance(value, int | float):
                out.setdefault(name, []).append((entry["step"], value))
    return out
