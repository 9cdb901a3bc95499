"""What is printed: tables with columns padded by blanks, JSON, and lines beside them."""

import json
from collections.abc import Sequence

import typer

from lad_agent.results import printable


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text, free of characters that a terminal would obey.

    >>> print(columns(("part", "n"), [("nut", "12"), ("washer", "3")]))
    part     n
    nut     12
    washer   3
    """
    table = [
        tuple(heads),
        *(tuple(printable(" ".join(cell.split())) for cell in row) for row in rows),
    ]
    widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
    right = [bool(rows) and all(_number(row[i]) for row in rows) for i in range(len(heads))]
    lines = []
    for row in table:
        cells = (
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def cell(value: object) -> str:
    """One value of a table.

    >>> cell(None), cell(0.5), cell(3)
    ('-', '0.5000', '3')
    """
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def as_json(data: object) -> str:
    """`data` as JSON for people to read; what UTF-8 cannot hold stands as an escape."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def print_json(data: object) -> None:
    """Print `as_json(data)`."""
    typer.echo(as_json(data))


def say(text: str) -> None:
    """One line on stderr, beside what is printed."""
    typer.echo(f"lad-agent: {printable(' '.join(text.split()))}", err=True)


def _number(cell: str) -> bool:
    return cell in ("", "-") or cell.replace(".", "", 1).isdigit()
