"""`lad-agent evaluate`: results against the truth, and what each stage of training is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_agent.cli import options


def evaluate(
    results: Annotated[
        Path | None, typer.Argument(help="A results.jsonl of lad-agent inspect.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="What synth wrote, MVTec LOCO AD, or own pictures."),
    ] = None,
    as_json: options.Json = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a report with curves and the worst mistakes here.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, max=100_000, help="Draws for the intervals; 0: no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    ablation: Annotated[
        Path | None,
        typer.Option(help="Train SFT, GRPO, both and controls into this folder, and judge them."),
    ] = None,
    config: Annotated[
        str, typer.Option(help="With --ablation: a shipped configuration, or a YAML file.")
    ] = "pocket",
    base: Annotated[
        str | None, typer.Option(help="With --ablation: start from this model or run.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="With --ablation: pictures to learn from.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="With --ablation: labelled pictures to judge by.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --ablation: runs of each kind.")] = 5,
    warm_up: Annotated[
        int, typer.Option(min=0, help="With --ablation: steps that teach the base the form.")
    ] = 20,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="With --ablation: only this way of training; several are allowed."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="With --ablation: every stage takes so long (its steps)."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="With --ablation: processes that share the seeds.")
    ] = 1,
) -> None:
    """Print balanced accuracy, AUROC, escapes and overkill with intervals, a row a product.

    With --ablation a row for each way of training; interrupted, the same command goes on.
    """
    import json

    from lad_agent.errors import UsageError
    from lad_agent.training import evaluation

    resampling = evaluation.Resampling(bootstrap, seed) if bootstrap else None
    if ablation is not None:
        from lad_agent.training import ablation as arms
        from lad_agent.training import config as configs

        chosen = configs.changed(
            configs.load(config), base=base, data={"paths": data or None, "held_out": held_out}
        )
        if results is not None or truth is not None or html is not None or resampling is None:
            raise UsageError("--ablation judges by itself: no RESULTS, --truth, --html, and draws")
        found = arms.run(
            chosen,
            ablation,
            arms=arm or arms.NAMES,
            seeds=seeds,
            warm_up=warm_up,
            minutes=minutes,
            jobs=jobs,
            resampling=resampling,
            say=lambda text: typer.echo(text, err=True),
        )
        if found is None:
            raise typer.Exit(143)
        typer.echo(json.dumps(found, indent=2) if as_json else arms.table(found))
        return
    if results is None or truth is None:
        raise UsageError("name what to evaluate: RESULTS with --truth DIR, or --ablation FOLDER")
    from lad_agent.training.evaluation import report

    joined = evaluation.join(results, truth)
    figures = evaluation.figures_of(joined, resampling)
    if html is not None:
        report.write(html, report.page(joined.judged, figures, f"{results.name}, {truth.name}"))
    typer.echo(json.dumps(figures, indent=2) if as_json else evaluation.markdown(figures))
