"""Plain tables: columns padded with blanks, numbers to the right."""

from collections.abc import Sequence


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text.

    >>> print(columns(("part", "n"), [("nut", "12"), ("washer", "3")]))
    part     n
    nut     12
    washer   3
    """
    table = [tuple(heads), *(tuple(" ".join(cell.split()) for cell in row) for row in rows)]
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


def _number(cell: str) -> bool:
    return cell in ("", "-") or cell.replace(".", "", 1).isdigit()
