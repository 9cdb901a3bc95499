"""`lad-agent recipe`: write a recipe, and have its faults explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.recipe import Recipe

app = typer.Typer(help="What to inspect and how.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def new(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path(
        "recipe.yaml"
    ),
    product: Annotated[
        str, typer.Option(help="Your product's name, or a shipped one to start from.")
    ] = "my_product",
    reference: Annotated[
        list[Path] | None, typer.Option(help="A picture of a good part; several are allowed.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented recipe to fill in."""
    from lad_agent.errors import UsageError

    if path.exists() and not force:
        raise UsageError(f"{path}: is there already; --force overwrites it")
    for picture in reference or []:
        if not picture.is_file():
            raise UsageError(f"--reference {picture}: no such file")
    try:
        missing = _write(path, product, reference or [])
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    typer.echo(f"{path} written; next:")
    if missing:
        typer.echo(f"  put a picture of a good part at {path.parent / 'reference.png'}")
    typer.echo(f"  lad-agent recipe check {path}")


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE", help="Recipe files.")],
    as_json: options.Json = False,
) -> None:
    """Explain every fault with its line; exit code 5 if there is any."""
    from lad_agent import recipe
    from lad_agent.cli.tables import print_json
    from lad_agent.errors import CheckFailed
    from lad_agent.inputs import check_references

    found = {path: recipe.check(path) or check_references(path) for path in paths}
    if as_json:
        faults = [
            {"file": str(path), "line": fault.line, "message": fault.message}
            for path in paths
            for fault in found[path]
        ]
        print_json(faults)
    else:
        for path, its in found.items():
            for fault in its:
                typer.echo(f"{path}:{fault.line}: {fault.message}")
            if not its:
                loaded = recipe.load(path)
                typer.echo(f"{path}: in order; {loaded.product}, {len(loaded.rules)} rules")
                for told in _promised(loaded):
                    typer.echo(f"{path}: {told}")
                if loaded.calibration is not None:
                    typer.echo(f"{path}: valid for: {loaded.calibration.valid_for}")
    bad = sum(map(bool, found.values()))
    if bad:
        raise CheckFailed(f"{bad} of {len(paths)} recipes cannot be used; mend the lines above")


def _promised(loaded: Recipe) -> list[str]:
    """The promises of a recipe's calibration, each with what has been changed since; whether the
    reasoner is the one that it was made for is not known here."""
    from lad_agent.confidence import standing, void

    made = loaded.calibration
    if made is None:
        return []
    gone = void(made, loaded, made.model)
    if gone:
        promises = "; ".join(map(str, made.promises)) or "nothing"
        return [f"void, every part goes to people: {gone} (had promised: {promises})"]
    who = f"by {made.by}, {made.made_at[:10]}" if made.by else made.made_at[:10]
    return [
        f"promised: {standing(made, promise, loaded.policy)} ({who})" for promise in made.promises
    ]


def _write(path: Path, product: str, references: list[Path]) -> bool:
    """Write the recipe; True if its reference picture is still missing."""
    from lad_agent import recipe

    path.parent.mkdir(parents=True, exist_ok=True)
    if product in recipe.SHIPPED and not references:
        shipped = recipe.shipped(product)
        path.write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
        picture = path.parent / "reference.png"
        if not picture.exists():
            picture.write_bytes((shipped.parent / "reference.png").read_bytes())
        return False
    template = Path(recipe.__file__).parent / "recipes" / "template.yaml"
    names = [_relative(picture, path.parent) for picture in references] or ["reference.png"]
    text = template.read_text(encoding="utf-8")
    path.write_text(
        text.format(product=json.dumps(product), references=json.dumps(names)), encoding="utf-8"
    )
    return not references and not (path.parent / "reference.png").exists()


def _relative(picture: Path, folder: Path) -> str:
    import os

    return Path(os.path.relpath(picture, folder)).as_posix()
