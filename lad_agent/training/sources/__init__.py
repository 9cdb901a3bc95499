"""Where training's labelled pictures come from: one `Example` whatever the layout on disk.

    source = open_source(Path("data/screw_bag"))
    report = check.require([source])            # every fault named in one error
    report.examples

A source is read as a stream of `Example` and `Fault`; nothing is skipped or replaced.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lad_agent.errors import UnreadableInput, UsageError
from lad_agent.training.sources import folder, loco, mvtec_ad, reviews, visa
from lad_agent.training.sources.example import (
    DEFAULT_SHARES,
    KINDS,
    SPLITS,
    Example,
    Fault,
    Kind,
    Shares,
    Split,
    split_of,
)
from lad_agent.training.sources.reviews import Finding

__all__ = [
    "KINDS",
    "SPLITS",
    "Example",
    "Fault",
    "Finding",
    "Kind",
    "Shares",
    "Source",
    "Split",
    "from_reviews",
    "open_source",
    "split_of",
]


@dataclass(frozen=True)
class Source:
    """Labelled pictures of one layout; `path` is None for findings, `read` starts a new stream.

    `folders` names those in `path` that are read; None where a list tells what is.
    """

    layout: str
    path: Path | None
    read: Callable[[], Iterator[Example | Fault]]
    folders: Callable[[], Collection[str] | None] = lambda: None

    def __iter__(self) -> Iterator[Example]:
        """The examples.

        Raises:
            UnreadableInput: at the first fault; `check.require` names all.
        """
        for found in self.read():
            if isinstance(found, Fault):
                raise UnreadableInput(found.message)
            yield found


def open_source(path: Path, shares: Shares = DEFAULT_SHARES, unnamed: str | None = None) -> Source:
    """The source at `path`, its layout recognised; `shares` matter where it has no splits.

    `unnamed` is the product of own pictures of which neither a column nor a recipe tells it.

    A truth file stands for its folder, and one of VisA's split files for VisA in that split.

    Raises:
        UsageError: there is nothing, or no known layout.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder; check the path")
    # A category is named by its folder, which "." does not tell; resolve() would follow links.
    path = Path(os.path.abspath(path))  # noqa: PTH100
    if path.name == loco.TRUTH:
        path = path.parent
    if visa.is_split(path):
        return Source(visa.LAYOUT, path.parents[1], partial(visa.read, path))
    if (path / visa.SPLIT_FILE).is_file():
        file = path / visa.SPLIT_FILE
        return Source(visa.LAYOUT, path, partial(visa.read, file), partial(visa.folders, file))
    if loco.categories(path):
        layout = loco.layout(path)
        return Source(layout, path, partial(loco.read, path), partial(loco.folders, path))
    if mvtec_ad.categories(path):
        read = partial(mvtec_ad.read, path)
        return Source(mvtec_ad.LAYOUT, path, read, partial(mvtec_ad.folders, path))
    if folder.recognises(path):
        own = partial(folder.read, path, shares, unnamed)
        return Source(folder.LAYOUT, path, own, partial(folder.folders, path))
    raise UsageError(
        f"{path}: no layout that is known; looked, there and one folder down, for "
        f"{loco.DEFECTS}, {loco.TRUTH} or test/logical_anomalies (MVTec LOCO AD, SynLOCO) and "
        f"train/good with test (MVTec AD), and there for {visa.SPLIT_FILE} (VisA), "
        f"{folder.LABELS}, good or bad (own pictures)"
    )


def from_reviews(findings: Iterable[Finding], shares: Shares = DEFAULT_SHARES) -> Source:
    """A source of people's findings, read once."""
    kept = tuple(findings)
    return Source(reviews.LAYOUT, None, lambda: reviews.read(kept, shares))
