"""`lad-agent calibrate`: thresholds with a promise, written into the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.recipe import Recipe
    from lad_agent.settings import Settings
    from lad_agent.training.calibration import Costs, Part
    from lad_agent.training.sources import Example


def calibrate(
    data: Annotated[
        Path,
        typer.Argument(
            help="A results.jsonl of lad-agent inspect (with --truth), or labelled pictures to "
            "judge first: LOCO, SynLOCO, a folder with good and bad, a CSV."
        ),
    ],
    recipe: Annotated[Path, typer.Option(help="The recipe.yaml to calibrate.")],
    truth: Annotated[
        Path | None, typer.Option(help="The labelled pictures that the results are about.")
    ] = None,
    escape: Annotated[
        float | None, typer.Option(help="Promise at most this share of bad parts passed (0.01).")
    ] = None,
    overkill: Annotated[
        float | None, typer.Option(help="Promise at most this share of good parts rejected.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="How sure each promise is.")] = 0.95,
    costs: Annotated[
        str | None, typer.Option(help="MISS,OVERKILL,REVIEW: least cost in place of fewest people.")
    ] = None,
    bad_share: Annotated[
        float | None, typer.Option(help="With --costs: the share of bad parts on your line.")
    ] = None,
    trained_on: Annotated[
        list[Path] | None,
        typer.Option(help="A training's run or pictures; calibrating on them is refused."),
    ] = None,
    fit_share: Annotated[
        float, typer.Option(help="Share of the parts that fit the confidence model; 0: none.")
    ] = 0.3,
    seed: Annotated[int, typer.Option(min=0, help="Of the split of the parts.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Write a report here.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Leave the recipe as it is.")] = False,
    reasoner: options.Reasoner = None,
    adapter: options.Adapter = None,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Choose thresholds that keep a promise about escapes, with the fewest parts sent to people.

    Exit code 5 if the promise cannot be made; the recipe then stays as it is.
    """

    from lad_agent import settings
    from lad_agent.cli.tables import print_json
    from lad_agent.recipe import load
    from lad_agent.training import calibration
    from lad_agent.training.calibration import report as reports
    from lad_agent.training.evaluation import report as pages

    priced = _costs(costs, bad_share)
    if escape is None and overkill is None and priced is None:
        escape = 0.01
    asked = calibration.Asked(escape, overkill, confidence, priced, fit_share, seed)
    loaded = load(recipe)
    _refuse_shipped(recipe)
    chosen = settings.load(reasoner=reasoner, adapter=adapter, device=device)
    examples, left_out = calibration.labelled(_pictures(data, truth), loaded.product)
    for path in trained_on or []:
        calibration.refuse_trained_on(examples, calibration.trained_on(path))
    if truth is not None:
        parts = calibration.of_results(data, examples, loaded)
    else:
        parts = _judge(examples, loaded, chosen)
    made = calibration.choose(parts, loaded, asked)
    if html is not None:
        pages.write(html, reports.page(made, priced))
    written = None if dry_run else calibration.write(recipe, made)
    if as_json:
        version = written.recipe_version if written else None
        found = calibration.values(made) | {"recipe_version": version}
        print_json(found)
        return
    typer.echo(calibration.text(made))
    if left_out and truth is None:
        typer.echo(f"note: {left_out} pictures are for training and were left out")
    if written is not None:
        typer.echo(f"{recipe}: now recipe version {written.recipe_version}")


def _pictures(data: Path, truth: Path | None) -> Path:
    from lad_agent.errors import UsageError

    if (data.suffix.lower() == ".jsonl") != (truth is not None):
        raise UsageError(
            f"{data}: --truth DIR says what the pictures of a results.jsonl really show, and "
            "belongs to that alone"
        )
    return truth or data


def _refuse_shipped(path: Path) -> None:
    from lad_agent import recipe
    from lad_agent.errors import UsageError

    shipped = Path(recipe.__file__).parent / "recipes"
    if shipped in path.resolve().parents:
        raise UsageError(
            f"{path}: comes with the package and is not written to; lad-agent recipe new "
            f"recipe.yaml --product {path.resolve().parent.name} makes a copy to calibrate"
        )


def _costs(text: str | None, bad_share: float | None) -> Costs | None:
    from lad_agent.errors import UsageError
    from lad_agent.training.calibration import Costs

    if text is None:
        if bad_share is not None:
            raise UsageError("--bad-share belongs to --costs; give both")
        return None
    if bad_share is None:
        raise UsageError("--costs needs --bad-share, the share of bad parts on your line")
    try:
        miss, overkill, review = map(float, text.split(","))
    except ValueError as error:
        raise UsageError(f"--costs {text}: give three numbers, such as 500,20,5") from error
    return Costs(miss, overkill, review, bad_share)


def _judge(examples: list[Example], recipe: Recipe, chosen: Settings) -> list[Part]:
    import asyncio
    import sys

    from rich.console import Console

    from lad_agent.training.calibration.judging import judge
    from lad_agent.wiring import open_reasoner

    async def run() -> list[Part]:
        reasoner = open_reasoner(chosen)
        try:
            with Console(stderr=True, quiet=not sys.stderr.isatty()).status("judging") as status:
                return await judge(
                    examples,
                    recipe,
                    reasoner,
                    in_flight=chosen.in_flight,
                    on_done=lambda done: status.update(f"{done} of {len(examples)} judged"),
                )
        finally:
            await reasoner.aclose()

    return asyncio.run(run())
