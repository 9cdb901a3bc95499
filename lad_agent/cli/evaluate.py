"""`lad-agent evaluate`: results against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_agent.cli import options


def evaluate(
    results: Annotated[Path, typer.Argument(help="A results.jsonl of lad-agent inspect.")],
    truth: Annotated[
        Path, typer.Option(help="The folder that lad-agent synth wrote, or MVTec LOCO AD's.")
    ],
    as_json: options.Json = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a report with curves and the worst mistakes here.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, max=100_000, help="Draws for the intervals; 0: no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Print balanced accuracy, AUROC, escapes and overkill with intervals, a row a product."""
    import json

    from lad_agent.training import evaluation
    from lad_agent.training.evaluation import report

    joined = evaluation.join(results, truth)
    resampling = evaluation.Resampling(bootstrap, seed) if bootstrap else None
    figures = evaluation.figures_of(joined, resampling)
    if html is not None:
        report.write(html, report.page(joined.judged, figures, f"{results.name}, {truth.name}"))
    typer.echo(json.dumps(figures, indent=2) if as_json else evaluation.markdown(figures))
