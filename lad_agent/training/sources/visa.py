"""VisA as unpacked, in a split of its `split_csv`: 1cls.csv unless another is named.

Its columns are object,split,label,image,mask. In 1cls.csv training has good pictures alone, in
2cls_highshot.csv and 2cls_fewshot.csv anomalies too.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath

from lad_agent import table
from lad_agent.training.sources.example import Example, Fault, Kind, Split, labelled

LAYOUT = "VisA"
FOLDER = "split_csv"
SPLIT_FILE = f"{FOLDER}/1cls.csv"

_COLUMNS = ("object", "split", "label", "image", "mask")
_SPLITS: Mapping[str, Split] = {"train": "train", "test": "test"}
_KINDS: Mapping[str, Kind] = {"normal": "good", "anomaly": "bad"}


def is_split(path: Path) -> bool:
    """Whether `path` is one of its split files."""
    return path.suffix == ".csv" and path.parent.name == FOLDER and path.is_file()


def folders(file: Path) -> Collection[str]:
    """The folders beside `split_csv` that a split file lists pictures of, by name."""
    images = (PurePath(row["image"]) for _, row in table.rows(file, _COLUMNS))
    return {image.parts[0] for image in images if image.parts}


def read(file: Path) -> Iterator[Example | Fault]:
    """The pictures that a split file lists.

    Raises:
        UsageError: the split file is not of its form.
    """
    path = file.parents[1]
    for line, row in table.rows(file, _COLUMNS):
        yield _example(path, f"{file}, line {line}", row)


def _example(path: Path, where: str, row: Mapping[str, str]) -> Example | Fault:
    split, kind = _SPLITS.get(row["split"]), _KINDS.get(row["label"])
    if split is None:
        return Fault(f"{where}: split {row['split']!r}; known: {', '.join(_SPLITS)}")
    if kind is None:
        return Fault(f"{where}: label {row['label']!r}; known: {', '.join(_KINDS)}")
    mask = path / row["mask"] if row["mask"] else None
    if kind == "bad" and mask is None:
        return Fault(f"{where}: an anomaly without a mask; unpack the archive again")
    if mask and not mask.is_file():
        return Fault(f"{mask}: the mask is not there; unpack the archive again")
    return labelled(path / row["image"], row["object"], split, kind, mask=mask)
