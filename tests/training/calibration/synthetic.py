"""Labelled parts out of nothing: a reasoner whose errors are known, and no picture on disk."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lad_agent.judgement import Judgement
from lad_agent.training.calibration import Part
from lad_agent.training.sources import Example


def parts(
    good: int, bad: int, *, seed: int = 0, skill: float = 3.0, wrong: float = 0.1
) -> list[Part]:
    """A share `wrong` of the verdicts is wrong; `skill` is how well the weakest token knows it."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(good + bad):
        is_bad, errs = number >= good, bool(rng.random() < wrong)
        sure = 1 / (1 + np.exp(-rng.normal(-skill / 2 if errs else skill / 2 + 1, 1.2)))
        out.append(part(f"{seed}/{number}", is_bad, is_bad != errs, float(sure)))
    return out


def part(name: str, bad: bool, says_bad: bool | None, sure: float, **more: Any) -> Part:
    """One part, whose weakest token has the probability `sure`."""
    example = Example(
        Path(f"{name}.png"), hashlib.sha256(name.encode()).hexdigest(), "screw_bag", "test",
        "logical" if bad else "good",
    )  # fmt: skip
    if says_bad is None:
        return Part(example, Judgement(anomalous=None, well_formed=False, model="scripted"))
    told: dict[str, Any] = {
        "anomalous": says_bad,
        "anomaly_score": 0.99 if says_bad else 0.01,
        "confidence": sure,
        "weakest_token": sure,
        "mean_logprob": math.log(sure) / 20,
        "sum_logprob": math.log(sure),
        "image_quality": 0.5,
        "well_formed": True,
        "evidence": "consistent",
        "model": "scripted",
        "rationale": "washers 2 of 2 ok",
    }
    return Part(example, Judgement(**told | more))


def labelled(found: Part, kind: Any) -> Part:
    return replace(found, example=replace(found.example, kind=kind))
