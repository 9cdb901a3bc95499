"""Results against the truth: the figures that README, model card and `lad-agent evaluate` print.

Joined by the hash of the image's bytes; of several attempts at one image the last one counts.
Rates follow machine vision's words: `escape_rate` is anomalous parts passed of all anomalous,
`overkill_rate` good parts rejected of all good. Malformed and unjudged answers count as wrong
verdicts. AUROC is that of `decision_score`; a part without a score stands at 0.5.
"""

from lad_agent.training.evaluation.bootstrap import Resampling
from lad_agent.training.evaluation.figures import (
    Metrics,
    by_difference,
    evaluate,
    figures_of,
    metrics,
    over_runs,
    paired,
    verdicts,
)
from lad_agent.training.evaluation.joined import Joined, Judged, confidences, join
from lad_agent.training.evaluation.report import page
from lad_agent.training.evaluation.scores import auroc
from lad_agent.training.evaluation.tables import markdown, table
from lad_agent.training.evaluation.truth import Truth, read_truth

__all__ = [
    "Joined",
    "Judged",
    "Metrics",
    "Resampling",
    "Truth",
    "auroc",
    "by_difference",
    "confidences",
    "evaluate",
    "figures_of",
    "join",
    "markdown",
    "metrics",
    "over_runs",
    "page",
    "paired",
    "read_truth",
    "table",
    "verdicts",
]
