"""Words for the cause of a fault."""

from __future__ import annotations

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


def wrong_count(singular: str, plural: str, expected: int, found: int) -> str:
    """What is wrong with a count, e.g. "two washers too many" or "one nut missing"."""
    difference = abs(found - expected)
    noun = singular if difference == 1 else plural
    return f"{_NUMBERS[difference]} {noun} {'too many' if found > expected else 'missing'}"
