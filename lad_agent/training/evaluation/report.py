"""The evaluation as one HTML page that needs nothing else: tables, charts, the worst mistakes."""

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from lad_agent import atomic, images
from lad_agent.errors import UnreadableInput, UsageError
from lad_agent.training.evaluation import plots, scores, tables
from lad_agent.training.evaluation.figures import Metrics, having
from lad_agent.training.evaluation.joined import DRAWN, Judged

SHOWN = 40
"""Mistakes that the page shows at most."""

_SIDE = 224
_SCORE_BINS = 20

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --paper: #fff; --soft: #f2f4f6; --rule: #d5dade;
  --escape: #b3261e; --overkill: #8a5a00;
  --plot-1: #1f6fb2; --plot-2: #c4560c; --plot-3: #1c8350; --plot-4: #8d45a6; --plot-5: #7d6a00;
  --plot-6: #6b7178; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8eb; --paper: #15181b; --soft: #1f2428; --rule: #3a4147;
    --escape: #ff8a80; --overkill: #f0b849;
    --plot-1: #6cb2ee; --plot-2: #f59a57; --plot-3: #5fcf97; --plot-4: #cf94e4; --plot-5: #d8c24a;
    --plot-6: #9aa2a9; } }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; }
th:first-child, td:first-child { text-align: left; } thead th { background: var(--soft); }
.charts { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
.charts svg { width: 100%; max-width: 32rem; }
.mistakes { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); }
article { background: var(--soft); padding: .8rem; border-radius: .4rem; overflow-wrap: anywhere; }
article img { display: block; max-width: 100%; height: auto; margin-bottom: .5rem; }
article p { margin: .3rem 0; }
.escape { color: var(--escape); } .overkill { color: var(--overkill); }
small, .note { opacity: .8; }
"""


def page(judged: Sequence[Judged], figures: Metrics, title: str) -> str:
    """The report as HTML; pictures of mistakes are read from their places and embedded."""
    worst = mistakes(judged)
    shown = worst[:SHOWN]
    more = f", the worst {SHOWN}" if len(worst) > SHOWN else ""
    body = [
        f"<h1>{escape(title)}</h1>",
        _table(tables.verdict_rows(figures)),
        *(f'<p class="note">{escape(note)}</p>' for note in tables.notes(figures)),
        "<h2>Curves</h2>",
        '<div class="charts">',
        *(f"<figure>{chart.svg()}</figure>" for chart in charts(judged)),
        "</div>",
        "<h2>Sources of confidence</h2>",
        '<p class="note">Over the parts that have a verdict and this source. The thresholds of '
        "coverage are chosen on these very parts: a description, not a promise.</p>",
        _table(tables.confidence_rows(figures["overall"])),
        f"<h2>Wrong verdicts: {len(worst)} of {len(judged)}{more}</h2>",
        '<div class="mistakes">',
        *map(_article, shown),
        "</div>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def write(path: Path, text: str) -> None:
    """Write the page; the file is whole or not there.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        atomic.write(path, text)
    except OSError as error:
        raise UsageError(
            f"--html {path}: cannot be written ({error.strerror}); give a file in a folder that "
            "is there"
        ) from error


def mistakes(judged: Sequence[Judged]) -> list[Judged]:
    """Wrong verdicts, worst first: passed, then rejected, then sent to people; surest first."""
    order = ("OK", "NotOK", "NotDecidable")
    return sorted(
        (j for j in judged if not j.right),
        key=lambda j: (order.index(j.result), -abs(j.score - j.truth.anomalous)),
    )


def charts(judged: Sequence[Judged]) -> list[plots.Chart]:
    """Those of ROC, scores, reliability and risk that the parts allow."""
    good = [j.score for j in judged if not j.truth.anomalous]
    bad = [j for j in judged if j.truth.anomalous]
    out: list[plots.Chart] = []
    if good and bad:
        groups = {
            "all faults": [j.score for j in bad],
            "logical": [j.score for j in bad if j.truth.kind == "logical"],
            "structural": [j.score for j in bad if j.truth.kind == "structural"],
        }
        lines = [
            plots.Line(f"{name}: {scores.auroc(good, found):.3f}", *scores.roc(good, found))
            for name, found in groups.items()
            if found
        ]
        out.append(
            plots.Curves(
                lines,
                title="ROC of decision_score",
                x="good parts at or above the score",
                y="anomalous parts",
                diagonal=True,
            )
        )
    out.append(
        plots.Mirrored(
            (f"good ({len(good)})", _histogram(good)),
            (f"anomalous ({len(bad)})", _histogram([j.score for j in bad])),
            title="decision_score by truth",
            x="decision_score",
        )
    )
    return out + [chart for chart in (_reliability(judged), _risk(judged)) if chart]


def _reliability(judged: Sequence[Judged]) -> plots.Curves | None:
    holders = having("confidence", judged)
    if not holders:
        return None
    confidence, right = _columns("confidence", holders)
    said, held, _ = zip(*scores.reliability(confidence, right), strict=True)
    counts = np.bincount(scores.bin_of(confidence), minlength=scores.BINS)
    return plots.Curves(
        [plots.Line("verdicts right (bars: share of the parts)", said, held, dots=True)],
        title="Reliability of confidence",
        x="confidence",
        y="share right",
        diagonal=True,
        bars=list(counts / len(holders)),
    )


def _risk(judged: Sequence[Judged]) -> plots.Curves | None:
    lines, highest = [], 0.0
    for source in DRAWN:
        if holders := having(source, judged):
            columns = _columns(source, holders)
            coverage, risk, _ = scores.risk_coverage(*columns, np.ones((1, len(holders))))
            lines.append(plots.Line(f"{source} ({len(holders)})", coverage[0], risk[0]))
            highest = max(highest, float(risk.max()))
    if not lines:
        return None
    return plots.Curves(
        lines,
        title="Risk at coverage",
        x="coverage: share of the verdicts accepted",
        y="wrong among them",
        top=max(0.05, math.ceil(highest * 20) / 20),
    )


def _columns(source: str, holders: Sequence[Judged]) -> tuple[scores.Floats, scores.Flags]:
    return (
        np.array([j.confidences[source] for j in holders]),
        np.array([j.right for j in holders]),
    )


def _histogram(values: Sequence[float]) -> list[int]:
    return [int(n) for n in np.histogram(values, bins=_SCORE_BINS, range=(0, 1))[0]]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows[1:]
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
        "</div>"
    )


def _article(j: Judged) -> str:
    name = "/".join(j.truth.image.parts[-3:])
    said = {"OK": "passed", "NotOK": "rejected", "NotDecidable": "to a person"}[j.result]
    css = {"OK": "escape", "NotOK": "overkill"}.get(j.result, "")
    verdict = {True: "anomalous", False: "good", None: "no verdict"}[j.anomalous]
    truth = (
        f"{j.truth.kind}, {' or '.join(sorted(j.truth.rules))}" if j.truth.rules else j.truth.kind
    )
    confidence = j.confidences.get("confidence")
    sure = "" if confidence is None else f", confidence {confidence:.2f}"
    return (
        f'<article data-image="{escape(name)}">{_picture(j.truth.image)}'
        f'<p><strong class="{css}">{said}</strong>: {verdict} (rule {escape(j.rule or "none")}); '
        f"in truth {escape(truth)}</p>"
        f"<p><small>{escape(j.truth.product)} {escape(name)}, decision_score {j.score:.3f}{sure}"
        f"</small></p><p>{escape(j.rationale) or '<small>no rationale</small>'}</p></article>"
    )


def _picture(path: Path) -> str:
    try:
        picture = images.read(path).image
    except UnreadableInput as error:
        return f"<p>{escape(str(error))}</p>"
    picture.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    coded = base64.b64encode(data.getvalue()).decode()
    return (
        f'<img alt="" width="{picture.width}" height="{picture.height}" '
        f'src="data:image/jpeg;base64,{coded}">'
    )
