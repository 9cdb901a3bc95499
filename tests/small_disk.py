"""A disk of one's own that really gets full: a tmpfs, mounted here and taken away again."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Grow = Callable[[int], None]


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[Grow]:
    """Make `folder` a disk with so much room; yields what gives it more or less."""
    if shutil.which("mount") is None:
        pytest.skip("no tmpfs on this system")
    folder.mkdir()
    if _mount(folder, f"size={megabytes}m").returncode:
        pytest.skip("no right to mount a tmpfs")
    try:
        yield lambda size: _mount(folder, f"remount,size={size}m").check_returncode()
    finally:
        # Lazily: the traceback of what failed may still hold a file of it open.
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def left(folder: Path, free: int) -> Iterator[None]:
    """Leave no more than `free` bytes on the disk meanwhile."""
    ballast = folder / ".ballast"
    there = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, there.f_bavail * there.f_frsize - free))
    try:
        yield
    finally:
        ballast.unlink()


def _mount(folder: Path, options: str) -> "subprocess.CompletedProcess[bytes]":
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    return subprocess.run(command, capture_output=True)
