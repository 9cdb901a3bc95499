"""`lad-agent evaluate`: results against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_agent.cli import options


def evaluate(
    results: Annotated[Path, typer.Argument(help="A results.jsonl of lad-agent inspect.")],
    truth: Annotated[Path, typer.Option(help="The folder that lad-agent synth wrote.")],
    as_json: options.Json = False,
) -> None:
    """Print balanced accuracy, escapes, overkill and coverage, a row a product."""
    import json

    from lad_agent.training import evaluation

    figures = evaluation.evaluate(results, truth)
    typer.echo(json.dumps(figures, indent=2) if as_json else evaluation.table(figures))
