"""`lad-agent train`: make a reasoner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_agent.cli import train_data

app = typer.Typer(help="Make a reasoner.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(train_data.app, name="data")


@app.callback()
def _group() -> None:
    """Make a reasoner."""


@app.command()
def pocket(
    out: Annotated[
        Path, typer.Argument(help="The run's folder; the model is in its folder model.")
    ],
    threads: Annotated[int | None, typer.Option(min=1, help="Processor cores (all).")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of pictures, weights and order.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="A dry run of so few steps a stage, through all.")
    ] = None,
) -> None:
    """Train the pocket model from nothing but SynLOCO; interrupted, the same command goes on."""
    from dataclasses import replace

    from lad_agent.training.pocket import run

    config = run.shortened(steps) if steps is not None else run.PocketConfig()
    if seed is not None:
        config = replace(config, seed=seed)
    model = run.train_pocket(out, config, threads=threads, say=typer.echo)
    typer.echo(f"{model}\n  lad-agent inspect PATH --reasoner {model}")
