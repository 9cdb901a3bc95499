"""Files of one JSON object a line."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lad_agent.errors import UsageError

Line = TypeVar("Line")


def read(path: Path, make: Callable[[Mapping[str, Any]], Line]) -> Iterator[Line]:
    """What `make` makes of each line.

    Raises:
        UsageError: the file, or the line by its number, cannot be read or is not of its form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: cannot be read (not UTF-8 text)") from error
    lines = text.removesuffix("\n").split("\n") if text else []  # splitlines splits at U+2028 too
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: not JSON") from error
        if not isinstance(entry, dict):
            raise UsageError(f"{path}, line {number}: not a JSON object")
        try:
            made = make(entry)
        except KeyError as error:
            raise UsageError(f"{path}, line {number}: has no {error}") from error
        except (TypeError, ValueError) as error:
            raise UsageError(f"{path}, line {number}: not of its form ({error})") from error
        yield made
