"""`lad-agent train`: make a reasoner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lad_agent.cli import options, train_data, train_product

if TYPE_CHECKING:
    from lad_agent.settings import Settings
    from lad_agent.training.config import RunConfig, Stage
    from lad_agent.training.sources import Finding

Config = Annotated[str, typer.Option(help="A shipped configuration, or a YAML file.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder.")]
Pictures = Annotated[
    list[Path] | None, typer.Option(help="Pictures to learn from; several are allowed.")
]
BaseModel = Annotated[str | None, typer.Option(help="Start from this model or run.")]
Steps = Annotated[int | None, typer.Option(min=1, help="As many steps.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of order, texts, draws and adapter.")]
FromReviews = Annotated[
    bool, typer.Option("--from-reviews", help="Learn from people's findings in the audit store.")
]
HeldOut = Annotated[
    Path | None, typer.Option(help="Labelled pictures to judge by before and after.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Dry = Annotated[
    bool, typer.Option("--dry-run", help="Two steps of a tiny random model; memory and time.")
]

app = typer.Typer(help="Make a reasoner.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(train_data.app, name="data")
app.command("product")(train_product.product)


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
    base: Annotated[
        Path | None,
        typer.Option(help="Only the last stage, from this pocket model: pocket, or a folder."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --base: of the last stage. Without: a dry run of so few steps a stage.",
        ),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(
            min=1,
            help="After the first: the last stage again. The model is the mean of the last two.",
        ),
    ] = 1,
) -> None:
    """The pocket model, from SynLOCO alone.

    Interrupted, the same command goes on.
    """
    from dataclasses import replace

    from lad_agent.training.pocket import run

    config = run.PocketConfig()
    if steps is not None:
        config = run.prolonged(steps) if base else run.shortened(steps)
    if seed is not None:
        config = replace(config, seed=seed)
    if rounds == 1:
        model = run.train_pocket(out, config, base=base, threads=threads, say=typer.echo)
    else:
        model = run.train_rounds(
            out, config, rounds, later_steps=steps or run.LATER_STEPS,
            base=base, threads=threads, say=typer.echo,
        )  # fmt: skip
    typer.echo(f"{model}\n  lad-agent inspect PATH --reasoner {model}")


@app.command()
def average(
    out: Annotated[Path, typer.Argument(help="The new model's folder.")],
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Pocket models of one base, or runs.")
    ],
) -> None:
    """One pocket model out of several that went on from the same one: the mean of their weights."""
    from lad_agent.training.pocket import averaging

    model = averaging.average(models, out)
    typer.echo(f"{model}\n  lad-agent inspect PATH --reasoner {model}")


@app.command()
def sft(
    config: Config,
    out: Out = None,
    data: Pictures = None,
    base: BaseModel = None,
    steps: Steps = None,
    seed: Seed = None,
    from_reviews: FromReviews = False,
    store: options.Store = None,
    since: options.Since = None,
    held_out: HeldOut = None,
    resume: Resume = False,
    dry: Dry = False,
) -> None:
    """Fine-tune on labelled pictures.

    On several GPUs: accelerate launch -m lad_agent train sft ...
    """
    chosen = _chosen(
        "sft", config, steps, base=base, seed=seed, data=_data(data, from_reviews, held_out)
    )
    from lad_agent.training import sft as stage

    _train(stage, chosen, out, resume=resume, dry=dry, findings=(store, since))


@app.command()
def grpo(
    config: Config,
    out: Out = None,
    data: Pictures = None,
    base: BaseModel = None,
    steps: Steps = None,
    seed: Seed = None,
    from_reviews: FromReviews = False,
    store: options.Store = None,
    since: options.Since = None,
    held_out: HeldOut = None,
    resume: Resume = False,
    dry: Dry = False,
) -> None:
    """Learn from one's own verdicts alone.

    Without pictures the pocket learns from SynLOCO's. On several GPUs: accelerate launch -m
    lad_agent train grpo ...
    """
    chosen = _chosen(
        "grpo", config, steps, base=base, seed=seed, data=_data(data, from_reviews, held_out)
    )
    from lad_agent.training import grpo as stage

    _train(stage, chosen, out, resume=resume, dry=dry, findings=(store, since))


@app.command()
def promote(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    to: Annotated[Path, typer.Option(help="The folder that the model in use lies in.")],
    held_out: Annotated[
        Path | None, typer.Option(help="Pictures to judge by (those the run names).")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Balanced accuracy that may be lost unseen (0.02)."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Put a run's result in use, if it's no worse.

    Where it got worse than the model in use it is refused, with exit code 5.
    """
    import json

    from lad_agent.training import held_out as pictures
    from lad_agent.training import promotion

    compared = promotion.compare(run, to, held_out)
    typer.echo(json.dumps(compared, indent=2) if as_json else pictures.table(compared))
    allowed = pictures.TOLERANCE if tolerance is None else tolerance
    promotion.promote(run, to, compared, allowed)
    if not as_json:
        typer.echo(f"{to}: now {compared['models']['after']}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    as_json: options.Json = False,
) -> None:
    """What runs differ in, and where they ended."""
    import json

    from lad_agent.training import runs as folders

    found = folders.compare([folders.find(folder) for folder in runs])
    typer.echo(json.dumps(found, indent=2) if as_json else folders.table(found))


@app.command()
def curves(
    run: Annotated[Path, typer.Argument(help="The folder of any run.")],
    out: Annotated[Path | None, typer.Option(help="The PNG (curves.png in RUN).")] = None,
) -> None:
    """Draw what a run has measured so far.

    Every run draws its own curves.png at its end; this draws it before, anew, or elsewhere.
    """
    from lad_agent.errors import NotFound, UsageError
    from lad_agent.training import curves as drawn
    from lad_agent.training import runs

    path = out or run / "curves.png"
    try:
        found = runs.find(run)
        if isinstance(found, runs.StagedRun):
            drawn.write_stages(run, path)
        elif drawn.write(found, path) is None:
            raise NotFound(f"{run}: has measured nothing yet")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    typer.echo(path)


def _data(paths: list[Path] | None, reviews: bool, held_out: Path | None) -> dict[str, Any]:
    return {"paths": paths or None, "reviews": reviews or None, "held_out": held_out}


def _chosen(stage: Stage, config: str, steps: int | None, **flags: Any) -> RunConfig:
    from lad_agent.training import config as configs

    return configs.changed(configs.load(config), **flags, **{stage: {"steps": steps}})


def _train(
    stage: Any,
    config: RunConfig,
    out: Path | None,
    *,
    resume: bool,
    dry: bool,
    findings: tuple[str | None, str | None],
) -> None:
    from lad_agent import settings
    from lad_agent.errors import UsageError

    if out is None and not dry:
        raise UsageError("name the run's folder: --out RUN")
    store, since = findings
    found: list[Finding] = []
    if config.data.reviews and not resume:
        found = _findings(settings.load(store=store), since)
    if dry or out is None:
        told = stage.dry_run(config, findings=found, say=typer.echo)
        typer.echo(
            f"memory a device: about {told.memory}; "
            f"a step on this device: about {told.seconds:.3g} s"
        )
        return
    if stage.train(config, out, findings=found, resume=resume, say=typer.echo) is None:
        raise typer.Exit(143)


def _findings(chosen: Settings, since: str | None) -> list[Finding]:
    """Every decided review of a picture that a reasoner could have judged."""
    from datetime import datetime

    from lad_agent import images
    from lad_agent.judgement import Finding as Found
    from lad_agent.store import ReviewFilter, open_store
    from lad_agent.training.sources import Finding

    wanted = ReviewFilter(since=options.moment(since), decided=True)
    with open_store(chosen.store, create=False) as audit:
        reviews, kept = audit.reviews(wanted), audit.images
    out = []
    for review in reviews:
        intake, outcome, decision = (
            review.inspected.intake,
            review.inspected.outcome,
            review.decision,
        )
        if decision is None or review.decided_at is None or intake.image_sha256 is None:
            continue
        if outcome is not None and outcome.reason in images.GATED:
            continue
        lay = (Path(intake.image), *([kept / review.kept] if review.kept else []))
        out.append(
            Finding(
                images.find(lay, intake.image_sha256) or lay[0],
                intake.product,
                decision.finding is Found.CONFORMING,
                decision.rule,
                decision.by,
                datetime.fromisoformat(review.decided_at),
                intake.image_sha256,
                Path(intake.recipe_path),
                review.id,
                intake.task_version,
            )
        )
    return out
