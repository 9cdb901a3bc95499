"""A CSV that a user wrote: its columns checked, its rows with their line numbers."""

import csv
from collections.abc import Iterator
from pathlib import Path

from lad_agent import nearest
from lad_agent.errors import UsageError


def rows(
    path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of every row; a cell that is not there is "".

    Columns are parted by commas, or by semicolons where the head has no comma.

    Raises:
        UsageError: not UTF-8 text, a column is missing or unknown, or a row is too long.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    head = lines[0] if lines else ""
    table = csv.DictReader(lines, delimiter=";" if ";" in head and "," not in head else ",")
    names = [name.strip() for name in table.fieldnames or ()]
    table.fieldnames = names
    _check(path, names, needed, optional)
    for row in table:
        if None in row:
            raise UsageError(f"{path}, line {table.line_num}: wants {','.join(names)}")
        yield table.line_num, {name: (row.get(name) or "").strip() for name in needed + optional}


def _check(
    path: Path, names: list[str], needed: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    known = needed + optional
    for name in names:
        if name not in known:
            told = f"unknown column {name!r}; {nearest.hint(name, known)}"
            raise UsageError(f"{path}, line 1: {told}")
    missing = [name for name in needed if name not in names]
    if missing:
        raise UsageError(f"{path}, line 1: lacks the column {', '.join(missing)}")
