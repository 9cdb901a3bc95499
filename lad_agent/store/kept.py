"""Copies of the images that a person must see, kept by content: `<store>.images/ab/abcd….png`."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

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
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_durably(target, content)
    return name


def _write_durably(target: Path, content: bytes) -> None:
    """Write beside, sync, rename, sync the folder: a crash leaves a whole file or none."""
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
