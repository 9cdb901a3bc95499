"""MVTec LOCO AD as unpacked, and SynLOCO, which adds the truth about every picture.

<category>/train/good/000.png             validation/good/
           test/good/  test/logical_anomalies/  test/structural_anomalies/
           ground_truth/<kind>/000/000.png  defects_config.json
           truth.jsonl (SynLOCO alone)

LOCO names the cause of a fault by the grey value of its mask, and the rule where the entry of that
value has one; SynLOCO names both by its line of truth.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from lad_agent import images
from lad_agent.errors import UnreadableInput
from lad_agent.rationale import Facts
from lad_agent.training import synloco
from lad_agent.training.sources.example import (
    SPLITS,
    Example,
    Fault,
    Kind,
    Split,
    digest,
    here_or_below,
    labelled,
    pictures,
)

LAYOUT = "MVTec LOCO AD"
SYNTHETIC = "SynLOCO"
TRUTH = "truth.jsonl"
DEFECTS = "defects_config.json"
MASKS = "ground_truth"

PARTS: tuple[tuple[Split, str, Kind], ...] = (
    ("train", "good", "good"),
    ("validation", "good", "good"),
    ("test", "good", "good"),
    ("test", "logical_anomalies", "logical"),
    ("test", "structural_anomalies", "structural"),
)
"""Split, folder and kind of LOCO's five groups of pictures."""

ARCHIVE: Mapping[str, tuple[int, ...]] = {
    "breakfast_box": (351, 62, 102, 83, 90),
    "juice_bottle": (335, 54, 94, 142, 94),
    "pushpins": (372, 69, 138, 91, 81),
    "screw_bag": (360, 60, 122, 137, 82),
    "splicing_connectors": (360, 60, 119, 108, 85),
}
"""Pictures in the published archive, a number for each of `PARTS`."""


def categories(path: Path) -> list[Path]:
    """`path` if it is a category, else the categories in it."""
    return here_or_below(path, _is_category)


def folders(path: Path) -> Collection[str]:
    """The folders in `path` that are read, by name."""
    found = categories(path)
    return (*SPLITS, MASKS) if found == [path] else [category.name for category in found]


def layout(path: Path) -> str:
    """Which of the two it is: SynLOCO has a line of truth for every picture."""
    return SYNTHETIC if any((c / TRUTH).is_file() for c in categories(path)) else LAYOUT


def read(path: Path) -> Iterator[Example | Fault]:
    """The pictures of a category, or of all categories in a folder."""
    for folder in categories(path):
        yield from _synthetic(folder) if (folder / TRUTH).is_file() else _unpacked(folder)


class Defect(BaseModel):
    """An entry of `defects_config.json`; `rule` may be added by hand."""

    defect_name: str
    pixel_value: Annotated[int, Field(ge=0, le=255)]
    rule: str | None = None

    @property
    def breaks(self) -> str | None:
        """The rule it stands for: its own, else that of a name such as `rule_R1`."""
        if self.rule or not re.fullmatch(r"rule_R\d{1,3}", self.defect_name):
            return self.rule or None
        return self.defect_name.removeprefix("rule_")


def defects(file: Path) -> dict[int, Defect]:
    """The entries of `defects_config.json` by grey value.

    Raises:
        UnreadableInput: it cannot be read, or is not of its form.
    """
    try:
        found = TypeAdapter(list[Defect]).validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise UnreadableInput(f"{file}: {_reason(error)}") from error
    return {defect.pixel_value: defect for defect in found}


def mask_values(folder: Path) -> frozenset[int]:
    """Grey values in the masks of one picture, `ground_truth/<kind>/<its name>`: its defects.

    Raises:
        UnreadableInput: a mask cannot be read.
    """
    values: set[int] = set()
    for layer in pictures(folder):
        grey = images.read(layer).image.getchannel("R")
        values |= {value for value, count in enumerate(grey.histogram()) if count and value}
    return frozenset(values)


def _is_category(path: Path) -> bool:
    if path.suffix == ".unfinished":
        return False
    marks = (TRUTH, DEFECTS, "test/logical_anomalies", "test/structural_anomalies")
    return any((path / mark).exists() for mark in marks) or (
        path.name in ARCHIVE and (path / "train" / "good").is_dir()
    )


def _unpacked(folder: Path) -> Iterator[Example | Fault]:
    masks = {name: folder / MASKS / name for _, name, kind in PARTS if kind != "good"}
    wanted = [f"{split}/{name}" for split, name, _ in PARTS]
    wanted += [*(f"{MASKS}/{name}" for name in masks), DEFECTS]
    if lacking := [name for name in wanted if not (folder / name).exists()]:
        yield Fault(
            f"{folder}: lacks {', '.join(lacking)}; unpack the archive again (pictures of your own "
            "go into good and bad/<cause>)"
        )
    known: dict[int, Defect] | None = None
    try:
        known = defects(folder / DEFECTS) if (folder / DEFECTS).is_file() else None
    except UnreadableInput as error:
        yield Fault(f"{error}; unpack the archive again")
    for split, name, kind in PARTS:
        for image in pictures(folder / split / name):
            # A folder of masks that is not there is told once, not for every picture.
            mask = masks[name] / image.stem if name in masks and masks[name].is_dir() else None
            shown = _shown(image, mask, known) if mask else ()
            sha256 = digest(image)
            for found in (shown, sha256):
                if isinstance(found, Fault):
                    yield found
            if not isinstance(sha256, Fault) and not isinstance(shown, Fault):
                yield Example(
                    image, sha256, folder.name, split, kind,
                    cause=", ".join(sorted({d.defect_name for d in shown})) or None,
                    rule=_rule(shown), mask=mask,
                )  # fmt: skip


def _rule(shown: Collection[Defect]) -> str | None:
    """The rule that all the defects of a picture break; None where they do not agree."""
    broken = {defect.breaks for defect in shown}
    return broken.pop() if len(broken) == 1 else None


def _shown(
    image: Path, mask: Path, known: Mapping[int, Defect] | None
) -> Collection[Defect] | Fault:
    """The defects in the masks of a picture; none where nothing names them."""
    if next(pictures(mask), None) is None:
        return Fault(f"{image}: no mask in {mask}; unpack the archive again")
    try:
        values = mask_values(mask)
    except UnreadableInput as error:
        return Fault(str(error))
    if known is None:
        return ()
    if unknown := sorted(values - known.keys()):
        return Fault(f"{mask}: grey value {unknown[0]} is not in {DEFECTS}; unpack both again")
    return [known[value] for value in values]


class _Part(BaseModel):
    cls: str
    cell: str


class _Truth(BaseModel):
    """A line of SynLOCO's truth, as far as training looks at it."""

    image: str
    product: str
    kind: Kind
    rule: str | None
    cause: str | None
    mask: str | None
    objects: list[_Part]
    attributes: dict[str, str]


def _synthetic(folder: Path) -> Iterator[Example | Fault]:
    listed = set()
    for truth in _truths(folder / TRUTH):
        if isinstance(truth, Fault):
            yield truth
            continue
        listed.add(folder / truth.image)
        yield _true(folder, truth)
    for split in SPLITS:
        for image in pictures(folder / split):
            if image not in listed:
                yield Fault(f"{image}: not in {folder / TRUTH}; make the set again")


def _truths(file: Path) -> Iterator[_Truth | Fault]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield Fault(f"{file}: cannot be read as UTF-8 text; make the set again ({error})")
        return
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        try:
            yield _Truth.model_validate_json(line)
        except ValidationError as error:
            yield Fault(f"{file}, line {number}: {_reason(error)}; make the set again")


def _true(folder: Path, truth: _Truth) -> Example | Fault:
    image = folder / truth.image
    split: Split | None = next((s for s in SPLITS if truth.image.startswith(f"{s}/")), None)
    if split is None:
        return Fault(f"{image}: in none of the folders {', '.join(SPLITS)}; make the set again")
    mask = folder / truth.mask if truth.mask else None
    if mask and not mask.is_file():
        return Fault(f"{mask}: the mask is not there; make the set again")
    return labelled(
        image, truth.product, split, truth.kind, cause=truth.cause, rule=truth.rule,
        mask=mask.parent if mask else None, facts=_facts(truth),
    )  # fmt: skip


def _facts(truth: _Truth) -> Facts:
    """What is in the picture; a class of the product that is not seen is listed without places."""
    known = synloco.classes(truth.product) if truth.product in synloco.PRODUCTS else ()
    places: dict[str, list[str]] = {noun: [] for noun in known}
    for part in truth.objects:
        places.setdefault(part.cls, []).append(part.cell)
    return Facts(truth.product, places, truth.attributes)


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"cannot be read ({error})"
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
