"""A recipe with a calibration, made without calibrating."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lad_agent import recipe
from lad_agent.confidence import Calibration, Counts, Promise, Reference
from lad_agent.recipe import Recipe
from tests.scripted import write_recipe

EVEN = tuple(np.linspace(0.8, 1.0, 101).tolist())
"""Quantiles of confidences that are spread evenly from 0.8 to 1."""
LOW = tuple(np.linspace(0.0, 0.2, 101).tolist())


def write_calibrated(
    folder: Path,
    *,
    product: str = "screw_bag",
    promises: dict[Literal["escape_rate", "overkill_rate"], float] | None = None,
    made_at: str = "2026-05-01T06:00:00+00:00",
    good: int = 500,
    confidence: Sequence[float] = EVEN,
    thresholds: dict[str, float] | None = None,
    **policy: Any,
) -> Recipe:
    """A calibrated recipe in `folder`, which promises 1 % escapes at 95 % unless told otherwise."""
    path = write_recipe(folder, product)
    plain = recipe.load(path)
    made = Calibration(
        product=product,
        task_version=plain.task_version,
        model="scripted",
        samples=plain.policy.samples,
        sample_below=plain.policy.sample_below,
        made_at=made_at,
        data_sha256="0" * 64,
        seed=0,
        fitted_on=Counts(good=0, bad=0),
        chosen_on=Counts(good=good, bad=300),
        kinds={"good": good, "logical": 300},
        confidence_model=None,
        promises=tuple(
            Promise(quantity=what, at_most=rate, sure=0.95, seen=0, of=300)
            for what, rate in (promises or {"escape_rate": 0.01}).items()
        ),
        thresholds=thresholds,
        reference=Reference(confidence=tuple(confidence), anomaly_score=LOW),
    )
    data = made.model_dump_json().encode()
    (folder / "made.json").write_bytes(data)
    named = {"file": "made.json", "sha256": hashlib.sha256(data).hexdigest(), "promise": "kept"}
    told = [f"  {name}: {json.dumps(value)}\n" for name, value in policy.items()]
    text = [
        line
        for line in path.read_text().splitlines(True)
        if line.split(":")[0].strip() not in policy
    ]
    path.write_text("".join([*text, *told, f"calibration: {json.dumps(named)}\n"]))
    return recipe.load(path)
