"""Small charts: as inline SVG, numbers in, text out, nothing fetched; and as PNGs, by matplotlib.

Axes and words of the SVG take the page's text colour; the n-th series takes the CSS variable
`--plot-n`, with a colour of middle lightness where the page sets none, so a chart can stand in any
page, light or dark.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from lad_agent.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#2f7fc1", "#d2691e", "#2e9e62", "#a05bb5", "#9a8400", "#808080")

_WIDTH, _HEIGHT = 420, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 30, 46
_SHARE = "share of its parts"


@dataclass(frozen=True)
class Line:
    """One series: points joined in their order, or with `dots` marked as well."""

    name: str
    x: Iterable[float]
    y: Iterable[float]
    dots: bool = False


@dataclass(frozen=True)
class Curves:
    """Lines over x in [0, 1] and y in [0, `top`], with a legend.

    `diagonal` draws y = x dashed; `bars` are heights of bars of equal width behind the lines.
    """

    lines: Sequence[Line]
    title: str
    x: str
    y: str
    top: float = 1.0
    diagonal: bool = False
    bars: Sequence[float] = ()

    def svg(self) -> str:
        """The chart as inline SVG."""
        drawn = []
        width = 1 / len(self.bars) if self.bars else 0.0
        for n, height in enumerate(self.bars):
            reach = height / self.top
            drawn.append(_bar(n * width, (n + 1) * width, 0.0, reach, 6, f"{height:.1%}"))
        if self.diagonal:
            drawn.append(
                f'<line x1="{_x(0):.1f}" y1="{_y(0):.1f}" x2="{_x(1):.1f}" '
                f'y2="{_y(1 / self.top):.1f}" '
                'stroke="currentColor" stroke-opacity="0.5" stroke-dasharray="4 4"/>'
            )
        for n, line in enumerate(self.lines, 1):
            pairs = zip(line.x, line.y, strict=True)
            points = _thinned((_x(a), _y(b / self.top)) for a, b in pairs)
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            drawn.append(f'<polyline points="{path}" fill="none" stroke-width="2" {_stroke(n)}/>')
            if line.dots:
                drawn += [
                    f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" {_fill(n)}/>' for a, b in points
                ]
        names = [line.name for line in self.lines]
        ticks = [(step / 5, f"{step / 5 * self.top:.3g}") for step in range(6)]
        return _chart(self.title, self.x, self.y, drawn, names, ticks)

    def plot(self, axes: "Axes") -> None:
        """The chart drawn by matplotlib."""
        if self.bars:
            edges = [(n + 0.5) / len(self.bars) for n in range(len(self.bars))]
            axes.bar(edges, self.bars, 0.9 / len(self.bars), color=COLOURS[5], alpha=0.25)
        if self.diagonal:
            axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
        for colour, line in zip(itertools.cycle(COLOURS), self.lines, strict=False):
            marker = "o" if line.dots else None
            axes.plot(list(line.x), list(line.y), label=line.name, color=colour, marker=marker)
        axes.set_ylim(0, self.top)
        axes.set_ylabel(self.y)


@dataclass(frozen=True)
class Mirrored:
    """Two histograms over the same bins of [0, 1], one above the axis and one below.

    Each is drawn to its own share of the parts, so that groups of unequal size can be compared.
    """

    up: tuple[str, Sequence[int]]
    down: tuple[str, Sequence[int]]
    title: str
    x: str

    @property
    def shares(self) -> tuple[list[float], list[float]]:
        """Of each histogram's parts, those in each bin."""
        up, down = ([n / max(1, sum(counts)) for n in counts] for _, counts in (self.up, self.down))
        return up, down

    @property
    def top(self) -> float:
        """What the axis reaches to."""
        return max(0.01, *(share for group in self.shares for share in group))

    def svg(self) -> str:
        """The chart as inline SVG."""
        width = 1 / len(self.up[1])
        drawn = []
        for series, ((_, counts), group, side) in enumerate(
            zip((self.up, self.down), self.shares, (1, -1), strict=True), 1
        ):
            for n, (count, share) in enumerate(zip(counts, group, strict=True)):
                if count:
                    reach = 0.5 + side * share / self.top / 2
                    tip = f"{count} ({share:.1%})"
                    drawn.append(_bar(n * width, (n + 1) * width, 0.5, reach, series, tip))
        drawn.append(
            f'<line x1="{_x(0):.1f}" y1="{_y(0.5):.1f}" x2="{_x(1):.1f}" y2="{_y(0.5):.1f}" '
            'stroke="currentColor"/>'
        )
        ticks = [(0.0, f"{self.top:.0%}"), (0.5, "0"), (1.0, f"{self.top:.0%}")]
        names = [self.up[0], self.down[0]]
        return _chart(self.title, self.x, _SHARE, drawn, names, ticks)

    def plot(self, axes: "Axes") -> None:
        """The chart drawn by matplotlib."""
        bins = len(self.up[1])
        middles = [(n + 0.5) / bins for n in range(bins)]
        for (name, _), group, sign, colour in zip(
            (self.up, self.down), self.shares, (1, -1), COLOURS[:2], strict=True
        ):
            axes.bar(middles, [sign * s for s in group], 0.9 / bins, label=name, color=colour)
        axes.axhline(0, color="black", linewidth=1)
        axes.set_ylim(-1.05 * self.top, 1.05 * self.top)
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0%}")
        axes.set_ylabel(_SHARE)


Chart = Curves | Mirrored


def write_pngs(charts: Iterable[Chart], folder: Path) -> list[Path]:
    """Each chart as a PNG in `folder`, named by its title.

    Raises:
        UsageError: one cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    for chart in charts:
        figure = Figure(figsize=(6, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        chart.plot(axes)
        axes.set(title=chart.title, xlabel=chart.x, xlim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        path = folder / f"{'-'.join(chart.title.lower().replace('_', ' ').split())}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150)
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be written ({error.strerror}); give another folder"
            ) from error
        written.append(path)
    return written


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
