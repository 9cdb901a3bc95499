"""What a call is to inspect: files, folders and manifests, each image with its recipe."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lad_agent import images, recipe, table
from lad_agent.errors import RecipeError, UnreadableInput, UsageError
from lad_agent.recipe import Fault, Recipe

RECIPE_FILE = "recipe.yaml"
SKIPPED_FOLDERS = frozenset({"ground_truth"})
"""Folders of masks in the layout of MVTec's data sets."""


@dataclass(frozen=True)
class Item:
    """One image to inspect; `image` is absolute."""

    part_id: str
    image: Path
    recipe: Recipe


@dataclass(frozen=True)
class Gathered:
    """Items in the order of the call, and a line for each thing that had to be left out."""

    items: tuple[Item, ...]
    faults: tuple[str, ...]


def gather(
    paths: Sequence[Path], *, recipe_name: str | None = None, limit: int | None = None
) -> Gathered:
    """Find the images of `paths` and the recipe of each.

    A folder is searched through and through, in the order of names; hidden files, masks under
    `ground_truth` and the recipes' own references are no parts. A `.csv` file is a manifest with
    the columns part_id, image and recipe, of which image alone is needed; its paths are relative
    to it. The recipe is a manifest row's own, else `recipe_name` (a path if it ends in .yaml, else
    a product's name), else the nearest `recipe.yaml` in the image's folder or above it.

    Raises:
        UsageError: there is nothing to inspect at all; the first fault says why.
    """
    found = search(paths, recipe_name=recipe_name)
    if not found.items:
        raise UsageError(
            found.faults[0] if found.faults else "nothing to inspect; give a file or a folder"
        )
    return Gathered(found.items[:limit], found.faults)


def search(paths: Sequence[Path], *, recipe_name: str | None = None) -> Gathered:
    """As `gather`, but it is no error that nothing is there."""
    search = _Search(recipe_name)
    for path in paths:
        search.add(_absolute(path))
    return Gathered(tuple(search.items.values()), (*search.faults, *search.left_out()))


def find_recipe(name: str, base: Path) -> Recipe:
    """The recipe that `name` means: a path below `base` if it ends in .yaml, else a product's.

    Raises:
        RecipeError: it cannot be used, or its reference is no picture.
        NotFound: no such product.
    """
    path = base / name if name.endswith((".yaml", ".yml")) else recipe.shipped(name)
    return _load(path)


def check_references(path: Path) -> list[Fault]:
    """Faults of the pictures that the usable recipe at `path` names."""
    faults = []
    for picture in recipe.load(path).references:
        try:
            images.read(picture)
        except UnreadableInput as error:
            faults.append(Fault(_line_of(path, "references"), f"reference {error}"))
    return faults


@dataclass
class _Search:
    recipe_name: str | None
    items: dict[tuple[str, ...], Item] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    without: Counter[str] = field(default_factory=Counter)
    found: dict[str | Path, Recipe | str] = field(default_factory=dict)
    seen: set[Path] = field(default_factory=set)

    def add(self, path: Path) -> None:
        if path.is_dir():
            self._add_folder(path)
        elif not path.exists():
            self.faults.append(f"{path}: no such file or folder; check the path")
        elif path.suffix.lower() == ".csv":
            self._add_manifest(path)
        else:
            self._add_image(path, path.name, None)

    def left_out(self) -> Iterator[str]:
        for fault, count in self.without.items():
            yield f"{fault} ({count} image{'s' if count > 1 else ''} left out)"

    def _add_folder(self, folder: Path) -> None:
        count = 0
        for image in _images(folder):
            count += 1
            self._add_image(image, image.relative_to(folder.parent).as_posix(), None)
        if count == 0:
            self.faults.append(f"{folder}: no images in it ({' '.join(images.SUFFIXES)})")

    def _add_manifest(self, path: Path) -> None:
        try:
            rows = list(_rows(path))
        except UsageError as error:
            self.faults.append(str(error))
            return
        for row in rows:
            image = _absolute(path.parent / row["image"])
            part_id = row["part_id"] or Path(row["image"]).as_posix()
            name = row["recipe"]
            found = self._named(name, path.parent) if name else self._recipe_of(image)
            self._take(part_id, image, found, once=False)

    def _add_image(self, image: Path, part_id: str, found: Recipe | str | None) -> None:
        self._take(part_id, image, found or self._recipe_of(image), once=True)

    def _take(self, part_id: str, image: Path, found: Recipe | str, *, once: bool) -> None:
        if isinstance(found, str):
            self.without[found] += 1
        elif once:
            if image not in self.seen and not _is_reference(image, found):
                self.seen.add(image)
                self.items[(str(image),)] = Item(part_id, image, found)
        else:
            self.items[(part_id, str(image), found.recipe_version)] = Item(part_id, image, found)

    def _recipe_of(self, image: Path) -> Recipe | str:
        if self.recipe_name is not None:
            return self._named(self.recipe_name, Path.cwd())
        if image.parent not in self.found:
            path = nearest(image.parent)
            self.found[image.parent] = (
                self._loaded(path)
                if path is not None
                else f"{image.parent}: no {RECIPE_FILE} in it or above it; "
                "give --recipe, or lad-agent recipe new"
            )
        return self.found[image.parent]

    def _named(self, name: str, base: Path) -> Recipe | str:
        key = f"{base}\0{name}"
        if key not in self.found:
            try:
                self.found[key] = find_recipe(name, base)
            except UsageError as error:
                self.found[key] = str(error)
        return self.found[key]

    def _loaded(self, path: Path) -> Recipe | str:
        key = f"\0{path}"
        if key not in self.found:
            try:
                self.found[key] = _load(path)
            except UsageError as error:
                self.found[key] = str(error)
        return self.found[key]


def _load(path: Path) -> Recipe:
    loaded = recipe.load(path)
    try:
        images.references(loaded)
    except UnreadableInput as error:
        raise RecipeError(f"{path}: reference {error}") from error
    return loaded


def _line_of(path: Path, key: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((n for n, line in enumerate(lines, 1) if line.startswith(key)), 1)


def nearest(folder: Path) -> Path | None:
    """The recipe in the folder or above it, no higher than the current folder if that is above."""
    current = Path.cwd()
    for candidate in (folder, *folder.parents):
        if (candidate / RECIPE_FILE).is_file():
            return candidate / RECIPE_FILE
        if candidate == current:
            return None
    return None


def _images(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith(".")
        )
        for name in sorted(names):
            if name.lower().endswith(images.SUFFIXES) and not name.startswith("."):
                yield Path(here) / name


def _absolute(path: Path) -> Path:
    # resolve() would follow links, and name a part by what a link points to.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _is_reference(image: Path, found: Recipe) -> bool:
    return image.resolve() in found.references


def _rows(path: Path) -> Iterator[dict[str, str]]:
    for line, row in table.rows(path, ("image",), ("part_id", "recipe")):
        if not row["image"]:
            raise UsageError(f"{path}, line {line}: names no image")
        yield row
