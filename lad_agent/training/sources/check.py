"""Everything about the data that can stop a training, found before its first step."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from lad_agent import images, recipe
from lad_agent.errors import CheckFailed, RecipeError, UnreadableInput
from lad_agent.inputs import RECIPE_FILE
from lad_agent.training.sources import Source, loco
from lad_agent.training.sources.example import (
    Example,
    Fault,
    Kind,
    Split,
    mask_layers,
    pictures,
)

UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".aria2", ".unfinished")
"""How browsers, download tools and `lad-agent synth` call what is not whole yet."""

SIZE_RATIO = 4.0
"""Areas of one product's pictures further apart than this are worth a warning."""
SHAPE_RATIO = 1.5
"""And so are widths by heights: a reasoner sees every picture squeezed to the same size."""

Group = tuple[str, Split, Kind]
Size = tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """A category of MVTec LOCO AD whose counts are not the archive's, in the order of its parts."""

    category: str
    found: tuple[int, ...]
    archive: tuple[int, ...]

    def __str__(self) -> str:
        parts = (
            f"{split}/{name} has {found} pictures, the archive {archive}"
            for (split, name, _), found, archive in zip(
                loco.PARTS, self.found, self.archive, strict=True
            )
            if found != archive
        )
        return f"{self.category}: {'; '.join(parts)}; unpack it again"


@dataclass(frozen=True)
class Report:
    """What was found: the usable pictures, what forbids training, and what is worth knowing.

    `compared` holds the categories that were compared with the archive of MVTec LOCO AD. A
    difference from it forbids nothing: a part of a data set can be trained on.
    """

    examples: tuple[Example, ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    compared: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def counts(self) -> Counter[Group]:
        """Pictures by product, split and kind."""
        return counted(self.examples)


def counted(examples: Iterable[Example]) -> Counter[Group]:
    """Pictures by product, split and kind."""
    return Counter((e.product, e.split, e.kind) for e in examples)


def require(
    sources: Sequence[Source],
    progress: Callable[[int], None] = lambda n: None,
    *,
    apart: Sequence[Path] = (),
) -> Report:
    """Examine the sources, which are trained on together; folders `apart` within them are meant to
    be left out.

    Raises:
        CheckFailed: names every fault of all of them.
    """
    report = examine(sources, progress, apart=apart)
    if report.faults:
        raise CheckFailed("the data cannot be trained on: " + " | ".join(report.faults))
    return report


def examine(
    sources: Sequence[Source],
    progress: Callable[[int], None] = lambda n: None,
    *,
    apart: Sequence[Path] = (),
) -> Report:
    """Read, hash and decode every picture; `progress` is told how many are done.

    Raises:
        UsageError: a table of a source is not of its form.
    """
    examples: list[Example] = []
    faults: list[str] = []
    sizes: dict[str, Counter[Size]] = defaultdict(Counter)
    compared: dict[str, tuple[int, ...]] = {}
    for source in sources:
        first = len(examples)
        faults += unfinished(source.path) if source.path else ()
        given = [other.path for other in sources if other.path]
        faults += [
            f"{folder}: holds pictures that are not read as {source.layout}; unpack it again, "
            f"give it as a path of its own, or take it out of {source.path}"
            for folder in unread(source, [*given, *(path.absolute() for path in apart)])
        ]
        for found in source.read():
            if isinstance(found, Fault):
                faults.append(found.message)
                continue
            try:
                sizes[found.product][_decoded(found)] += 1
            except UnreadableInput as error:
                faults.append(str(error))
                continue
            examples.append(found)
            progress(len(examples))
        if source.layout == loco.LAYOUT and source.path:
            compared |= archived(source.path, examples[first:])
    faults += _shared(examples)
    if not faults:
        faults += _one_class(examples)
    return Report(
        examples=tuple(examples),
        faults=tuple(dict.fromkeys(faults)),
        warnings=(*_class_warnings(examples), *_size_warnings(sizes)),
        compared=tuple(compared),
        differences=tuple(
            Difference(name, counts, loco.ARCHIVE[name])
            for name, counts in compared.items()
            if counts != loco.ARCHIVE[name]
        ),
    )


def unfinished(path: Path) -> list[str]:
    """A line for everything under `path` that a broken-off download or synth has left."""
    return [
        f"{found}: not whole; finish the download or remove it"
        for found in sorted(path.rglob("*"))
        if found.suffix.lower() in UNFINISHED
    ]


def unread(source: Source, given: Sequence[Path] = ()) -> Iterator[Path]:
    """Folders beside what is read that hold pictures, unless they are `given` themselves.

    Neither hidden folders nor what a training, a store or a recipe keeps there is data.
    """
    read, path = source.folders(), source.path
    if read is None or path is None:
        return
    kept = _references(path / RECIPE_FILE)
    for folder in sorted(path.iterdir()):
        if (
            folder.name in read
            or folder.name.startswith(".")
            or folder.suffix in (*UNFINISHED, ".images")
            or not folder.is_dir()
            or any(one.is_relative_to(folder) for one in given)
        ):
            continue
        found = (
            p for p in pictures(folder) if p.resolve() not in kept and not _of_a_run(p, folder)
        )
        if next(found, None):
            yield folder


def _references(file: Path) -> frozenset[Path]:
    try:
        return frozenset(recipe.load(file, anew=True).references) if file.is_file() else frozenset()
    except RecipeError:
        return frozenset()  # what reads the recipe says what is wrong with it


def _of_a_run(picture: Path, folder: Path) -> bool:
    """Whether a training's run has made the picture."""
    parents = picture.relative_to(folder.parent).parents
    return any((folder.parent / parent / "run.json").is_file() for parent in list(parents)[:-1])


def archived(path: Path, examples: Iterable[Example]) -> dict[str, tuple[int, ...]]:
    """Counts, in the order of `loco.PARTS`, of each category that the LOCO archive has.

    An archive of which some categories are missing counts as broken off, one category alone as
    wanted.
    """
    found = Counter((e.product, e.split, e.kind) for e in examples)
    there = {folder.name for folder in loco.categories(path)} & loco.ARCHIVE.keys()
    wanted = there if path.name in there else loco.ARCHIVE.keys() if there else ()
    return {
        name: tuple(found[name, split, kind] for split, _, kind in loco.PARTS)
        for name in sorted(wanted)
    }


def _decoded(example: Example) -> Size:
    """The size of the upright picture; its masks are decoded as well.

    Raises:
        UnreadableInput: one of them cannot be read, or the picture has changed meanwhile.
    """
    read = images.read(example.image)
    if read.sha256 != example.sha256:
        raise UnreadableInput(f"{example.image}: changed while it was read; start again")
    if example.mask:
        for mask in mask_layers(example.mask):
            shown = images.read(mask)
            if (shown.width, shown.height) != (read.width, read.height):
                raise UnreadableInput(
                    f"{mask}: {shown.width}x{shown.height}, its picture {example.image} is "
                    f"{read.width}x{read.height}; make the mask anew"
                )
    return read.width, read.height


def _shared(examples: Iterable[Example]) -> Iterator[str]:
    """Pictures of the same content in two splits, or under contradicting labels."""
    same: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        same[example.sha256].append(example)
    for group in (group for group in same.values() if len(group) > 1):
        by_split: dict[Split, Example] = {}
        by_label: dict[tuple[str, bool], Example] = {}
        for example in group:
            by_split.setdefault(example.split, example)
            by_label.setdefault((example.product, example.anomalous), example)
        for a, b in combinations(by_split.values(), 2):
            yield f"{a.image} ({a.split}) and {b.image} ({b.split}): the same picture; remove one"
        for (product, anomalous), bad in by_label.items():
            good = by_label.get((product, False))
            if anomalous and good:
                yield (
                    f"{_labelled(good)} and {_labelled(bad)}: the same picture under labels that "
                    "contradict; keep the right one"
                )


def _labelled(example: Example) -> str:
    return f"{example.image} ({example.kind}{f', by {example.by}' if example.by else ''})"


def _one_class(examples: Sequence[Example]) -> Iterator[str]:
    if not examples:
        yield "no picture that can be used; add some"
    elif len({e.anomalous for e in examples}) == 1:
        kind, other = ("anomalous", "good") if examples[0].anomalous else ("good", "anomalous")
        yield f"all {len(examples)} pictures are {kind}; add {other} ones"


def _class_warnings(examples: Sequence[Example]) -> Iterator[str]:
    """Products of one class, and products of two with one of them missing in test."""
    everywhere = {(e.product, e.anomalous) for e in examples}
    in_test = {(e.product, e.anomalous) for e in examples if e.split == "test"}
    for product in sorted({e.product for e in examples}):
        labels = {True: "anomalous", False: "good"}
        lacking = [word for label, word in labels.items() if (product, label) not in everywhere]
        if lacking:
            yield f"{product}: no {lacking[0]} pictures"
            continue
        untested = [word for label, word in labels.items() if (product, label) not in in_test]
        if untested:
            yield f"{product}: no {' or '.join(untested)} pictures in test to judge it by"


def _size_warnings(sizes: dict[str, Counter[Size]]) -> Iterator[str]:
    for product, counted in sorted(sizes.items()):
        areas = [width * height for width, height in counted]
        shapes = [width / height for width, height in counted]
        apart = {
            "sizes": max(areas) > SIZE_RATIO * min(areas),
            "shapes": max(shapes) > SHAPE_RATIO * min(shapes),
        }
        if any(apart.values()):
            what = " and ".join(name for name, far in apart.items() if far)
            told = [f"{width}x{height} ({n})" for (width, height), n in counted.most_common()]
            more = f" and {len(told) - 6} more" if len(told) > 6 else ""
            yield f"{product}: very different {what}: {', '.join(told[:6])}{more}"
