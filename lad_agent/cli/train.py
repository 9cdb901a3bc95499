"""`lad-agent train`: make a reasoner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_agent.cli import options, train_data

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


@app.command()
def sft(
    config: Annotated[str, typer.Option(help="A shipped configuration, or a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Pictures to learn from; several are allowed.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Start from this model or run.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="As many steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of order, texts and adapter.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Two steps of a tiny random model; memory and time.")
    ] = False,
) -> None:
    """Fine-tune a reasoner on labelled pictures; several GPUs by accelerate launch -m lad_agent."""
    from lad_agent.errors import UsageError
    from lad_agent.training import config as configs

    chosen = configs.changed(
        configs.load(config),
        base=base,
        seed=seed,
        data={"paths": data or None},
        sft={"steps": steps},
    )
    if out is None and not dry:
        raise UsageError("name the run's folder: --out RUN")
    from lad_agent.training import sft as stage

    if dry or out is None:
        found = stage.dry_run(chosen, say=typer.echo)
        typer.echo(
            f"{found.examples} pictures to learn from; memory a device: about {found.memory}; "
            f"{found.seconds:.2f} s a step of the shrunken model"
        )
        return
    result = stage.train(chosen, out, resume=resume, say=typer.echo)
    if result is None:
        raise typer.Exit(143)


@app.command()
def grpo(
    config: Annotated[str, typer.Option(help="A shipped configuration, or a YAML file.")],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Pictures to learn from; the pocket has its own without any."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Start from this model or run.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="As many steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of prompts, draws and adapter.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Let a reasoner learn from its own verdicts; several GPUs by accelerate launch."""
    from lad_agent.training import config as configs

    chosen = configs.changed(
        configs.load(config),
        base=base,
        seed=seed,
        data={"paths": data or None},
        grpo={"steps": steps},
    )
    from lad_agent.training import grpo as stage

    if stage.train(chosen, out, resume=resume, say=typer.echo) is None:
        raise typer.Exit(143)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    as_json: options.Json = False,
) -> None:
    """What runs differ in, and where they ended, as a Markdown table."""
    import json

    from lad_agent.training import runs as folders

    found = folders.compare([folders.find_run(folder) for folder in runs])
    typer.echo(json.dumps(found, indent=2) if as_json else folders.table(found))
