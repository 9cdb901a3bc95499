"""The pages' charts as inline SVG: numbers in, markup out.

Colours are classes of `static/station.css`, because the content security policy allows no inline
style.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from markupsafe import Markup, escape

_WIDTH = 960.0


@dataclass(frozen=True)
class Column:
    """The parts of one hour: passed, rejected, and those that still wait for people."""

    label: str
    ok: int = 0
    not_ok: int = 0
    waiting: int = 0

    @property
    def parts(self) -> int:
        return self.ok + self.not_ok + self.waiting


@dataclass(frozen=True)
class Interval:
    """A share with the interval that its few parts leave open; `told` says it in words."""

    share: float
    low: float
    high: float
    told: str


def scale(
    value: float | None, marks: Sequence[tuple[float, str]], *, name: str, start: str, end: str
) -> Markup:
    """A value in [0, 1] on a line, with thresholds marked on it."""
    told = f"{name} {'none' if value is None else f'{value:.2f}'}"
    told += "".join(f", {word} {at:.2f}" for at, word in marks)
    left, right, middle = 6.0, 394.0, 30.0

    def x(at: float) -> float:
        return left + at * (right - left)

    drawn = [_line(left, middle, right, middle, "axis")]
    for n, (at, word) in enumerate(marks):
        drawn.append(_line(x(at), middle - 9, x(at), middle + 9, "threshold"))
        # Two words that stand close lean away from each other.
        leaning = ("end", "start")[n] if len(marks) == 2 else "middle"
        anchor = "start" if at < 0.2 else "end" if at > 0.8 else leaning
        drawn.append(_text(x(at), middle - 15, f"{word} {at:.2f}", anchor))
    if value is not None:
        drawn.append(
            Markup('<circle class="accent" cx="{:.1f}" cy="{}" r="8"/>').format(x(value), middle)
        )
    drawn += [_text(left, middle + 24, start, "start"), _text(right, middle + 24, end, "end")]
    return _svg(400, 60, told, drawn)


def by_hour(columns: Sequence[Column], *, name: str) -> Markup:
    """Stacked columns, one an hour: passed at the foot, rejected, then what waits for people."""
    height, foot, left, head = 280.0, 28.0, 48.0, 10.0
    top = _round_up(max((column.parts for column in columns), default=0))
    width = (_WIDTH - left) / max(1, len(columns))

    def y(parts: float) -> float:
        return height - foot - parts / top * (height - foot - head)

    drawn: list[Markup] = []
    for step in range(5):
        level = top * step / 4
        drawn.append(_line(left, y(level), _WIDTH, y(level), "grid"))
        drawn.append(_text(left - 8, y(level) + 5, f"{level:g}", "end"))
    every = ceil(len(columns) / 12) or 1
    for n, column in enumerate(columns):
        x = left + n * width
        parts = ((column.ok, "ok"), (column.not_ok, "bad"), (column.waiting, "accent"))
        bars, below = [], 0
        for count, kind in parts:
            if count:
                # A gap, because no two of the colours differ enough to touch.
                bars.append(_bar(x + 1, y(below + count) + 1, width - 2, y(below), kind))
                below += count
        tip = (
            f"{column.label}: {column.parts} parts, {column.ok} passed, "
            f"{column.not_ok} rejected, {column.waiting} waiting"
        )
        drawn.append(Markup("<g><title>{}</title>{}</g>").format(tip, Markup("").join(bars)))
        if n % every == 0:
            drawn.append(_text(x + width / 2, height - 6, column.label, "middle"))
    return _svg(_WIDTH, height, name, drawn)


def rates(curves: Sequence[tuple[str, Sequence[float | None]]], *, name: str) -> Markup:
    """Shares over the hours, each (colour, shares) a line from 0 to 1 that breaks where none is."""
    width, height, pad = 320.0, 72.0, 6.0
    drawn = []

    def y(share: float) -> float:
        return height - pad - share * (height - 2 * pad)

    for at in (0.0, 0.5, 1.0):
        drawn.append(_line(0, y(at), width, y(at), "grid"))
    for colour, shares in curves:
        step = (width - 2 * pad) / max(1, len(shares) - 1)
        for run in _runs(shares):
            points = [(pad + n * step, y(share)) for n, share in run]
            joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            drawn.append(Markup('<polyline class="curve {}" points="{}"/>').format(colour, joined))
            drawn += [
                Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(colour, a, b)
                for a, b in points
            ]
    return _svg(width, height, name, drawn)


def interval(shown: Interval | None, *, name: str, top: float = 1.0) -> Markup:
    """A share as a dot on its interval, on a line from 0 to `top`."""
    if shown is None:
        return _svg(320, 28, f"{name}: nothing audited yet", [_line(4, 14, 316, 14, "grid")])

    def x(share: float) -> float:
        return 4 + min(1.0, share / top) * 312

    drawn = [
        _line(4, 14, 316, 14, "grid"),
        _line(x(shown.low), 14, x(shown.high), 14, "whisker"),
        Markup('<circle class="accent" cx="{:.1f}" cy="14" r="6"/>').format(x(shown.share)),
    ]
    return _svg(320, 28, f"{name}: {shown.told}", drawn)


def _svg(width: float, height: float, told: str, drawn: Iterable[Markup]) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>'
    ).format(width, height, told, Markup("").join(drawn))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')


def _bar(x: float, y: float, width: float, foot: float, kind: str) -> Markup:
    return Markup(
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(1.0, width):.1f}" '
        f'height="{foot - y:.1f}"/>'
    )


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>')


def _runs(shares: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Numbered shares, parted where there is none."""
    runs: list[list[tuple[int, float]]] = [[]]
    for n, share in enumerate(shares):
        if share is None:
            runs.append([])
        else:
            runs[-1].append((n, share))
    return [run for run in runs if run]


def _round_up(most: int) -> int:
    """The next number that four steps divide evenly and people like to read."""
    if most <= 4:
        return 4
    size = 1
    while True:
        for lead in (4, 8, 12, 16, 20, 24, 32, 40):
            if lead * size >= most:
                return lead * size
        size *= 10
