"""`lad-agent synth`: SynLOCO, our synthetic pictures of five products with their exact truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_agent.cli import options


def synth(
    directory: Annotated[Path, typer.Argument(help="Each product gets a folder in it.")],
    product: Annotated[
        list[str] | None, typer.Option(help="Only this product; several are allowed.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Test images a product, half bad.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same bytes.")] = 0,
    split: Annotated[
        str, typer.Option(help="train or held-out: ranges of light, blur, pose and backgrounds.")
    ] = "train",
    size: Annotated[int, typer.Option(min=56, max=4096, help="Side in pixels.")] = 392,
    train: Annotated[int | None, typer.Option(min=0, help="Good images for training.")] = None,
    validation: Annotated[int | None, typer.Option(min=0, help="And for validation.")] = None,
    varied: Annotated[
        int, typer.Option(min=0, help="And pictures of any content for training.")
    ] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes (one a core).")] = None,
) -> None:
    """Make pictures of five products in the folder layout of MVTec LOCO, with recipe and truth."""
    import os
    import time

    from lad_agent.errors import UsageError
    from lad_agent.recipe import SHIPPED

    ranges = options.choice("--split", split, ["train", "held-out"])
    chosen = [options.choice("--product", name, list(SHIPPED)) for name in product or SHIPPED]
    from lad_agent.training.synloco import dataset

    for name in chosen:
        begin = time.monotonic()
        try:
            dataset.write(
                directory,
                name,
                count,
                seed,
                split="train" if ranges == "train" else "held-out",
                size=size,
                workers=workers or os.cpu_count() or 1,
                train=train,
                validation=validation,
                varied=varied,
            )
        except OSError as error:
            raise UsageError(f"{directory}: cannot be written ({error.strerror})") from error
        seconds = time.monotonic() - begin
        typer.echo(f"{directory / name}: {count} test images, {seconds:.1f} s", err=True)
