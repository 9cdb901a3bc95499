"""The calibration as one HTML page: its words, thresholds to move, and the evaluation's page."""

import json
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np

from lad_agent.judgement import Result
from lad_agent.training import evaluation
from lad_agent.training.calibration import choosing, words
from lad_agent.training.calibration.choosing import Made
from lad_agent.training.calibration.parts import Part
from lad_agent.training.evaluation import plots
from lad_agent.training.evaluation import report as pages
from lad_agent.training.evaluation.scores import Floats
from lad_agent.training.evaluation.truth import Truth

_BINS = 20

_SLIDERS = """
<h2>Move the thresholds</h2>
<p class="note">Counts the parts that the thresholds were chosen on: what another threshold would
have done with them. Only the thresholds written in the recipe carry the promise.</p>
<p><label>pass at confidence <input id="pass" type="range" min="0" step="1" style="width:30rem">
<output id="pass-at"></output></label></p>
<p><label>reject at confidence <input id="reject" type="range" min="0" step="1"
style="width:30rem"> <output id="reject-at"></output></label></p>
<div class="wide"><table><thead><tr><th>parts</th><th>passed</th><th>rejected</th>
<th>to people</th></tr></thead><tbody>
<tr><td>good</td><td id="good-OK"></td><td id="good-NotOK"></td><td id="good-people"></td></tr>
<tr><td>bad</td><td id="bad-OK"></td><td id="bad-NotOK"></td><td id="bad-people"></td></tr>
</tbody></table></div>
<script type="application/json" id="parts">%s</script>
<script>
"use strict";
const {parts, pass, reject} = JSON.parse(document.getElementById("parts").textContent);
const at = id => document.getElementById(id);
const levels = (side, chosen) =>
  [...new Set(parts.filter(p => p[0] === side).map(p => p[2]).concat([chosen]))]
  .sort((a, b) => a - b).concat([Infinity]);
const marks = {pass: levels("OK", pass), reject: levels("NotOK", reject)};
function show() {
  const least = {};
  for (const name of ["pass", "reject"]) {
    least[name] = marks[name][at(name).value];
    at(name + "-at").value = least[name] === Infinity ? "never" : least[name].toPrecision(6);
  }
  const counts = {};
  for (const [side, bad, sure] of parts) {
    const decided = side === "OK" ? sure >= least.pass : side === "NotOK" && sure >= least.reject;
    const key = (bad ? "bad-" : "good-") + (decided ? side : "people");
    counts[key] = (counts[key] || 0) + 1;
  }
  for (const who of ["good-", "bad-"])
    for (const what of ["OK", "NotOK", "people"])
      at(who + what).textContent = counts[who + what] || 0;
}
for (const [name, chosen] of [["pass", pass], ["reject", reject]]) {
  at(name).max = marks[name].length - 1;
  at(name).value = marks[name].indexOf(chosen);
  at(name).addEventListener("input", show);
}
show();
</script>
"""


def page(made: Made) -> str:
    """The report as HTML that needs nothing else; pictures of mistakes are embedded."""
    judged = _all_judged(made)
    figures = evaluation.figures_of(evaluation.Joined(judged, 0, 0))
    title = f"Calibration of {made.calibration.product}"
    lines = "".join(f"<li>{escape(line)}</li>" for line in words.text(made).splitlines())
    drawn = "".join(f"<figure>{chart.svg()}</figure>" for chart in charts(made))
    own = (
        f"<ul>{lines}</ul>{_SLIDERS % _data(made)}"
        f'<div class="charts">{drawn}</div>'
        "<h2>These parts, decided so</h2>"
    )
    head, middle, rest = evaluation.page(judged, figures, title).partition("</h1>")
    return head + middle + own + rest


def write_pngs(made: Made, folder: Path) -> list[Path]:
    """Every chart of the page as a PNG in `folder`.

    Raises:
        UsageError: one cannot be written.
    """
    return plots.write_pngs([*charts(made), *pages.charts(_all_judged(made))], folder)


def charts(made: Made) -> list[plots.Chart]:
    """Confidence by truth for each verdict, the cost curve, what passes by threshold, the costs."""
    out: list[plots.Chart] = [_by_truth(made, verdict) for verdict in (False, True)]
    if made.calibration.chosen_on.bad:
        out.append(_cost_curve(made))
    passing = [p for p in made.parts if choosing.side(p.judgement, made.policy) is Result.OK]
    levels = np.unique([p.judgement.confidence or 0.0 for p in passing])
    if not len(levels):
        return out
    good, bad = (
        np.array([p.judgement.confidence or 0.0 for p in passing if p.bad == is_bad])
        for is_bad in (False, True)
    )
    # By share, since confidences may crowd anywhere.
    accepted = np.concatenate([good, bad])
    below = 1 - _share(accepted, levels, len(accepted))
    x = "share of the verdicts of good that goes to people"
    count = made.calibration.chosen_on
    lines = [plots.Line("good parts passed", below, _share(good, levels, count.good))]
    if count.bad:
        lines.append(plots.Line("bad parts passed", below, _share(bad, levels, count.bad)))
    out.append(plots.Curves(lines, title="Passed by threshold", x=x, y="share"))
    if made.costs is not None:
        spent = choosing.cost_of(levels, accepted, bad, made.parts, made.costs, bad=True)
        line = plots.Line("misses and reviews of parts said to be good", below, spent)
        top = max(float(spent.max()), 1e-9)
        out.append(plots.Curves([line], title="Cost a part", x=x, y="cost", top=top))
    return out


def _by_truth(made: Made, verdict: bool) -> plots.Mirrored:
    """How sure the verdicts of good or of bad are, of parts that are good and that are bad."""
    said = [p for p in made.parts if p.judgement.anomalous is verdict]
    groups = {
        name: [p.judgement.confidence or 0.0 for p in said if p.bad is bad]
        for name, bad in (("good parts", False), ("bad parts", True))
    }
    up, down = ((f"{name} ({len(found)})", _histogram(found)) for name, found in groups.items())
    word = "bad" if verdict else "good"
    return plots.Mirrored(
        up, down, title=f"Confidence by truth of verdicts of {word}", x="confidence"
    )


def _cost_curve(made: Made) -> plots.Curves:
    """What verdicts cost that no person sees, whatever misses and overkills cost and however many
    parts are bad, as a share of the dearest mistake (Drummond and Holte 2006, Machine Learning 65).
    """
    count = made.calibration.chosen_on
    missed = made.count(bad=True, result=Result.OK) / count.bad
    overkill = made.count(bad=False, result=Result.NOT_OK) / count.good
    at = np.array([0.0, 1.0])
    return plots.Curves(
        [
            plots.Line("as decided", at, np.array([overkill, missed])),
            plots.Line("pass all", at, at),
            plots.Line("reject all", at, 1 - at),
        ],
        title="Cost curve",
        x="weight of misses: their cost x share of bad parts, of both mistakes'",
        y="cost",
    )


def _data(made: Made) -> str:
    parts = [
        [choosing.side(p.judgement, made.policy).value, p.bad, p.judgement.confidence or 0.0]
        for p in made.parts
    ]
    passes, rejects = (made.policy.least_confidence(anomalous) for anomalous in (False, True))
    return json.dumps({"parts": parts, "pass": passes, "reject": rejects})


def _share(confidences: Floats, levels: Floats, of: int) -> Floats:
    below = np.searchsorted(np.sort(confidences), levels, side="left")
    share: Floats = (len(confidences) - below) / of
    return share


def _histogram(values: list[float]) -> list[int]:
    return [int(n) for n in np.histogram(values, bins=_BINS, range=(0, 1))[0]]


def _all_judged(made: Made) -> tuple[evaluation.Judged, ...]:
    pairs = zip(made.parts, made.results, strict=True)
    return tuple(_judged(part, result) for part, result in pairs)


def _judged(part: Part, result: Result) -> evaluation.Judged:
    judgement = part.judgement
    told = judgement.model_dump() | {"decision_score": judgement.decision_score}
    return replace(
        evaluation.Judged.of(Truth.of(part.example), judgement, result),
        rationale=judgement.rationale,
        confidences=evaluation.confidences(told),
    )
