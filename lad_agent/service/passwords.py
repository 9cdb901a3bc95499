"""Passwords: hashed with argon2id, never kept."""

import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from lad_agent.errors import UsageError

SHORTEST = 10
LONGEST = 200

_hasher = PasswordHasher()
# A hash takes 64 MiB: a flood of logins must wait, not fill the memory.
_at_once = threading.BoundedSemaphore(2)


def hashed(password: str) -> str:
    """The hash to keep.

    Raises:
        UsageError: too short, or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise UsageError(f"a password has {SHORTEST} to {LONGEST} characters")
    with _at_once:
        return _hasher.hash(password)


def matches(kept: str | None, password: str) -> bool:
    """Whether `password` is the one whose hash was kept; takes as long where there is none."""
    with _at_once:
        try:
            return _hasher.verify(kept or _nobodys(), password) and kept is not None
        except (VerificationError, InvalidHashError):
            return False


@cache
def _nobodys() -> str:
    return _hasher.hash("nobody's password")
