"""`lad-agent train data`: look at the pictures before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from collections import Counter

    from lad_agent.training.sources.check import Group, Report

app = typer.Typer(help="Pictures to train on.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Pictures to train on."""


@app.command()
def check(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="MVTec LOCO AD, SynLOCO, MVTec AD, VisA or one of its split files, a folder with "
            "good and bad, or a CSV; several are checked as one.",
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Count and read every picture; exit code 5 if the data cannot be trained on, 2 if a recipe
    cannot be used."""
    import sys

    from rich.console import Console

    from lad_agent.cli.tables import print_json
    from lad_agent.errors import CheckFailed
    from lad_agent.training import sources, texts
    from lad_agent.training.sources.check import examine

    opened = [sources.open_source(path) for path in paths]
    if sys.stderr.isatty():
        with Console(stderr=True).status("reading") as status:
            report = examine(opened, lambda done: status.update(f"{done} pictures read"))
    else:
        report = examine(opened)
    if as_json:
        layouts = {str(path): source.layout for path, source in zip(paths, opened, strict=True)}
        print_json({"layouts": layouts, **_json(report)})
    else:
        for path, source in zip(paths, opened, strict=True):
            typer.echo(f"{path}: {source.layout}")
        typer.echo(_text(report))
    wrong = len(report.faults) + len(report.differences)
    if wrong:
        raise CheckFailed(f"{wrong} fault{'s' if wrong > 1 else ''} in the data; mend those above")
    texts.tasks(report.examples)  # a recipe that cannot be used would stop the training


@app.command()
def divide(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="As for check; several become one.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder for train.csv and test.csv.")],
    share: Annotated[
        float, typer.Option("--share", help="Of the test pictures, how many are trained on.")
    ] = 0.5,
) -> None:
    """Give some of the test pictures to training, where it has good ones alone.

    Their content decides which: the same ones on every machine. No picture is copied. train.csv is
    for --data, test.csv for --held-out, evaluate and calibrate.
    """
    from lad_agent.errors import UsageError
    from lad_agent.training import sources
    from lad_agent.training.sources import divided
    from lad_agent.training.sources.check import counted, require

    if not 0 < share < 1:
        raise UsageError(f"--share {share:g}: give a number between 0 and 1")
    report = require([sources.open_source(path) for path in paths])
    taught, kept = divided.divide(report.examples, share)
    for file, examples in zip(divided.write(out, taught, kept), (taught, kept), strict=True):
        typer.echo(f"{file}\n{_counted(counted(examples))}")


def _json(report: Report) -> dict[str, Any]:
    from lad_agent.training.sources.loco import PARTS

    parts = [f"{split}/{name}" for split, name, _ in PARTS]
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (product, split, kind), number in report.counts.items():
        counts.setdefault(product, {}).setdefault(split, {})[kind] = number
    return {
        "counts": counts,
        "archive": {
            "compared": list(report.compared),
            "differences": {
                one.category: {
                    part: {"found": found, "archive": archive}
                    for part, found, archive in zip(parts, one.found, one.archive, strict=True)
                    if found != archive
                }
                for one in report.differences
            },
        },
        "faults": list(report.faults),
        "warnings": list(report.warnings),
    }


def _text(report: Report) -> str:
    different = {one.category for one in report.differences}
    same = [name for name in report.compared if name not in different]
    return "\n".join(
        [
            _counted(report.counts),
            *([f"as many as in the archive: {', '.join(same)}"] if same else []),
            *(f"warning: {line}" for line in report.warnings),
            *(f"fault: {line}" for line in (*report.faults, *map(str, report.differences))),
        ]
    )


def _counted(counts: Counter[Group]) -> str:
    from lad_agent.cli.tables import columns
    from lad_agent.training.sources import KINDS, SPLITS

    rows = [
        (product, split, *map(str, numbers))
        for product in sorted({product for product, _, _ in counts})
        for split in SPLITS
        if any(numbers := [counts[product, split, kind] for kind in KINDS])
    ]
    return columns(("product", "split", *KINDS), rows)
