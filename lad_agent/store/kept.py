"""Copies of the images that a person must see, kept by content: `<store>.images/ab/abcd….png`."""

import hashlib
import os
import re
from collections.abc import Set
from pathlib import Path

import uuid_utils

from lad_agent import atomic

_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


def keep(image: Path, sha256: str, folder: Path) -> str | None:
    """Copy `image` into `folder` under its hash, durably; returns the path relative to `folder`.

    None where the image is gone, or is not any more what was hashed.

    Raises:
        OSError: the copy could not be written.
    """
    name = _name(sha256, image.suffix)
    if (folder / name).exists():
        return name
    try:
        content = image.read_bytes()
    except (OSError, ValueError):
        return None
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    _put(folder / name, content)
    return name


def keep_content(content: bytes, suffix: str, folder: Path) -> Path:
    """Write `content` into `folder` under its hash, durably, if it is not there; where it lies.

    Raises:
        OSError: it could not be written.
    """
    target = folder / _name(hashlib.sha256(content).hexdigest(), suffix)
    if not target.exists():
        _put(target, content)
    return target


def prune(folder: Path, budget: int, needed: Set[str]) -> list[str]:
    """Delete copies, the oldest first, until all together are within `budget` bytes.

    Those in `needed` stay whatever the budget; returns what was deleted, relative to `folder`.

    Raises:
        OSError: a copy could not be deleted.
    """
    found = sorted(
        (path.stat().st_mtime_ns, path.relative_to(folder).as_posix(), path.stat().st_size)
        for path in folder.glob("??/*")
        if path.is_file()
    )
    too_much = sum(size for *_, size in found) - budget
    deleted = []
    for _, name, size in found:
        if too_much <= 0:
            break
        if name not in needed:
            (folder / name).unlink()
            deleted.append(name)
            too_much -= size
    return deleted


def _name(sha256: str, suffix: str) -> str:
    suffix = suffix.lower()
    return f"{sha256[:2]}/{sha256}{suffix if _SUFFIX.fullmatch(suffix) else ''}"


def _put(target: Path, content: bytes) -> None:
    _make_durably(target.parent)
    _write_durably(target, content)


def _write_durably(target: Path, content: bytes) -> None:
    """Write beside, sync, rename, sync the folder: a crash leaves a whole file or none."""
    beside = target.with_name(f".new-{uuid_utils.uuid7()}")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    atomic.sync_folder(target.parent)


def _make_durably(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_durably(folder.parent)
    folder.mkdir(exist_ok=True)
    atomic.sync_folder(folder.parent)
