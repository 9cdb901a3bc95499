"""`lad-agent calibrate`: thresholds with a promise, written into the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.recipe import Recipe
    from lad_agent.settings import Settings
    from lad_agent.training.calibration import Costs, Part, Reviewed, Taught
    from lad_agent.training.sources import Example


def calibrate(
    recipe: Annotated[Path, typer.Option(help="The recipe.yaml to calibrate.")],
    data: Annotated[
        Path | None,
        typer.Argument(
            help="A results.jsonl of lad-agent inspect (with --truth), or labelled pictures to "
            "judge first: LOCO, SynLOCO, a folder with good and bad, a CSV."
        ),
    ] = None,
    from_reviews: Annotated[
        bool,
        typer.Option("--from-reviews", help="In place of DATA: findings in the audit store."),
    ] = False,
    store: options.Store = None,
    since: options.Since = None,
    truth: Annotated[
        Path | None, typer.Option(help="The labelled pictures that the results are about.")
    ] = None,
    escape: Annotated[
        float | None,
        typer.Option(help="Promise at most this share of bad parts passed (0.01, or by --costs)."),
    ] = None,
    overkill: Annotated[
        float | None, typer.Option(help="Promise at most this share of good parts rejected, too.")
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
    by: options.By = None,
    html: Annotated[Path | None, typer.Option(help="Write a report here.")] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write the report's charts into this folder, as PNG files.")
    ] = None,
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
    from lad_agent.errors import CheckFailed
    from lad_agent.recipe import load
    from lad_agent.training import calibration
    from lad_agent.training.calibration import report as reports
    from lad_agent.training.evaluation import report as pages

    priced = _costs(costs, bad_share)
    if escape is None and priced is None:
        escape = 0.01
    asked = calibration.Asked(escape, overkill, confidence, priced, fit_share, seed)
    loaded = load(recipe, anew=True)
    _refuse_shipped(recipe)
    chosen = settings.load(reasoner=reasoner, adapter=adapter, device=device, store=store, by=by)
    pictures = _pictures(data, truth, since, from_reviews=from_reviews)
    judged: list[Part] | None = None
    if pictures is None:
        judged, left_out = calibration.of_reviews(_reviewed(chosen, since, loaded), loaded)
        examples = [part.example for part in judged]
    else:
        examples, taught = calibration.labelled(pictures, loaded.product)
        left_out = [f"{taught} pictures that are for training"] if taught and not truth else []
    if truth is not None and data is not None:
        judged, left_out = calibration.of_results(data, examples, loaded)
        examples = [part.example for part in judged]
    named = {path.resolve(): path for path in (*(trained_on or ()), *_own_run(chosen, judged))}
    known = [one for path in named.values() for one in calibration.taught(path)]
    for one in known:
        calibration.refuse_trained_on(examples, one.learned)
    if judged is None:
        judged, unjudged = _judge(examples, loaded, chosen)
        left_out += unjudged
    parts = judged
    notes = [f"left out {note}" for note in left_out] + _doubts(known, parts)
    source = "findings of reviews" if pictures is None else str(data)
    try:
        made = calibration.choose(parts, loaded, asked, source=source, notes=notes, by=chosen.by)
    except CheckFailed as error:
        raise CheckFailed("; left out: ".join([str(error), *left_out])) from error
    if html is not None:
        pages.write(html, reports.page(made))
    if png is not None:
        reports.write_pngs(made, png)
    written = None if dry_run else calibration.write(recipe, made)
    if as_json:
        version = written.recipe_version if written else None
        print_json(calibration.values(made) | {"left_out": left_out, "recipe_version": version})
        return
    typer.echo(calibration.text(made))
    if written is not None:
        typer.echo(f"{recipe}: now recipe version {written.recipe_version}")


def _pictures(
    data: Path | None, truth: Path | None, since: str | None, *, from_reviews: bool
) -> Path | None:
    """The labelled pictures; None where the store has them."""
    from lad_agent.errors import UsageError
    from lad_agent.training.sources.loco import TRUTH

    if (data is None) != from_reviews:
        raise UsageError("give DATA, labelled pictures or results, or --from-reviews in its place")
    if since is not None and not from_reviews:
        raise UsageError("--since belongs to --from-reviews; leave it out, or choose the pictures")
    results = data is not None and data.suffix.lower() == ".jsonl" and data.name != TRUTH
    if results != (truth is not None):
        raise UsageError(
            f"{data or '--from-reviews'}: --truth DIR says what the pictures of a results.jsonl "
            "really show, and belongs to that alone"
        )
    return truth or data


def _own_run(chosen: Settings, judged: list[Part] | None) -> list[Path]:
    """The run that made the reasoner, where its folder tells; of parts that were `judged` before,
    only if it was that reasoner."""
    from lad_agent.reasoners import model_folder
    from lad_agent.reasoners.fingerprints import fingerprint
    from lad_agent.training import runs

    made = chosen.adapter or (None if chosen.reasoner == "pocket" else Path(chosen.reasoner))
    run = runs.made_by(made) if made else None
    if run is None or not (run / "run.json").is_file():
        return []
    if judged and judged[0].judgement.model != fingerprint(
        model_folder(chosen.reasoner), chosen.adapter
    ):
        return []
    return [run]


def _doubts(known: list[Taught], parts: list[Part]) -> list[str]:
    """What nobody can tell about a reasoner's having seen the pictures before."""
    from lad_agent.reasoners import EMBEDDED
    from lad_agent.reasoners.fingerprints import fingerprint
    from lad_agent.training import calibration

    model = parts[0].judgement.model if parts else fingerprint(EMBEDDED)
    served = [
        f"{model} is known by name and address alone: give other weights another name there, or "
        "nothing voids this"
    ] if "@" in model else []  # fmt: skip
    if not known and model != fingerprint(EMBEDDED):
        return [
            *served,
            "whether the reasoner has learned from these pictures was not looked at; "
            "--trained-on RUN does",
        ]
    examples = [part.example for part in parts]
    return served + [note for one in known for note in calibration.doubts(one, examples)]


def _reviewed(chosen: Settings, since: str | None, recipe: Recipe) -> list[Reviewed]:
    """Every recorded part of the recipe's product that has a review, decided or not."""
    from lad_agent.recipe import Policy
    from lad_agent.store import ReviewFilter, open_store
    from lad_agent.training.calibration import Reviewed

    wanted = ReviewFilter(product=recipe.product, since=options.moment(since))
    found: list[Reviewed] = []
    policies: dict[str, Policy | None] = {}
    with open_store(chosen.store, create=False) as audit:
        for review in audit.reviews(wanted):
            outcome, decision = review.inspected.outcome, review.decision
            if outcome is None:
                continue
            version = outcome.recipe_version
            if version not in policies:
                said = audit.history(outcome.id).recipe
                # A newer station may have written what this version does not know.
                policies[version] = (
                    Policy.model_validate(said["policy"], extra="ignore") if said else None
                )
            found.append(
                Reviewed(
                    outcome,
                    decision.finding if decision else None,
                    decision.rule if decision else None,
                    policies[version],
                )
            )
    return found


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


def _judge(
    examples: list[Example], recipe: Recipe, chosen: Settings
) -> tuple[list[Part], list[str]]:
    import asyncio
    import sys

    from rich.console import Console

    from lad_agent.training.calibration.judging import judge
    from lad_agent.wiring import reasoner_open

    async def run() -> tuple[list[Part], list[str]]:
        async with reasoner_open(chosen) as reasoner:
            with Console(stderr=True, quiet=not sys.stderr.isatty()).status("judging") as status:
                return await judge(
                    examples,
                    recipe,
                    reasoner,
                    in_flight=chosen.in_flight,
                    on_done=lambda done: status.update(f"{done} of {len(examples)} judged"),
                )

    return asyncio.run(run())
