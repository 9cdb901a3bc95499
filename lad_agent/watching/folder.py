"""What lies in a hot folder: which files are whole, which recipe is theirs, and where they go."""

import errno
import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lad_agent import images, inputs, recipe
from lad_agent.errors import UnreadableInput, UsageError
from lad_agent.inputs import RECIPE_FILE, SKIPPED_FOLDERS, Item
from lad_agent.inspection import Outcome
from lad_agent.judgement import Reason, Result

DONE, REVIEW, FAILED = "done", "review", "failed"
"""Where a file goes: decided, waiting for a person, or not readable as a picture."""

NAMED_BY = 12
"""So many digits of its hash tell a file from another one of its name."""

PATIENCE = 10
"""So many times longer than usual is waited for a file that is no whole picture yet."""
AGAIN_S = 30.0
"""How long a file without a recipe is left alone."""


@dataclass(frozen=True)
class Stamp:
    """What tells a file from what is written in its place later."""

    inode: int
    size: int
    changed_ns: int


@dataclass(frozen=True)
class Arrival:
    """A whole file with the recipe that it is to be judged by."""

    item: Item
    stamp: Stamp


@dataclass(frozen=True)
class Waiting:
    """A file in `review/`. `part_ids` are the parts that may be in it, by its name."""

    path: Path
    stamp: Stamp
    image_sha256: str
    part_ids: tuple[str, ...]


class HotFolder:
    """The pictures below `root`, except in `done/`, `review/` and `failed/`, which it makes.

    A file is whole when nothing has changed about it for `settle_s` seconds and it can be decoded;
    what cannot be decoded is waited for `PATIENCE` times as long. Links are never followed.

    Raises:
        UsageError: no such folder, or no right to write in it.
    """

    def __init__(
        self,
        root: Path,
        recipe_name: str | None = None,
        *,
        settle_s: float,
        max_pixels: int = images.MAX_PIXELS,
    ) -> None:
        # resolve() would name parts by what a link points to.
        self.root = Path(os.path.abspath(root))  # noqa: PTH100
        self.settle_s = settle_s
        self._recipe_name = recipe_name
        self._max_pixels = max_pixels
        self._files: dict[Path, _File] = {}
        self._hashes: dict[tuple[Path, Stamp], str] = {}
        self._moving = threading.Lock()
        _make_folders(self.root)

    @property
    def is_settling(self) -> bool:
        """Whether a file may become whole without any further change."""
        return bool(self._files)

    def arrivals(
        self, now: float, *, busy: Set[Path] = frozenset(), limit: int = sys.maxsize
    ) -> tuple[list[Arrival], list[str]]:
        """Up to `limit` whole files that are not `busy`, and a line for each fault found.

        `now` is in seconds of a clock that only goes forward. A file without a usable recipe is
        left where it is, and looked at again after `AGAIN_S`.
        """
        if not self.root.is_dir():
            return [], [f"{self.root}: is not there; waiting for it"]
        found: list[Arrival] = []
        faults: list[str] = []
        for name, group in self._by_recipe(self._whole(now, busy, limit)).items():
            gathered = inputs.search(group, recipe_name=name)
            faults += gathered.faults
            found += [self._arrival(item) for item in gathered.items]
            for path in set(group) - {item.image for item in gathered.items}:
                self.put_off(path, now + AGAIN_S)
        return found, faults

    def put_off(self, path: Path, until: float) -> None:
        """Leave a file alone until then: it could not be worked on."""
        if (file := self._files.get(path)) is not None:
            file.not_before = until

    def read(self, arrival: Arrival) -> bytes | None:
        """The bytes of a file; None where it is gone, or was changed meanwhile.

        Raises:
            OSError: it cannot be read.
        """
        path = arrival.item.image
        if arrival.stamp.size > images.MAX_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        return content if _stamp(path) == arrival.stamp else None

    def move(self, arrival: Arrival, outcome: Outcome) -> Path | None:
        """Move a file to where its outcome belongs; returns where it lies now.

        None where it is gone, or is not any more what was inspected. A file of that name that lies
        there already is kept, under its own name.

        Raises:
            OSError: it cannot be moved.
        """
        source = arrival.item.image
        target = self.root / _destination(outcome) / source.relative_to(self.root)
        own = outcome.image_sha256 or outcome.id
        return self._move(source, arrival.stamp, target, outcome.image_sha256, own)

    def waiting(self) -> list[Waiting]:
        """The pictures in `review/` that can be read."""
        review = self.root / REVIEW
        known, self._hashes = self._hashes, {}
        found = []
        for file in _pictures(review):
            path, stamp = file
            with suppress(UnreadableInput):
                digest = known.get(file) or images.file_sha256(path)
                self._hashes[file] = digest
                names = (path, _unrenamed(path, digest))
                parts = [self.root / name.relative_to(review) for name in names if name]
                ids = tuple(part.relative_to(self.root.parent).as_posix() for part in parts)
                found.append(Waiting(path, stamp, digest, ids))
        return found

    def move_decided(self, waiting: Waiting) -> Path | None:
        """Move a file from `review/` to `done/`, as `move` does."""
        target = self.root / DONE / waiting.path.relative_to(self.root / REVIEW)
        digest = waiting.image_sha256
        return self._move(waiting.path, waiting.stamp, target, digest, digest)

    def _move(
        self, source: Path, stamp: Stamp, target: Path, image_sha256: str | None, own: str
    ) -> Path | None:
        """Move `source` to `target`, or where another file is there under its `own` name."""
        with self._moving:
            if _stamp(source) != stamp:
                return None
            target.parent.mkdir(parents=True, exist_ok=True)
            for name in (target.stem, f"{target.stem}-{own[:NAMED_BY]}", f"{target.stem}-{own}"):
                free = target.with_stem(name)
                if not free.exists() or images.find([free], image_sha256) is not None:
                    break
            else:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(free))
            try:
                return source.replace(free)
            except FileNotFoundError:
                return None

    def _whole(self, now: float, busy: Set[Path], limit: int) -> list[Path]:
        """Those that came first, first."""
        self._files = {
            path: file
            if (file := self._files.get(path)) is not None and file.stamp == stamp
            else _File(stamp, since=now)
            for path, stamp in _pictures(self.root)
        }
        whole = (
            path
            for path, file in sorted(self._files.items(), key=lambda item: item[1].since)
            if path not in busy and self._is_whole(path, file, now)
        )
        return list(islice(whole, limit))

    def _is_whole(self, path: Path, file: "_File", now: float) -> bool:
        still_s = now - file.since
        if still_s < self.settle_s or now < file.not_before:
            return False
        if file.is_picture is None:
            file.is_picture = self._is_picture(path)
        return file.is_picture or still_s >= PATIENCE * self.settle_s

    def _is_picture(self, path: Path) -> bool:
        try:
            images.read(path, max_pixels=self._max_pixels)
        except UnreadableInput:
            return False
        return True

    def _by_recipe(self, paths: Sequence[Path]) -> dict[str | None, list[Path]]:
        """The files by the name under which their recipe is found; None: the nearest one."""
        groups: dict[str | None, list[Path]] = {}
        for path in paths:
            groups.setdefault(self._recipe_name or _product(path, self.root), []).append(path)
        return groups

    def _arrival(self, item: Item) -> Arrival:
        part_id = item.image.relative_to(self.root.parent).as_posix()
        return Arrival(Item(part_id, item.image, item.recipe), self._files[item.image].stamp)


@dataclass
class _File:
    stamp: Stamp
    since: float
    is_picture: bool | None = None
    not_before: float = float("-inf")


def _make_folders(root: Path) -> None:
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; make it, or give another")
    try:
        for name in (DONE, REVIEW, FAILED):
            (root / name).mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{root}: cannot be written ({error.strerror}); files are moved within it, "
            "give this user the right"
        ) from error


def _pictures(root: Path) -> Iterator[tuple[Path, Stamp]]:
    for here, folders, names in os.walk(root):
        ours = {DONE, REVIEW, FAILED} if Path(here) == root else frozenset[str]()
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED_FOLDERS and name not in ours and not name.startswith(".")
        )
        for name in sorted(names):
            if name.lower().endswith(images.SUFFIXES) and not name.startswith("."):
                path = Path(here) / name
                if (stamp := _stamp(path)) is not None:
                    yield path, stamp


def _unrenamed(path: Path, digest: str) -> Path | None:
    """What a file was called before its hash was added to its name; None where it was not."""
    for own in (digest, digest[:NAMED_BY]):
        if path.stem.endswith(f"-{own}"):
            return path.with_stem(path.stem.removesuffix(f"-{own}"))
    return None


def _stamp(path: Path) -> Stamp | None:
    """None where it is gone, or no plain file."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _product(path: Path, root: Path) -> str | None:
    """The shipped product that the file's folder is named after, where no recipe file is nearer."""
    for folder in path.parents:
        if (folder / RECIPE_FILE).is_file() or folder == root:
            return None
        if folder.name in recipe.SHIPPED:
            return folder.name
    return None


def _destination(outcome: Outcome) -> str:
    if outcome.reason is Reason.UNREADABLE:
        return FAILED
    return REVIEW if outcome.result is Result.NOT_DECIDABLE else DONE
