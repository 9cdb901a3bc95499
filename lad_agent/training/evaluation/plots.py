"""Small charts as inline SVG: numbers in, text out, nothing fetched.

Axes and words take the page's text colour; the n-th series takes the CSS variable `--plot-n`, with
a colour of middle lightness where the page sets none, so a chart can stand in any page, light or
dark.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#2f7fc1", "#d2691e", "#2e9e62", "#a05bb5", "#9a8400", "#808080")

_WIDTH, _HEIGHT = 420, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 30, 46


@dataclass(frozen=True)
class Line:
    """One series: points joined in their order, or with `dots` marked as well."""

    name: str
    x: Iterable[float]
    y: Iterable[float]
    dots: bool = False


def curves(
    lines: Sequence[Line],
    *,
    title: str,
    x: str,
    y: str,
    top: float = 1.0,
    diagonal: bool = False,
    bars: Sequence[float] = (),
) -> str:
    """Lines over x in [0, 1] and y in [0, `top`], with a legend.

    `diagonal` draws y = x dashed; `bars` are heights of bars of equal width behind the lines.
    """
    drawn = []
    width = 1 / len(bars) if bars else 0.0
    for n, height in enumerate(bars):
        drawn.append(_bar(n * width, (n + 1) * width, 0.0, height / top, 6, f"{height:.1%}"))
    if diagonal:
        drawn.append(
            f'<line x1="{_x(0):.1f}" y1="{_y(0):.1f}" x2="{_x(1):.1f}" y2="{_y(1 / top):.1f}" '
            'stroke="currentColor" stroke-opacity="0.5" stroke-dasharray="4 4"/>'
        )
    for n, line in enumerate(lines, 1):
        points = _thinned((_x(a), _y(b / top)) for a, b in zip(line.x, line.y, strict=True))
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke-width="2" {_stroke(n)}/>')
        if line.dots:
            drawn += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" {_fill(n)}/>' for a, b in points]
    names = [line.name for line in lines]
    ticks = [(step / 5, f"{step / 5 * top:.3g}") for step in range(6)]
    return _chart(title, x, y, drawn, names, ticks)


def mirrored(
    up: tuple[str, Sequence[int]], down: tuple[str, Sequence[int]], *, title: str, x: str
) -> str:
    """Two histograms over the same bins of [0, 1], one above the axis and one below.

    Each is drawn to its own share of the parts, so that groups of unequal size can be compared.
    """
    shares = [[n / max(1, sum(counts)) for n in counts] for _, counts in (up, down)]
    top = max(0.01, *(share for group in shares for share in group))
    width = 1 / len(up[1])
    drawn = []
    for series, ((_, counts), group, side) in enumerate(
        zip((up, down), shares, (1, -1), strict=True), 1
    ):
        for n, (count, share) in enumerate(zip(counts, group, strict=True)):
            if count:
                reach = 0.5 + side * share / top / 2
                drawn.append(
                    _bar(n * width, (n + 1) * width, 0.5, reach, series, f"{count} ({share:.1%})")
                )
    drawn.append(
        f'<line x1="{_x(0):.1f}" y1="{_y(0.5):.1f}" x2="{_x(1):.1f}" y2="{_y(0.5):.1f}" '
        'stroke="currentColor"/>'
    )
    ticks = [(0.0, f"{top:.0%}"), (0.5, "0"), (1.0, f"{top:.0%}")]
    return _chart(title, x, "share of its parts", drawn, [up[0], down[0]], ticks)


def _chart(
    title: str,
    x: str,
    y: str,
    drawn: Iterable[str],
    names: Sequence[str],
    ticks: Sequence[tuple[float, str]],
) -> str:
    grid = []
    for at, word in ticks:
        grid.append(
            f'<line x1="{_x(0):.1f}" y1="{_y(at):.1f}" x2="{_x(1):.1f}" y2="{_y(at):.1f}" '
            'stroke="currentColor" stroke-opacity="0.15"/>'
            + _text(_LEFT - 6, _y(at) + 4, word, "end")
        )
    for step in range(6):
        grid.append(_text(_x(step / 5), _HEIGHT - _BOTTOM + 16, f"{step / 5:.1f}"))
    height = _HEIGHT + 18 * len(names)
    legend = [
        f'<rect x="{_LEFT}" y="{_HEIGHT + 18 * n + 2}" width="12" height="12" {_fill(n + 1)}/>'
        + _text(_LEFT + 18, _HEIGHT + 18 * n + 12, name, "start")
        for n, name in enumerate(names)
    ]
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    return "\n".join(
        [
            f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}" '
            'font-family="system-ui, sans-serif" font-size="12">',
            _text(_LEFT, 18, title, "start", 'font-weight="600" font-size="14"'),
            *grid,
            *drawn,
            _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - _BOTTOM + 34, x),
            _text(14, middle, y, "middle", f'transform="rotate(-90 14 {middle})"'),
            *legend,
            "</svg>",
        ]
    )


def _bar(left: float, right: float, foot: float, reach: float, series: int, tip: str) -> str:
    low, high = sorted((foot, reach))
    return (
        f'<rect x="{_x(left) + 0.5:.1f}" y="{_y(high):.1f}" width="{_x(right) - _x(left) - 1:.1f}" '
        f'height="{_y(low) - _y(high):.1f}" fill-opacity="{0.25 if series == 6 else 0.85}" '
        f"{_fill(series)}><title>{escape(tip)}</title></rect>"
    )


def _text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor" {more}>'
        f"{escape(words)}</text>"
    )


def _thinned(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that differ by a third of a pixel or more from the one before."""
    kept: list[tuple[float, float]] = []
    last = None
    for last in points:
        if not kept or max(abs(last[0] - kept[-1][0]), abs(last[1] - kept[-1][1])) >= 0.33:
            kept.append(last)
    if last is not None and kept[-1] != last:
        kept.append(last)
    return kept


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _stroke(series: int) -> str:
    return f'style="stroke:{_colour(series)}"'


def _fill(series: int) -> str:
    return f'style="fill:{_colour(series)}"'


def _colour(series: int) -> str:
    number = (series - 1) % len(COLOURS) + 1
    return f"var(--plot-{number}, {COLOURS[number - 1]})"
