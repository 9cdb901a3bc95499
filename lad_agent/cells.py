"""Names of places in a picture: a grid of cells, row letter and column number, `A1` top left.

The grid is that of the pocket model's merged visual tokens (7 x 7 at 196 px, 28 px a token), and
the one grammar of generator, training text, parser and page.
"""

GRID = 7


def cell_name(row: int, column: int) -> str:
    """Name of the cell in 0-based `row` and `column`, e.g. `cell_name(1, 3) == "B4"`.

    Raises:
        ValueError: outside the grid.
    """
    if not (0 <= row < GRID and 0 <= column < GRID):
        raise ValueError(f"cell ({row}, {column}) is outside the {GRID} x {GRID} grid")
    return f"{'ABCDEFGHIJ'[row]}{column + 1}"


def cell_at(x: float, y: float, width: float, height: float) -> str:
    """Name of the cell under the point (`x`, `y`) of a picture of `width` x `height` pixels.

    Points on or beyond the border belong to the nearest cell.
    """
    column = min(GRID - 1, max(0, int(x / width * GRID)))
    row = min(GRID - 1, max(0, int(y / height * GRID)))
    return cell_name(row, column)


CELLS = tuple(cell_name(row, column) for row in range(GRID) for column in range(GRID))
"""All cell names in reading order; the index is that of the visual token."""
