"""Some of a data set's test pictures given to training, the rest kept to judge by.

MVTec LOCO AD, MVTec AD and VisA's split of one class keep good pictures alone for training, which
teaches one answer. The division is written as two CSVs of a user's own pictures, so that every
command reads it, and anybody can see it.
"""

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lad_agent import atomic
from lad_agent.errors import UsageError
from lad_agent.training.sources.example import Example, Shares, split_of

TAUGHT, KEPT = "train.csv", "test.csv"
_COLUMNS = ("image", "label", "product", "cause", "rule", "split", "mask")


def divide(examples: Iterable[Example], share: float) -> tuple[list[Example], list[Example]]:
    """For training (and validation), and to judge by.

    Of the test pictures `share` (0 to 1, neither) become training ones, chosen by content alone:
    the same pictures on every machine.
    """
    taught: list[Example] = []
    kept: list[Example] = []
    for example in examples:
        if example.split != "test":
            taught.append(example)
        elif split_of(example.sha256, Shares(validation=0, test=1 - share)) == "train":
            taught.append(replace(example, split="train"))
        else:
            kept.append(example)
    return taught, kept


def write(folder: Path, taught: Iterable[Example], kept: Iterable[Example]) -> tuple[Path, Path]:
    """Write both lists into `folder`, with paths relative to it; returns the files.

    Raises:
        UsageError: one of them is there already, or cannot be written.
    """
    files = folder / TAUGHT, folder / KEPT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            if file.exists():
                raise UsageError(f"{file} is there already; name another folder")
        for file, examples in zip(files, (taught, kept), strict=True):
            atomic.write(file, _table(folder, examples))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror})") from error
    return files


def _table(folder: Path, examples: Iterable[Example]) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(_COLUMNS)
    for e in examples:
        image = os.path.relpath(e.image, folder)
        mask = os.path.relpath(e.mask, folder) if e.mask else ""
        table.writerow((image, e.kind, e.product, e.cause or "", e.rule or "", e.split, mask))
    return out.getvalue()
