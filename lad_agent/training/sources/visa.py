"""VisA as unpacked, in the split of its `split_csv/1cls.csv` (object,split,label,image,mask)."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from lad_agent import table
from lad_agent.training.sources.example import Example, Fault, Kind, Split, labelled

LAYOUT = "VisA"
SPLIT_FILE = "split_csv/1cls.csv"

_SPLITS: Mapping[str, Split] = {"train": "train", "test": "test"}
_KINDS: Mapping[str, Kind] = {"normal": "good", "anomaly": "bad"}


def read(path: Path) -> Iterator[Example | Fault]:
    """The pictures that the split file lists.

    Raises:
        UsageError: the split file is not of its form.
    """
    file = path / SPLIT_FILE
    for line, row in table.rows(file, ("object", "split", "label", "image", "mask")):
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
