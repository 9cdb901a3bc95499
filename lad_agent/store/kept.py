"""Copies of the images that a person must see, kept by content: `<store>.images/ab/abcd….png`."""

import hashlib
import os
import re
from pathlib import Path

import uuid_utils

_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


def keep(image: Path, sha256: str, folder: Path) -> str | None:
    """Copy `image` into `folder` under its hash, durably; returns the path relative to `folder`.

    None where the image is gone, or is not any more what was hashed.

    Raises:
        OSError: the copy could not be written.
    """
    suffix = image.suffix.lower()
    name = f"{sha256[:2]}/{sha256}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
    target = folder / name
    if target.exists():
        return name
    try:
        content = image.read_bytes()
    except (OSError, ValueError):
        return None
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    _make_durably(target.parent)
    _write_durably(target, content)
    return name


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
    _sync_folder(target.parent)


def _make_durably(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_durably(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
