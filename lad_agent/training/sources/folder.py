"""Pictures of a user's own: a folder with `good/` and `bad/<cause>/`, or a CSV.

The CSV has the columns image,label[,product,cause,rule,split,mask], its paths relative to it; a
mask is a PNG or a folder of PNGs, not black where a fault is. In a folder the CSV is called
`labels.csv` and is then the only thing read. A picture without a split gets one by its content.
Where no column tells it, the product is that of the `recipe.yaml` beside the pictures, else what
the reader says, else that of the recipe above them by which they are inspected, else the folder's
name.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from lad_agent import images, recipe, table
from lad_agent.inputs import nearest
from lad_agent.training.sources.example import (
    KINDS,
    SPLITS,
    Example,
    Fault,
    Kind,
    Shares,
    Split,
    labelled,
    mask_layers,
    others,
    pictures,
)

LAYOUT = "own pictures"
LABELS = "labels.csv"


def recognises(path: Path) -> bool:
    """A CSV, a folder with one, or with `good` or `bad` in it."""
    if path.suffix.lower() == ".csv":
        return path.is_file()
    return any((path / name).exists() for name in (LABELS, "good", "bad"))


def folders(path: Path) -> Collection[str] | None:
    """The folders in `path` that are read, by name.

    None where a CSV lists pictures of anywhere, and of a kit (`lad-agent train product`), which
    holds pictures for more than this.
    """
    more = (LABELS, "parts", "parts.json")
    return None if path.is_file() or any((path / n).exists() for n in more) else ("good", "bad")


def read(path: Path, shares: Shares, unnamed: str | None = None) -> Iterator[Example | Fault]:
    """The labelled pictures of a folder or CSV, of the product `unnamed` where nothing tells it.

    Raises:
        UsageError: the CSV is not of its form, or the recipe beside it cannot be used.
    """
    labels = path / LABELS if path.is_dir() else path
    product = _product(labels.parent, unnamed)
    if labels.is_file():
        columns = ("product", "cause", "rule", "split", "mask")
        for line, row in table.rows(labels, ("image", "label"), columns):
            yield _row(labels, line, row, product, shares)
        return
    for folder in (path / "good", path / "bad"):
        yield from map(_no_picture, others(folder))
    for image in pictures(path / "good"):
        yield labelled(image, product, shares, "good")
    for image in pictures(path / "bad"):
        inside = image.relative_to(path / "bad").parts
        cause = inside[0] if len(inside) > 1 else None
        yield labelled(image, product, shares, "bad", cause=cause)


def _no_picture(path: Path) -> Fault:
    known = ", ".join(sorted(images.SUFFIXES))
    return Fault(f"{path}: no picture of a known kind ({known}); save it as PNG, or take it out")


def _product(folder: Path, unnamed: str | None) -> str:
    file = nearest(folder.resolve())
    if file is not None and (unnamed is None or file.parent == folder.resolve()):
        return recipe.load(file, anew=True).product
    return unnamed or folder.name


def _row(
    labels: Path, line: int, row: Mapping[str, str], product: str, shares: Shares
) -> Example | Fault:
    kind: Kind | None = next((kind for kind in KINDS if kind == row["label"]), None)
    split: Split | None = next((split for split in SPLITS if split == row["split"]), None)
    where = f"{labels}, line {line}"
    if not row["image"]:
        return Fault(f"{where}: names no image")
    if kind is None:
        return Fault(f"{where}: label {row['label']!r}; known: {', '.join(KINDS)}")
    if split is None and row["split"]:
        return Fault(f"{where}: split {row['split']!r}; known: {', '.join(SPLITS)}, or nothing")
    if kind == "good" and (row["cause"] or row["rule"] or row["mask"]):
        return Fault(f"{where}: a good picture has neither cause, rule nor mask; mend its label")
    image = labels.parent / row["image"]
    cause, rule = row["cause"] or None, row["rule"] or None
    mask = labels.parent / row["mask"] if row["mask"] else None
    if mask and not any(layer.is_file() for layer in mask_layers(mask)):
        return Fault(f"{where}: no mask {mask}; copy it there, or take it off the list")
    of = row["product"] or product
    return labelled(image, of, split or shares, kind, cause=cause, rule=rule, mask=mask)
