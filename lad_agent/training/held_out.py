"""A fixed set of pictures that no training sees: is the model better on it than before?

Each picture is judged as `lad-agent inspect` judges it, by the recipe's own policy, with one
rationale. Both models judge the same pictures, so their difference has an interval of its own,
far narrower than those of the two figures.
"""

import dataclasses
import gc
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lad_agent import atomic
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.judgement import Judgement
from lad_agent.policy import decide
from lad_agent.reasoners.local import TransformersReasoner
from lad_agent.recipe import Recipe
from lad_agent.training import runs, texts
from lad_agent.training.bases import Base
from lad_agent.training.calibration.judging import question
from lad_agent.training.evaluation import Judged, Resampling, Truth, bootstrap, paired
from lad_agent.training.sources import Example, check, open_source
from lad_agent.training.sources.folder import LAYOUT as OWN

RESAMPLING = Resampling(draws=1000, seed=0)
TOLERANCE = 0.02
"""Balanced accuracy that a model may have lost, as far as the pictures can tell."""

_BATCH = 32
_SHOWN = {
    "balanced_accuracy": "bal. acc.",
    "auroc": "AUROC",
    "escape_rate": "escapes",
    "overkill_rate": "overkill",
    "coverage": "coverage",
}
_WANTED = {"balanced_accuracy": 1, "escape_rate": -1, "overkill_rate": -1, "coverage": 1}
"""Which way is the better one."""


def pictures(path: Path) -> tuple[Example, ...]:
    """The pictures at `path` that are not for training; all of them in a user's own layout.

    Raises:
        UsageError: no layout that is known, or a product has no recipe to be judged by.
        CheckFailed: names every picture that cannot be used.
    """
    source = open_source(path)
    found = check.require([source]).examples
    kept = found if source.layout == OWN else [e for e in found if e.split != "train"]
    if not kept:
        raise CheckFailed(f"{path}: every picture is for training; none is left to judge by")
    for product, group in _grouped(kept).items():
        _recipe(product, group)
    return tuple({e.sha256: e for e in kept}.values())


def refuse_taught(held: Iterable[Example], taught: Collection[str]) -> None:
    """Refuse a held-out set with pictures that are learned from; `taught` are their hashes.

    Raises:
        CheckFailed: names one of them.
    """
    shared = [e for e in held if e.sha256 in taught]
    if shared:
        raise CheckFailed(
            f"{len(shared)} held-out pictures are learned from, such as {shared[0].image}; "
            "take them out of one of the two"
        )


def compare(before: Base, after: Base, path: Path) -> dict[str, Any]:
    """Both models' figures on the pictures at `path`, and how far they moved, as JSON holds it.

    `groups` has all pictures and each product, each with `n` and `figures`: `before`, `after`,
    `difference` and its `interval`, None where a class is missing.

    Raises:
        UsageError: a product has no recipe.
        CheckFailed, ModelError: pictures or models cannot be used.
    """
    examples = pictures(path)
    one, two = (judge(model, examples) for model in (before, after))
    products = sorted({e.product for e in examples})
    groups = {"all": list(range(len(examples)))} | {
        product: [n for n, e in enumerate(examples) if e.product == product] for product in products
    }
    return {
        "held_out": str(path),
        "digest": digest(examples),
        "models": {"before": before.fingerprint, "after": after.fingerprint},
        "groups": {
            name: {
                "n": len(rows),
                "figures": paired([[one[n] for n in rows]], [[two[n] for n in rows]], RESAMPLING),
            }
            for name, rows in groups.items()
        },
    }


def worse(compared: Mapping[str, Any], tolerance: float = TOLERANCE) -> str | None:
    """Why the later model must not take the earlier one's place; None where it may.

    It must not where balanced accuracy or coverage fell, or escapes or overkill rose, by more than
    chance explains, in all pictures or in a product, or where the pictures leave open that balanced
    accuracy fell by more than `tolerance`.
    """
    for group, held in compared["groups"].items():
        for name, sign in _WANTED.items():
            moved = held["figures"][name]
            if moved["interval"] is None:
                continue
            best = max(sign * end for end in moved["interval"])
            if best < 0:
                return (
                    f"{_SHOWN[name]} of {group} went from {moved['before']:.3f} to "
                    f"{moved['after']:.3f} ({held['n']} pictures, {_interval(moved)})"
                )
    whole = compared["groups"]["all"]
    moved = whole["figures"]["balanced_accuracy"]
    if moved["interval"] is None:
        return "the held-out pictures are of one class; add the other"
    if moved["interval"][0] < -tolerance:
        return (
            f"{whole['n']} pictures leave open that balanced accuracy fell by "
            f"{-moved['interval'][0]:.3f}; {_remedy(tolerance)}, or allow it by --tolerance"
        )
    return None


def table(compared: Mapping[str, Any]) -> str:
    """What `compare` found, as a Markdown table with one row a group and figure."""
    lines = ["| held out | n | | before | after | difference |", "|---|---|---|---|---|---|"]
    for group, held in compared["groups"].items():
        for name, words in _SHOWN.items():
            moved = held["figures"][name]
            if moved["difference"] is not None:
                cells = f"{moved['before']:.3f} | {moved['after']:.3f} | {_interval(moved)}"
                lines.append(f"| {group} | {held['n']} | {words} | {cells} |")
    return "\n".join(lines)


def judge(
    model: Base, examples: Sequence[Example], on_done: Callable[[int], None] = lambda done: None
) -> list[Judged]:
    """Every picture's verdict beside its truth, in their order.

    What the gate stops, and a product that the model was not made for, has no verdict.

    Raises:
        UsageError: a product has no recipe.
        ModelError: the model cannot be used.
    """
    # What was loaded before, the trainer's model too, may lie about in cycles.
    gc.collect()
    torch.cuda.empty_cache()
    recipes = {product: _recipe(product, group) for product, group in _grouped(examples).items()}
    reasoner = TransformersReasoner(model.folder, adapter=model.adapter, max_batch=_BATCH)
    nothing = Judgement(anomalous=None, well_formed=False, model=reasoner.fingerprint)
    judgements = [nothing] * len(examples)
    for start in range(0, len(examples), _BATCH):
        asked = {
            n: found
            for n, e in enumerate(examples[start : start + _BATCH], start)
            if reasoner.products is None or e.product in reasoner.products
            if (found := question(e, recipes[e.product])) is not None
        }
        for n, judged in zip(asked, reasoner.judge_batch(list(asked.values())), strict=True):
            judgements[n] = judged
        on_done(min(start + _BATCH, len(examples)))
    return [
        Judged.of(Truth.of(e), judgement, decide(judgement, recipes[e.product].policy).result)
        for e, judgement in zip(examples, judgements, strict=True)
    ]


def write(path: Path, judged: Sequence[Judged], examples: Sequence[Example]) -> None:
    """Write verdicts as JSON lines, in the order of their pictures."""
    lines = [
        {"sha256": e.sha256, **{name: getattr(j, name) for name in _WRITTEN}}
        for j, e in zip(judged, examples, strict=True)
    ]
    atomic.write(path, "".join(json.dumps(line) + "\n" for line in lines))


def read(path: Path, examples: Sequence[Example]) -> list[Judged] | None:
    """Verdicts about these very pictures that were written before; None where there are none."""
    lines = runs.read_lines(path)
    if [line["sha256"] for line in lines] != [e.sha256 for e in examples]:
        return None
    return [
        Judged(truth=Truth.of(e), **{name: line[name] for name in _WRITTEN})
        for line, e in zip(lines, examples, strict=True)
    ]


def digest(examples: Iterable[Example]) -> str:
    """16 hex digits over content and label of every picture."""
    return runs.digest(f"{e.sha256} {e.kind} {e.rule}" for e in examples)


_WRITTEN = ("anomalous", "score", "result", "rule", "well_formed", "evidence")


def _grouped(examples: Iterable[Example]) -> dict[str, list[Example]]:
    grouped: dict[str, list[Example]] = {}
    for example in examples:
        grouped.setdefault(example.product, []).append(example)
    return grouped


def _recipe(product: str, group: Sequence[Example]) -> Recipe:
    found = texts.recipe_of(product, group)
    if found is None:
        raise UsageError(
            f"{group[0].image.parent}: no recipe.yaml for {product} there or above; a model is "
            "judged by it, as lad-agent inspect does"
        )
    once = found.uncalibrated.model_copy(update={"samples": 0, "other_references": None})
    return dataclasses.replace(found, policy=once)


def _remedy(tolerance: float) -> str:
    """How many pictures show that no more was lost, where both models make the same mistakes: half
    the root of two equal squares."""
    if tolerance == 0:
        return "no number of pictures shows that nothing is lost; gain more"
    each = bootstrap.enough(math.sqrt(2) * tolerance)
    return f"hold out more, no fewer than {each} good and {each} anomalous ones"


def _interval(moved: Mapping[str, Any]) -> str:
    ends = moved["interval"]
    return f"{moved['difference']:+.3f}" + (f" ({ends[0]:+.3f} to {ends[1]:+.3f})" if ends else "")
