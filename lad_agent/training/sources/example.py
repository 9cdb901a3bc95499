"""One labelled picture, and what every layout shares: hashing, splitting, listing."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from lad_agent import images
from lad_agent.rationale import Facts

Split = Literal["train", "validation", "test"]
Kind = Literal["good", "logical", "structural", "bad"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
KINDS: tuple[Kind, ...] = ("good", "logical", "structural", "bad")


@dataclass(frozen=True)
class Example:
    """One labelled picture.

    `sha256` is that of the file's bytes. `kind` bad is anomalous, of unknown kind. `mask` is a PNG,
    or in LOCO's layout a folder of PNGs, one a fault. `facts` are there where the truth is exact.
    Where the label is a person's finding, `by` and `at` say who found it and when, `recipe` by
    which rules, `review` in which review, `task_version` what those rules were then.
    """

    image: Path
    sha256: str
    product: str
    split: Split
    kind: Kind
    cause: str | None = None
    rule: str | None = None
    mask: Path | None = None
    facts: Facts | None = None
    by: str | None = None
    at: datetime | None = None
    recipe: Path | None = None
    review: str | None = None
    task_version: str | None = None

    @property
    def anomalous(self) -> bool:
        return self.kind != "good"


@dataclass(frozen=True)
class Fault:
    """What keeps a picture or a folder from training: one line that begins with its path."""

    message: str


@dataclass(frozen=True)
class Shares:
    """How much of a source without splits of its own is kept from training, 0 to 1 each."""

    validation: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise ValueError("shares are 0 or more, and together below 1")


DEFAULT_SHARES = Shares()


def split_of(sha256: str, shares: Shares) -> Split:
    """The split of a picture by its content alone: the same on every machine, whatever joins it.

    >>> split_of("00" * 32, Shares()), split_of("ff" * 32, Shares())
    ('test', 'train')
    """
    place = int(sha256[:16], 16) / 2**64
    if place < shares.test:
        return "test"
    return "validation" if place < shares.test + shares.validation else "train"


def digest(image: Path) -> str | Fault:
    """SHA-256 of the file's bytes, read in pieces."""
    try:
        with image.open("rb") as file:
            empty = not file.peek(1)
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return Fault(f"{image}: no such file; copy it there, or take it off the list")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Fault(f"{image}: cannot be read ({reason}); check its rights")
    return Fault(f"{image}: the file is empty; download it again") if empty else found


def labelled(
    image: Path, product: str, split: Split | Shares, kind: Kind, **known: Any
) -> Example | Fault:
    """The example of a picture file, with what else is `known` of it; hashed here.

    Where `split` is shares, the split is by content.
    """
    sha256 = digest(image)
    if isinstance(sha256, Fault):
        return sha256
    part = split_of(sha256, split) if isinstance(split, Shares) else split
    return Example(image, sha256, product, part, kind, **known)


def here_or_below(path: Path, is_category: Callable[[Path], bool]) -> list[Path]:
    """`path` if it is a category, else the categories in it."""
    if is_category(path):
        return [path]
    return sorted(filter(is_category, path.iterdir())) if path.is_dir() else []


def pictures(folder: Path) -> Iterator[Path]:
    """The picture files anywhere in `folder`, in the order of names; nothing hidden."""
    return (path for path in _files(folder) if path.suffix.lower() in images.SUFFIXES)


def mask_layers(mask: Path) -> Iterator[Path]:
    """The PNGs of a mask: those in a folder, one a fault, or the file itself."""
    return pictures(mask) if mask.is_dir() else iter((mask,))


def others(folder: Path) -> Iterator[Path]:
    """The files anywhere in `folder` that are no pictures, but for those of a desktop."""
    return (
        path
        for path in _files(folder)
        if path.suffix.lower() not in images.SUFFIXES and path.name.lower() not in _DESKTOP
    )


_DESKTOP = {"thumbs.db", "desktop.ini"}


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path
