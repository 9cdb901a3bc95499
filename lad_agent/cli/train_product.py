"""`lad-agent train product`: a reasoner for a product of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def product(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="recipe.yaml, parts/ with cut-outs, fixture/ with empty fixtures."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run's folder; the model is in its folder model.")],
    minutes: Annotated[
        float, typer.Option(min=1, help="How long it may take; less if it need not be good.")
    ] = 60.0,
    base: Annotated[
        Path | None, typer.Option(help="Start from this pocket model, not from the shipped one.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor cores (all).")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of pictures and order.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="A dry run of so few steps a stage, through all.")
    ] = None,
) -> None:
    """A model for a product of your own.

    Interrupted, the same command goes on.
    """
    import os
    from dataclasses import replace

    from lad_agent.reasoners import EMBEDDED
    from lad_agent.training.product import run

    config = run.shortened(steps) if steps is not None else run.ProductConfig(minutes=minutes)
    if seed is not None:
        config = replace(config, seed=seed)
    cores = threads or os.cpu_count() or 1
    model = run.train_product(
        directory, out, config, base=base or EMBEDDED, threads=cores, say=typer.echo
    )
    typer.echo(
        f"{model}\n  lad-agent inspect PATH --recipe {directory / 'recipe.yaml'} --reasoner {model}"
    )
