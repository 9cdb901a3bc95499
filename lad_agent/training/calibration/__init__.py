"""From labelled parts to thresholds with a promise: `lad-agent calibrate`.

    parts -> some fit the confidence model, the others choose the thresholds -> recipe and report

No part does both. See `promises` for the statistics and `docs/calibration.md` for their meaning.
"""

from lad_agent.training.calibration.choosing import Asked, Costs, Made, choose
from lad_agent.training.calibration.parts import (
    Part,
    Taught,
    doubts,
    labelled,
    learned,
    of_results,
    refuse_trained_on,
    taught,
    trained_on,
)
from lad_agent.training.calibration.reviewed import Reviewed, of_reviews
from lad_agent.training.calibration.words import text, values
from lad_agent.training.calibration.writing import write

__all__ = [
    "Asked",
    "Costs",
    "Made",
    "Part",
    "Reviewed",
    "Taught",
    "choose",
    "doubts",
    "labelled",
    "learned",
    "of_results",
    "of_reviews",
    "refuse_trained_on",
    "taught",
    "text",
    "trained_on",
    "values",
    "write",
]
